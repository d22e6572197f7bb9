"""`osimager schema`: JSON Schemas for editors."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("kind", metavar="spec|location|platform|profile|iso")
def command(kind: str) -> None:
    """Print the JSON Schema of a kind of file, for an editor's YAML plug-in."""
    from osimager.config.schema import make_schema

    click.echo(json.dumps(make_schema("isos" if kind == "iso" else kind), indent=1))
