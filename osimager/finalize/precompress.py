"""What a guest stands on is compressed while it runs: CONVERT is left with what the guest has written since."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from osimager.aio import in_thread, supervised
from osimager.env import Env
from osimager.errors import OsimagerError
from osimager.finalize.compress import compress
from osimager.finalize.qcow2 import Unreadable, read_backing


class Shelf(Protocol):
    """Where compressed copies of disks are kept for later builds. Its methods block."""

    def find(self, disk: Path) -> Path | None:
        """Find the whole copy of what `disk` itself holds, without what it stands on."""
        ...

    def keep(self, disk: Path, copy: Path) -> Path:
        """Keep a new copy if it is worth it, and give where it is now. Raises OsimagerError, and OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Precompressed:
    """Compressed copies, some yet in the making, of `disk` and all that it stands on."""

    disk: Path
    shelf: Shelf
    _parts: asyncio.Future[list[Path] | None]

    async def parts(self) -> list[Path] | None:
        """Give the copies once they are whole, from below to above; None where they could not be made."""
        return await asyncio.shield(self._parts)


@contextlib.asynccontextmanager
async def precompressing(disk: Path, env: Env, shelf: Shelf) -> AsyncIterator[Precompressed]:
    """Compress `disk`, which nothing writes to any more, while the block runs; what `shelf` has is taken from there.

    No failure of it is the build's: CONVERT does without.
    """
    parts: asyncio.Future[list[Path] | None] = asyncio.get_running_loop().create_future()

    async def make() -> None:
        made: list[Path] = []
        try:
            for number, (overlay, backing) in enumerate(list_chain(disk)):
                target = env.workspace / f"below-{number}.qcow2"
                made.append(await make_part(overlay, backing, target, shelf, beside=True))
        except (OsimagerError, OSError, Unreadable):
            parts.set_result(None)
        else:
            parts.set_result(made)

    try:
        async with supervised(make()):
            yield Precompressed(disk, shelf, parts)
    finally:
        for left in env.workspace.glob("below-*.qcow2"):
            left.unlink(missing_ok=True)


async def make_part(disk: Path, backing: Path | None, target: Path, shelf: Shelf, *, beside: bool = False) -> Path:
    """Give the compressed copy of what `disk` holds beyond `backing`: the shelf's, else a new one, made as `target`."""
    if (found := await in_thread(functools.partial(shelf.find, disk))) is not None:
        return found
    await compress(disk, target, backing=backing, beside=beside)
    return await in_thread(functools.partial(shelf.keep, disk, target))


def list_chain(disk: Path, *, above: Path | None = None) -> list[tuple[Path, Path | None]]:
    """Give `disk` and what it stands on, each with what is below it, the lowest first; with `above` no more than that.

    Raises Unreadable, and OSError.
    """
    chain: list[tuple[Path, Path | None]] = []
    at: Path | None = disk
    while at is not None and not (above is not None and at.samefile(above)):
        below = read_backing(at)
        chain.insert(0, (at, below))
        at = below
    if above is not None and at is None:
        raise Unreadable(f"{disk.name} does not stand on {above.name}")
    return chain
