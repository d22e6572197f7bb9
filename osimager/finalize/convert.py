"""CONVERT: the sealed disk becomes one compressed file, with no backing file and nothing that the guest deleted."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import in_thread
from osimager.env import Env
from osimager.errors import PrerequisiteError, PublishError
from osimager.events import Progress
from osimager.finalize.compress import compress
from osimager.finalize.precompress import Precompressed, list_chain, make_part
from osimager.finalize.qcow2 import Unreadable, join
from osimager.kept import PARTIAL_PREFIX, make_folder
from osimager.plan.model import OutputPlan
from osimager.proc import ToolFailed, run_tool
from osimager.qemu_img import QUICK_S, find_qemu_img
from osimager.units import format_size

_WHAT = "image"
_MOST_AT_ONCE = 8  # programs, each of which opens all that is below its disk
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A finished image."""

    path: Path
    size_bytes: int
    sha256: str


@contextlib.asynccontextmanager
async def open_image(
    disk: Path, output: OutputPlan, env: Env, ahead: Precompressed | None = None
) -> AsyncIterator[ImageFile]:
    """Write `disk` to a temporary file in `output.folder` and give that: VERIFY reads it, PUBLISH gives it its name.

    What still bears its temporary name when the block ends is removed; what a killed build left is swept here.
    """
    check_free(output)
    make_folder(output.folder)
    sweep_partials(output.folder)
    partial = output.folder / f"{PARTIAL_PREFIX}{output.stem}-{env.entropy(4).hex()}.qcow2"
    # The lock dies with this process: an unlocked partial file is a dead build's.
    handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield await write_image(disk, partial, env, ahead)
    finally:
        partial.unlink(missing_ok=True)
        os.close(handle)


def sweep_partials(folder: Path) -> None:
    """Remove the temporary images in `folder` that no living build holds."""
    for partial in folder.glob(f"{PARTIAL_PREFIX}*.qcow2"):
        with contextlib.suppress(OSError):
            handle = os.open(partial, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()
            finally:
                os.close(handle)


def image_path(output: OutputPlan) -> Path:
    """Give the image's name."""
    return output.folder / f"{output.stem}.qcow2"


def check_free(output: OutputPlan) -> None:
    """Raise PublishError where the image's name is taken and may not be replaced."""
    if image_path(output).exists() and not output.replace:
        raise PublishError(
            f"{image_path(output)} is there already", hint="give --replace, or another folder with --output"
        )


async def write_image(disk: Path, target: Path, env: Env, ahead: Precompressed | None = None) -> ImageFile:
    """Write `disk` to `target` and hash it; what `ahead` has compressed already is taken over."""
    if ahead is not None and (image := await _join(disk, target, ahead, env)) is not None:
        return image
    total_bytes = await _check_space(disk, target.parent)

    def tell(percent: int) -> None:
        env.emit(Progress(_WHAT, total_bytes * percent // 100, total_bytes))

    await compress(disk, target, on_percent=tell)
    return await in_thread(functools.partial(_hash, target))


async def _join(disk: Path, target: Path, ahead: Precompressed, env: Env) -> ImageFile | None:
    """Compress what `disk` has above the disk that is compressed already, and put both together; None: it cannot be."""
    parts = await ahead.parts()
    if parts is None:
        return None
    try:
        turn = asyncio.Semaphore(_MOST_AT_ONCE)

        async def make(number: int, overlay: Path, backing: Path | None) -> Path:
            async with turn:
                return await make_part(overlay, backing, env.workspace / f"part-{number}.qcow2", ahead.shelf)

        async with asyncio.TaskGroup() as group:
            making = [
                group.create_task(make(number, overlay, backing))
                for number, (overlay, backing) in enumerate(list_chain(disk, above=ahead.disk))
            ]
        above = [task.result() for task in making]
        size_bytes, sha256 = await in_thread(functools.partial(join, [*parts, *above], target))
    except (Unreadable, OSError, ExceptionGroup):
        return None  # for want of space, say: it is told by who writes the image in one piece
    finally:
        for part in env.workspace.glob("part-*.qcow2"):
            part.unlink(missing_ok=True)
    env.emit(Progress(_WHAT, size_bytes, size_bytes))
    return ImageFile(target, size_bytes, sha256)


async def _check_space(disk: Path, folder: Path) -> int:
    """Give the bytes that `disk` holds, at most what its compressed copy takes. Raises PrerequisiteError."""
    try:
        argv: list[str | Path] = [find_qemu_img(), "measure", "-f", "qcow2", "-O", "qcow2", "--output=json", disk]
        done = await run_tool(argv, deadline_s=QUICK_S)
    except ToolFailed as exc:
        raise PublishError(f"cannot read {disk.name}: {exc.what}") from exc
    needed_bytes = int(json.loads(done.stdout)["required"])
    free_bytes = shutil.disk_usage(make_folder(folder)).free
    # Compressed it is a third of that; where half is not free, do not even begin.
    if free_bytes < needed_bytes // 2 + _SPARE_BYTES:
        raise PrerequisiteError(
            f"{folder} has {format_size(free_bytes)} free, and the image may take {format_size(needed_bytes)}",
            hint="free some space there, or give another folder with --output",
        )
    return needed_bytes


def _hash(path: Path) -> ImageFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ImageFile(path, path.stat().st_size, digest)
