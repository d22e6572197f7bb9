"""Entries of the ISO catalogue (`isos.d`), checked and made one for each architecture."""

from __future__ import annotations

from osimager.config.documents import Table
from osimager.config.models import IsoModel, check
from osimager.config.sections import IsoEntry
from osimager.errors import ConfigError


def make_iso(name: str, arch: str, table: Table) -> IsoEntry | None:
    """Give the entry `name` for `arch`; None where it is not made for it. Raises ConfigErrors for a bad entry."""
    model = check(IsoModel, table, name, lambda key: table.place(key or None))
    own = model.arches.get(arch)
    if own is None:
        return None
    merged = {**model.model_dump(exclude_unset=True), **own.model_dump(exclude_unset=True)}
    urls = (*([merged["url"]] if merged.get("url") else []), *merged.get("urls", []))
    if not (urls or merged.get("make") or merged.get("patterns")):
        hint = "add url, patterns or make"
        raise ConfigError(f"{name} says nowhere to get the ISO from", where=table.place(), hint=hint)
    return IsoEntry(
        name=name,
        arch=arch,
        place=table.place(),
        urls=urls,
        sha256=merged.get("sha256"),
        checksum_url=merged.get("checksum_url"),
        signature_url=merged.get("signature_url"),
        signature_key=merged.get("signature_key"),
        size_bytes=merged.get("size"),
        volume_id=merged.get("volume_id"),
        patterns=tuple(merged.get("patterns", ())),
        make=merged.get("make"),
        options=merged.get("options", {}),
        needs_login=merged.get("needs_login"),
    )
