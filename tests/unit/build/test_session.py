"""What builds of one command share: memory in turn, one that is stopped alone, a limit on how many run."""

from __future__ import annotations

import asyncio
import os

import pytest

from osimager.build.session import STOP, STOP_SIGNAL, Memory, Session
from osimager.env import Env


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def run_in(memory: Memory, mib: int, name: str, told: list[str], leave: asyncio.Event) -> None:
    async with memory.reserved(mib, on_wait=lambda: told.append(f"{name} waits")):
        told.append(f"{name} runs")
        await leave.wait()


async def test_memory_is_handed_out_in_the_order_of_asking() -> None:
    memory, told, leave = Memory(1000), list[str](), {name: asyncio.Event() for name in "abc"}
    async with asyncio.TaskGroup() as group:
        for name, mib in {"a": 600, "b": 600, "c": 100}.items():
            group.create_task(run_in(memory, mib, name, told, leave[name]))
            await settle()
        assert told == ["a runs", "b waits", "c waits"]
        leave["a"].set()
        await settle()
        assert told[3:] == ["b runs", "c runs"]
        leave["b"].set()
        leave["c"].set()


async def test_who_is_alone_gets_more_than_there_is_and_unknown_memory_has_no_limit() -> None:
    for memory, expected in ((Memory(10), ["a runs", "b waits"]), (Memory(None), ["a runs", "b runs"])):
        told, leave = list[str](), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(run_in(memory, 600, name, told, leave))
                await settle()
            assert told == expected
            leave.set()


async def test_cancelled_waiter_gives_its_turn_to_the_next() -> None:
    memory, told, leave = Memory(100), list[str](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for name in "abc":
            tasks.append(group.create_task(run_in(memory, 90, name, told, leave)))
            await settle()
        tasks[1].cancel()
        await settle()
        leave.set()
    assert told == ["a runs", "b waits", "c waits", "c runs"]


async def test_stop_signal_cancels_the_build_that_is_meant_and_no_other(env: Env) -> None:
    session, started = Session(memory=Memory(None)), asyncio.Event()
    workspaces = [env.workspace / name for name in ("one", "two")]

    async def build(at: int) -> None:
        workspaces[at].mkdir()
        with session.running(workspaces[at]):
            started.set()
            await asyncio.Event().wait()

    with session.heeding_stop():
        tasks = [asyncio.create_task(build(at)) for at in range(2)]
        await started.wait()
        await settle()
        (workspaces[1] / STOP).touch()
        os.kill(os.getpid(), STOP_SIGNAL)
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert session.is_ended(workspaces[1])
        assert not session.is_ended(workspaces[0])
        assert not tasks[0].done()
        tasks[0].cancel()
        await asyncio.wait(tasks)
