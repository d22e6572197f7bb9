"""The watcher that takes a guest along when its runner dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

from osimager.machine.orphan import WATCHER, ended_with_us
from osimager.proc import open_child
from tests.conftest import list_children

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


def test_watcher_kills_the_last_one_named_when_its_pipe_ends() -> None:
    with subprocess.Popen(SLEEPER) as spared, subprocess.Popen(SLEEPER) as sleeper:
        with subprocess.Popen([sys.executable, "-I", "-S", "-c", WATCHER], stdin=subprocess.PIPE) as watcher:
            assert watcher.stdin is not None
            watcher.stdin.write(b"%d\n%d\n" % (spared.pid, sleeper.pid))
            watcher.stdin.close()
            assert sleeper.wait(30) == -signal.SIGKILL
        assert spared.poll() is None
        spared.kill()


async def test_child_announces_itself_before_it_is_the_program() -> None:
    read_end, write_end = os.pipe()
    try:
        async with open_child(SLEEPER, announce=write_end) as child:
            assert os.read(read_end, 100) == b"%d\n" % child.pid
    finally:
        os.close(read_end)
        os.close(write_end)


async def test_watcher_spares_a_guest_whose_block_ends_in_order() -> None:
    sleeper = await asyncio.create_subprocess_exec(*SLEEPER)
    async with ended_with_us(needed=True) as tie:
        assert tie.descriptor is not None
        os.write(tie.descriptor, b"%d\n" % sleeper.pid)
    assert sleeper.returncode is None
    sleeper.kill()
    await sleeper.wait()


async def test_watcher_that_is_killed_is_replaced() -> None:
    """What kills it kills nobody else, and the next one is at the same pipe."""
    before = set(list_children())
    async with asyncio.timeout(30), ended_with_us(needed=True):
        [first] = set(list_children()) - before
        os.kill(first, signal.SIGKILL)
        while not (others := set(list_children()) - before - {first}):
            await asyncio.sleep(0.01)
        assert len(others) == 1
