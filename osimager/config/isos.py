"""Entries of the ISO catalogue (`isos.d`), checked and made one for each architecture."""

from __future__ import annotations

from osimager.config.documents import Table
from osimager.config.models import ISO, check
from osimager.config.sections import IsoEntry
from osimager.errors import ConfigError


def make_iso(name: str, arch: str, table: Table) -> IsoEntry | None:
    """Give the entry `name` for `arch`; None where it is not made for it. Raises ConfigErrors for a bad entry."""
    found = check(ISO, table, name, lambda key: table.place(key or None))
    arches = found.pop("arches")
    if arch not in arches:
        return None
    merged = {**found, **arches[arch]}
    urls = (*([merged.pop("url")] if "url" in merged else []), *merged.pop("urls", ()))
    if not (urls or "make" in merged or "patterns" in merged):
        hint = "add url, patterns or make"
        raise ConfigError(f"{name} says nowhere to get the ISO from", where=table.place(), hint=hint)
    return IsoEntry(name=name, arch=arch, place=table.place(), urls=urls, **merged)
