"""Verbs that list one kind of configuration by name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from osimager.cli.options import json_option, project_option


def list_group(kind: str, text: str) -> click.Group:
    """Make the group of a kind (`platforms`, `locations`) with its `list` verb."""

    @click.group(help=text)
    def group() -> None:
        pass

    @group.command("list", help=text)
    @project_option
    @json_option
    def list_names(project: Path, data_dir: Path | None, as_json: bool) -> None:
        from osimager.build.catalogues import open_catalog
        from osimager.config.checks import list_named
        from osimager.paths import Places

        catalog = open_catalog(project.absolute(), Places.from_environment(os.environ), data_dir)
        found = list_named(catalog, kind)
        if as_json:
            rows = [
                {
                    "name": each.name,
                    "file": str(each.path or "built in"),
                    "description": each.description,
                    "arches": list(each.arches),
                }
                for each in found
            ]
            click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
            return
        width = max((len(each.name) for each in found), default=0)
        for each in found:
            click.echo(f"{each.name:<{width}}  {each.description}".rstrip())

    return group
