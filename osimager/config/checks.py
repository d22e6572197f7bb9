"""Check many targets at once, and list what there is: what the verbs `spec check`, `spec show` and the lists print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from osimager.config.catalog import Catalog, Configuration, Request, TargetEntry
from osimager.config.documents import Items, Table
from osimager.config.lookups import Lookups
from osimager.config.markers import as_list, as_text
from osimager.errors import ConfigError, ConfigErrors, OsimagerError


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking one target: nothing wrong, or all that is. `needs` and `status` as its spec has them."""

    entry: TargetEntry
    errors: tuple[OsimagerError, ...] = ()
    warnings: tuple[str, ...] = ()
    needs: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A platform, location or profile: its name, its file (None: built in) and what it says of itself."""

    name: str
    path: Path | None
    description: str = ""
    arches: tuple[str, ...] = ()


class PlaceholderLookups:
    """Answers for a check on a host that has no secrets: every secret, host and variable exists."""

    def secret(self, path: str, key: str | None) -> str:
        """Give a value that no one can take for a real one."""
        return f"placeholder-{key or 'secret'}"

    def dns(self, host: str, servers: Sequence[str], search: Sequence[str]) -> str | None:
        """Give an address of the documentation's network (RFC 5737)."""
        return "192.0.2.1"

    def environment(self, name: str) -> str | None:
        """Give a value for every name."""
        return f"placeholder-{name}"

    def salt(self, purpose: str) -> str:
        """Give one salt."""
        return "placeholdersalt."

    def is_writable(self, path: str) -> bool:
        """Have no device."""
        return False


def check_targets(catalog: Catalog, requests: Sequence[Request], lookups: Lookups | None = None) -> Iterator[Checked]:
    """Resolve and render each target; give what is wrong with each. Files that give no target are not among them:
    see `Catalog.problems`.
    """
    for request in requests:
        _, _, entry = catalog.find_target(request)
        try:
            configuration = catalog.resolve(request, lookups or PlaceholderLookups())
            errors = _render_errors(configuration)
        except OsimagerError as exc:
            yield Checked(entry, exc.errors if isinstance(exc, ConfigErrors) else (exc,))
            continue
        sections = configuration.sections
        yield Checked(entry, errors, configuration.warnings, sections.needs, sections.status)


def all_requests(catalog: Catalog, *, platform: str = "qemu", location: str = "local") -> list[Request]:
    """Give a request for every target. In an old tree, a spec that is not for `platform` is asked for on its first."""
    requests = []
    for entry in catalog.targets():
        allowed = _platforms(catalog, catalog.document(entry.spec))
        chosen = platform if not allowed or platform in allowed else allowed[0]
        requests.append(Request(target=f"{chosen}/{location}/{entry}"))
    return requests


def _platforms(catalog: Catalog, document: Table, depth: int = 0) -> list[str]:
    own = document.get("platforms")
    if isinstance(own, Items):
        return [as_text(name) for name in own]
    for name in as_list(document.get("include")) if depth < 16 else ():
        path = catalog.find_file("", as_text(name))
        if path is not None and (found := _platforms(catalog, catalog.document(path), depth + 1)):
            return found
    return []


def _render_errors(configuration: Configuration) -> tuple[ConfigError, ...]:
    errors: list[ConfigError] = []
    for file in configuration.sections.files:
        for part in file.fragments:
            try:
                configuration.render(part.text, part.place)
            except ConfigError as exc:
                errors += exc.errors if isinstance(exc, ConfigErrors) else [exc]
    return tuple(errors)


def list_named(catalog: Catalog, kind: str) -> list[Named]:
    """Give all `platforms`, `locations` or `profiles`."""
    found = []
    for name in catalog.names_of(kind):
        path = catalog.find_file(kind, name)
        if path is None:
            found.append(Named(name, None, "built in"))
            continue
        document = catalog.document(path)
        arches = tuple(as_text(arch) for arch in as_list(document.get("arches")))
        found.append(Named(name, path, as_text(document.get("description")), arches))
    return found
