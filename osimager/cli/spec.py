"""`osimager spec`: what can be built."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osimager.cli.options import json_option, project_option, target_options
from osimager.errors import ConfigError, ConfigErrors, UsageError

if TYPE_CHECKING:
    from osimager.build.checking import Checked
    from osimager.config.catalog import Catalog, TargetEntry


@click.group()
def command() -> None:
    """List, show and check specs."""


@command.command("list")
@click.option("--dist", metavar="DIST", help="Of this distribution only.")
@click.option("--arch", metavar="ARCH", help="Of this architecture only.")
@click.option("-l", "--long", "with_state", is_flag=True, help="How far each one is, too; always so on a terminal.")
@project_option
@json_option
def list_specs(
    dist: str | None, arch: str | None, with_state: bool, project: Path, data_dir: Path | None, as_json: bool
) -> None:
    """List every target there is: installed, boots, renders (docs/targets.md), or what it needs."""
    import difflib

    from osimager.arch import parse_arch
    from osimager.build.catalogues import open_catalog
    from osimager.paths import Places

    wanted = parse_arch(arch) if arch else None
    catalog = open_catalog(project.absolute(), Places.from_environment(os.environ), data_dir)
    dists = dict.fromkeys(entry.dist for entry in catalog.targets())
    if dist is not None and dist not in dists:
        said = dist.lower()
        close = [name for name in dists if name.startswith(said) or said.startswith(name)]
        close = close or difflib.get_close_matches(said, dists, 1) or list(dists)
        raise UsageError(f"no target is of a distribution {dist!r}", hint=f"there is {', '.join(close)}")
    found = [entry for entry in catalog.targets() if dist in (None, entry.dist) and wanted in (None, entry.arch)]
    if as_json:
        click.echo(json.dumps([_fields(catalog, entry) for entry in found], indent=1))
    elif found and (with_state or sys.stdout.isatty()):
        from osimager.build.checking import find_state

        width = max(len(str(entry)) for entry in found)
        click.echo("\n".join(f"{entry!s:<{width}}  {find_state(catalog, entry)}".rstrip() for entry in found))
    elif found:
        click.echo("\n".join(map(str, found)))
    for problem in catalog.problems:
        place = f" ({problem.where[0]})" if problem.where else ""
        click.echo(f"warning: {problem.what}{place}; osimager spec check --all says more", err=True)


def _fields(catalog: Catalog, entry: TargetEntry) -> dict[str, str | None]:
    """Give one object of `spec list --json`."""
    from osimager.build.checking import find_state

    state = find_state(catalog, entry)
    return {
        "target": str(entry),
        "dist": entry.dist,
        "version": entry.version,
        "arch": entry.arch,
        "spec": str(entry.spec),
        "status": state.status,
        "needs": state.needs,
    }


@command.command()
@click.argument("target")
@target_options
@json_option
def show(target: str, *, as_json: bool, **said: Any) -> None:
    """Show what TARGET's spec says, resolved; secrets are not asked for, `placeholder-KEY` stands in their place.

    With --json also every def and, of an OSImager 1.x tree, the variables, provisioners and builder for Packer.
    """
    from osimager.build.checking import describe_target
    from osimager.cli.build import make_request
    from osimager.paths import Places

    fields = describe_target(make_request(target, **said), Places.from_environment(os.environ))
    if as_json:
        click.echo(json.dumps(fields, indent=1, ensure_ascii=False))
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        if name not in ("defs", "packer") and value not in (None, "", [], {}):
            click.echo(f"{name:<{width}}  {_as_line(value)}")


def _as_line(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_as_line, value))
    if isinstance(value, dict):
        return " ".join(f"{key}={_as_line(inner)}" for key, inner in value.items() if inner not in (None, "", [], {}))
    return str(value)


@command.command()
@click.argument("targets", nargs=-1, metavar="[TARGET…]")
@click.option("--all", "every", is_flag=True, help="Every target there is.")
@click.option("--validate", is_flag=True, help="Run the answer formats' own validators too.")
@target_options
@json_option
def check(targets: tuple[str, ...], *, every: bool, validate: bool, as_json: bool, **said: Any) -> None:
    """Resolve and render TARGETs, placeholders in the place of secrets, and show all that is wrong at once."""
    from osimager.build.checking import check_targets
    from osimager.cli.build import make_request
    from osimager.paths import Places

    if every == bool(targets):
        raise UsageError("name the targets to check, or all of them", hint="osimager spec check --all")
    request = make_request(targets[0] if targets else "", **said)
    places = Places.from_environment(os.environ)
    checked = check_targets(request, places, targets=None if every else targets, validate=validate)
    if as_json:
        click.echo(json.dumps([each.to_json() for each in checked], indent=1, ensure_ascii=False))
    _tell(checked)
    errors = _unique(checked)
    if errors:
        raise ConfigErrors(errors)


def _tell(checked: Sequence[Checked]) -> None:
    """Say on stderr how many were checked, and what was passed over."""
    wrong = sum(bool(each.errors) for each in checked)
    needing = [each for each in checked if each.needs]
    for skipped in sorted({text for each in checked for text in each.not_validated}):
        click.echo(f"not validated: {skipped}", err=True)
    warned: dict[str, list[str]] = {}
    for each in checked:
        for text in each.warnings:
            warned.setdefault(text, []).append(each.target)
    for text, targets in warned.items():
        click.echo(f"warning: {_names(targets)}: {text}", err=True)
    missing = sorted({each.missing_iso for each in checked if each.missing_iso})
    if missing:
        named = f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}"
        click.echo(f"{len(missing)} ISOs are not in the catalogue ({named}): these build with --iso only", err=True)
    if needing:
        click.echo(f"{len(needing)} need what osimager does not have yet: they stop at RESOLVE", err=True)
    click.echo(f"{len(checked)} targets checked, {wrong} with errors", err=True)


def _unique(checked: Sequence[Checked]) -> list[ConfigError]:
    """Give each error once: a mistake in a shared file is met by many targets. It names the first of them."""
    found: dict[tuple[object, ...], tuple[ConfigError, list[str]]] = {}
    for each in checked:
        for error in each.errors:
            found.setdefault((error.what, error.where, error.hint), (error, []))[1].append(each.target)
    return [_naming(error, targets) for error, targets in found.values()]


def _naming(error: ConfigError, targets: list[str]) -> ConfigError:
    return ConfigError(f"{_names(targets)}: {error.what}", where=error.where, hint=error.hint)


def _names(targets: list[str]) -> str:
    return targets[0] + (f" and {len(targets) - 1} more" if len(targets) > 1 else "")
