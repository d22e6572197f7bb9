"""A million generated expressions and markers (100,000 in every run): none reaches the outside, none is hungry."""

from __future__ import annotations

import random
import sys
import tracemalloc
from types import FrameType
from typing import Any

import pytest

from osimager.config.markers import Renderer
from tests.unit.config.generated import make_renderer, make_text, resolve

FORBIDDEN = (
    "import",
    "open",
    "os.",
    "subprocess.",
    "socket.",
    "exec",
    "ctypes.",
    "shutil.",
    "pty.",
    "code.",
    "marshal.",
    "urllib.",
)
# Some 50 ms; `bench/generated.py` measures them.
MOST_CALLS = 250_000
MOST_BYTES = 10_000_000


class Watch:
    """Note forbidden events while it is on; an audit hook cannot be taken out again."""

    def __init__(self) -> None:
        self.is_on = False
        self.events: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.is_on and event.startswith(FORBIDDEN):
            self.events.append(event)


def count_calls(renderer: Renderer, text: str) -> int:
    """Give how many functions are called to resolve a text: the same on every machine, unlike the time."""
    calls = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        resolve(renderer, text)
    finally:
        sys.setprofile(None)
    return calls


def weigh(renderer: Renderer, text: str) -> int:
    """Give the most bytes that resolving takes."""
    tracemalloc.start()
    resolve(renderer, text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def run(count: int, seed: int, *, weigh_every: int) -> None:
    """Resolve `count` texts, count the calls of each and weigh one in `weigh_every`."""
    dice = random.Random(seed)
    renderer = make_renderer()
    watch = Watch()
    resolved = 0
    for number in range(count):
        text = make_text(dice)
        watch.is_on = True
        resolved += resolve(renderer, text)
        watch.is_on = False
        assert not watch.events, text
        assert count_calls(renderer, text) < MOST_CALLS, text
        if number % weigh_every == 0:
            assert weigh(renderer, text) < MOST_BYTES, text
    assert resolved > count // 20


def test_a_hundred_thousand_generated_texts() -> None:
    run(100_000, seed=random.SystemRandom().randrange(2**32), weigh_every=50)


@pytest.mark.full
def test_a_million_generated_texts() -> None:
    run(1_000_000, seed=1, weigh_every=2)
