"""`osimager resume`: a build that failed, said once more; its last good layer is where it goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from osimager.cli.options import build_argument
from osimager.errors import UsageError

if TYPE_CHECKING:
    from osimager.build.records import BuildRecord
    from osimager.paths import Places


@click.command()
@build_argument
def command(build: str) -> None:
    """Go on with a failed BUILD from its last good layer, with files and configuration as they are now.

    \b
    osimager build debian-12 --step ./mine.sh     # mine.sh fails
    $EDITOR mine.sh
    osimager resume last                          # runs from mine.sh on
    """
    from osimager.build.records import Ending, find_ending, find_record
    from osimager.cli.build import command as build_command
    from osimager.paths import Places

    places = Places.from_environment(os.environ)
    record = find_record(build, places)
    if find_ending(record, places) is Ending.RUNNING:
        raise UsageError(f"{record.build} still runs", hint=f"osimager logs {record.build}, or osimager stop")
    if not record.words or not Path(record.folder).is_dir():
        where = f"its folder {record.folder} is gone" if record.words else "an older osimager did not keep its words"
        raise UsageError(
            f"{record.build} cannot be said again: {where}", hint="use `osimager build`, which goes on too"
        )
    os.chdir(record.folder)
    context = build_command.make_context("build", list(record.words))
    if context.params["force"] or context.params["first_made"] is not None:
        context = build_command.make_context("build", _without_what_is_done(record, places))
        context.params["resumes"] = True
    context.params["targets"] = (record.target,)
    with context:
        build_command.invoke(context)


def _without_what_is_done(record: BuildRecord, places: Places) -> list[str]:
    """Give the words of a build that was to make layers anew: those that it has made need not be made once more."""
    from osimager.build.layers import LayerStore

    made = [layer.index for layer in LayerStore(places).load() if layer.build == record.build]
    if not made:
        return list(record.words)
    return [*(word for word in record.words if word != "--force"), "--from", f"step:{max(made) + 1}"]
