"""What a guest stands on is compressed while it runs: CONVERT is left with what the guest has written since."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import supervised
from osimager.env import Env
from osimager.errors import OsimagerError
from osimager.finalize.compress import compress

_NAME = "precompressed.qcow2"


@dataclass(frozen=True, slots=True)
class Precompressed:
    """A compressed copy of `disk` in the making."""

    disk: Path
    _copy: asyncio.Future[Path | None]

    async def copy(self) -> Path | None:
        """Give the copy once it is whole; None where it could not be made."""
        return await asyncio.shield(self._copy)


@contextlib.asynccontextmanager
async def precompressing(disk: Path, env: Env) -> AsyncIterator[Precompressed]:
    """Compress `disk`, which nothing writes to any more, into the workspace while the block runs.

    No failure of it is the build's: CONVERT does without.
    """
    copy = asyncio.get_running_loop().create_future()
    target = env.workspace / _NAME

    async def make() -> None:
        try:
            await compress(disk, target, beside=True)
        except (OsimagerError, OSError):
            copy.set_result(None)
        else:
            copy.set_result(target)

    try:
        async with supervised(make()):
            yield Precompressed(disk, copy)
    finally:
        target.unlink(missing_ok=True)
