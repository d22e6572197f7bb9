"""Disk files by qemu-img: new ones, and overlays that leave what is under them as it is."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from osimager.errors import PrerequisiteError
from osimager.proc import ToolFailed, find_tool, run_tool

PACKAGES = "qemu-utils (Debian, Ubuntu), qemu-img (Fedora, EL) or qemu (Homebrew)"
QUICK_S = 60.0


def find_qemu_img() -> Path:
    """Find the program. Raises PrerequisiteError that names its packages."""
    return find_tool("qemu-img", package=PACKAGES)


async def create_disk(path: Path, size_bytes: int) -> Path:
    """Make an empty qcow2 of `size_bytes`; it takes no space yet. Raises PrerequisiteError."""
    # Lazy refcounts and large clusters were tried: no difference under TCG, and a larger image at the end.
    return await _create([path, str(size_bytes)], path)


async def create_overlay(path: Path, backing: Path, *, size_bytes: int | None = None, is_open: bool = False) -> Path:
    """Make a qcow2 over `backing`, which stays as it is; `size_bytes` makes the guest's disk larger.

    A relative `backing` begins at the folder of `path`. With `is_open` it is not looked at: a guest writes to it yet.
    Raises PrerequisiteError.
    """
    size = [] if size_bytes is None else [str(size_bytes)]
    blind = ["-u"] if is_open else []
    return await _create([*blind, "-b", backing, "-F", "qcow2", path, *size], path)


async def _create(words: list[str | Path], path: Path) -> Path:
    try:
        await run_tool([find_qemu_img(), "create", "-q", "-f", "qcow2", *words], deadline_s=QUICK_S)
    except ToolFailed as exc:
        is_full = os.strerror(errno.ENOSPC) in exc.done.stderr
        hint = "see that what it stands on is there and whole"
        if is_full:
            hint = "free some space there, or set OSIMAGER_HOME to a folder on a larger disk"
        cause = "host-disk-full" if is_full else ""
        raise PrerequisiteError(f"cannot make the disk {path}: {exc.what}", hint=hint, cause=cause) from exc
    return path


async def read_size(path: Path) -> int:
    """Give the size of the disk that the guest sees, in bytes. Raises ToolFailed for what is no qcow2."""
    done = await run_tool([find_qemu_img(), "info", "--output=json", "-f", "qcow2", path], deadline_s=QUICK_S)
    size: int = json.loads(done.stdout)["virtual-size"]
    return size
