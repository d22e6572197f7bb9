"""`osimager gc`: what crashed builds left behind, and the logs of old ones."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta

import click

from osimager.units import format_size


@click.command()
@click.option("--kept", is_flag=True, help="Also the workspaces that --on-error keep and abort left.")
@click.option(
    "--logs",
    "days",
    type=click.FloatRange(0, 36_500),
    metavar="DAYS",
    help="Also the logs and evidence of builds that ended so long ago; their records stay.",
)
def command(kept: bool, days: float | None) -> None:
    """Sweep what crashed builds left behind."""
    from osimager.build.layers import LayerStore
    from osimager.build.records import forget_logs
    from osimager.build.workspace import sweep
    from osimager.cli.layer import short
    from osimager.paths import Places

    places = Places.from_environment(os.environ)
    layers = (f"the unfinished or damaged layer {short(name)}" for name in LayerStore(places).sweep())
    said = [f"swept {name}" for name in (*asyncio.run(sweep(places, kept=kept)), *layers)]
    if days is not None:
        gone = forget_logs(places, datetime.now(UTC) - timedelta(days=days))
        said += [f"removed the log and evidence of {build}: {format_size(size_bytes)}" for build, size_bytes in gone]
    click.echo("\n".join(said or ["nothing to sweep"]), err=True)
