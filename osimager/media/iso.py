"""What an installer ISO offers: its volume id and boot menus, the kernel and initrds of an entry.

Everything blocks (`aio.in_thread`). The menus' two languages are read by `isolinux` and `grub`; the ISO's file system
by `iso9660`.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from osimager import kept
from osimager.arch import Arch, Firmware
from osimager.errors import MediaError, Place
from osimager.media.grub import parse_grub
from osimager.media.iso9660 import IsoFiles, open_iso
from osimager.media.isolinux import parse_isolinux
from osimager.plan.facts import MenuEntry

_MENU_LIMIT = 1 << 20
_KERNEL_LIMIT = 256 << 20
_INITRD_LIMIT = 2 << 30
_SYSLINUX_NAMES = ("isolinux.cfg", "syslinux.cfg", "extlinux.conf")
_GRUB_RANKS = (r"/efi/boot/grub\.cfg", r"/efi/[^/]+/grub\.cfg", r"/boot/grub/grub\.cfg", r"/boot/grub2/grub\.cfg")
_UEFI_LOADER = re.compile(r"/efi/boot/boot\w+\.efi", re.IGNORECASE)  # UEFI 2.10, 3.5.1.1
_HEAD_BYTES = 4096
_MACHINES = {0x014C: Arch.I386, 0x8664: Arch.X86_64, 0xAA64: Arch.AARCH64}  # PE Format, "Machine Types"


@dataclass(frozen=True, slots=True)
class IsoFacts:
    """What the ISO itself says: a part of MediaFacts."""

    volume_id: str
    entries: tuple[MenuEntry, ...]
    arches: tuple[Arch, ...]


def inspect_iso(path: Path) -> IsoFacts:
    """Read the volume id and the boot menus of the ISO `path`.

    An ISO without a menu that can be read (Windows, the BSDs) has no entries. Raises MediaError for what is
    no ISO 9660 image or is cut off.
    """
    with open_iso(path) as iso:
        # What El Torito says decides which menus count: without a catalogue any may.
        firmwares = iso.firmwares or frozenset(Firmware)
        entries = tuple(entry for firmware in sorted(firmwares) for entry in _read_menus(iso.files, firmware))
        return IsoFacts(iso.volume.volume_id, entries, _find_arches(iso.files, entries))


def check_volume_id(volume_id: str, pattern: str | None, path: Path) -> None:
    """Raise MediaError where the ISO's volume id is not what the regular expression `pattern` (whole) asks for."""
    if pattern is not None and not re.fullmatch(pattern, volume_id):
        what = f"this is the wrong ISO: its volume id is {volume_id!r}, not {pattern!r}"
        raise MediaError(what, where=Place(path), hint="`osimager iso add FILE` says what an ISO is")


def extract_boot_files(path: Path, *, kernel: str, initrds: Sequence[str], folder: Path) -> tuple[Path, Path | None]:
    """Write the `kernel` of the ISO `path`, and its `initrds` as one file (None: there are none), into `folder`.

    Raises MediaError where they are not on the ISO or too large.
    """
    kernel_file, initrd_file = folder / "vmlinuz", folder / "initrd"
    kept.make_folder(folder)
    with open_iso(path) as iso:
        try:
            with kernel_file.open("wb") as out:
                iso.files.copy(kernel, out, limit_bytes=_KERNEL_LIMIT)
            if not initrds:
                return kernel_file, None
            with initrd_file.open("wb") as out:
                _join(iso.files, initrds, out)
        except OSError as exc:
            raise kept.disk_error(folder, exc) from exc
    return kernel_file, initrd_file


def _join(files: IsoFiles, initrds: Iterable[str], out: BinaryIO) -> None:
    """Write the initrds in order, each at a multiple of four bytes (Documentation/driver-api/early-userspace)."""
    written = 0
    for initrd in initrds:
        padding = -written % 4
        out.write(b"\0" * padding)
        written += padding + files.copy(initrd, out, limit_bytes=_INITRD_LIMIT - written)


def _read_menus(files: IsoFiles, firmware: Firmware) -> tuple[MenuEntry, ...]:
    """Give the entries of the first menu for `firmware` that has any."""

    def read(path: str) -> str | None:
        found = files.find(path)
        return None if found is None else files.read(found, limit_bytes=_MENU_LIMIT).decode("utf-8", "replace")

    for menu_file in _menu_files(files.paths(), firmware):
        text = read(menu_file) or ""
        if posixpath.basename(menu_file).lower() in _SYSLINUX_NAMES:
            found = parse_isolinux(text, menu_file, read)
        else:
            found = parse_grub(text, menu_file, firmware, read)
        entries = [_located(entry, files) for entry in found]
        if usable := tuple(entry for entry in entries if entry is not None):
            return usable
    return ()


def _find_arches(files: IsoFiles, entries: Iterable[MenuEntry]) -> tuple[Arch, ...]:
    """Give what the menus' kernels are made for; where they do not tell, what its UEFI loaders are made for.

    The kernels go first: Debian's 64-bit media have a 32-bit loader too. None: it cannot be told.
    """
    kernels = {entry.kernel for entry in entries}
    loaders = {path for path in files.paths() if _UEFI_LOADER.fullmatch(path)}
    for paths in (kernels, loaders):
        if found := {arch for path in paths if (arch := _read_arch(files, path)) is not None}:
            return tuple(sorted(found))
    return ()


def _read_arch(files: IsoFiles, path: str) -> Arch | None:
    """Give what a loader, or a kernel with Linux's EFI stub, is made for: both are PE files."""
    head = b""
    with contextlib.suppress(MediaError):  # a menu may name what cannot be read: nobody is bound to boot that entry
        head = files.read_head(path, _HEAD_BYTES)
    at = int.from_bytes(head[0x3C:0x40], "little")
    if not head.startswith(b"MZ") or head[at : at + 4] != b"PE\0\0":
        return None
    return _MACHINES.get(int.from_bytes(head[at + 4 : at + 6], "little"))


def _menu_files(paths: Iterable[str], firmware: Firmware) -> list[str]:
    """Give the files that may hold the menu of `firmware`, the likeliest first."""
    ranked = []
    for path in paths:
        lower = path.lower()
        name = posixpath.basename(lower)
        is_efi = lower.startswith("/efi/")
        if name in _SYSLINUX_NAMES and firmware is Firmware.BIOS and not is_efi:
            ranked.append((0, _SYSLINUX_NAMES.index(name), lower.count("/"), path))
        elif name in ("grub.cfg", "loopback.cfg") and (firmware is Firmware.UEFI or not is_efi):
            places = [rank for rank, place in enumerate(_GRUB_RANKS) if re.fullmatch(place, lower)]
            rank = places[0] if places else len(_GRUB_RANKS) + (name == "loopback.cfg")
            ranked.append((1, rank, lower.count("/"), path))
    return [path for *_rank, path in sorted(ranked)]


def _located(entry: MenuEntry, files: IsoFiles) -> MenuEntry | None:
    """Give `entry` with its paths as the ISO spells them; None where one is not there."""
    kernel = files.find(entry.kernel)
    initrds = tuple(found for path in entry.initrds if (found := files.find(path)) is not None)
    if kernel is None or len(initrds) != len(entry.initrds):
        return None
    return replace(entry, kernel=kernel, initrds=initrds)
