"""`osimager logs BUILD`: what a build tells or told, as it showed it itself."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from osimager.cli.options import build_argument, json_option
from osimager.errors import Place, UsageError

_LOOK_S = 0.2


@click.command()
@build_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the build ends.")
@json_option
@click.option("-v", "--verbose", count=True, help="Show the guest's console too.")
def command(build: str, follow: bool, as_json: bool, verbose: int) -> None:
    """Show what a build tells or told."""
    from osimager.build.records import Ending, find_ending, find_record
    from osimager.cli.render import PlainLines
    from osimager.paths import Places

    places = Places.from_environment(os.environ)
    record = find_record(build, places)
    show = PlainLines(verbosity=verbose, on_stderr=False)

    def is_over() -> bool:
        return not follow or find_ending(record, places) is not Ending.RUNNING

    for line in _read_lines(places.builds / record.build / "events.jsonl", is_over):
        try:
            event = json.loads(line)
        except ValueError:
            continue  # what a host that lost its power left of one
        if as_json:
            click.echo(line)
        else:
            _show(event, show)
    if find_ending(find_record(record.build, places), places) is Ending.KILLED:
        click.echo(f"{record.build} was killed; {_say_what_is_left(places.builds / record.build)}", err=True)


def _say_what_is_left(build: Path) -> str:
    from osimager.build.workspace import EVIDENCE

    evidence = build / EVIDENCE
    return f"evidence: {evidence}" if evidence.is_dir() else "the next build, or osimager gc, sweeps what it left"


def _read_lines(file: Path, is_over: Callable[[], bool]) -> Iterator[str]:
    """Give the file's whole lines, and those to come until `is_over` and there are no more."""
    try:
        lines = file.open(encoding="utf-8", errors="replace")
    except FileNotFoundError as exc:
        raise UsageError(f"the build {file.parent.name} has no log any more", where=Place(file)) from exc
    with lines:
        rest = ""
        while True:
            ends = is_over()  # asked first: what was written before the end is still read
            while chunk := lines.readline():
                rest += chunk
                if rest.endswith("\n"):
                    yield rest.rstrip("\n")
                    rest = ""
            if ends:
                return
            time.sleep(_LOOK_S)


def _show(event: Any, show: Callable[..., None]) -> None:
    """Show an event, unless it is of a kind that this osimager does not know."""
    from osimager.cli.report import last_words
    from osimager.events import BuildFailed, ImagePublished, parse_stamped

    try:
        stamped = parse_stamped(event)
    except (ValueError, KeyError, TypeError):
        return
    show(stamped)
    match stamped.event:
        case BuildFailed(error, status, hint, evidence, _, seen):
            click.echo(f"error: {error} (status {status})")
            for words in last_words(seen):
                click.echo(f"  console: {words}")
            for label, text in (("hint", hint), ("evidence", evidence)):
                if text:
                    click.echo(f"  {label}: {text}")
        case ImagePublished(_, path):
            click.echo(path)
