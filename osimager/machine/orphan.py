"""QEMU's death with its parent's where the kernel does not see to it (macOS; on Linux `proc` does, by prctl).

A small watcher holds the read end of a pipe whose other end is ours: when we are gone, however, it reads the end of
the file and kills the guest that it was told of. It runs before the guest does, and is replaced if it dies itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from osimager.aio import supervised
from osimager.proc import open_child

WATCHER = """
import os, signal, sys
pid = 0
for line in sys.stdin.buffer:
    pid = int(line)
try:
    if pid:
        os.kill(pid, signal.SIGKILL)
except OSError:
    pass
"""
_ARGV = (sys.executable, "-I", "-S", "-c", WATCHER)
_AGAIN_S = 0.1


class Tie:
    """What ties a child's death to ours: the child writes its process id to `descriptor` before it becomes QEMU.

    So there is no moment at which it runs and the watcher does not know of it. None: the kernel sees to it.
    """

    descriptor: int | None = None

    def name(self, pid: int) -> None:
        """Say whom the next watcher has to know, should this one die."""


@contextlib.asynccontextmanager
async def ended_with_us(*, needed: bool = sys.platform != "linux") -> AsyncIterator[Tie]:
    """Give what a child needs to be killed when this process dies while the block runs."""
    if not needed:
        yield Tie()
        return
    guard = _Guard()
    try:
        async with supervised(guard.keep()):
            await guard.ready.wait()
            yield guard
    finally:
        guard.close()


class _Guard(Tie):
    """The watcher and its successors, at the one pipe."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        self.descriptor = self._write_end
        self._pid = 0
        self.ready = asyncio.Event()

    def name(self, pid: int) -> None:
        self._pid = pid
        os.write(self._write_end, b"%d\n" % pid)

    async def keep(self) -> None:
        """Have a watcher at all times."""
        while True:
            async with open_child(_ARGV, stdin=self._read_end, stderr=asyncio.subprocess.DEVNULL, term_s=1) as watcher:
                self.name(self._pid)
                self.ready.set()
                await watcher.wait()
            await asyncio.sleep(_AGAIN_S)

    def close(self) -> None:
        """Close the pipe, which no watcher reads any more."""
        os.close(self._read_end)
        os.close(self._write_end)
