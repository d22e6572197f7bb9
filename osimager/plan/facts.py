"""What a plan needs to know of the world, frozen: `build` fills these in, layer 2 only reads them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from osimager.arch import Arch, Firmware


class Accelerator(StrEnum):
    """What runs the guest's instructions."""

    KVM = "kvm"
    HVF = "hvf"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class QemuFacts:
    """One `qemu-system-ARCH` binary: `version` as numbers, `digest` of path, size and time."""

    arch: Arch
    path: Path
    version: tuple[int, ...]
    sandbox: bool
    cpu_models: frozenset[str]
    devices: frozenset[str]
    machines: frozenset[str]
    digest: str
    accelerators: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FirmwareFiles:
    """UEFI firmware for `arch`: the read-only code and the variables' template, each with its image format."""

    arch: Arch
    code: Path
    variables: Path
    code_format: str = "raw"
    variables_format: str = "raw"
    pad_bytes: int = 0


@dataclass(frozen=True, slots=True)
class AcceleratorFacts:
    """The accelerator to use for guests of `arch`, and why (also why a faster one was passed over).

    `cpu`: the model that gives its guests all it has.
    """

    arch: Arch
    accelerator: Accelerator
    reason: str
    cpu: str = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """This host, as far as a plan depends on it."""

    system: str
    arch: Arch
    cores: int
    memory_mib: int
    qemu: QemuFacts
    accelerator: AcceleratorFacts
    firmware: FirmwareFiles | None


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """One entry of an ISO's boot menu. Paths are absolute inside the ISO; `arguments` as the menu has them."""

    title: str
    label: str
    kernel: str
    initrds: tuple[str, ...]
    arguments: str
    is_default: bool
    menu_file: str
    firmware: Firmware


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """An installer ISO on this host. `verified`: it matched a checksum that was known before.

    `arches`: what its kernels or loaders are made for; none where it cannot be told.
    """

    path: Path
    sha256: str
    verified: bool
    volume_id: str
    entries: tuple[MenuEntry, ...]
    arches: tuple[Arch, ...] = ()
