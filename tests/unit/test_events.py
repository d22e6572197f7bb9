"""The bus: order, masking, and sinks that fail."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from osimager.events import Bus, Event, MachineStarted, Notice, OutputLine, Stage, StageChanged, Stamped, State
from osimager.redact import MASK, Masker

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
def bus() -> Bus:
    masker = Masker()
    masker.register("hunter22")
    return Bus(now=lambda: NOW, masker=masker, build="b1")


def test_every_text_of_an_event_is_masked(bus: Bus) -> None:
    seen: list[Event] = []
    with bus.listening(lambda stamped: seen.append(stamped.event)):
        bus.emit(OutputLine("hunter22", "the password is hunter22"))
        bus.emit(MachineStarted("installer", 7, ("qemu", "-x", "hunter22")))
    assert seen == [OutputLine(MASK, f"the password is {MASK}"), MachineStarted("installer", 7, ("qemu", "-x", MASK))]


def test_an_event_carries_time_build_stage_and_state(bus: Bus) -> None:
    seen: list[Stamped] = []
    with bus.listening(seen.append):
        bus.emit(StageChanged(Stage.FETCH, State.RUNNING))
        bus.emit(Notice("hello"))
    assert json.loads(json.dumps(seen[-1].to_json())) == {
        "v": 1,
        "time": "2026-01-02T03:04:05.678Z",
        "build": "b1",
        "stage": "FETCH",
        "state": "RUNNING",
        "kind": "notice",
        "text": "hello",
        "level": "info",
    }


def test_a_sink_that_fails_is_left_out_and_the_others_are_told(bus: Bus) -> None:
    seen: list[Event] = []

    def broken(_: Stamped) -> None:
        raise OSError("disk full")

    with bus.listening(broken), bus.listening(lambda stamped: seen.append(stamped.event)):
        bus.emit(Notice("one"))
        bus.emit(Notice("two"))
    texts = [event.text for event in seen if isinstance(event, Notice)]
    assert texts[0] == "one"
    assert "disk full" in texts[1]
    assert texts[2:] == ["two"]


async def test_waiting_gives_the_next_event_that_matches(bus: Bus) -> None:
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(bus.wait_for(OutputLine, lambda event: event.text == "login:"))
        await asyncio.sleep(0)
        for text in ("noise", "login:", "login:"):
            bus.emit(OutputLine("serial", text))
    assert waiter.result() == OutputLine("serial", "login:")


async def test_a_condition_that_fails_is_the_waiters_error(bus: Bus) -> None:
    def matches(_: OutputLine) -> bool:
        raise ZeroDivisionError

    waiter = asyncio.ensure_future(bus.wait_for(OutputLine, matches))
    await asyncio.sleep(0)
    bus.emit(OutputLine("serial", "x"))
    with pytest.raises(ZeroDivisionError):
        await waiter
