"""Resolve without a host and its secrets, and list what there is: for the verbs that only show and check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from osimager.config.catalog import Catalog
from osimager.config.documents import Items, Table
from osimager.config.markers import as_list, as_text
from osimager.config.request import Request


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


def all_requests(catalog: Catalog) -> list[Request]:
    """Give a request for every target. An old tree's spec that is not for QEMU is asked for on its first platform."""
    requests = []
    for entry in catalog.targets():
        allowed = _platforms(catalog, catalog.document(entry.spec))
        chosen = "qemu" if not allowed or "qemu" in allowed else allowed[0]
        requests.append(Request(target=f"{chosen}/local/{entry}"))
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
