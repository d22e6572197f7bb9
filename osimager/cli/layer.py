"""`osimager layer`: what is kept for the next build, what it takes, and what of it goes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from osimager.cli.options import Size, json_option
from osimager.errors import UsageError
from osimager.units import format_duration, format_size, format_time

if TYPE_CHECKING:
    from osimager.build.layers import Layer, LayerStore


@click.group()
def command() -> None:
    """List, show and remove the layers that builds go on from."""


@command.command("list")
@json_option
def list_layers(as_json: bool) -> None:
    """List every layer, the oldest first."""
    store = _store()
    rows = [_row(layer, store) for layer in store.load()]
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        memory = "memory" if row["memory"] else ""
        size, seconds = row["size"], row["seconds"]
        assert isinstance(size, int)
        assert isinstance(seconds, float)
        click.echo(
            f"{short(str(row['layer']))}  {row['target']}  {row['name']:<16}  {format_size(size):>9}  "
            f"{format_duration(seconds):>6}  {memory:<6}  {'in use' if row['in_use'] else ''}".rstrip()
        )


@command.command()
@click.argument("layer")
@json_option
def show(layer: str, as_json: bool) -> None:
    """Show one LAYER (as `list` names it, or the beginning of that): what it stands on, and the inputs that it is found
    by.
    """
    digest, _, nonce = layer.partition(".")
    store = _store()
    names = ((each, each.folder.name.partition(".")) for each in store.load())
    found = [each for each, (its, _, own) in names if its.startswith(digest) and own.startswith(nonce)]
    if len(found) != 1:
        what = "no layer is" if not found else f"{len(found)} layers are"
        raise UsageError(f"{what} called {layer!r}…", hint="`osimager layer list` shows them")
    row = {**_row(found[0], store), "path": str(found[0].folder), "inputs": dict(found[0].inputs)}
    if as_json:
        click.echo(json.dumps(row, indent=1, ensure_ascii=False))
        return
    for name, value in row.items():
        if name != "inputs":
            click.echo(f"{name:<10} {value}")
    for name, digest in found[0].inputs.items():
        click.echo(f"  {name:<28} {digest[:12]}")


@command.command()
@click.option("--max-size", type=Size("g"), metavar="SIZE", help="Keep at most so much; 0 removes all that is unused.")
def gc(max_size: int | None) -> None:
    """Remove the least recently used layers; one that a build uses, or another stands on, stays."""
    gone = _store().gc(max_size)
    for layer in gone:
        click.echo(f"removed {short(layer.folder.name)}  {layer.target}  {layer.name}", err=True)
    if not gone:
        click.echo("nothing to remove", err=True)


def short(name: str) -> str:
    """Give a layer's name, DIGEST.NONCE, as short as it is unique: a disk, and it once more with its memory, share the
    digest.
    """
    digest, _, nonce = name.removeprefix(".gone-").partition(".")
    return f"{digest[:12]}.{nonce}"


def _store() -> LayerStore:
    from osimager.build.layers import LayerStore
    from osimager.paths import Places

    return LayerStore(Places.from_environment(os.environ))


def _row(layer: Layer, store: LayerStore) -> dict[str, object]:
    from datetime import UTC, datetime

    from osimager.build.layers import is_held

    return {
        "layer": layer.folder.name,
        "digest": layer.digest,
        "stage": layer.stage,
        "name": layer.name,
        "index": layer.index,
        "target": layer.target,
        "parent": layer.parent,
        "build": layer.build,
        "created": format_time(layer.created),
        "used": format_time(datetime.fromtimestamp(layer.used_at, UTC), timespec="seconds"),
        "seconds": layer.seconds,
        "size": layer.size_bytes,
        "memory": bool(layer.memory) and store.is_memory_whole(layer),
        "in_use": is_held(layer),
    }
