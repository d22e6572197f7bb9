"""What a person asked of one build beyond its target: the command line's options as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from osimager.arch import Firmware
from osimager.config.sections import Rung
from osimager.plan.model import Deadline, SealMode


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Options of `build`; None: the configuration's own. Sizes in bytes and MiB, `boot` None: the ladder's choice."""

    name: str | None = None
    ip: str | None = None
    firmware: Firmware | None = None
    boot: Rung | None = None
    boot_command: str | None = None
    memory_mib: int | None = None
    cpus: int | None = None
    disk_bytes: int | None = None
    seal: SealMode | None = None
    deadlines: tuple[Deadline, ...] = ()
    offline: bool = False
    verify: bool = True
    output: Path | None = None
    replace: bool = False
    label: str = ""
