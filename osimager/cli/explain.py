"""`osimager explain`: where every value came from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from osimager.cli.options import json_option, target_options
from osimager.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from osimager.config.configuration import Configuration


@click.command()
@click.argument("target")
@click.argument("key", required=False)
@target_options
@json_option
def command(target: str, key: str | None, *, as_json: bool, **said: Any) -> None:
    """Show file and line of the value of KEY, and of each value that it overrode; without KEY, of every value.

    KEY is a def (`memory`) or a section's key (`machine.memory`). Values are shown as they are written, with their
    markers: no secret is asked for.
    """
    import os

    from osimager.build.prepare import resolve_configuration
    from osimager.cli.build import make_request
    from osimager.config.checks import PlaceholderLookups
    from osimager.paths import Places

    places = Places.from_environment(os.environ)
    _, configuration = resolve_configuration(make_request(target, **said), places, PlaceholderLookups())
    keys = [key] if key else _all_keys(configuration)
    rows = [row for name in keys for row in _rows(configuration, name)]
    if key and not rows:
        import difflib

        known = _all_keys(configuration)
        close = difflib.get_close_matches(key, known, 3) or known
        raise UsageError(f"{target} has no value called {key!r}", hint=f"it has {', '.join(close)}")
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        mark = {"": "", "joined": "  joined with ", "overridden": "  overrode "}[str(row["fate"])]
        section = f"  ({row['section']})" if row["section"] else ""
        click.echo(f"{mark}{row['key']} = {row['value']}   {row['place']}{section}")


def _all_keys(configuration: Configuration) -> list[str]:
    """Name every value: defs bare, all others with their section, then what belongs to none (`iso`)."""
    merged = configuration.merged
    sections = [f"{name}.{key}" for name, table in merged.tables.items() if name != "defs" for key in table]
    lists = [name for name, items in merged.lists.items() if items]
    return [*sorted(configuration.defs), *sections, *lists, *sorted(merged.fields)]


def _rows(configuration: Configuration, name: str) -> Iterator[dict[str, object]]:
    from osimager.holes import name_holes

    is_list = name in configuration.merged.lists and name not in configuration.defs  # an item a row, none over another
    fate = ""  # the winner; then "joined" while what went before is part of the value, then "overridden"
    for rank, origin in enumerate(configuration.explain(name)):
        is_line = isinstance(origin.value, str) and "\n" not in origin.value
        value = str(origin.value) if is_line else json.dumps(origin.value, ensure_ascii=False)
        place = {"path": str(origin.place.path), "line": origin.place.line}
        row: dict[str, object] = {"key": name, "value": name_holes(value), "place": str(origin.place), **place}
        yield {**row, "section": origin.section, "rank": rank, "fate": fate}
        if not is_list:
            fate = "joined" if origin.is_joined and fate != "overridden" else "overridden"
