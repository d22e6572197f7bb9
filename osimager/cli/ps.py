"""`osimager ps`: the builds that run, and with --all those that ran."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import click

from osimager.cli.options import json_option
from osimager.units import format_duration, format_time


@click.command()
@click.option("-a", "--all", "also_ended", is_flag=True, help="Those that have ended too.")
@json_option
def command(also_ended: bool, as_json: bool) -> None:
    """List the builds that run, the newest last."""
    from osimager.build.records import Ending, find_ending, list_records
    from osimager.paths import Places

    places = Places.from_environment(os.environ)
    found = [(record, find_ending(record, places)) for record in list_records(places)]
    rows: list[dict[str, object]] = [
        {
            "build": record.build,
            "target": record.target,
            "state": ending,
            "stage": record.stage,
            "pid": record.pid if ending is Ending.RUNNING else None,
            "started": format_time(record.started),
            "seconds": round(((record.ended or datetime.now(UTC)) - record.started).total_seconds(), 3)
            if ending is not Ending.KILLED
            else None,
            "status": record.status,
            "error": record.error,
            "image": record.image,
        }
        for record, ending in found
        if also_ended or ending is Ending.RUNNING
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max((len(str(row["build"])) for row in rows), default=0)
    for row in rows:
        seconds = row["seconds"]
        took = format_duration(seconds) if isinstance(seconds, float) else "?"
        why = str(row["error"]).partition("\n")[0] if row["state"] == Ending.FAILED else ""
        click.echo(f"{row['build']:<{width}}  {row['state']:<11}  {row['stage'] or '-':<9}  {took:>7}  {why}".rstrip())
