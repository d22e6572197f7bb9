"""Lay documents over one another, as OSImager does, and remember where every value came from.

A document's sections are laid first, then those of its `*_specific` entries that match, in the order platform,
location, dist, version, arch, firmware, each entry's own `*_specific` in it, and so on down. Markers are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from osimager.arch import ALIASES, Arch
from osimager.config.documents import Items, Table, as_written
from osimager.config.markers import as_text
from osimager.config.patterns import compile_pattern
from osimager.config.sections import Origin
from osimager.config.values import Value
from osimager.errors import ConfigError, Place

SPECIFICS: Final = ("platform", "location", "dist", "version", "arch", "firmware")
TABLE_SECTIONS: Final = (
    "defs", "variables", "evars", "config", "installer", "machine", "access", "seal", "verify",
)  # fmt: skip
LIST_SECTIONS: Final = ("files", "pre_provisioners", "provisioners", "post_provisioners", "steps")
# Keys of Packer's builder that a spec of ours may still have under `config`: they count as ours.
BUILDER_KEYS: Final[Mapping[str, tuple[str, str]]] = {
    "memory": ("machine", "memory"),
    "cpus": ("machine", "cpus"),
    "disk_size": ("machine", "disk_size"),
    "machine_type": ("machine", "machine"),
    "cpu_model": ("machine", "cpu"),
    "boot_command": ("installer", "boot_command"),
    "boot_wait": ("installer", "boot_wait"),
    "ssh_port": ("access", "port"),
}
_SPECIFIC_KEYS: Final = frozenset(f"{name}_specific" for name in SPECIFICS)
_HANDLED: Final = frozenset((*TABLE_SECTIONS, *LIST_SECTIONS, *_SPECIFIC_KEYS, "method", "merge", "include"))
# Other names of the same thing: OSImager's data calls UEFI so, and people call architectures as their vendors do.
_OTHER_NAMES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "firmware": {"uefi": ("efi",), "efi": ("uefi",)},
    "arch": {arch: tuple(name for name, of in ALIASES.items() if of is arch) for arch in Arch},
}


@dataclass(slots=True)
class Merged:
    """The sections so far. `origins[section][key]` lists who gave the value, the last of them won."""

    tables: dict[str, dict[str, Value]] = field(default_factory=lambda: {name: {} for name in TABLE_SECTIONS})
    lists: dict[str, list[tuple[Value, Origin]]] = field(default_factory=lambda: {name: [] for name in LIST_SECTIONS})
    fields: dict[str, Value] = field(default_factory=dict)
    origins: dict[str, dict[str, list[Origin]]] = field(default_factory=dict)

    def note(self, section: str, key: str, origin: Origin) -> None:
        """Remember that `origin` gave `section`'s `key`."""
        self.origins.setdefault(section, {}).setdefault(key, []).append(origin)

    def put(self, section: str, key: str, value: Value, origin: Origin) -> None:
        """Set one value of a table section."""
        self.tables[section][key] = value
        self.note(section, key, origin)

    def place(self, section: str, key: str) -> Place | None:
        """Give the place of the winning value of `section`'s `key`."""
        known = self.origins.get(section, {}).get(key)
        return known[-1].place if known else None


@dataclass(slots=True)
class Merger:
    """Lays documents over `merged`. `defines` (`-D`) are seen by `*_specific` before everything else.

    `include` gives the documents that a name stands for. `protected` defs keep their values (`platform_defs`).
    `builder_keys` are those of `config` that are also values of a section of ours.
    """

    merged: Merged
    defines: Mapping[str, Value]
    include: Callable[[str, Place], Table]
    protected: set[str] = field(default_factory=set)
    builder_keys: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    loaded: list[Path] = field(default_factory=list)
    _included: set[str] = field(default_factory=set)

    def load(self, table: Table, chain: tuple[str, ...] = ()) -> None:
        """Lay a document with all it includes. Each included file counts once. Raises ConfigError for a cycle."""
        self.loaded.append(table.path)
        self._load_includes(table, chain)
        self._lay(table, (), chain)

    def _load_includes(self, table: Table, chain: tuple[str, ...]) -> None:
        names = table.get("include")
        for name in _names(names, table.place("include"), "include"):
            if name in chain:
                circle = " → ".join([*chain[chain.index(name) :], name])
                hint = "remove one of these includes"
                raise ConfigError(
                    f"the include of {name!r} is a cycle: {circle}", where=table.place("include"), hint=hint
                )
            if name in self._included:
                continue
            self._included.add(name)
            self.load(self.include(name, table.place("include")), (*chain, name))

    def _lay(self, table: Table, via: tuple[str, ...], chain: tuple[str, ...]) -> None:
        method = _method(table)
        keys = frozenset(_names(table.get("merge"), table.place("merge"), "merge"))
        for section in TABLE_SECTIONS:
            if (given := table.get(section)) is not None:
                self._lay_table(section, _table(given, table, section), via, keys)
        for section in LIST_SECTIONS:
            if (given := table.get(section)) is not None:
                self._lay_list(section, _items(given, table, section), via, method)
        self._lay_fields(table, via)
        for kind in SPECIFICS:
            self._lay_specific(kind, table, via, chain)

    def _lay_table(self, section: str, given: Table, via: tuple[str, ...], entry_keys: frozenset[str]) -> None:
        """Lay one table section: key by key; those that `merge` names are joined with what is there."""
        keys = entry_keys | frozenset(_names(given.get("merge"), given.place("merge"), "merge"))
        label = " > ".join([*via, section])
        for key, value in given.items():
            if key == "merge" or (section == "defs" and key in self.protected):
                continue
            is_joined = key in keys and self.merged.tables[section].get(key) is not None
            result = _join(self.merged.tables[section].get(key), value) if is_joined else value
            origin = Origin(given.place(key), label, result, is_joined)
            self.merged.put(section, key, result, origin)
            if section == "config" and key in self.builder_keys:
                self.merged.put(*self.builder_keys[key], result, origin)
            if section == "machine" and key == "firmware":  # what fragments and firmware_specific ask for
                self.merged.put("defs", key, result, origin)

    def _lay_list(self, section: str, given: Items, via: tuple[str, ...], method: str) -> None:
        target = self.merged.lists[section]
        if method == "replace":
            target.clear()
        label = " > ".join([*via, section])
        for index, value in enumerate(given):
            origin = Origin(given.place(index), label, value)
            target.append((value, origin))
            self.merged.note(section, str(len(target) - 1), origin)

    def _lay_fields(self, table: Table, via: tuple[str, ...]) -> None:
        """Lay what belongs to no section (`iso`, `needs`, `platforms`, …): the last one wins."""
        own_kind = {via[-1].partition("_specific")[0]} if via else set()
        for key, value in table.items():
            if key in _HANDLED or key in own_kind:
                continue
            self.merged.fields[key] = value
            self.merged.note("", key, Origin(table.place(key), " > ".join(via), value))

    def _lay_specific(self, kind: str, table: Table, via: tuple[str, ...], chain: tuple[str, ...]) -> None:
        key = f"{kind}_specific"
        if (given := table.get(key)) is None:
            return
        for entry in _items(given, table, key):
            if not isinstance(entry, Table):
                raise ConfigError(
                    f"an entry of {key} must be a mapping", where=table.place(key), hint=f"write {kind}: …"
                )
            pattern = entry.get(kind)
            if not isinstance(pattern, str):
                where = entry.place(kind if kind in entry else None)
                hint = (
                    f'quote it: {kind}: "{as_written(pattern)}"'
                    if pattern is not None
                    else f"add {kind}: REGEX to this entry"
                )
                raise ConfigError(f"an entry of {key} needs {kind} as text", where=where, hint=hint)
            if self._matches(kind, pattern, entry.place(kind)):
                self._load_includes(entry, chain)
                self._lay(entry, (*via, f"{key} {pattern!r}"), chain)

    def _matches(self, kind: str, pattern: str, where: Place) -> bool:
        """Tell whether the whole name of `kind`, as it is known now, matches, case aside."""
        value = self.defines.get(kind, self.merged.tables["defs"].get(kind))
        if value is None or value == "":
            return False
        name = as_text(value)
        compiled = compile_pattern(pattern, where)
        names = (name, *_OTHER_NAMES.get(kind, {}).get(name, ()))
        return any(compiled.fullmatch(candidate) for candidate in names)


def deep_merge(below: Value, above: Value) -> Value:
    """Lay `above` over `below`, mappings all levels down; everything else is replaced. Places are kept."""
    if not isinstance(below, Table) or not isinstance(above, Table):
        return above
    result = Table(above.path, above.line)
    for table in (below, above):
        for key, value in table.items():
            result[key] = deep_merge(result[key], value) if key in result else value
            result.lines[key] = table.lines.get(key, table.line)
    return result


def _join(below: Value, above: Value) -> Value:
    """Put `above` into `below` one level down: mappings are laid over, lists appended."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **above}
    if isinstance(below, list) and isinstance(above, list):
        return [*below, *above]
    return above


def _method(table: Table) -> str:
    method = table.get("method", "merge")
    if method not in ("merge", "replace"):
        hint = "write merge or replace"
        raise ConfigError(f"method {method!r} does not exist", where=table.place("method"), hint=hint)
    return str(method)


def _names(value: Value, where: Place, key: str) -> Iterable[str]:
    """Give a text or a list of texts as texts."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        names = [name for name in value if isinstance(name, str)]
        if len(names) == len(value):
            return names
    raise ConfigError(f"{key} must be a name or a list of names", where=where, hint=f"write {key}: NAME")


def _table(value: Value, owner: Table, key: str) -> Table:
    if not isinstance(value, Table):
        raise ConfigError(f"{key} must be a mapping", where=owner.place(key), hint="write KEY: VALUE lines under it")
    return value


def _items(value: Value, owner: Table, key: str) -> Items:
    if not isinstance(value, Items):
        raise ConfigError(f"{key} must be a list", where=owner.place(key), hint="begin each of its items with '- '")
    return value
