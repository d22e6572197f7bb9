"""`osimager explain`: where every value came from."""

from __future__ import annotations

import json
from typing import Any

import click

from osimager.cli.options import json_option, target_options
from osimager.errors import UsageError


@click.command()
@click.argument("target")
@click.argument("key", required=False)
@target_options
@json_option
def command(target: str, key: str | None, *, as_json: bool, **said: Any) -> None:
    """Show file and line of the value of KEY, and of each value that it overrode; without KEY, of every def."""
    import os

    from osimager.build.prepare import resolve_configuration
    from osimager.cli.build import make_request
    from osimager.holes import name_holes
    from osimager.paths import Places
    from osimager.redact import Masker

    masker = Masker()
    _, configuration = resolve_configuration(make_request(target, **said), Places.from_environment(os.environ), masker)
    keys = [key] if key else sorted(configuration.defs)
    rows = []
    for name in keys:
        for rank, origin in enumerate(configuration.explain(name)):
            value = masker.mask(name_holes(str(origin.value)))
            rows.append(
                {"key": name, "value": value, "place": str(origin.place), "section": origin.section, "rank": rank}
            )
    if key and not rows:
        close = ", ".join(sorted(configuration.defs))
        raise UsageError(f"{target} has no value called {key!r}", hint=f"its defs are {close}")
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        mark = "" if row["rank"] == 0 else "  overrode "
        click.echo(f"{mark}{row['key']} = {row['value']}   {row['place']}  ({row['section']})")
