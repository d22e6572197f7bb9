"""`osimager config`: the user's settings."""

from __future__ import annotations

import json
import os

import click

from osimager.cli.options import json_option
from osimager.errors import UsageError


@click.group()
def command() -> None:
    """Get, set and list settings: ~/.config/osimager/config.yml. OSImager's own files are read, never changed."""


@command.command("list")
@json_option
def list_all(as_json: bool) -> None:
    """List every setting and the value that holds now."""
    from osimager.build.own_settings import list_settings
    from osimager.paths import Places

    found = list_settings(Places.from_environment(os.environ))
    if as_json:
        rows = [{"key": key, "value": value} for key, value in found.items()]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for key, value in found.items():
        click.echo(f"{key} = {_as_text(value)}")


@command.command()
@click.argument("key")
def get(key: str) -> None:
    """Print the value of KEY; a list has an item a line."""
    from osimager.build.own_settings import list_settings
    from osimager.paths import Places

    found = list_settings(Places.from_environment(os.environ))
    if key not in found:
        raise UsageError(f"there is no setting {key!r}", hint=f"there are {', '.join(found)}")
    value = found[key]
    for item in value if isinstance(value, list) else [value]:
        click.echo(_as_text(item))


@command.command("set")
@click.argument("key")
@click.argument("values", nargs=-1, required=True, metavar="VALUE…")
def set_one(key: str, values: tuple[str, ...]) -> None:
    """Set KEY to VALUE, in config.yml; a list takes several values."""
    from osimager.build.own_settings import set_setting
    from osimager.paths import Places

    settings = set_setting(Places.from_environment(os.environ), key, values)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    return str(value)
