"""Disk files by qemu-img: new ones, and overlays that leave what is under them as it is."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from osimager.errors import PrerequisiteError
from osimager.finalize.compress import find_qemu_img
from osimager.proc import Completed, ToolFailed, run_tool

_QUICK_S = 60.0


async def create_disk(path: Path, size_bytes: int) -> Path:
    """Make an empty qcow2 of `size_bytes`; it takes no space yet."""
    # Lazy refcounts and large clusters were tried: no difference under TCG, and a larger image at the end.
    await _run("create", "-q", "-f", "qcow2", path, str(size_bytes))
    return path


async def create_overlay(path: Path, backing: Path, *, size_bytes: int | None = None, is_open: bool = False) -> Path:
    """Make a qcow2 over `backing`, which stays as it is; `size_bytes` makes the guest's disk larger.

    A relative `backing` begins at the folder of `path`. With `is_open` it is not looked at: a guest writes to it yet.
    """
    size = [] if size_bytes is None else [str(size_bytes)]
    blind = ["-u"] if is_open else []
    await _run("create", "-q", "-f", "qcow2", *blind, "-b", backing, "-F", "qcow2", path, *size)
    return path


async def read_size(path: Path) -> int:
    """Give the size of the disk that the guest sees, in bytes."""
    done = await _run("info", "--output=json", "-f", "qcow2", path)
    size: int = json.loads(done.stdout)["virtual-size"]
    return size


async def _run(*words: str | Path) -> Completed:
    """Run qemu-img. Raises PrerequisiteError: this host's disk is full, or not to be written to."""
    try:
        return await run_tool([find_qemu_img(), *words], deadline_s=_QUICK_S)
    except ToolFailed as exc:
        is_full = os.strerror(errno.ENOSPC) in exc.done.stderr
        hint = "free some space there, or set OSIMAGER_HOME to a folder on a larger disk"
        raise PrerequisiteError(exc.what, hint=hint, cause="host-disk-full" if is_full else "") from exc
