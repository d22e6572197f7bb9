"""The architectures and firmwares that images are made for, and the other names people give them."""

from __future__ import annotations

import platform
from enum import StrEnum

from osimager.errors import UsageError


class Arch(StrEnum):
    """A guest's architecture, by the kernel's name."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"
    I386 = "i386"


class Firmware(StrEnum):
    """What a machine starts with."""

    BIOS = "bios"
    UEFI = "uefi"


ALIASES = {"amd64": Arch.X86_64, "x64": Arch.X86_64, "arm64": Arch.AARCH64, "i686": Arch.I386, "x86": Arch.I386}


def parse_arch(text: str) -> Arch:
    """Read an architecture by any of its names. Raises UsageError that lists them."""
    name = text.lower()
    if name in ALIASES:
        return ALIASES[name]
    try:
        return Arch(name)
    except ValueError:
        known = ", ".join([*Arch, *ALIASES])
        raise UsageError(f"unknown architecture {text!r}", hint=f"known ones: {known}") from None


def host_arch() -> Arch:
    """Give this host's architecture; x86_64 where it is one that osimager makes no images for."""
    try:
        return parse_arch(platform.machine())
    except UsageError:
        return Arch.X86_64
