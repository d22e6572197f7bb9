"""QEMU's death with its parent's where the kernel does not see to it (macOS; on Linux `proc` does, by prctl).

A small watcher holds the read end of a pipe whose other end is ours: when we are gone, however, it reads the end of
the file and kills the guest. It ends before the guest's process id can be anyone else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from osimager.proc import open_child

WATCHER = """
import os, signal, sys
sys.stdin.buffer.read()
try:
    os.kill(int(sys.argv[1]), signal.SIGKILL)
except OSError:
    pass
"""


@contextlib.asynccontextmanager
async def ended_with_us(pid: int, *, needed: bool = sys.platform != "linux") -> AsyncIterator[None]:
    """While the block runs, kill the process `pid` when this one dies."""
    if not needed:
        yield
        return
    argv = [sys.executable, "-I", "-S", "-c", WATCHER, str(pid)]
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    async with open_child(argv, stdin=pipe, stderr=nothing, ask_s=0, term_s=1) as watcher:
        try:
            yield
        finally:
            if watcher.returncode is None:
                watcher.kill()
            await watcher.wait()
