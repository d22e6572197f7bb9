"""What a build's plain lines tell, and what only `-v` does."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from osimager.cli.render import PlainLines
from osimager.events import OutputLine, Stage, Stamped, State

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def line(source: str, *, verbosity: int) -> str | None:
    """Give what is told of a line from `source`."""
    event = OutputLine(source, "hello")
    stamped = Stamped(event=event, time=NOW, build="b", stage=Stage.INSTALL, state=State.RUNNING)
    return PlainLines(verbosity=verbosity).line(stamped)


@pytest.mark.parametrize("source", ["serial", "screen", "qemu", "swtpm", "make debian-12"])
def test_what_the_guests_consoles_and_the_tools_say_is_told_with_v_only(source: str) -> None:
    assert line(source, verbosity=0) is None
    assert "hello" in (line(source, verbosity=1) or "")


def test_what_a_step_says_is_told_unless_the_build_is_quiet() -> None:
    assert "hello" in (line("base", verbosity=0) or "")
    assert line("base", verbosity=-1) is None
