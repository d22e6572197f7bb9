"""`osimager iso`: installer ISOs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from osimager.cli.options import json_option, project_option
from osimager.errors import ConfigError, ConfigErrors, MediaError, UsageError
from osimager.units import format_size

if TYPE_CHECKING:
    from osimager.arch import Arch
    from osimager.build.isos import IsoProblem, ListedIso
    from osimager.config.catalog import Catalog
    from osimager.config.sections import IsoEntry
    from osimager.events import Sink
    from osimager.paths import Places
    from osimager.plan.facts import MediaFacts
    from osimager.plan.model import MediaPlan

T = TypeVar("T")
_DAY_S = 86_400.0

arch_option = click.option("--arch", metavar="ARCH", help="For this architecture; this host's by default.")


@click.group()
def command() -> None:
    """List, show, fetch, make, verify, add and check installer ISOs, and clear their cache."""


@command.command("list")
@project_option
@json_option
def list_isos(project: Path, data_dir: Path | None, as_json: bool) -> None:
    """List the catalogue: what is here, what is downloaded or made when needed, what the vendor must be asked for."""
    from osimager.build.isos import iso_folders
    from osimager.build.isos import list_isos as every_iso

    places = _places()
    found = list(every_iso(_catalog(project, data_dir), iso_folders(project.absolute(), places), places))
    if as_json:
        click.echo(json.dumps([_row(listed) for listed in found], indent=1))
        return
    for listed in found:
        where = (
            f"{listed.local}{'' if listed.verified else ', not verified'}" if listed.local else _origin(listed.entry)
        )
        click.echo(f"{listed.entry.name:<24} {listed.entry.arch:<8} {where}")


@command.command()
@click.argument("name")
@arch_option
@project_option
@json_option
def show(name: str, arch: str | None, project: Path, data_dir: Path | None, as_json: bool) -> None:
    """Show what the catalogue says of the ISO called NAME, and where the vendor says so."""
    from osimager.build.isos import describe_entry, iso_folders
    from osimager.build.isos import list_isos as every_iso

    places, catalog = _places(), _catalog(project, data_dir)
    entry = _entry(catalog, name, _wanted(arch))
    folders = iso_folders(project.absolute(), places)
    [listed] = [each for each in every_iso(catalog, folders, places) if each.entry == entry]
    fields = describe_entry(listed)
    if as_json:
        click.echo(json.dumps(fields, indent=1))
        return
    sources = listed.entry.sources
    for key, value in fields.items():
        if value and key != "sources":
            for text in value if isinstance(value, list) else [value]:
                click.echo(f"{key:<14} {text}")
            if key in sources:
                click.echo(f"{'':<14}   by {sources[key]}")


@command.command()
@click.argument("name")
@arch_option
@project_option
@json_option
def make(name: str, arch: str | None, project: Path, data_dir: Path | None, as_json: bool) -> None:
    """Make the ISO called NAME from packages, and print its path."""
    wanted = _wanted(arch)
    entry = _entry(_catalog(project, data_dir), name, wanted)
    if not entry.make:
        raise UsageError(f"{name} is not made from packages", hint=f"get it by: osimager iso fetch {name}")
    _tell_facts(_run_fetch(_plan(entry, project), wanted), as_json)


@command.command()
@click.argument("name")
@arch_option
@project_option
@json_option
def fetch(name: str, arch: str | None, project: Path, data_dir: Path | None, as_json: bool) -> None:
    """Get the ISO called NAME (download, make, or find it), verify it, and print its path."""
    wanted = _wanted(arch)
    _tell_facts(_run_fetch(_plan(_entry(_catalog(project, data_dir), name, wanted), project), wanted), as_json)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--iso-checksum", metavar="sha256:…", help="What it must have.")
@click.option("--as", "name", metavar="NAME", help="It must be what the catalogue calls NAME.")
@arch_option
@project_option
@json_option
def verify(
    file: Path,
    iso_checksum: str | None,
    name: str | None,
    arch: str | None,
    project: Path,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Read the ISO FILE whole: its digest, its volume id, and what its boot menus offer.

    With --as, it is held against the catalogue: volume id, and the vendor's checksum where one is published.
    """
    import dataclasses

    from osimager.build.media_choice import from_file, parse_checksum
    from osimager.plan.model import MediaPlan

    sha256 = parse_checksum(iso_checksum)
    if name is None:
        media = MediaPlan(name=file.name, filename=file.name, path=file.absolute(), sha256=sha256)
    else:
        media = from_file(_entry(_catalog(project, data_dir), name, _wanted(arch)), file)
        media = dataclasses.replace(media, sha256=sha256 or media.sha256)
    facts = _run_fetch(media, None)
    if as_json:
        _tell_facts(facts, as_json)
        return
    click.echo(f"sha256:{facts.sha256}  {'verified' if facts.verified else 'not checked against anything'}")
    click.echo(f"volume id {facts.volume_id!r}, {format_size(file.stat().st_size)}")
    for entry in facts.entries:
        mark = "*" if entry.is_default else " "
        click.echo(f"{mark} {entry.firmware:<4} {entry.title or entry.label}: {entry.kernel} {entry.arguments}")


@command.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", metavar="NAME", help="What to call it; by default what the target that it fits looks for.")
@click.option("--arch", metavar="ARCH", help="Its architecture, where it does not tell.")
@project_option
@json_option
def add(file: Path, name: str | None, arch: str | None, project: Path, data_dir: Path | None, as_json: bool) -> None:
    """Recognise the ISO FILE, and write it into your own catalogue, so that builds find it by name."""
    from osimager.arch import parse_arch
    from osimager.build.fetching import open_env
    from osimager.build.isos import add_iso, iso_folders

    places = _places()
    folders = iso_folders(project.absolute(), places)
    given, catalog = parse_arch(arch) if arch else None, _catalog(project, data_dir)
    with open_env(places) as env:
        added = _run(add_iso(file, catalog, env, folders=folders, name=name, arch=given))
    what = added.identity
    if as_json:
        fields = {
            "name": added.name,
            "arch": added.arch,
            "file": str(added.file),
            "path": str(added.found_at),
            "title": what.title,
            "volume_id": what.volume_id,
            "told_by": what.told_by,
            "sha256": added.sha256,
        }
        click.echo(json.dumps(fields, indent=1))
        return
    told = f", says its {what.told_by}" if what.told_by else ""
    click.echo(f"{file.name} is {what.title}{told}", err=True)
    click.echo(f"written to {added.file}; it is found at {added.found_at}", err=True)
    if added.name not in catalog.iso_tables():
        click.echo(f"no target asks for {added.name} by itself: build with --iso {added.name}", err=True)
    click.echo(added.name)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("--offline", is_flag=True, help="Look at the entries only; ask no address.")
@project_option
@json_option
def check(names: tuple[str, ...], offline: bool, project: Path, data_dir: Path | None, as_json: bool) -> None:
    """Check that the catalogue's entries are whole, and that each address answers."""
    from osimager.build.fetching import open_env
    from osimager.build.isos import check_entries, find_dead_addresses

    entries, problems = check_entries(_catalog(project, data_dir), names)
    asked, dead = 0, list[Any]()
    if not offline:
        with open_env(_places()) as env:
            asked, dead = _run(find_dead_addresses(entries, env))
    wrong = [problem for problem in problems if not problem.is_lack]
    if as_json:
        rows = [{**_problem_row(each), "kind": "lack" if each.is_lack else "problem"} for each in problems]
        rows += [{**_problem_row(each), "kind": "no answer"} for each in dead]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        for each in (*problems, *dead):
            click.echo(f"{each.name} {each.arch}: {each.what}")
    lacks = len(problems) - len(wrong)
    click.echo(f"{len(entries)} entries: {len(wrong)} problems, {lacks} with less than there could be", err=True)
    said = "no address was asked (--offline)" if offline else f"{asked} addresses asked, {_count(dead)} do not answer"
    click.echo(said, err=True)
    if wrong:
        raise ConfigErrors([ConfigError(f"{each.name} {each.arch}: {each.what}") for each in wrong])
    if dead:
        raise MediaError(f"{_count(dead)} addresses do not answer", hint="is the network there, and the proxy set?")


@command.command()
@click.option("--unused", "days", type=float, default=30.0, show_default=True, metavar="DAYS", help="For so long.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and leave it.")
@json_option
def gc(days: float, dry_run: bool, as_json: bool) -> None:
    """Clear the cache of ISOs that no build used for a month, of those made anew since, and of broken downloads."""
    from osimager.media.inventory import find_garbage, remove_garbage

    places = _places()
    found = find_garbage(places, unused_s=days * _DAY_S)
    if not dry_run:
        remove_garbage(places, found)
    if as_json:
        rows = [{"path": str(each.path), "size": each.size_bytes, "reason": each.reason} for each in found]
        click.echo(json.dumps(rows, indent=1))
    else:
        for each in found:
            click.echo(f"{each.path}: {each.reason}")
    total = format_size(sum(each.size_bytes for each in found))
    click.echo(f"{len(found)} files, {total} {'would be freed' if dry_run else 'freed'}", err=True)


def _row(listed: ListedIso) -> dict[str, object]:
    entry = listed.entry
    return {
        "name": entry.name,
        "arch": entry.arch,
        "source": _origin(entry),
        "size": entry.size_bytes,
        "path": str(listed.local) if listed.local else None,
        "verified": listed.verified,
    }


def _problem_row(problem: IsoProblem) -> dict[str, str]:
    return {"name": problem.name, "arch": problem.arch, "what": problem.what}


def _count(dead: Sequence[IsoProblem]) -> int:
    return len({problem.what for problem in dead})


def _origin(entry: IsoEntry) -> str:
    if entry.make:
        return f"made here by the recipe {entry.make}"
    if entry.urls:
        return entry.urls[0]
    return f"from {entry.needs_login or 'its vendor'}, as {' or '.join(entry.patterns)}"


def _tell_facts(facts: MediaFacts, as_json: bool) -> None:
    """Print the ISO's path; or all that is known of it."""
    if not as_json:
        click.echo(str(facts.path))
        return
    from osimager.plan.digests import to_plain

    click.echo(json.dumps(to_plain(facts), indent=1))


def _wanted(arch: str | None) -> Arch:
    from osimager.arch import host_arch, parse_arch

    return parse_arch(arch) if arch else host_arch()


def _entry(catalog: Catalog, name: str, arch: Arch) -> IsoEntry:
    import difflib

    entry = catalog.find_iso(name, arch)
    if entry is None:
        close = difflib.get_close_matches(name, catalog.iso_tables(), 3, 0.7)
        hint = f"did you mean {' or '.join(close)}?" if close else "osimager iso list shows what it has"
        raise UsageError(f"the ISO catalogue has no {name!r} for {arch}", hint=hint)
    return entry


def _plan(entry: IsoEntry, project: Path) -> MediaPlan:
    from osimager.build.isos import iso_folders
    from osimager.build.media_choice import from_entry

    places, project = _places(), project.absolute()
    folders = iso_folders(project, places)
    return from_entry(entry, sha256=None, iso_path=folders, project=project, places=places)


def _run_fetch(media: MediaPlan, arch: Arch | None) -> MediaFacts:
    """Run FETCH alone, its progress on stderr: a bar on a terminal, lines elsewhere."""
    from osimager.arch import host_arch
    from osimager.build.fetching import fetch_alone
    from osimager.cli.render import PlainLines, ProgressBars

    def go(sink: Sink) -> MediaFacts:
        return _run(fetch_alone(media, arch or host_arch(), _places(), sinks=[sink]))

    if not sys.stderr.isatty():
        return go(PlainLines())
    with ProgressBars() as bars:
        return go(bars)


def _run(work: Coroutine[Any, Any, T]) -> T:
    from osimager.cli.build import run

    done: T = run(work)
    return done


def _places() -> Places:
    from osimager.paths import Places

    return Places.from_environment(os.environ)


def _catalog(project: Path, data_dir: Path | None) -> Catalog:
    from osimager.build.catalogues import open_catalog

    return open_catalog(project.absolute(), _places(), data_dir)
