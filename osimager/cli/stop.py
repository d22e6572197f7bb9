"""`osimager stop BUILD`: the end of a running build, as Ctrl-C would bring it, and nothing left of it."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import click

from osimager.cli.options import build_argument

if TYPE_CHECKING:
    from osimager.build.records import BuildRecord
    from osimager.paths import Places

_LOOK_S = 0.1
_AGAIN_S = 1.0
_MOST_S = 120.0


@click.command()
@build_argument
def command(build: str) -> None:
    """End a running build as Ctrl-C does, and wait until nothing is left of it."""
    from osimager.build.records import find_record
    from osimager.paths import Places

    places = Places.from_environment(os.environ)
    record = find_record(build, places, running=True)
    _stop(record, places)
    click.echo(f"stopped {record.build}", err=True)


def _stop(record: BuildRecord, places: Places) -> None:
    """Ask the build's process, again and again, until the workspace's lock is free. Raises UsageError, MachineError."""
    from osimager.build.session import STOP, STOP_SIGNAL
    from osimager.build.workspace import find_workspace, is_held
    from osimager.errors import MachineError, UsageError
    from osimager.processes import find_start

    workspace = find_workspace(places, record.build)
    started = time.monotonic()
    asked_at = 0.0
    while is_held(workspace):
        now = time.monotonic()
        if now - started > _MOST_S:
            hint = f"kill -9 {record.pid} leaves no process either; osimager gc sweeps the rest"
            raise MachineError(f"{record.build} does not end", hint=hint)
        if now - asked_at >= _AGAIN_S:
            asked_at = now
            if asyncio.run(find_start(record.pid)) != record.pid_started:
                if not is_held(workspace):
                    break  # it ended meanwhile
                hint = "its folder is shared with another host or container: stop it there"
                raise UsageError(f"{record.build} is no process of this host", hint=hint)
            (workspace / STOP).touch()
            os.kill(record.pid, STOP_SIGNAL)
        time.sleep(_LOOK_S)
