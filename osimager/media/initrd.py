"""Answers inside the initrd: for an installer that looks there and a guest that may reach no server.

The kernel unpacks any number of cpio archives one after the other, compressed or not, each on a 4-byte boundary
(Documentation/driver-api/early-userspace/buffer-format.rst). debian-installer takes `/preseed.cfg` from there by itself
(Debian Installation Guide, B.2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_REGULAR, _MODE = 0o100000, 0o600


def append_files(initrd: Path, files: Mapping[str, bytes]) -> None:
    """Append an archive of `files` (name in the initrd's root → content) to `initrd`, readable by its owner alone."""
    initrd.chmod(0o600)
    with initrd.open("r+b") as out:
        size = out.seek(0, 2)
        out.write(b"\0" * (-size % 4) + render_archive(files))


def render_archive(files: Mapping[str, bytes]) -> bytes:
    """Give a cpio archive in the "newc" form, cpio(5)."""
    entries = [_render_entry(number, name, content) for number, (name, content) in enumerate(files.items(), 1)]
    return b"".join([*entries, _render_entry(0, "TRAILER!!!", b"", mode=0)])


def _render_entry(inode: int, name: str, content: bytes, *, mode: int = _REGULAR | _MODE) -> bytes:
    label = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(label), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + label
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
