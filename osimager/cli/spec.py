"""`osimager spec`: what can be built."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from osimager.cli.options import json_option, project_option


@click.group()
def command() -> None:
    """List, show and check specs."""


@command.command("list")
@click.option("--dist", metavar="DIST", help="Of this distribution only.")
@click.option("--arch", metavar="ARCH", help="Of this architecture only.")
@project_option
@json_option
def list_specs(dist: str | None, arch: str | None, project: Path, data_dir: Path | None, as_json: bool) -> None:
    """List every target there is."""
    from osimager.arch import parse_arch
    from osimager.build.catalogues import open_catalog
    from osimager.paths import Places

    wanted = parse_arch(arch) if arch else None
    catalog = open_catalog(project.absolute(), Places.from_environment(os.environ), data_dir)
    found = [entry for entry in catalog.targets() if dist in (None, entry.dist) and wanted in (None, entry.arch)]
    if as_json:
        fields = [
            {
                "target": str(entry),
                "dist": entry.dist,
                "version": entry.version,
                "arch": entry.arch,
                "spec": str(entry.spec),
            }
            for entry in found
        ]
        click.echo(json.dumps(fields, indent=1))
        return
    for entry in found:
        click.echo(str(entry))
