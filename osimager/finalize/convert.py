"""CONVERT: the sealed disk becomes one compressed file, with no backing file and nothing that the guest deleted."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import in_thread
from osimager.env import Env
from osimager.errors import PrerequisiteError, PublishError
from osimager.events import Progress
from osimager.kept import PARTIAL_PREFIX, make_folder, publishing
from osimager.plan.model import OutputPlan
from osimager.proc import ToolFailed, find_tool, open_child, run_tool
from osimager.units import format_size

_WHAT = "image"
_PERCENT = re.compile(rb"\((\d+\.\d+)/100%\)")
_SPARE_BYTES = 64 << 20
_MOST_COROUTINES = 16  # qemu-img's own limit


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A finished image."""

    path: Path
    size_bytes: int
    sha256: str


async def convert(disk: Path, output: OutputPlan, env: Env) -> ImageFile:
    """Write `disk` (qcow2) to `output.folder/output.stem.qcow2`, whole or not at all. The deadline is the caller's.

    Raises PublishError where a file is in the way and may not be replaced, PrerequisiteError where space is short.
    """
    target = image_path(output)
    check_free(output)
    with publishing(target) as partial:
        image = await write_image(disk, partial, env)
        check_free(output)
    return ImageFile(target, image.size_bytes, image.sha256)


@contextlib.asynccontextmanager
async def open_image(disk: Path, output: OutputPlan, env: Env) -> AsyncIterator[ImageFile]:
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
        yield await write_image(disk, partial, env)
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


async def write_image(disk: Path, target: Path, env: Env) -> ImageFile:
    """Write `disk` to `target` and hash it. The content is compressed with zstd, in parallel, out of order."""
    qemu_img = find_tool("qemu-img", package="qemu-utils (Debian), qemu-img (Fedora) or qemu (Homebrew)")
    total_bytes = await _check_space(qemu_img, disk, target.parent)
    argv = [
        *(str(qemu_img), "convert", "-p", "-f", "qcow2", "-O", "qcow2"),
        *("-c", "-o", "compression_type=zstd", "-m", str(min(_MOST_COROUTINES, max(2, os.cpu_count() or 2))), "-W"),
        *(str(disk), str(target)),
    ]
    try:
        async with (
            open_child(argv, stdout=asyncio.subprocess.PIPE, ask_s=0) as child,
            asyncio.TaskGroup() as group,
        ):
            assert child.stdout is not None
            assert child.stderr is not None
            group.create_task(_tell_progress(child.stdout, total_bytes, env))
            said = group.create_task(child.stderr.read())
            status = await child.wait()
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from exc
    if status != 0:
        raise _failed(target, said.result().decode(errors="replace"))
    return await in_thread(functools.partial(_hash, target))


async def _check_space(qemu_img: Path, disk: Path, folder: Path) -> int:
    """Give the bytes that `disk` holds, at most what its compressed copy takes. Raises PrerequisiteError."""
    try:
        done = await run_tool([qemu_img, "measure", "-f", "qcow2", "-O", "qcow2", "--output=json", disk], deadline_s=60)
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


async def _tell_progress(stream: asyncio.StreamReader, total_bytes: int, env: Env) -> None:
    """Tell each whole percent that qemu-img prints (with carriage returns)."""
    told = -1
    while chunk := await stream.read(4096):
        for match in _PERCENT.finditer(chunk):
            percent = int(float(match[1]))
            if percent != told:
                told = percent
                env.emit(Progress(_WHAT, total_bytes * percent // 100, total_bytes))


def _failed(target: Path, said: str) -> PublishError | PrerequisiteError:
    reason = (said.strip().splitlines() or ["it said nothing"])[-1]
    if "No space left" in said or "Disk quota" in said:
        return PrerequisiteError(
            f"the disk of {target.parent} is full", hint="free some space there, or give another folder with --output"
        )
    return PublishError(f"qemu-img could not write the image: {reason}")


def _hash(path: Path) -> ImageFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ImageFile(path, path.stat().st_size, digest)
