"""`osimager resume`: a build that failed, said once more; its last good layer is where it goes on."""

from __future__ import annotations

import os
from pathlib import Path

import click

from osimager.cli.options import build_argument
from osimager.errors import UsageError


@click.command()
@build_argument
def command(build: str) -> None:
    """Go on with a failed BUILD from its last good layer, with files and configuration as they are now.

    \b
    osimager build debian-12 --step ./mine.sh     # mine.sh fails
    $EDITOR mine.sh
    osimager resume last                          # runs from mine.sh on
    """
    from osimager.build.records import find_record
    from osimager.cli.build import command as build_command
    from osimager.paths import Places

    record = find_record(build, Places.from_environment(os.environ))
    if not record.words or not Path(record.folder).is_dir():
        where = f"its folder {record.folder} is gone" if record.words else "an older osimager did not keep its words"
        raise UsageError(
            f"{record.build} cannot be said again: {where}", hint="use `osimager build`, which goes on too"
        )
    os.chdir(record.folder)
    context = build_command.make_context("build", list(record.words))
    context.params["targets"] = (record.target,)
    with context:
        build_command.invoke(context)
