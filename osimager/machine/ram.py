"""A guest's RAM (Linux): a memfd of the runner's that QEMU maps, so that it is saved and loaded by the kernel's copies.

The first save of a machine writes all of it, as a sparse file; each later one only the pages that have changed since,
each behind its address: a step changes a few megabytes of a guest's hundreds, and the guest is paused meanwhile. A
memfd has no name: nothing is left of it after a kill.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

MACHINE, MEMORY, CHANGES = "machine", "memory", "memory-changes"  # the files of a saved memory; of the last two, one
_PAGE = 4096
_BLOCK = 1 << 20  # what is compared at once
_ADDRESS = struct.Struct("<Q")  # before each page of changes
_RECORD_BYTES = _ADDRESS.size + _PAGE


@dataclass(frozen=True, slots=True)
class SavedMemory:
    """Where a guest's state lies: `machine` is QEMU's stream, `ram` the whole RAM and its changes, in their order.

    `ram` is empty where the stream holds the RAM too.
    """

    machine: Path
    ram: tuple[Path, ...]


class GuestRam:
    """Empty memory for one guest, in `handle`. All that reads or writes it blocks."""

    def __init__(self, size_mib: int) -> None:
        self._owner = ExitStack()
        self.handle = os.memfd_create("guest-ram", os.MFD_CLOEXEC)
        self._owner.callback(os.close, self.handle)
        os.ftruncate(self.handle, size_mib << 20)
        self._whole: int | None = None
        # Where a page was saved last, unless in `_whole`: by block and address, the file's descriptor and the place.
        self._changed: dict[int, dict[int, tuple[int, int]]] = {}

    def close(self) -> None:
        """Let go of the memory; QEMU's own mapping is its own."""
        self._owner.close()

    def load(self, files: Sequence[Path]) -> None:
        """Copy a saved RAM into the memory, which is still empty. Raises OSError."""
        whole, *changes = files
        self._whole = self._open(whole, os.O_RDONLY)
        _copy_sparse(self._whole, self.handle)
        for path in changes:
            handle = self._open(path, os.O_RDONLY)
            for place in range(0, os.fstat(handle).st_size, _RECORD_BYTES):
                record = os.pread(handle, _RECORD_BYTES, place)
                (address,) = _ADDRESS.unpack_from(record)
                os.pwrite(self.handle, record[_ADDRESS.size :], address)
                self._remember(address, handle, place)

    def save(self, folder: Path) -> None:
        """Write a paused guest's RAM into `folder`: MEMORY, or CHANGES of what was loaded or saved before.

        Raises OSError, for a disk that is full say: the file is empty then, and the next save is a whole one.
        """
        whole, self._whole = self._whole, None
        handle = self._open(folder / (MEMORY if whole is None else CHANGES), os.O_CREAT | os.O_EXCL | os.O_RDWR)
        try:
            if whole is None:
                self._changed.clear()
                os.ftruncate(handle, os.fstat(self.handle).st_size)
                _copy_sparse(self.handle, handle)
            else:
                self._save_changes(whole, handle)
        except BaseException:
            os.ftruncate(handle, 0)  # we have it open yet: unlinking alone would give no room to the guest's disk
            raise
        self._whole = handle if whole is None else whole

    def _save_changes(self, whole: int, handle: int) -> None:
        place = 0
        with open(handle, "wb", buffering=_BLOCK, closefd=False) as file:
            for at in self._blocks():
                now, before = os.pread(self.handle, _BLOCK, at), self._read_saved(whole, at)
                if now == before:
                    continue
                for offset in range(0, _BLOCK, _PAGE):
                    page = now[offset : offset + _PAGE]
                    if page != before[offset : offset + _PAGE]:
                        file.write(_ADDRESS.pack(at + offset) + page)
                        self._remember(at + offset, handle, place)
                        place += _RECORD_BYTES

    def _read_saved(self, whole: int, at: int) -> bytes:
        """Read a block as it was saved last."""
        block = os.pread(whole, _BLOCK, at)
        if not (changed := self._changed.get(at)):
            return block
        patched = bytearray(block)
        for address, (handle, place) in changed.items():
            patched[address - at : address - at + _PAGE] = os.pread(handle, _PAGE, place + _ADDRESS.size)
        return bytes(patched)

    def _remember(self, address: int, handle: int, place: int) -> None:
        self._changed.setdefault(address - address % _BLOCK, {})[address] = (handle, place)

    def _blocks(self) -> Iterator[int]:
        """Give the address of each block that is not all hole."""
        last = -1
        for start, end in _data_of(self.handle):
            for at in range(start - start % _BLOCK, end, _BLOCK):
                if at > last:
                    yield at
                    last = at

    def _open(self, path: Path, how: int) -> int:
        handle = os.open(path, how | os.O_CLOEXEC, 0o600)
        self._owner.callback(os.close, handle)
        return handle


def open_ram(size_mib: int) -> GuestRam | None:
    """Give memory for a guest; None where this system has no memfd (macOS)."""
    return GuestRam(size_mib) if hasattr(os, "memfd_create") else None


def _copy_sparse(source: int, target: int) -> None:
    """Copy what is no hole, in the kernel (sendfile(2))."""
    for start, end in _data_of(source):
        os.lseek(target, start, os.SEEK_SET)
        at = start
        while at < end:
            at += os.sendfile(target, source, at, end - at)


def _data_of(handle: int) -> Iterator[tuple[int, int]]:
    """Give where a sparse file has data: start and end of each stretch (lseek(2), SEEK_DATA)."""
    end = 0
    while True:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # only a hole from here on
                return
            raise
        end = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, end
