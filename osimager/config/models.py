"""The shape of every section: its keys, what each takes, and the frozen value that comes of it.

Checked after merging and markers, so values are the final ones: sizes as `2G` or MiB, durations as `90s` or seconds.
Strict: an unknown key is an error, and nothing is converted silently. Tables and not pydantic, for once: importing it
and building its models costs 110 ms of the 250 that `osimager plan` may take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from osimager.arch import Firmware
from osimager.config.documents import as_written
from osimager.config.sections import (
    AccessSection,
    DiskInterface,
    DiskSection,
    InstallerSection,
    MachineSection,
    NicSection,
    Rung,
    SealSection,
    SeedSection,
    StepKind,
    StepSection,
    VerifySection,
)
from osimager.config.values import Value
from osimager.errors import ConfigError, ConfigErrors, Place
from osimager.units import parse_duration, parse_size

PlaceOf = Callable[[str], Place | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key takes: `convert` gives the final value or raises ValueError; `schema` says it to editors.

    `fields` is set where it takes a mapping of known keys, `each` where the mapping's keys are free, `listed` where it
    takes a list of such mappings.
    """

    convert: Callable[[Value], object]
    schema: Mapping[str, object]
    fields: Fields | None = None
    each: bool = False
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section. `attribute` is the frozen value's field, where it is called otherwise."""

    kind: Kind
    attribute: str = ""
    required: bool = False


Fields = Mapping[str, Key]


def _said(value: Value) -> str:
    kinds: dict[type, str] = {bool: "true or false", dict: "a mapping", list: "a list"}
    for kind, words in kinds.items():
        if isinstance(value, kind):
            return words
    return repr(value) if isinstance(value, str) else as_written(value)


def _text(value: Value) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'{_said(value)} is a number; quote it: "{_said(value)}"')
    if not isinstance(value, str):
        raise ValueError(f"text is needed here, not {_said(value)}")
    return value


def _texts(value: Value) -> tuple[str, ...]:
    """Numbers and one text are what people write where a list of texts is meant."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise ValueError(f"a list of texts is needed here, not {_said(value)}")
    return tuple(
        str(item) if isinstance(item, int | float) and not isinstance(item, bool) else _text(item) for item in value
    )


def _names(value: Value) -> tuple[str, ...]:
    return tuple(map(_text, value)) if isinstance(value, list) else (_text(value),)


def _regex(value: Value) -> str:
    text = _text(value)
    try:
        re.compile(text)
    except re.error as exc:
        raise ValueError(f"{text!r} is not a regular expression: {exc}") from None
    return text


def _flag(value: Value) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is needed here, not {_said(value)}")
    return value


def _mapping(value: Value) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"a mapping is needed here, not {_said(value)}")
    return {key: str(inner) if isinstance(inner, int | float) else _text(inner) for key, inner in value.items()}


def _options(value: Value) -> dict[str, str | None]:
    """QEMU's options by the id of what they replace or add; false removes."""
    if not isinstance(value, dict):
        raise ValueError(f"a mapping is needed here, not {_said(value)}")
    return {key: None if inner is False else _text(inner) for key, inner in value.items()}


def _seconds(value: Value) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    return parse_duration(_text(value))


def _mode(value: Value) -> int:
    if isinstance(value, str) and re.fullmatch(r"0?o?[0-7]{3,4}", value):
        return int(value.replace("o", ""), 8)
    raise ValueError(f'{_said(value)} is not a file mode: write it as text, such as "0644"')


def _number(low: int, high: int) -> Kind:
    def convert(value: Value) -> int:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) else value
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"{_said(value)} is not a whole number")
        if not low <= number <= high:
            raise ValueError(f"{number} is not between {low} and {high}")
        return number

    return Kind(convert, {"type": ["integer", "string"], "minimum": low, "maximum": high, "pattern": r"^\d{1,9}$"})


def _size(unit: str, low: str, *, in_mib: bool = False) -> Kind:
    def convert(value: Value) -> int:
        text = as_written(value) if isinstance(value, int | float) and not isinstance(value, bool) else _text(value)
        size = parse_size(text, unit=unit)
        if not parse_size(low) <= size <= 1 << 50:
            raise ValueError(f"{text!r} is not between {low} and 1024T")
        return size >> 20 if in_mib else size

    return Kind(convert, {"type": ["number", "string"], "pattern": r"^\d+(\.\d+)?\s*[kmgtpKMGTP]?(i?[bB])?$"})


def _member(kind: type[StrEnum], names: Mapping[str, str] | None = None) -> Callable[[Value], StrEnum]:
    """Make the converter from a text to a member of `kind`; `names` are other words for members."""

    def convert(value: Value) -> StrEnum:
        word = (names or {}).get(_text(value), value)
        if word not in set(kind):
            raise ValueError(f"{value!r} is none of {', '.join(kind)}")
        return kind(str(word))

    return convert


def _matching(pattern: str, sentence: str) -> Kind:
    def convert(value: Value) -> str:
        if not re.fullmatch(pattern, _text(value)):
            raise ValueError(f"{value!r} is not {sentence}")
        return _text(value)

    return Kind(convert, {"type": "string", "pattern": f"^({pattern})$"})


def _one_of(*words: str) -> Kind:
    return Kind(_matching("|".join(words), f"one of {', '.join(words)}").convert, {"enum": list(words)})


def _list_of(convert: Callable[[Value], object], schema: Mapping[str, object]) -> Kind:
    return Kind(
        lambda value: tuple(convert(item) for item in _texts(value)),
        {"anyOf": [{"type": "array", "items": schema}, schema]},
    )


def _nested(fields: Fields, make: Callable[..., object], *, each: bool = False) -> Kind:
    return Kind(lambda value: make(**value) if isinstance(value, dict) else value, {}, fields, each)


def _items(fields: Fields, make: Callable[..., object]) -> Kind:
    return Kind(lambda value: tuple(make(**item) for item in value), {}, fields, listed=True)  # type: ignore[union-attr, arg-type]


TEXT: Final = Kind(_text, {"type": "string"})
TEXTS: Final = Kind(_texts, {"anyOf": [{"type": "array", "items": {"type": ["string", "number"]}}, {"type": "string"}]})
NAMES: Final = Kind(_names, {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
REGEX: Final = Kind(_regex, {"type": "string", "format": "regex"})
FLAG: Final = Kind(_flag, {"type": "boolean"})
MAPPING: Final = Kind(_mapping, {"type": "object", "additionalProperties": {"type": ["string", "number"]}})
SECONDS: Final = Kind(_seconds, {"type": ["number", "string"]})

# What stands in a file beside its sections.
FIELDS: Final[Fields] = {
    **dict.fromkeys(("iso", "needs", "status", "description", "end_of_life", "plugin"), Key(TEXT)),
    **dict.fromkeys(("venv", "ansible_version", "pre_build", "post_build"), Key(TEXT)),
    **dict.fromkeys(("include", "merge", "platforms", "locations", "notes", "source", "install_notice"), Key(NAMES)),
    **dict.fromkeys(("arches", "architectures"), Key(NAMES)),
    "method": Key(_one_of("merge", "replace")),
    "undefined": Key(_one_of("error", "empty")),
    "skip_config": Key(FLAG),
}
REQUIRED_FILE: Final[Fields] = {
    "file": Key(TEXT, required=True),
    **dict.fromkeys(("description", "url", "location"), Key(TEXT)),
}
SEED: Final[Fields] = {"label": Key(_matching(r"[\w.-]{1,32}", "a volume label"), required=True), "files": Key(TEXTS)}
INSTALLER: Final[Fields] = {
    "format": Key(TEXT),
    "boot": Key(_list_of(_member(Rung), {"enum": list(Rung)})),
    "menu": Key(REGEX),
    "kernel_arguments": Key(Kind(lambda value: tuple(filter(str.strip, _texts(value))), TEXTS.schema)),
    "drop_arguments": Key(_list_of(_regex, REGEX.schema)),
    "seed": Key(_nested(SEED, SeedSection)),
    "boot_command": Key(TEXTS),
    "boot_wait": Key(SECONDS, "boot_wait_s"),
    "restarts": Key(_number(0, 100)),
    "sources": Key(MAPPING),
}
_INTERFACE: Final = Kind(_member(DiskInterface), {"enum": list(DiskInterface)})
# A name that the kernel takes for an interface, and an address that one card may have (its first byte even).
_BRIDGE: Final = _matching(r"(?!\.\.?$)[^\s/:]{1,15}", "the name of a bridge")
_MAC: Final = _matching(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", "a MAC address, such as 52:54:00:12:34:56")
DISK: Final[Fields] = {"size": Key(_size("m", "1M"), "size_bytes", required=True), "interface": Key(_INTERFACE)}
NIC: Final[Fields] = {"model": Key(TEXT), "bridge": Key(_BRIDGE), "mac": Key(_MAC)}
MACHINE: Final[Fields] = {
    "memory": Key(_size("m", "32M", in_mib=True), "memory_mib"),
    "cpus": Key(_number(1, 1024)),
    "disk_size": Key(_size("m", "1M"), "disk_size_bytes"),
    "cpu": Key(TEXT),
    "machine": Key(TEXT),
    "disk_interface": Key(_INTERFACE),
    "nic": Key(TEXT),
    "bridge": Key(_BRIDGE),
    "mac": Key(_MAC),
    "disks": Key(_items(DISK, DiskSection)),
    "nics": Key(_items(NIC, NicSection)),
    "tpm": Key(FLAG),
    "overrides": Key(Kind(_options, {"type": "object", "additionalProperties": {"type": ["string", "boolean"]}})),
    "firmware": Key(Kind(_member(Firmware, {"efi": "uefi"}), {"enum": [*Firmware, "efi"]})),
    "minimum_memory": Key(_size("m", "0", in_mib=True), "minimum_memory_mib"),
}
ACCESS: Final[Fields] = {
    "user": Key(_matching(r"[a-z_][a-z0-9_.-]{0,30}|Administrator", "an account's name")),
    "port": Key(_number(1, 65535)),
    "method": Key(_matching("ssh|winrm", "ssh or winrm")),
}
SEAL: Final[Fields] = {"login": Key(TEXT), "mode": Key(_matching("template|machine", "template or machine"))}
VERIFY: Final[Fields] = {"enabled": Key(FLAG)}
FILE: Final[Fields] = {
    "dest": Key(
        _matching(r"(?!(.*/)?\.\.?(/|$))[^/\0]+(/[^/\0]+)*", "a relative path without . and .."), required=True
    ),
    "sources": Key(TEXTS, required=True),
}
STEP: Final[Fields] = {
    "script": Key(TEXT),
    "inline": Key(TEXTS),
    "file": Key(TEXT),
    "shell-local": Key(TEXT),
    "ansible": Key(TEXT),
    "dest": Key(TEXT),
    "mode": Key(Kind(_mode, {"type": "string"})),
    "cache": Key(FLAG),
    "inputs": Key(TEXTS),
    "environment": Key(MAPPING),
}
ISO_ARCH: Final[Fields] = {
    "url": Key(TEXT),
    "urls": Key(TEXTS),
    "sha256": Key(_matching("[0-9a-f]{64}", "a SHA-256 digest: 64 digits of 0-9 and a-f")),
    "checksum_url": Key(TEXT),
    "signature_url": Key(TEXT),
    "signature_key": Key(TEXT),
    "size": Key(_size("", "1"), "size_bytes"),
    "volume_id": Key(REGEX),
    "patterns": Key(TEXTS),
    "make": Key(TEXT),
    "needs_login": Key(TEXT),
}
ISO: Final[Fields] = {
    **ISO_ARCH,
    "notes": Key(TEXT),
    "sources": Key(MAPPING),
    "arches": Key(_nested(ISO_ARCH, dict, each=True), required=True),
}


def check(fields: Fields, values: Mapping[str, Value], name: str, place_of: PlaceOf) -> dict[str, Any]:
    """Give the attributes that a section's values come to; what is not given is left out.

    `name` is the section's name for the messages, `place_of` gives the place of one of its keys (of the whole for "").
    Raises ConfigErrors with one message for each wrong value.
    """
    found: dict[str, Any] = {}
    errors: list[ConfigError] = []
    for key, value in values.items():
        if key.startswith("_"):
            continue
        if key not in fields:
            errors.append(unknown_key(key, list(fields), place_of(key), inside=name))
        elif value is not None:
            _take(fields[key], key, value, name=name, place_of=place_of, found=found, errors=errors)
    for key, field in fields.items():
        if field.required and values.get(key) is None:
            errors.append(ConfigError(f"{name}.{key} is missing", where=place_of(""), hint=f"add {key}: …"))
    if errors:
        raise ConfigErrors(errors)
    return found


def _take(
    field: Key,
    key: str,
    value: Value,
    *,
    name: str,
    place_of: PlaceOf,
    found: dict[str, Any],
    errors: list[ConfigError],
) -> None:
    """Convert one value into `found`, or add to `errors` what is wrong with it."""
    path = f"{name}.{key}"
    try:
        if field.kind.fields is not None:
            value = _checked_mapping(field.kind, value, path, lambda _inner: place_of(key))
        found[field.attribute or key] = field.kind.convert(value)
    except ConfigError as exc:
        errors += exc.errors
    except ValueError as exc:
        errors.append(ConfigError(f"{path}: {exc}", where=place_of(key), hint=f"correct {path}"))


def _checked_mapping(kind: Kind, value: Value, path: str, place_of: PlaceOf) -> Any:
    if kind.listed:
        if not isinstance(value, list):
            raise ValueError(f"a list of mappings is needed here, not {_said(value)}")
        one = Kind(kind.convert, {}, kind.fields)
        return [_checked_mapping(one, each, f"{path}[{number}]", place_of) for number, each in enumerate(value)]
    if not isinstance(value, dict) or kind.fields is None:
        raise ValueError(f"a mapping is needed here, not {_said(value)}")
    if not kind.each:
        return check(kind.fields, value, path, place_of)
    if not value:
        raise ValueError("an empty mapping says nothing")
    inner = {key: each if each is not None else {} for key, each in value.items()}
    return {
        key: _checked_mapping(Kind(kind.convert, {}, kind.fields), each, f"{path}.{key}", place_of)
        for key, each in inner.items()
    }


def make_installer(values: Mapping[str, Value], place_of: PlaceOf) -> InstallerSection:
    """Make the section. Raises ConfigErrors."""
    return InstallerSection(**check(INSTALLER, values, "installer", place_of))


def make_machine(values: Mapping[str, Value], place_of: PlaceOf) -> MachineSection:
    """Make the section, with at least the memory that the installer needs. Raises ConfigErrors."""
    found = check(MACHINE, values, "machine", place_of)
    least = found.get("minimum_memory_mib", 0)
    return MachineSection(**{**found, "memory_mib": max(found.get("memory_mib", MachineSection().memory_mib), least)})


def make_access(values: Mapping[str, Value], place_of: PlaceOf) -> AccessSection:
    """Make the section. Raises ConfigErrors."""
    return AccessSection(**check(ACCESS, values, "access", place_of))


def make_seal(values: Mapping[str, Value], place_of: PlaceOf) -> SealSection:
    """Make the section. Raises ConfigErrors."""
    return SealSection(**check(SEAL, values, "seal", place_of))


def make_verify(values: Mapping[str, Value], place_of: PlaceOf) -> VerifySection:
    """Make the section. Raises ConfigErrors."""
    return VerifySection(**check(VERIFY, values, "verify", place_of))


def make_step(values: Mapping[str, Value], place: Place, place_of: PlaceOf) -> StepSection:
    """Make a step. Raises ConfigError where not exactly one kind is given, or what belongs to it is missing."""
    found = check(STEP, values, "steps", place_of)
    given = [kind for kind in StepKind if kind in found]
    if len(given) != 1:
        what = "a step must say exactly one thing to do"
        raise ConfigError(what, where=place, hint=f"write one of {', '.join(StepKind)} in each step")
    kind = given[0]
    if kind is StepKind.FILE and "dest" not in found:
        raise ConfigError("a file step needs dest", where=place, hint="add dest: /path/in/the/guest")
    argument = found.pop(kind)
    text = "\n".join(argument) + "\n" if isinstance(argument, tuple) else argument
    return StepSection(kind=kind, argument=text, place=place, **found)


def unknown_key(key: str, known: Sequence[str], where: Place | None, *, inside: str) -> ConfigError:
    """Make the error for a key that nobody reads, with the likeliest known one."""
    import difflib

    close = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return ConfigError(f"the key {key!r} is unknown in {inside}", where=where, hint=hint)
