"""`osimager gc`: what crashed builds left behind."""

from __future__ import annotations

import asyncio
import os

import click


@click.command()
@click.option("--kept", is_flag=True, help="Also the workspaces that --on-error keep and abort left.")
def command(kept: bool) -> None:
    """Sweep what crashed builds left behind."""
    from osimager.build.layers import LayerStore
    from osimager.build.workspace import sweep
    from osimager.paths import Places

    places = Places.from_environment(os.environ)
    swept = [*asyncio.run(sweep(places, kept=kept)), *LayerStore(places).sweep()]
    for name in swept:
        click.echo(f"swept {name}", err=True)
    if not swept:
        click.echo("nothing to sweep", err=True)
