"""What a file of each kind may hold, on every level: checked before anything is merged, and told to editors.

Unknown keys are errors with the likeliest known one; under defs, variables, evars, config and platform_defs any key
goes, and so does one that begins with `_` (a comment in JSON).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from osimager.config import models
from osimager.config.documents import Items, Table
from osimager.config.merge import LIST_SECTIONS, SPECIFICS, TABLE_SECTIONS
from osimager.config.models import unknown_key
from osimager.config.values import Value
from osimager.errors import ConfigError

SECTION_FIELDS: Final[Mapping[str, models.Fields]] = {
    "installer": models.INSTALLER,
    "machine": models.MACHINE,
    "access": models.ACCESS,
    "seal": models.SEAL,
    "verify": models.VERIFY,
}
ITEM_FIELDS: Final[Mapping[str, models.Fields]] = {
    "files": models.FILE,
    "steps": models.STEP,
    "required_files": models.REQUIRED_FILE,
}
_SHARED: Final = (
    *TABLE_SECTIONS, *LIST_SECTIONS, *(f"{kind}_specific" for kind in SPECIFICS), "method", "merge", "include", "notes",
)  # fmt: skip
_SPEC: Final = (
    "iso", "needs", "status", "platforms", "locations", "venv", "required_files", "undefined", "description", "source",
    "end_of_life", "arches", "ansible_version", "skip_config", "install_notice", "pre_build", "post_build",
)  # fmt: skip
PROFILE_DEFS: Final = (
    "username", "password", "packages", "locale", "keyboard", "timezone", "mirror", "authorized_keys", "proxy",
    "scripts",
)  # fmt: skip
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "spec": (*_SHARED, *_SPEC, "provides"),
    "entry": (*_SHARED, *_SPEC),
    "platform": (
        *_SHARED,
        "description",
        "arches",
        "plugin",
        "platform_defs",
        "pre_build",
        "post_build",
        "install_notice",
    ),
    "location": (*_SHARED, "description", "arches", "platforms"),
    "profile": (*_SHARED, *PROFILE_DEFS, "build", "architectures", "description"),
    "provides": ("dist", "versions", "arches"),
    "build": ("disk_size", "memory", "cpus"),
}


def check_shape(kind: str, table: Table) -> list[ConfigError]:
    """Give what is wrong with a file's keys and the kinds of its values; `kind` is a key of KEYS."""
    return list(_check_level(kind, table, kind, KEYS[kind]))


def _check_level(name: str, table: Table, kind: str, known: tuple[str, ...]) -> Iterator[ConfigError]:
    for key, value in table.items():
        if key not in known and not key.startswith("_"):
            yield unknown_key(key, known, table.place(key), inside=name)
        elif value is not None:
            yield from _check_value(key, value, table, kind)


def _check_value(key: str, value: Value, owner: Table, kind: str) -> Iterator[ConfigError]:
    where = owner.place(key)
    is_table = key in TABLE_SECTIONS or key in ("provides", "build", "platform_defs")
    is_list = key in LIST_SECTIONS or key in ITEM_FIELDS or key.endswith("_specific")
    if is_table and not isinstance(value, Table):
        yield ConfigError(f"{key} must be a mapping", where=where, hint="write KEY: VALUE lines under it")
    elif is_list and not isinstance(value, Items):
        yield ConfigError(f"{key} must be a list", where=where, hint="begin each of its items with '- '")
    elif key in models.FIELDS:
        yield from _check_field(key, value, owner)
    elif isinstance(value, Table) and (key in SECTION_FIELDS or key in ("provides", "build")):
        fields = tuple(SECTION_FIELDS[key]) if key in SECTION_FIELDS else KEYS[key]
        merge = ("merge",) if key in SECTION_FIELDS else ()
        yield from _unknown(key, value, (*fields, *merge))
    elif isinstance(value, Items) and key in ITEM_FIELDS:
        for index, item in enumerate(value):
            if isinstance(item, Table):
                yield from _unknown(key, item, tuple(ITEM_FIELDS[key]))
            else:
                what = f"an item of {key} must be a mapping"
                yield ConfigError(what, where=value.place(index), hint="write - KEY: VALUE")
    elif isinstance(value, Items) and key.endswith("_specific"):
        own = key.removesuffix("_specific")
        known = (own, *(KEYS["entry"] if kind in ("spec", "entry") else KEYS[kind]))
        for item in value:
            if isinstance(item, Table):
                yield from _check_level(key, item, "entry" if kind == "spec" else kind, known)


def _check_field(key: str, value: Value, owner: Table) -> Iterator[ConfigError]:
    """Check a value that belongs to no section; one with a marker is known only later."""
    if isinstance(value, str) and ">" in value:
        return
    try:
        models.FIELDS[key].kind.convert(value)
    except ValueError as exc:
        yield ConfigError(f"{key}: {exc}", where=owner.place(key), hint=f"correct {key}")


def _unknown(name: str, table: Table, known: tuple[str, ...]) -> Iterator[ConfigError]:
    for key in table:
        if key not in known and not key.startswith("_"):
            yield unknown_key(key, known, table.place(key), inside=name)
