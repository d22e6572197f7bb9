"""Profiles as sections: what differs between images of one target, each over the default one."""

from __future__ import annotations

from collections.abc import Iterator

from osimager.arch import ALIASES
from osimager.config.documents import Items, Table
from osimager.config.markers import as_list, as_text
from osimager.config.merge import TABLE_SECTIONS, deep_merge
from osimager.config.shapes import PROFILE_DEFS
from osimager.errors import ConfigError


def profile_tables(default: Table | None, asked: Table | None, arch: str) -> Iterator[Table]:
    """Give what is laid over a spec, in order: the default profile, then the one that was asked for, over it.

    Raises ConfigError for a profile that is not for `arch`.
    """
    if default is not None:
        yield _sections(default)
    if asked is not None:
        _check_architecture(asked, arch)
        yield _sections(_over_default(asked, default))


def _check_architecture(profile: Table, arch: str) -> None:
    named = [ALIASES.get(as_text(each), as_text(each)) for each in as_list(profile.get("architectures"))]
    if named and arch not in named:
        what, hint = f"the profile {profile.path.stem!r} is not for {arch}", f"it is for {', '.join(named)}"
        raise ConfigError(what, where=profile.place("architectures"), hint=hint)


def _over_default(profile: Table, default: Table | None) -> Table:
    """Give a profile with each value laid over the default profile's, all levels down.

    What only the default says stays out, in sections too: it has been laid already, and keeps its places.
    """
    if default is None:
        return profile
    result = Table(profile.path, profile.line)
    for key, value in profile.items():
        below = default.get(key)
        is_section = key == "build" or key in TABLE_SECTIONS
        if is_section and isinstance(value, Table) and isinstance(below, Table):
            result[key] = _over_default(value, below)
        else:
            result[key] = deep_merge(below, value)
        result.lines[key] = profile.lines.get(key, profile.line)
    return result


def _sections(profile: Table) -> Table:
    """Give a profile as sections: its own keys become defs, its `build` the machine."""
    result = Table(profile.path, profile.line)
    defs, machine = Table(profile.path, profile.line), Table(profile.path, profile.line)
    for key, value in profile.items():
        line = profile.lines.get(key, profile.line)
        if key in PROFILE_DEFS:
            defs[key], defs.lines[key] = value, line
        elif key == "build" and isinstance(value, Table):
            for inner, amount in value.items():
                machine[inner], machine.lines[inner] = amount, value.lines.get(inner, line)
        elif key.endswith("_specific") and isinstance(value, Items):
            result[key], result.lines[key] = _entries(value), line
        elif key not in ("architectures", "description"):
            result[key], result.lines[key] = value, line
    for section, own in (("defs", defs), ("machine", machine)):
        if own:
            result[section] = deep_merge(result.get(section, Table(profile.path, profile.line)), own)
            result.lines.setdefault(section, own.line)
    return result


def _entries(entries: Items) -> Items:
    """Give the entries of a `*_specific` as sections, as the profile itself is."""
    result = Items(entries.path, entries.line)
    result.lines = entries.lines
    result += [_sections(entry) if isinstance(entry, Table) else entry for entry in entries]
    return result
