"""ISO 9660 through pycdlib, the one place that imports it: read the files of an ISO by name, write a small one.

It knows nothing of installers. Names are Rock Ridge's where the ISO has them, else Joliet's, else the plain ones
without their `;1`. Everything blocks: callers use `aio.in_thread`. Sources: ECMA-119, SUSP 1.12, El Torito 1.0.
"""

from __future__ import annotations

import contextlib
import io
import posixpath
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from osimager.arch import Firmware
from osimager.errors import MediaError, Place
from osimager.units import format_size

SECTOR = 2048
_PLATFORMS = {0x00: Firmware.BIOS, 0xEF: Firmware.UEFI}
_MOST_FILES = 500_000
_MOST_LINKS = 8
# As mkisofs does. Without it busybox (Alpine, d-i, our made installer) finds no label on a volume of less than 68 KiB:
# its probes of other file systems read past the end and give up (libbb's volume_id; seen with 1.35).
_PADDING_SECTORS = 150
# 2000-01-01T00:00:00Z, as a directory record has it (ECMA-119 9.1.5) and as a volume descriptor has it (8.4.26.1).
_RECORD_DATE = bytes((100, 1, 1, 0, 0, 0, 0))
_VOLUME_DATE = b"2000010100000000\x00"


class _Disc(Protocol):
    """What is used of pycdlib's PyCdlib object."""

    def walk(self, **where: str) -> Iterator[tuple[str, list[str], list[str]]]: ...
    def get_record(self, **where: str) -> object: ...
    def open_file_from_iso(self, **where: str) -> contextlib.AbstractContextManager[BinaryIO]: ...


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """What a primary volume descriptor says: the volume id, and how long the ISO must at least be."""

    volume_id: str
    size_bytes: int


def read_volume(path: Path) -> VolumeFacts:
    """Read the primary volume descriptor of `path`: two kilobytes, whatever its size.

    Raises MediaError for a file that is missing, no ISO 9660 image, or cut off.
    """
    place = Place(path)
    try:
        with path.open("rb") as file:
            head = file.read(32)
            file.seek(16 * SECTOR)
            descriptors = file.read(16 * SECTOR)
            size_bytes = file.seek(0, io.SEEK_END)
    except FileNotFoundError as exc:
        raise MediaError("there is no such ISO", where=place, hint="check the path, or `osimager iso list`") from exc
    except OSError as exc:
        raise MediaError(f"the ISO cannot be read: {exc.strerror}", where=place) from exc
    if descriptors[:6] != b"\x01CD001":
        raise MediaError(f"not an ISO 9660 image: {_likeness(head, descriptors, size_bytes)}", where=place)
    sectors, block_bytes = struct.unpack_from("<I", descriptors, 80)[0], struct.unpack_from("<H", descriptors, 128)[0]
    wanted_bytes = sectors * (block_bytes or SECTOR)
    if size_bytes < wanted_bytes:
        raise MediaError(
            f"the ISO is truncated: it says that it has {wanted_bytes} bytes, the file has {size_bytes}",
            where=place,
            hint="download or copy it again",
        )
    return VolumeFacts(descriptors[40:72].decode("utf-8", "replace").strip(" \0"), size_bytes)


def _likeness(head: bytes, descriptors: bytes, size_bytes: int) -> str:
    """Say what a file that is not ISO 9660 looks like."""
    if size_bytes < 17 * SECTOR:
        return f"the file has only {size_bytes} bytes"
    if any(descriptors[at + 1 : at + 6] in (b"NSR02", b"NSR03") for at in range(0, len(descriptors), SECTOR)):
        return "it is UDF only, which osimager does not read"
    known = {b"QFI\xfb": "a qcow2 image", b"\x1f\x8b": "a gzip file", b"\xfd7zXZ": "an xz file", b"PK": "a zip file"}
    known |= {b"<": "a web page", b"BZh": "a bzip2 file", b"\x28\xb5\x2f\xfd": "a zstd file"}
    return next(
        (f"it looks like {name}" for magic, name in known.items() if head.lstrip().startswith(magic)), "no CD001"
    )


class IsoFiles:
    """The files of an open ISO, by absolute path; upper and lower case are one, as in the menus of real ISOs."""

    def __init__(self, disc: _Disc, names: str, path: Path) -> None:
        self._disc = disc
        self._names = names
        self._path = path
        self._index: dict[str, tuple[str, str]] = {}
        for folder, _folders, files in disc.walk(**{names: "/"}):
            for file in files:
                clean = file.partition(";")[0].rstrip(".") if names == "iso_path" else file
                shown = posixpath.join(folder, clean)
                if "/" not in clean and "\0" not in clean and clean not in ("", ".", ".."):
                    self._index.setdefault(shown.lower(), (shown, posixpath.join(folder, file)))
            if len(self._index) > _MOST_FILES:
                raise MediaError(f"the ISO has more than {_MOST_FILES} files", where=Place(path))

    def paths(self) -> list[str]:
        """Give the absolute path of every file."""
        return [shown for shown, _stored in self._index.values()]

    def find(self, path: str) -> str | None:
        """Give the path of a file as the ISO spells it, or None. `path` cannot leave the ISO's root."""
        found = self._index.get(_normal(path).lower())
        return found[0] if found else None

    def size_bytes(self, path: str) -> int:
        """Give the size of the file `path`."""
        return self._length(self._resolve(path))

    def read(self, path: str, *, limit_bytes: int) -> bytes:
        """Give the content of a small file. Raises MediaError where it is missing or larger than the limit."""
        out = io.BytesIO()
        self.copy(path, out, limit_bytes=limit_bytes)
        return out.getvalue()

    def read_head(self, path: str, size_bytes: int) -> bytes:
        """Give the first bytes of the file `path`, all of a shorter one. Raises MediaError where it is missing."""
        stored = self._resolve(path)
        with _foreign_errors(self._path), self._disc.open_file_from_iso(**{self._names: stored}) as file:
            return file.read(size_bytes)

    def copy(self, path: str, out: BinaryIO, *, limit_bytes: int) -> int:
        """Write the content of the file `path` to `out` and give its size. Raises as `read` does."""
        stored = self._resolve(path)
        with _foreign_errors(self._path):
            length = self._length(stored)
            if length > limit_bytes:
                what = f"{path} on the ISO has {format_size(length)}, more than {format_size(limit_bytes)}"
                raise MediaError(what, where=Place(self._path))
            left = length
            with self._disc.open_file_from_iso(**{self._names: stored}) as file:
                while left and (chunk := file.read(min(left, 1 << 20))):
                    out.write(chunk)
                    left -= len(chunk)
        if left:
            raise MediaError(f"{path} is cut off on the ISO", where=Place(self._path), hint="download the ISO again")
        return length

    def _length(self, stored: str) -> int:
        record = self._disc.get_record(**{self._names: stored})
        length = getattr(record, "get_data_length", None)
        return int(length()) if length is not None else 0

    def _resolve(self, path: str) -> str:
        """Give the stored path of `path`, symbolic links followed."""
        for _hop in range(_MOST_LINKS):
            found = self._index.get(_normal(path).lower())
            if found is None:
                raise MediaError(f"there is no {path} on the ISO", where=Place(self._path))
            link = self._link(found[1])
            if link is None:
                return found[1]
            path = posixpath.join(posixpath.dirname(found[0]), link)
        raise MediaError(f"{path} is a loop of symbolic links", where=Place(self._path))

    def _link(self, stored: str) -> str | None:
        with _foreign_errors(self._path):
            record = self._disc.get_record(**{self._names: stored})
            rock_ridge = getattr(record, "rock_ridge", None)
            if rock_ridge is None or not rock_ridge.is_symlink():
                return None
            return bytes(rock_ridge.symlink_path()).decode("utf-8", "replace")


def _normal(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


@dataclass(frozen=True, slots=True)
class OpenIso:
    """An open ISO: its volume, its files, and the firmwares that its El Torito catalogue names (none: unknown)."""

    volume: VolumeFacts
    files: IsoFiles
    firmwares: frozenset[Firmware]


@contextlib.contextmanager
def open_iso(path: Path) -> Iterator[OpenIso]:
    """Open the ISO `path`. Raises MediaError for anything that cannot be read as one."""
    from pycdlib import PyCdlib  # 60 ms; most commands read no ISO

    volume = read_volume(path)
    disc = PyCdlib()
    with path.open("rb") as file:
        with _foreign_errors(path):
            disc.open_fp(file)
            names = "rr_path" if disc.has_rock_ridge() else "joliet_path" if disc.has_joliet() else "iso_path"
            opened = OpenIso(volume, IsoFiles(disc, names, path), _firmwares(disc.eltorito_boot_catalog))
        try:
            yield opened
        finally:
            with contextlib.suppress(Exception):  # closing does not raise
                disc.close()


@contextlib.contextmanager
def _foreign_errors(path: Path) -> Iterator[None]:
    """Map what pycdlib raises over damaged images (its own errors, struct.error, IndexError, …) to MediaError."""
    try:
        yield
    except MediaError:
        raise
    except OSError as exc:
        raise MediaError(f"the ISO cannot be read: {exc.strerror or exc}", where=Place(path)) from exc
    except Exception as exc:
        what = f"the ISO's file system cannot be read: {exc or type(exc).__name__}"
        raise MediaError(what, where=Place(path), hint="is the download whole?") from exc


def _firmwares(catalogue: object) -> frozenset[Firmware]:
    """Give the firmwares of an El Torito boot catalogue (El Torito 1.0, 2.1 and 2.3; UEFI 2.10, 13.3.2.1)."""
    if catalogue is None:
        return frozenset()
    parts = [getattr(catalogue, "validation_entry", None), *getattr(catalogue, "sections", ())]
    ids = {getattr(part, "platform_id", None) for part in parts}
    return frozenset(firmware for number, firmware in _PLATFORMS.items() if number in ids)


def make_image(label: str, files: Mapping[str, bytes], *, boot: str = "") -> bytes:
    """Give an ISO with Rock Ridge (and Joliet, where it takes the label and names) that holds `files` by relative path.

    A BIOS loads the first 2048 bytes of the file `boot` and runs them (El Torito, no emulation). The same input gives
    the same bytes. Raises MediaError for a label or a name that ISO 9660 cannot have.
    """
    from pycdlib import PyCdlib

    place = Path(label)
    disc = PyCdlib()
    # What Joliet cannot have (ISO 9660's own limit is met by made-up names): labels over 16, names over 64 characters.
    short = all(len(part.encode()) <= 64 for name in files for part in name.split("/"))
    joliet = 3 if len(label) <= 16 and short else None
    with _foreign_errors(place), contextlib.ExitStack() as stack:
        disc.new(interchange_level=3, rock_ridge="1.09", vol_ident=label, joliet=joliet, sys_ident="LINUX")
        stack.callback(disc.close)
        plain: dict[str, str] = {"": ""}
        for name in sorted(files):
            parents = [str(parent) for parent in reversed(Path(name).parents) if str(parent) != "."]
            for number, entry in enumerate([*parents, name]):
                if entry in plain:
                    continue
                folder, base = posixpath.split(entry)
                is_folder = number < len(parents)
                plain[entry] = f"{plain[folder]}/{'D' if is_folder else 'F'}{len(plain):06d}"
                joliet_path = f"/{entry}" if joliet else None
                if is_folder:
                    disc.add_directory(plain[entry], rr_name=base, joliet_path=joliet_path, file_mode=0o040555)
                else:
                    content, where = files[name], f"{plain[entry]}.;1"
                    add = partial(disc.add_fp, io.BytesIO(content), len(content), where)
                    add(rr_name=base, joliet_path=joliet_path, file_mode=0o100444)
        if boot:
            catalog = partial(disc.add_eltorito, bootcatfile="/BOOT.CAT;1", rr_bootcatname="boot.catalog")
            catalog(f"{plain[boot]}.;1", joliet_bootcatfile="/boot.catalog" if joliet else None, boot_load_size=4)
        out = io.BytesIO()
        disc.write_fp(out)
    return _with_fixed_dates(bytearray(out.getvalue())) + bytes(_PADDING_SECTORS * SECTOR)


def _with_fixed_dates(image: bytearray) -> bytes:
    """Set every date in `image` to one: pycdlib takes them from the clock."""
    at = 16 * SECTOR
    while image[at] != 255:  # the terminator of the volume descriptors
        if image[at] in (1, 2):
            image[at + 813 : at + 864] = _VOLUME_DATE * 3
            image[at + 864 : at + 881] = _VOLUME_DATE if image[at + 864] != ord("0") else image[at + 864 : at + 881]
            image[at + 847 : at + 864] = b"0" * 16 + b"\0"
            _fix_record(image, at + 156)
            extent, length = struct.unpack_from("<I4xI", image, at + 158)
            _fix_folder(image, extent * SECTOR, length)
        at += SECTOR
    return bytes(image)


def _fix_folder(image: bytearray, at: int, length: int) -> None:
    """Fix the dates of a directory's records and of all below it."""
    folders = [(at, length)]
    while folders:
        at, length = folders.pop()
        offset, number = at, 0
        while offset < at + length:
            if image[offset] == 0:  # no record crosses a sector: on to the next one
                offset = (offset // SECTOR + 1) * SECTOR
                continue
            _fix_record(image, offset)
            if image[offset + 25] & 2 and number > 1:  # a directory, but not `.` and `..`
                extent, size = struct.unpack_from("<I4xI", image, offset + 2)
                folders.append((extent * SECTOR, size))
            offset, number = offset + image[offset], number + 1


def _fix_record(image: bytearray, at: int) -> None:
    """Fix a directory record's date and those of its Rock Ridge TF entry (SUSP 5, RRIP 4.1.6)."""
    image[at + 18 : at + 25] = _RECORD_DATE
    name_length = image[at + 32]
    areas = [(at + 33 + name_length + (1 - name_length % 2), at + image[at])]
    while areas:
        offset, end = areas.pop()
        while offset + 4 <= end and image[offset + 2] >= 4:
            size = image[offset + 2]
            match bytes(image[offset : offset + 2]):
                case b"TF":
                    image[offset + 5 : offset + size] = _RECORD_DATE * ((size - 5) // 7)
                case b"CE":
                    block, start, length = struct.unpack_from("<I4xI4xI", image, offset + 4)
                    areas.append((block * SECTOR + start, block * SECTOR + start + length))
            offset += size
