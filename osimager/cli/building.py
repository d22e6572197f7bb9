"""What a person sees of builds while they run, and the summary at their end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import click

from osimager.build.building import Outcome
from osimager.build.queue import build_all, open_session
from osimager.build.request import BuildRequest
from osimager.cli.build import run
from osimager.cli.render import LiveDisplay, PlainLines, is_terminal, write_json
from osimager.cli.report import report
from osimager.cli.terminal import open_terminal
from osimager.events import Sink, Stage
from osimager.paths import Places
from osimager.proc import allow_open_files
from osimager.units import format_duration, format_size


def build_targets(requests: Sequence[BuildRequest], *, jobs: int, as_json: bool, verbosity: int) -> list[int]:
    """Build the targets, show how it goes and how each ended, and give their statuses."""
    allow_open_files()
    several = len(requests) > 1
    display = LiveDisplay(several=several) if not as_json and is_terminal() and verbosity == 0 else None
    lines: Sink = write_json if as_json else PlainLines(verbosity=verbosity, several=several)
    session = open_session(open_terminal(display))

    def summarize(outcome: Outcome) -> None:
        with display.hidden() if display else contextlib.nullcontext():
            _summarize(outcome, as_json=as_json, verbosity=verbosity, several=several)

    places = Places.from_environment(os.environ)
    work = build_all(requests, places, session, jobs=jobs, sinks=[display or lines], on_end=summarize)
    with display.shown() if display else contextlib.nullcontext():
        outcomes: list[Outcome] = run(work, session.interrupt)
    if several and not as_json:
        _show_table(outcomes)
    return [outcome.status for outcome in outcomes]


def _summarize(outcome: Outcome, *, as_json: bool, verbosity: int, several: bool) -> None:
    """Say how a build ended: data on stdout (the path alone), talk on stderr."""
    if outcome.error is not None:
        if several:
            click.echo(f"{outcome.build}:", err=True)
        report(outcome.error)
        for name, path in (("kept", outcome.kept), ("bundle", outcome.bundle), ("evidence", outcome.evidence)):
            if path is not None:
                click.echo(f"  {name}: {path}", err=True)
        return
    entry = outcome.entry
    assert entry is not None
    if as_json:
        return
    if verbosity >= 0:
        took = format_duration(outcome.seconds)
        done = f"{entry.status} in {took}" if Stage.PUBLISH in outcome.stages else f"{entry.status}, unchanged ({took})"
        click.echo(f"{entry.id}  {format_size(entry.size_bytes)}  {done}\n  sha256:{entry.sha256}", err=True)
        long = [f"{stage} {format_duration(spent)}" for stage, spent in outcome.stages.items() if spent >= 0.5]
        if long:
            click.echo(f"  {' · '.join(long)}", err=True)
    click.echo(str(entry.path))


def _show_table(outcomes: Sequence[Outcome]) -> None:
    width = max(len(outcome.target) for outcome in outcomes)
    for outcome in outcomes:
        end = "done" if outcome.status == 0 else f"failed ({outcome.status})"
        what = str(outcome.error or (outcome.entry and outcome.entry.path)).partition("\n")[0]
        took = format_duration(outcome.seconds)
        click.echo(f"{outcome.target:<{width}}  {end:<12}  {took:>7}  {what}", err=True)
