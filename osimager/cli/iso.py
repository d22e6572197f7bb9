"""`osimager iso`: installer ISOs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osimager.cli.options import json_option, project_option
from osimager.errors import UsageError
from osimager.units import format_size

if TYPE_CHECKING:
    from osimager.config.sections import IsoEntry
    from osimager.plan.facts import MediaFacts

arch_option = click.option("--arch", metavar="ARCH", help="For this architecture; this host's by default.")


@click.group()
def command() -> None:
    """List, fetch, make and verify installer ISOs."""


@command.command("list")
@project_option
@json_option
def list_isos(project: Path, data_dir: Path | None, as_json: bool) -> None:
    """List the catalogue: what is downloaded, made from packages, or must be got from its vendor."""
    from osimager.arch import Arch

    rows = []
    catalog = _catalog(project, data_dir)
    for name in catalog.iso_tables():
        for arch in Arch:
            entry = catalog.find_iso(name, arch)
            if entry is not None:
                rows.append({"name": name, "arch": str(arch), "source": _source(entry), "size": entry.size_bytes})
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo(f"{row['name']:<24} {row['arch']:<8} {row['source']}")


@command.command()
@click.argument("name")
@arch_option
@project_option
def make(name: str, arch: str | None, project: Path, data_dir: Path | None) -> None:
    """Make the ISO called NAME from packages, and print its path."""
    _get(name, arch, project, data_dir, must_be_made=True)


@command.command()
@click.argument("name")
@arch_option
@project_option
def fetch(name: str, arch: str | None, project: Path, data_dir: Path | None) -> None:
    """Get the ISO called NAME (download, make, or find it), verify it, and print its path."""
    _get(name, arch, project, data_dir)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--iso-checksum", metavar="sha256:…", help="What it must have.")
@json_option
def verify(file: Path, iso_checksum: str | None, as_json: bool) -> None:
    """Read the ISO FILE whole: its digest, its volume id, and what its boot menus offer."""
    from osimager.build.media_choice import parse_checksum
    from osimager.plan.model import MediaPlan

    media = MediaPlan(name=file.name, filename=file.name, path=file.absolute(), sha256=parse_checksum(iso_checksum))
    facts = _run_fetch(media, None)
    if as_json:
        from osimager.plan.digests import to_plain

        click.echo(json.dumps(to_plain(facts), indent=1))
        return
    click.echo(f"sha256:{facts.sha256}  {'verified' if facts.verified else 'not checked against anything'}")
    click.echo(f"volume id {facts.volume_id!r}, {format_size(file.stat().st_size)}")
    for entry in facts.entries:
        mark = "*" if entry.is_default else " "
        click.echo(f"{mark} {entry.firmware:<4} {entry.title or entry.label}: {entry.kernel} {entry.arguments}")


def _get(name: str, arch: str | None, project: Path, data_dir: Path | None, *, must_be_made: bool = False) -> None:
    from osimager.arch import host_arch, parse_arch
    from osimager.build.media_choice import default_iso_path, from_entry

    wanted = parse_arch(arch) if arch else host_arch()
    places = _places()
    entry = _catalog(project, data_dir).find_iso(name, wanted)
    if entry is None:
        raise UsageError(f"the ISO catalogue has no {name!r} for {wanted}", hint="osimager iso list shows what it has")
    if must_be_made and not entry.make:
        raise UsageError(f"{name} is not made from packages", hint=f"get it by: osimager iso fetch {name}")
    project = project.absolute()
    media = from_entry(entry, sha256=None, iso_path=default_iso_path(project, places), project=project, places=places)
    click.echo(str(_run_fetch(media, wanted).path))


def _run_fetch(media: Any, arch: Any) -> MediaFacts:
    """Run FETCH alone, its progress on stderr."""
    from osimager.arch import host_arch
    from osimager.build.fetching import fetch_alone
    from osimager.cli.build import run
    from osimager.cli.render import PlainLines

    facts: MediaFacts = run(fetch_alone(media, arch or host_arch(), _places(), sinks=[PlainLines()]))
    return facts


def _source(entry: IsoEntry) -> str:
    if entry.make:
        return f"made here by the recipe {entry.make}"
    if entry.urls:
        return entry.urls[0]
    return f"from {entry.needs_login or 'its vendor'}, as {' or '.join(entry.patterns)}"


def _places() -> Any:
    from osimager.paths import Places

    return Places.from_environment(os.environ)


def _catalog(project: Path, data_dir: Path | None) -> Any:
    from osimager.build.catalogues import open_catalog

    return open_catalog(project.absolute(), _places(), data_dir)
