"""The targets of a data tree of OSImager 1.x. Apart from `oldtree`, since a listing needs no more than this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from osimager.config.catalog import provided_targets
from osimager.config.documents import Table
from osimager.config.patterns import compile_pattern
from osimager.config.values import Value

if TYPE_CHECKING:
    from osimager.config.catalog import Catalog, TargetEntry

_MEDIA: Final = ("iso_url", "disk_image_url")


def old_targets(catalog: Catalog, path: Path, arches: tuple[str, ...]) -> list[TargetEntry]:
    """Give the targets of a spec: those with a medium, on any platform's architecture (`arches`)."""
    document = catalog.document(path)
    base = {key: _def(document, key) for key in _MEDIA}
    by_arch = _entries(document, "arch_specific")
    by_version = _entries(document, "version_specific")
    found = []
    matching: dict[str, list[Table]] = {}
    for entry in provided_targets(document, path, arches):
        if entry.arch not in arches:
            continue
        if entry.version not in matching:
            matching[entry.version] = [each for each in by_version if _matches(each, entry.version)]
        if any(_medium(base[key], key, entry.arch, by_arch, matching[entry.version]) for key in _MEDIA):
            found.append(entry)
    return found


def platform_arches(catalog: Catalog) -> tuple[str, ...]:
    """Give the architectures of all platforms."""
    arches: dict[str, None] = {}
    for name in catalog.names_of("platforms"):
        named = catalog.document(catalog.find_file("platforms", name) or Path(name)).get("arches")
        arches |= dict.fromkeys(str(arch) for arch in named) if isinstance(named, list) else {}
    return tuple(arches)


def _medium(url: Value, key: str, arch: str, by_arch: list[Table], by_version: list[Table]) -> Value:
    """Give the raw URL that a spec's own file has for an architecture; `by_version` are the entries of the version."""
    for entry in by_arch:
        if entry.get("arch") == arch:
            url = _def(entry, key, url)
    for entry in by_version:
        url = _def(entry, key, url)
        for inner in _entries(entry, "arch_specific"):
            if inner.get("arch") == arch:
                url = _def(inner, key, url)
    return url


def _matches(entry: Table, version: str) -> bool:
    pattern = entry.get("version")
    return isinstance(pattern, str) and bool(compile_pattern(pattern, entry.place("version")).fullmatch(version))


def _def(table: Table, key: str, default: Value = None) -> Value:
    defs = table.get("defs")
    return defs.get(key, default) if isinstance(defs, dict) else default


def _entries(table: Table, key: str) -> list[Table]:
    found = table.get(key)
    return [entry for entry in found if isinstance(entry, Table)] if isinstance(found, list) else []
