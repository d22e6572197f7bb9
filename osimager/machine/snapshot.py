"""A guest's memory: saved while it is paused, and loaded into another machine of exactly the same kind.

On Linux the guest's RAM is the runner's (`ram`), so QEMU's own stream (QMP `migrate`, capability `x-ignore-shared`)
holds the devices alone, a megabyte. Elsewhere the stream holds the RAM too.
"""

from __future__ import annotations

import os
from pathlib import Path

from osimager.aio import in_thread, poll
from osimager.errors import MachineError
from osimager.machine.qmp import Qmp
from osimager.machine.ram import MACHINE, GuestRam, SavedMemory

_POLL_S = 0.005
_SHARED_IS_LEFT_OUT = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
_STREAM = "stream"


async def save_memory(qmp: Qmp, ram: GuestRam | None, folder: Path) -> None:
    """Write a paused guest's state into `folder`. Raises MachineError where QEMU refuses, OSError for a full disk."""
    await _prepare(qmp, shared=ram is not None)
    handle = os.open(folder / MACHINE, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        await qmp.pass_descriptor(handle, _STREAM)
    finally:
        os.close(handle)
    await qmp.execute("migrate", {"uri": f"fd:{_STREAM}"})
    await poll(lambda: _is_migrated(qmp), first_s=_POLL_S, most_s=0.1)
    if ram is not None:
        await in_thread(lambda: ram.save(folder))


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
