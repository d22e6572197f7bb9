"""JSON Schemas for editors: one for each kind of file (JSON Schema 2020-12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from osimager.config.merge import LIST_SECTIONS, SPECIFICS, TABLE_SECTIONS
from osimager.config.models import IsoModel, Model
from osimager.config.shapes import ITEM_MODELS, KEYS, PROFILE_DEFS, SECTION_MODELS
from osimager.errors import UsageError

Schema = dict[str, Any]
KINDS: Final = ("spec", "platform", "location", "profile", "isos")
_TEXT: Final[Schema] = {"type": "string"}
_NAMES: Final[Schema] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_SCALARS: Final[Mapping[str, Schema]] = {
    "method": {"enum": ["merge", "replace"]},
    "merge": _NAMES,
    "include": _NAMES,
    "undefined": {"enum": ["error", "empty"]},
    "skip_config": {"type": "boolean"},
    **dict.fromkeys(("platforms", "locations", "arches", "architectures", "notes", "source"), _NAMES),
    **dict.fromkeys(("iso", "needs", "status", "description", "venv", "ansible_version", "install_notice"), _TEXT),
    **dict.fromkeys(("pre_build", "post_build", "plugin", "end_of_life"), _TEXT),
    "required_files": {"type": "array", "items": {"type": "object"}},
}


def make_schema(kind: str) -> Schema:
    """Give the JSON Schema of a kind of file. Raises UsageError that lists the kinds."""
    if kind not in KINDS:
        raise UsageError(f"there is no schema {kind!r}", hint=f"there are: {', '.join(KINDS)}")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"osimager {kind}"}
    definitions: Schema = {}
    if kind == "isos":
        schema = IsoModel.model_json_schema(by_alias=True)
        definitions |= schema.pop("$defs", {})
        return {
            **head,
            "$defs": {**definitions, "Iso": schema},
            "type": "object",
            "additionalProperties": {"$ref": "#/$defs/Iso"},
        }
    for name, model in {**SECTION_MODELS, **ITEM_MODELS}.items():
        definitions[name] = _section(model, definitions)
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
    if key in SECTION_MODELS:
        return {"$ref": f"#/$defs/{key}"}
    if key in ITEM_MODELS:
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
    return {} if key in PROFILE_DEFS else dict(_SCALARS.get(key, {}))


def _section(model: type[Model], definitions: Schema) -> Schema:
    """Give a section's schema: nothing is required, and a marker may stand for any value."""
    schema = model.model_json_schema(by_alias=True)
    definitions.update({name: _lenient(inner) for name, inner in schema.pop("$defs", {}).items()})
    return _lenient(schema)


def _lenient(schema: Schema) -> Schema:
    if "properties" not in schema:
        return schema
    marker = {"type": "string", "pattern": "[>%+*|#$\\[156E]>"}
    properties = {name: {"anyOf": [inner, marker]} for name, inner in schema["properties"].items()}
    return {
        "type": "object",
        "description": schema.get("description", ""),
        "properties": {**properties, "merge": _NAMES},
        "patternProperties": {"^_": {}},
        "additionalProperties": False,
    }
