"""Events → what a person sees (a live display on a terminal, plain lines elsewhere) or JSON lines on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

import click

from osimager.events import (
    AnswerFetched,
    Awaiting,
    BuildFailed,
    ConnectionTried,
    ImagePublished,
    MachineEnded,
    Notice,
    OutputLine,
    Progress,
    Stage,
    StageChanged,
    Stamped,
    State,
    StepEnded,
    StepStarted,
)
from osimager.units import format_duration, format_size

if TYPE_CHECKING:
    from rich.console import Group
    from rich.progress import TaskID

# Sources whose lines are shown with -v only: the guest's consoles, and what runs it.
_CHATTY = frozenset({"serial", "screen", "qemu", "swtpm", "make"})
_MARK = {State.SUCCEEDED: "✓", State.SKIPPED: "–", State.FAILED: "✗", State.CANCELLED: "✗"}
_COLOUR = {State.SUCCEEDED: "green", State.SKIPPED: "cyan", State.FAILED: "red", State.CANCELLED: "red"}


def write_json(stamped: Stamped) -> None:
    """Write an event as one line of JSON on stdout."""
    click.echo(json.dumps(stamped.to_json(), ensure_ascii=False))


class PlainLines:
    """One line, on stderr or stdout, for each thing worth telling: for logs, pipes and CI."""

    def __init__(self, *, verbosity: int = 0, several: bool = False, on_stderr: bool = True) -> None:
        self._verbosity = verbosity
        self._several = several
        self._on_stderr = on_stderr
        self._last_progress: dict[str, float] = {}

    def __call__(self, stamped: Stamped) -> None:
        """Tell `stamped`, if it is worth a line."""
        line = self.line(stamped)
        if line is not None:
            who = f"{stamped.build} " if self._several else ""
            click.echo(f"{stamped.time:%H:%M:%S} {who}{line}", err=self._on_stderr)

    def line(self, stamped: Stamped) -> str | None:
        """Give the line for `stamped`, or None where it is not worth one."""
        event = stamped.event
        if isinstance(event, Notice):
            return (
                f"warning: {event.text}" if event.level == "warning" else (event.text if self._verbosity >= 0 else None)
            )
        if self._verbosity < 0:
            return None
        if isinstance(event, OutputLine) and self._verbosity < 1 and event.source.partition(" ")[0] in _CHATTY:
            return None
        if isinstance(event, Progress) and not self._is_due(event):
            return None
        return describe(event)

    def _is_due(self, event: Progress) -> bool:
        """Tell of a progress every ten seconds at most."""
        now = time.monotonic()
        if now - self._last_progress.get(event.what, -60) < 10:
            return False
        self._last_progress[event.what] = now
        return True


class ProgressBars:
    """A bar on a terminal's stderr for each thing that is under way; all else as plain lines above them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bars = Bars(
            *columns,
            TimeRemainingColumn(),
            console=Console(stderr=True),
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lines = PlainLines()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()

    def __call__(self, stamped: Stamped) -> None:
        """Move the bar that `stamped` is about, or tell it."""
        if isinstance(event := stamped.event, Progress):
            if event.what not in self._tasks:
                self._tasks[event.what] = self._bars.add_task(event.what, total=event.total or None)
            self._bars.update(self._tasks[event.what], completed=event.done, total=event.total or None)
        elif (line := self._lines.line(stamped)) is not None:
            self._bars.console.print(f"{stamped.time:%H:%M:%S} {line}", markup=False, highlight=False)


def describe(event: object) -> str | None:
    """Give a line for an event, or None where there is nothing to tell."""
    match event:
        case StageChanged(of, State.RUNNING):
            return f"{of}"
        case StageChanged(of, to, detail, seconds):
            took = f" {format_duration(seconds)}" if seconds is not None else ""
            detail = "" if to is State.FAILED else detail  # the error itself follows
            return f"{of} {_MARK.get(to, '')} {to.lower()}{took}{': ' + detail if detail else ''}"
        case Awaiting(what, deadline_s, expected_s):
            usual = f"{format_duration(expected_s)} last time, " if expected_s is not None else ""
            return f"  waiting for {what} ({usual}at most {format_duration(deadline_s)})"
        case Progress(what, done, total):
            return f"  {what}: {format_size(done)}" + (
                f" of {format_size(total)} ({100 * done // total} %)" if total else ""
            )
        case OutputLine(source, text):
            return f"  {source}: {text}"
        case AnswerFetched(name, whole):
            return f"  the guest fetched {name}" + ("" if whole else ", but not to its end")
        case StepStarted(name, index, total):
            return f"  step {index}/{total}: {name}"
        case StepEnded(name, status, seconds):
            return f"  step {name} ended with status {status} after {format_duration(seconds)}"
        case MachineEnded(role, _, reason):
            return f"  the {role} machine ended: {reason}"
        case _:
            return None


class LiveDisplay:
    """The builds that run, a few lines each, at the foot of a terminal; what is over is printed above them."""

    def __init__(self, *, several: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        self._several = several
        self._width = console.width
        self._builds: dict[str, _BuildLines] = {}
        # Twice a second is enough for a clock of whole seconds: drawing is what a quiet build costs most.
        self._live = Live(
            get_renderable=self.render,
            console=console,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,  # it would put data among the talk
            redirect_stderr=False,
        )
        self._hidden = 0

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the block runs."""
        with self._live:
            yield

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Leave the terminal to others while the block runs."""
        self._hidden += 1
        self._live.stop()
        try:
            yield
        finally:
            self._hidden -= 1
            if not self._hidden:
                self._live.start()

    def __call__(self, stamped: Stamped) -> None:
        """Take in an event."""
        lines = self._builds.setdefault(stamped.build, _BuildLines())
        if isinstance(stamped.event, ImagePublished | BuildFailed):
            del self._builds[stamped.build]
        elif told := lines.take(stamped.event):
            text, colour = told
            self._print(f"{stamped.build}  {text}" if self._several else text, colour)

    def _print(self, text: str, colour: str) -> None:
        from rich.text import Text

        self._live.console.print(Text(text, style=colour, overflow="ellipsis", no_wrap=True))

    def render(self) -> Group:
        """Give the live lines."""
        from rich.console import Group
        from rich.text import Text

        now = time.monotonic()
        lines: list[str] = []
        for build, each in self._builds.items():
            shown = each.lines(now)
            lines += [build, *shown] if self._several and shown else shown
        return Group(*(Text(line[: self._width], no_wrap=True, overflow="ellipsis") for line in lines))


class _BuildLines:
    """One build on the live display: the stage that runs, the last guest line, what is awaited, and for how long."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._stage: Stage | None = None
        self._stage_started = self._started
        self._awaited = ""
        self._until = 0.0
        self._end_at: float | None = None
        self._last_line = ""
        self._doing = ""

    def take(self, event: object) -> tuple[str, str] | None:
        """Take in an event; give the line and the colour of what is over."""
        match event:
            case StageChanged(of, State.RUNNING):
                self._stage, self._stage_started = of, time.monotonic()
                self._last_line = self._doing = ""
            case StageChanged(of, to, detail, seconds):
                took = format_duration(seconds) if seconds is not None else ""
                return f"{_MARK.get(to, ' ')} {of:<9} {took:>7}  {detail}", _COLOUR.get(to, "")
            case Awaiting(what, deadline_s, _, left_s):
                now = time.monotonic()
                self._awaited, self._until = what, now + deadline_s
                self._end_at = None if left_s is None else now + left_s
            case OutputLine(source, text) if text.strip():
                self._last_line = f"{source}: {text.strip()}"
            case Progress() | StepStarted() | AnswerFetched() as event:
                self._doing = (describe(event) or "").strip()
            case ConnectionTried(outcome):
                self._doing = f"SSH: {outcome}"
            case Notice(text, level):
                return (f"{level}: {text}", "yellow") if level == "warning" else (text, "")
            case _:
                pass
        return None

    def lines(self, now: float) -> list[str]:
        """Give its lines as they are `now`."""
        if self._stage is None:
            return []
        head = f"● {self._stage:<9} {format_duration(now - self._stage_started):>7}  {self._doing}"
        wait = f"  waiting for {self._awaited}, at most {format_duration(max(0.0, self._until - now))} more"
        total = f"  {format_duration(now - self._started)} in all"
        if self._end_at is not None:
            total += f", {_left(self._end_at - now)}"
        return [line for line in (head, f"  {self._last_line}" if self._last_line else "", wait, total) if line]


def _left(seconds: float) -> str:
    return f"about {format_duration(max(10.0, seconds))} left" if seconds > 0 else "longer than the last time"


def is_terminal() -> bool:
    """Tell whether a live display makes sense."""
    import os

    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
