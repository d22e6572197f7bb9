"""Configuration checked without a host: every target resolved and rendered, placeholders in the place of secrets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from osimager.build.catalogues import open_catalog
from osimager.build.prepare import check_boot_command, resolve_configuration
from osimager.build.request import BuildRequest
from osimager.build.steps import make_steps
from osimager.config.catalog import Catalog, TargetEntry
from osimager.config.checks import PlaceholderLookups, all_requests
from osimager.config.configuration import Configuration
from osimager.config.request import Request
from osimager.errors import ConfigError, UsageError
from osimager.holes import OF_BUILD, hole
from osimager.paths import Places
from osimager.plan.digests import to_plain
from osimager.plan.resolve import check_login, render_answers

_GIVEN = {name: hole(name) for name in OF_BUILD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found out about one target. `needs` is what stops its build at RESOLVE, by the spec's own words.

    `missing_iso` is the name of its ISO where the catalogue has none: it builds with `--iso` only.
    """

    target: str
    errors: tuple[ConfigError, ...] = ()
    warnings: tuple[str, ...] = ()
    needs: str | None = None
    missing_iso: str | None = None
    not_validated: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Give one object of `spec check --json`."""
        errors = [
            {"what": error.what, "where": [str(place) for place in error.where], "hint": error.hint}
            for error in self.errors
        ]
        fields = {"target": self.target, "ok": not errors, "errors": errors, "warnings": list(self.warnings)}
        return {**fields, "needs": self.needs, "missing_iso": self.missing_iso}


@dataclass(frozen=True, slots=True)
class State:
    """How far a target is: `status` as its spec has it (installed, boots, renders), and what a build of it lacks."""

    status: str = ""
    needs: str | None = None

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.status, f"needs {self.needs}" if self.needs else "")))


def find_state(catalog: Catalog, entry: TargetEntry) -> State:
    """Give the state of one target; one whose configuration is wrong is `broken`."""
    try:
        sections = catalog.resolve(Request(target=str(entry)), PlaceholderLookups()).sections
    except (ConfigError, UsageError):
        return State("broken")
    return State(sections.status or "", sections.needs)


def check_targets(
    asked: BuildRequest, places: Places, *, targets: Sequence[str] | None, validate: bool
) -> list[Checked]:
    """Check `targets`, None: all of them, with everything else that `asked` says.

    Nothing is raised for one that is wrong; UsageError for one that does not exist.
    """
    catalog = open_catalog(asked.project, places, asked.data_dir, asked.settings)
    names = [request.target for request in all_requests(catalog)] if targets is None else targets
    for name in targets or ():
        catalog.find_target(dataclasses.replace(asked.request, target=name))
    checked = [_check(catalog, asked, name, places) for name in names]
    if targets is None:
        checked += [Checked(target=str(problem.where[0].path), errors=(problem,)) for problem in catalog.problems]
    if not validate:
        return checked
    from osimager.build.validating import validate as show_to_validators

    return show_to_validators(checked, catalog, asked)


def _check(catalog: Catalog, asked: BuildRequest, name: str, places: Places) -> Checked:
    try:
        configuration = resolve_checked(catalog, asked, name)
        errors = list(_all_errors(configuration, catalog, asked, places))
    except ConfigError as exc:
        return Checked(target=name, errors=exc.errors)
    except UsageError as exc:
        return Checked(target=name, errors=(ConfigError(exc.what, where=exc.where, hint=exc.hint),))
    warnings = configuration.warnings
    if asked.strict:
        errors += [ConfigError(warning, hint="without --strict this warns") for warning in warnings]
        warnings = ()
    return Checked(
        target=name,
        errors=tuple(errors),
        warnings=warnings,
        needs=configuration.sections.needs,
        missing_iso=_find_missing_iso(configuration, catalog),
    )


def resolve_checked(catalog: Catalog, asked: BuildRequest, name: str) -> Configuration:
    """Resolve the target `name` with placeholders. Raises ConfigError(s), UsageError."""
    request = dataclasses.replace(asked.request, target=name, given={**_GIVEN, **asked.request.given})
    return catalog.resolve(request, PlaceholderLookups())


def _all_errors(
    configuration: Configuration, catalog: Catalog, asked: BuildRequest, places: Places
) -> Iterator[ConfigError]:
    """Give what is wrong after resolving: in the answer files, the login, the boot command, the steps."""
    attempts = (
        lambda: render_answers(configuration),
        lambda: check_login(configuration),
        lambda: check_boot_command(configuration),
        lambda: (
            None
            if configuration.sections.needs
            else make_steps(configuration, catalog, asked, places, is_secret=lambda _text: False)
        ),
    )
    for attempt in attempts:
        try:
            attempt()
        except ConfigError as exc:
            yield from exc.errors


def _find_missing_iso(configuration: Configuration, catalog: Catalog) -> str | None:
    name = configuration.iso
    if name is None or "/" in name or name.lower().endswith(".iso"):
        return None
    return name if catalog.find_iso(name, configuration.target.arch) is None else None


def describe_target(asked: BuildRequest, places: Places) -> dict[str, object]:
    """Give what `spec show` prints: the target, its spec's place, and its sections, as plain data."""
    catalog, configuration = resolve_configuration(asked, places, PlaceholderLookups())
    sections = configuration.sections
    fields = configuration.merged.fields
    return {
        "target": str(configuration.target),
        "spec": str(configuration.spec),
        "profile": configuration.profile,
        "profiles": list(catalog.names_of("profiles")),
        "platforms": to_plain(fields.get("platforms")),
        "locations": to_plain(fields.get("locations")),
        "needs": sections.needs,
        "status": sections.status,
        "notes": list(sections.notes),
        "end_of_life": to_plain(fields.get("end_of_life")),
        "iso": configuration.iso,
        "machine": to_plain(sections.machine),
        "installer": to_plain(sections.installer),
        "access": {"user": sections.access.user, "port": sections.access.port, "method": sections.access.method},
        "files": [file.dest for file in sections.files],
        "steps": [{"kind": str(step.kind), "place": str(step.place)} for step in sections.steps],
        "seal": to_plain(sections.seal),
        "warnings": list(configuration.warnings),
        "defs": to_plain(configuration.defs),
        "packer": to_plain(configuration.packer),
    }
