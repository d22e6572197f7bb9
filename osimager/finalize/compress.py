"""qemu-img compresses a disk: its content with zstd, in parallel and out of order."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

from osimager.aio import first_cause
from osimager.errors import PrerequisiteError, PublishError
from osimager.proc import open_child
from osimager.qemu_img import find_qemu_img

_PERCENT = re.compile(rb"\((\d+\.\d+)/100%\)")
_MOST_COROUTINES = 16  # qemu-img's own limit


async def compress(
    disk: Path,
    target: Path,
    *,
    backing: Path | None = None,
    beside: bool = False,
    on_percent: Callable[[int], None] = lambda _percent: None,
) -> None:
    """Write the content of `disk` (qcow2) to `target`; with `backing`, which `disk` is an overlay of, its own alone.

    `beside` leaves half of the processors to what it runs beside. The deadline is the caller's. Raises PublishError,
    PrerequisiteError where the disk is full.
    """
    options = "compression_type=zstd"
    if backing is not None:
        options += f",backing_fmt=qcow2,backing_file={str(backing).replace(',', ',,')}"
    argv: list[str | Path] = [
        *(find_qemu_img(), "convert", "-p", "-f", "qcow2", "-O", "qcow2", "-c", "-o", options),
        *("-m", str(_count_coroutines(beside=beside)), "-W", disk, target),
    ]
    try:
        async with (
            open_child(argv, stdout=asyncio.subprocess.PIPE) as child,
            asyncio.TaskGroup() as group,
        ):
            assert child.stdout is not None
            assert child.stderr is not None
            group.create_task(_tell_progress(child.stdout, on_percent))
            said = group.create_task(child.stderr.read())
            status = await child.wait()
    except BaseExceptionGroup as exc:
        raise first_cause(exc) from exc
    if status != 0:
        raise _failed(target, said.result().decode(errors="replace"))


def _count_coroutines(*, beside: bool) -> int:
    """Each of them keeps a processor busy. Not nice(1) instead: only root can take that back once it is waited for."""
    cores = os.cpu_count() or 2
    return min(_MOST_COROUTINES, max(1, cores // 2) if beside else max(2, cores))


async def _tell_progress(stream: asyncio.StreamReader, on_percent: Callable[[int], None]) -> None:
    """Tell each whole percent that qemu-img prints (with carriage returns)."""
    told = -1
    while chunk := await stream.read(4096):
        for match in _PERCENT.finditer(chunk):
            percent = int(float(match[1]))
            if percent != told:
                told = percent
                on_percent(percent)


def _failed(target: Path, said: str) -> PublishError | PrerequisiteError:
    reason = (said.strip().splitlines() or ["it said nothing"])[-1]
    if "No space left" in said or "Disk quota" in said:
        return PrerequisiteError(
            f"the disk of {target.parent} is full",
            hint="free some space there, or give another folder with --output",
            cause="host-disk-full",
        )
    return PublishError(f"qemu-img could not write the image: {reason}")
