"""What somebody asks to have built, as one frozen value: the command line's or, later, an API's."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from osimager.config.catalog import Request
from osimager.plan.options import BuildOptions


class OnError(StrEnum):
    """What to do with a build that failed: sweep it, keep its workspace, or open a shell in its guest first."""

    CLEANUP = "cleanup"
    KEEP = "keep"
    SHELL = "shell"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One target with everything that was said about it. `iso_checksum` is `sha256:…`, `none` or not given."""

    request: Request
    options: BuildOptions = field(default_factory=BuildOptions)
    project: Path
    data_dir: Path | None = None
    iso_checksum: str | None = None
    steps: tuple[Path, ...] = ()
    accelerator: str = "auto"
    display: str = "none"
    force: bool = False
    on_error: OnError = OnError.CLEANUP
