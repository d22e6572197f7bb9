"""A guest's memory: saved while it is paused, and loaded into another machine of exactly the same kind.

On Linux the guest's RAM is a memfd of the runner's, so QEMU's own stream (QMP `migrate`, capability `x-ignore-shared`)
holds the devices alone, a megabyte, and the RAM is copied as a sparse file by the kernel: a guest of 1 GiB is saved in
a quarter of a second. Elsewhere the stream holds the RAM too. A memfd has no name: nothing is left of it after a kill.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import in_thread, poll
from osimager.errors import MachineError
from osimager.machine.qmp import Qmp

_POLL_S = 0.005
_SHARED_IS_LEFT_OUT = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
_STREAM = "stream"


@dataclass(frozen=True, slots=True)
class SavedMemory:
    """Where a guest's state lies: `machine` is QEMU's stream, `memory` the RAM, sparse (Linux only)."""

    machine: Path
    memory: Path


def open_ram(size_mib: int) -> int | None:
    """Give a descriptor of empty memory for a guest; None where this system has no memfd (macOS)."""
    if not hasattr(os, "memfd_create"):
        return None
    handle = os.memfd_create("guest-ram", os.MFD_CLOEXEC)
    os.ftruncate(handle, size_mib << 20)
    return handle


async def save_memory(qmp: Qmp, ram: int | None, to: SavedMemory) -> None:
    """Write a paused guest's state. Raises MachineError where QEMU refuses, OSError for a disk that is full."""
    await _prepare(qmp, shared=ram is not None)
    handle = os.open(to.machine, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        await qmp.pass_descriptor(handle, _STREAM)
    finally:
        os.close(handle)
    await qmp.execute("migrate", {"uri": f"fd:{_STREAM}"})
    await poll(lambda: _is_migrated(qmp), first_s=_POLL_S, most_s=0.1)
    if ram is not None:
        await in_thread(lambda: _write_ram(ram, to.memory))


async def load_memory(qmp: Qmp, saved: SavedMemory, *, shared: bool) -> None:
    """Load a state into a machine that was started for it (`-incoming defer`); the guest waits for `cont`."""
    await _prepare(qmp, shared=shared)
    handle = os.open(saved.machine, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await qmp.pass_descriptor(handle, _STREAM)
    finally:
        os.close(handle)
    await qmp.execute("migrate-incoming", {"uri": f"fd:{_STREAM}"})
    await poll(lambda: _is_loaded(qmp), first_s=_POLL_S, most_s=0.1)


async def fill_ram(ram: int, saved: SavedMemory) -> None:
    """Copy a saved RAM into empty memory, before the machine loads the rest."""

    def copy() -> None:
        handle = os.open(saved.memory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _copy_sparse(handle, ram)
        finally:
            os.close(handle)

    await in_thread(copy)


async def _prepare(qmp: Qmp, *, shared: bool) -> None:
    if shared:
        await qmp.execute("migrate-set-capabilities", _SHARED_IS_LEFT_OUT)
    await qmp.execute("migrate-set-parameters", {"max-bandwidth": 0})


async def _is_migrated(qmp: Qmp) -> bool | None:
    """Give true when the stream is whole, None while it is written (qapi/migration.json, MigrationStatus)."""
    answer = await qmp.execute("query-migrate")
    status = answer.get("status") if isinstance(answer, dict) else None
    if status == "completed":
        return True
    if status in ("failed", "cancelled"):
        reason = answer.get("error-desc", "") if isinstance(answer, dict) else ""
        raise MachineError(f"QEMU could not save the guest's memory: {reason or status}")
    return None


async def _is_loaded(qmp: Qmp) -> bool | None:
    answer = await qmp.execute("query-status")
    status = answer.get("status") if isinstance(answer, dict) else None
    if status == "internal-error":
        raise MachineError("QEMU could not load the guest's memory")
    return None if status == "inmigrate" else True


def _write_ram(ram: int, path: Path) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(handle, os.fstat(ram).st_size)
        _copy_sparse(ram, handle)
    finally:
        os.close(handle)


def _copy_sparse(source: int, target: int) -> None:
    """Copy what is no hole, in the kernel (lseek(2), SEEK_DATA; sendfile(2))."""
    end = 0
    while (start := _find_data(source, end)) is not None:
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            start += os.sendfile(target, source, start, end - start)


def _find_data(handle: int, at: int) -> int | None:
    try:
        return os.lseek(handle, at, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # only a hole from here on
            return None
        raise
