"""What is told of a stage that is cut short: once, and as what it was."""

from __future__ import annotations

import asyncio

import pytest

from osimager.aio import supervised
from osimager.build.stages import Recorder
from osimager.env import Env
from osimager.errors import GuestGone, MachineError
from osimager.events import Event, Stage, StageChanged, State


@pytest.fixture
def rec(env: Env) -> Recorder:
    return Recorder(env, save=lambda rec: None, deadline_s=dict.fromkeys(Stage, 60.0))


def told(events: list[Event]) -> list[tuple[Stage, State, str]]:
    return [(event.of, event.to, event.detail) for event in events if isinstance(event, StageChanged)]


async def test_a_stage_whose_guest_dies_is_told_as_failed_and_only_once(rec: Recorder, events: list[Event]) -> None:
    async def die() -> None:
        raise GuestGone("QEMU is gone", returncode=1, stderr="")

    with pytest.raises(GuestGone) as raised:
        async with supervised(die()):
            await rec.run(Stage.CONNECT, asyncio.Event().wait())
    assert rec.settle(raised.value) == MachineError.status
    assert told(events) == [
        (Stage.CONNECT, State.RUNNING, ""),
        (Stage.CONNECT, State.FAILED, "QEMU is gone"),
    ]
    assert rec.failed_in is Stage.CONNECT


async def test_a_stage_that_a_person_ends_is_told_as_cancelled(rec: Recorder, events: list[Event]) -> None:
    work = asyncio.create_task(rec.run(Stage.CONNECT, asyncio.Event().wait()))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await work
    rec.settle(raised.value)
    assert [state for _, state, _ in told(events)] == [State.RUNNING, State.CANCELLED]
    assert rec.failed_in is None
