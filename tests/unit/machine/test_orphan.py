"""The watcher that takes a guest along when its runner dies."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

from osimager.machine.orphan import WATCHER, ended_with_us

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def test_watcher_kills_when_its_pipe_ends() -> None:
    with subprocess.Popen(SLEEPER) as sleeper:
        argv = [sys.executable, "-I", "-S", "-c", WATCHER, str(sleeper.pid)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as watcher:
            assert watcher.stdin is not None
            watcher.stdin.close()
            assert sleeper.wait(30) == -signal.SIGKILL


async def test_watcher_spares_a_guest_whose_block_ends_in_order() -> None:
    sleeper = await asyncio.create_subprocess_exec(*SLEEPER)
    async with ended_with_us(sleeper.pid, needed=True):
        pass
    assert sleeper.returncode is None
    sleeper.kill()
    await sleeper.wait()
