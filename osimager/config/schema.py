"""JSON Schemas for editors: one for each kind of file (JSON Schema 2020-12)."""

from __future__ import annotations

from typing import Any, Final

from osimager.config.merge import LIST_SECTIONS, SPECIFICS, TABLE_SECTIONS
from osimager.config.models import FIELDS, ISO, MAPPING, NAMES, Fields, Key
from osimager.config.shapes import ITEM_FIELDS, KEYS, PROFILE_DEFS, SECTION_FIELDS
from osimager.errors import UsageError

Schema = dict[str, Any]
KINDS: Final = ("spec", "platform", "location", "profile", "isos")
_NAMES: Final = dict(NAMES.schema)


def make_schema(kind: str) -> Schema:
    """Give the JSON Schema of a kind of file. Raises UsageError that lists the kinds."""
    if kind not in KINDS:
        raise UsageError(f"there is no schema {kind!r}", hint=f"there are: {', '.join(KINDS)}")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"osimager {kind}"}
    if kind == "isos":
        entry = {**_section(ISO, markers=False), "required": ["arches"]}
        return {**head, "type": "object", "properties": {"sources": MAPPING.schema}, "additionalProperties": entry}
    definitions: Schema = {name: _section(fields) for name, fields in SECTION_FIELDS.items()}
    for name, fields in ITEM_FIELDS.items():  # these are never merged: each item is whole
        required = [key for key, field in fields.items() if field.required]
        definitions[name] = {**_section(fields), "required": required}
    entry_kind = "entry" if kind == "spec" else kind
    for name in SPECIFICS:
        level = _level(KEYS[entry_kind])
        definitions[f"{name}_entry"] = {
            **level,
            "properties": {name: {"type": "string"}, **level["properties"]},
            "required": [name],
        }
    return {**head, **_level(KEYS[kind]), "$defs": definitions}


def _level(keys: tuple[str, ...]) -> Schema:
    return {
        "type": "object",
        "properties": {key: _value(key) for key in keys},
        "patternProperties": {"^_": {}},
        "additionalProperties": False,
    }


def _value(key: str) -> Schema:
    if key in SECTION_FIELDS:
        return {"$ref": f"#/$defs/{key}"}
    if key in ITEM_FIELDS:
        return {"type": "array", "items": {"$ref": f"#/$defs/{key}"}}
    if key.endswith("_specific"):
        return {"type": "array", "items": {"$ref": f"#/$defs/{key.removesuffix('_specific')}_entry"}}
    if key == "provides":
        properties: Schema = {"dist": {"type": "string"}, "versions": _NAMES, "arches": _NAMES}
        return {
            "type": "object",
            "properties": properties,
            "required": ["dist", "versions"],
            "additionalProperties": False,
        }
    if key in LIST_SECTIONS:
        return {"type": "array", "items": {"type": "object"}}
    if key in TABLE_SECTIONS or key in ("platform_defs", "build"):
        return {"type": "object"}
    return {} if key in PROFILE_DEFS else dict(FIELDS[key].kind.schema)


def _section(fields: Fields, *, markers: bool = True) -> Schema:
    """Give a section's schema: nothing is required, and a marker may stand for any value."""
    marker = {"type": "string", "pattern": "[>%+*|#$\\[156E]>"}
    properties: Schema = {}
    for name, key in fields.items():
        own = _key(key, markers=markers)
        properties[name] = {"anyOf": [own, marker]} if markers else own
    if markers:
        properties["merge"] = _NAMES
    return {"type": "object", "properties": properties, "patternProperties": {"^_": {}}, "additionalProperties": False}


def _key(key: Key, *, markers: bool) -> Schema:
    if key.kind.fields is None:
        return dict(key.kind.schema)
    inner = _section(key.kind.fields, markers=markers)
    if key.kind.listed:
        return {"type": "array", "items": inner}
    return {"type": "object", "additionalProperties": inner} if key.kind.each else inner
