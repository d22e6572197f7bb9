"""Disk files by qemu-img: new ones, and overlays that leave what is under them as it is."""

from __future__ import annotations

import json
from pathlib import Path

from osimager.proc import find_tool, run_tool

_QUICK_S = 60.0


async def create_disk(path: Path, size_bytes: int) -> Path:
    """Make an empty qcow2 of `size_bytes`; it takes no space yet."""
    # Lazy refcounts and large clusters were tried: no difference under TCG, and a larger image at the end.
    await run_tool([_qemu_img(), "create", "-q", "-f", "qcow2", path, str(size_bytes)], deadline_s=_QUICK_S)
    return path


async def create_overlay(path: Path, backing: Path, *, size_bytes: int | None = None, is_open: bool = False) -> Path:
    """Make a qcow2 over `backing`, which stays as it is; `size_bytes` makes the guest's disk larger.

    A relative `backing` begins at the folder of `path`. With `is_open` it is not looked at: a guest writes to it yet.
    """
    size = [] if size_bytes is None else [str(size_bytes)]
    blind = ["-u"] if is_open else []
    argv: list[str | Path] = [
        _qemu_img(),
        "create",
        "-q",
        "-f",
        "qcow2",
        *blind,
        "-b",
        backing,
        "-F",
        "qcow2",
        path,
        *size,
    ]
    await run_tool(argv, deadline_s=_QUICK_S)
    return path


async def read_size(path: Path) -> int:
    """Give the size of the disk that the guest sees, in bytes."""
    done = await run_tool([_qemu_img(), "info", "--output=json", "-f", "qcow2", path], deadline_s=_QUICK_S)
    size: int = json.loads(done.stdout)["virtual-size"]
    return size


def _qemu_img() -> Path:
    return find_tool("qemu-img", package="qemu-utils (Debian, Ubuntu), qemu-img (Fedora, EL), qemu (Homebrew)")
