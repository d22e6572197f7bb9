"""Compressed qcow2 files joined to one, without compressing anything again (QEMU's docs/interop/qcow2.txt).

Read is only what `qemu-img convert -c` writes: each cluster once, no snapshots, no encryption, zstd. What nobody refers
to any more is not taken over, not even the bytes beside what is: an image must hold nothing that the guest deleted.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQIIB7x")
_MAGIC, _VERSION = b"QFI\xfb", 3
_COMPRESSION_TYPE = 1 << 3  # incompatible feature: the header names the compression
_ZSTD = 1
_REFCOUNT_ORDER = 4  # 16 bits
_BITS = 16
_CLUSTER = 1 << _BITS
_REFCOUNTS_AT, _BLOCKS_AT = 1, 2  # in the file that is written, in clusters
_ENTRIES = _CLUSTER // 8  # of an L2 table, which is one cluster
_REFCOUNTS = _CLUSTER // 2
_COPIED = 1 << 63
_COMPRESSED = 1 << 62
_OFFSET = 0x00FFFFFFFFFFFE00
_ZERO = 1
_SECTOR = 512
# In a compressed cluster's entry: below it the offset, above it how many sectors follow the first.
_SECTORS_AT = 62 - (_BITS - 8)
_CHUNK_BYTES = 4 << 20


class Unreadable(ValueError):
    """A file is not of the kind that this module knows."""


@dataclass(frozen=True, slots=True)
class _Header:
    size_bytes: int
    l1_entries: int
    l1_offset: int
    backing: str
    zstd: bool


class _Data(NamedTuple):
    """Where a cluster's bytes are: compressed they begin and end anywhere, else they are a whole cluster."""

    compressed: bool
    part: int
    offset: int
    size: int


def read_backing(path: Path) -> Path | None:
    """Give the file that `path` is an overlay of, without the detours of its name: one of many would be too long.

    Raises Unreadable, and OSError.
    """
    with path.open("rb") as file:
        backing = _read_header(file).backing
    return (path.parent / backing).resolve() if backing else None


def join(parts: Sequence[Path], target: Path) -> tuple[int, str]:
    """Write `parts` to `target` as one image, and give its bytes and SHA-256.

    Each part but the first holds what differs from those before it (`convert` with a backing file). The guest's disk is
    as large as the last part's. Raises Unreadable, and OSError.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in parts]
        clusters: dict[int, _Data | None] = {}
        for number, file in enumerate(files):
            clusters |= _read_clusters(number, file)
        kept = {guest: data for guest, data in clusters.items() if data is not None}
        return _write(kept, _read_header(files[-1]).size_bytes, files, target)


def _read_header(file: BinaryIO) -> _Header:
    file.seek(0)
    raw = file.read(_HEADER.size)
    if len(raw) < _HEADER.size or raw[:4] != _MAGIC:
        raise Unreadable("this is no qcow2 image")
    (_, version, backing_at, backing_size, bits, size_bytes, crypt, l1_entries, l1_offset, _, _, snapshots, *rest) = (
        _HEADER.unpack(raw)
    )
    incompatible, compression = rest[1], rest[-1]
    if version != _VERSION or bits != _BITS or crypt or snapshots or incompatible & ~_COMPRESSION_TYPE:
        raise Unreadable("this qcow2 image has features that are not known here")
    file.seek(backing_at)
    backing = os.fsdecode(file.read(backing_size)) if backing_at else ""
    return _Header(size_bytes, l1_entries, l1_offset, backing, bool(incompatible) and compression == _ZSTD)


def _read_clusters(number: int, file: BinaryIO) -> dict[int, _Data | None]:
    """Give what a part holds by guest cluster; None where it is zeros."""
    header = _read_header(file)
    if not header.zstd:
        raise Unreadable("this qcow2 image is not compressed with zstd")
    found: dict[int, _Data | None] = {}
    for guest, entry in _read_entries(file, header):
        if entry & _COMPRESSED:
            offset = entry & ((1 << _SECTORS_AT) - 1)
            sectors = (entry >> _SECTORS_AT & 0xFF) + 1
            found[guest] = _Data(True, number, offset, sectors * _SECTOR - offset % _SECTOR)
        elif entry & _ZERO:
            found[guest] = None
        else:
            found[guest] = _Data(False, number, entry & _OFFSET, _CLUSTER)
    return _trim(found)


def _read_entries(file: BinaryIO, header: _Header) -> Iterator[tuple[int, int]]:
    """Give each guest cluster that the file says something of, and its L2 entry."""
    for index, l1_entry in enumerate(_read_table(file, header.l1_offset, header.l1_entries)):
        if l1_entry & _OFFSET:
            for at, entry in enumerate(_read_table(file, l1_entry & _OFFSET, _ENTRIES), index * _ENTRIES):
                if entry:
                    yield at, entry


def _read_table(file: BinaryIO, offset: int, entries: int) -> tuple[int, ...]:
    file.seek(offset)
    raw = file.read(entries * 8)
    if len(raw) < entries * 8:
        raise Unreadable("this qcow2 image is cut off")
    return struct.unpack(f">{entries}Q", raw)


def _trim(found: dict[int, _Data | None]) -> dict[int, _Data | None]:
    """End each compressed cluster where the next begins: its entry knows no more than the sector that it ends in."""
    packed = sorted((data.offset, guest) for guest, data in found.items() if data is not None and data.compressed)
    for (offset, guest), (following, _) in itertools.pairwise(packed):
        if (data := found[guest]) is not None and offset + data.size > following:
            found[guest] = data._replace(size=following - offset)
    return found


def _write(kept: dict[int, _Data], size_bytes: int, files: Sequence[BinaryIO], target: Path) -> tuple[int, str]:
    # Whole clusters first, then the compressed ones, each in their file's order: long reads, and one write.
    order = sorted(kept, key=kept.__getitem__)
    tables = sorted({guest // _ENTRIES for guest in kept})
    layout = _lay_out(size_bytes, len(tables), list(kept.values()))
    refcounts = array("H", bytes(layout.blocks * _CLUSTER))
    for cluster in range(layout.data_at):
        refcounts[cluster] = 1
    l1 = array("Q", bytes((layout.l2_at - layout.l1_at) * _CLUSTER))
    l2 = {table: array("Q", bytes(_CLUSTER)) for table in tables}
    for number, table in enumerate(tables, layout.l2_at):
        l1[table] = _COPIED | number * _CLUSTER
    at = layout.data_at * _CLUSTER
    for guest in order:
        data = kept[guest]
        last = at + data.size - 1
        sectors = last // _SECTOR - at // _SECTOR
        packed = _COMPRESSED | sectors << _SECTORS_AT | at
        l2[guest // _ENTRIES][guest % _ENTRIES] = packed if data.compressed else _COPIED | at
        for cluster in range(at // _CLUSTER, last // _CLUSTER + 1):
            refcounts[cluster] += 1
        at += data.size
    blocks = struct.pack(f">{layout.blocks}Q", *((_BLOCKS_AT + block) * _CLUSTER for block in range(layout.blocks)))
    pieces = itertools.chain(
        [_pad(_make_header(size_bytes, layout)), _pad(blocks), _big_endian(refcounts)],
        [_big_endian(l1), *(_big_endian(l2[table]) for table in tables)],
        _read_data([kept[guest] for guest in order], files),
        [bytes(-at % _SECTOR)],
    )
    return _write_hashed(pieces, target)


class _Layout(NamedTuple):
    """Where the parts of the new file begin, in clusters; `blocks` are the refcounts'."""

    blocks: int
    l1_at: int
    l2_at: int
    data_at: int


def _lay_out(size_bytes: int, tables: int, kept: Sequence[_Data]) -> _Layout:
    data_clusters = -(-sum(data.size for data in kept) // _CLUSTER)
    l1_clusters = -(-_count_l1(size_bytes) * 8 // _CLUSTER)
    blocks = 1
    while blocks * _REFCOUNTS < _BLOCKS_AT + blocks + l1_clusters + tables + data_clusters:
        blocks += 1
    if blocks > _ENTRIES:
        raise Unreadable("the image is too large for a refcount table of one cluster")
    l1_at = _BLOCKS_AT + blocks
    return _Layout(blocks, l1_at, l1_at + l1_clusters, l1_at + l1_clusters + tables)


def _count_l1(size_bytes: int) -> int:
    return -(-size_bytes // (_CLUSTER * _ENTRIES))


def _make_header(size_bytes: int, layout: _Layout) -> bytes:
    return _HEADER.pack(
        *(_MAGIC, _VERSION, 0, 0, _BITS, size_bytes, 0, _count_l1(size_bytes), layout.l1_at * _CLUSTER),
        *(_REFCOUNTS_AT * _CLUSTER, 1, 0, 0, _COMPRESSION_TYPE, 0, 0, _REFCOUNT_ORDER, _HEADER.size, _ZSTD),
    )


def _read_data(order: Sequence[_Data], files: Sequence[BinaryIO]) -> Iterator[bytes]:
    """Give the data in `order`; what lies side by side is read at once."""
    start = 0
    for here, data in enumerate(order):
        follows = here + 1 < len(order) and order[here + 1][1:3] == (data.part, data.offset + data.size)
        end = data.offset + data.size
        if follows and end - order[start].offset < _CHUNK_BYTES:
            continue
        first = order[start]
        raw = os.pread(files[first.part].fileno(), end - first.offset, first.offset)
        yield raw.ljust(end - first.offset, b"\0")  # the last sector of a file need not be whole
        start = here + 1


def _write_hashed(pieces: Iterable[bytes], target: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        return file.tell(), digest.hexdigest()


def _pad(raw: bytes) -> bytes:
    return raw.ljust(_CLUSTER, b"\0")


def _big_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()
