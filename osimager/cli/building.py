"""What a person sees of builds while they run, and the summary at their end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import click

from osimager.build.building import Outcome, build_one
from osimager.build.request import BuildRequest
from osimager.cli.render import PlainLines, is_terminal, live_display, write_json
from osimager.cli.report import report
from osimager.events import Sink
from osimager.paths import Places
from osimager.units import format_duration, format_size


async def build_all(requests: Sequence[BuildRequest], *, as_json: bool, verbosity: int) -> list[int]:
    """Build one target after the other and give their statuses; one that fails does not stop the others."""
    places = Places.from_environment(os.environ)
    outcomes = []
    for request in requests:
        with _sinks(as_json=as_json, verbosity=verbosity, several=len(requests) > 1) as sinks:
            outcome = await build_one(request, places, sinks=sinks)
        outcomes.append(outcome)
        _summarize(outcome, as_json=as_json, verbosity=verbosity)
    if len(outcomes) > 1 and not as_json:
        _show_table(outcomes)
    return [outcome.status for outcome in outcomes]


@contextlib.contextmanager
def _sinks(*, as_json: bool, verbosity: int, several: bool) -> Iterator[list[Sink]]:
    """Choose who tells of the events: JSON lines on stdout, a live display, or plain lines on stderr."""
    if as_json:
        yield [write_json]
    elif is_terminal() and verbosity == 0:
        with live_display() as display:
            yield [display]
    else:
        yield [PlainLines(verbosity=verbosity, several=several)]


def _summarize(outcome: Outcome, *, as_json: bool, verbosity: int) -> None:
    """Say how a build ended: data on stdout (the path alone), talk on stderr."""
    if outcome.error is not None:
        report(outcome.error)
        if outcome.evidence is not None:
            click.echo(f"  evidence: {outcome.evidence}", err=True)
        return
    entry = outcome.entry
    assert entry is not None
    if as_json:
        return
    if verbosity >= 0:
        times = " · ".join(
            f"{stage} {format_duration(seconds)}" for stage, seconds in outcome.stages.items() if seconds >= 0.5
        )
        click.echo(
            f"{entry.id}  {format_size(entry.size_bytes)}  {entry.status} in {format_duration(outcome.seconds)}\n"
            f"  sha256:{entry.sha256}\n  {times}",
            err=True,
        )
    click.echo(str(entry.path))


def _show_table(outcomes: Sequence[Outcome]) -> None:
    width = max(len(outcome.target) for outcome in outcomes)
    for outcome in outcomes:
        end = "done" if outcome.status == 0 else f"failed ({outcome.status})"
        click.echo(f"{outcome.target:<{width}}  {end:<12}  {format_duration(outcome.seconds)}", err=True)
