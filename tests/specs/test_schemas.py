"""The JSON Schemas for editors, by a validator: shipped files pass, and what the reader refuses is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osimager.config.documents import load_document
from osimager.config.schema import KINDS, make_schema
from osimager.paths import shipped

jsonschema = pytest.importorskip("jsonschema", reason="the package jsonschema is not installed (extra dev)")
FOLDERS = {"platforms": "platform", "locations": "location", "profiles": "profile"}
WEB: dict[str, Any] = {"provides": {"dist": "web", "versions": ["1"]}}


def errors(kind: str, document: object) -> list[str]:
    plain = json.loads(json.dumps(document))
    return [error.message for error in jsonschema.Draft202012Validator(make_schema(kind)).iter_errors(plain)]


def shipped_files() -> Iterator[tuple[str, Path]]:
    for path in shipped("specs").rglob("*.yml"):
        yield FOLDERS.get(path.parent.name, "spec"), path
    for path in shipped("isos.d").glob("*.yml"):
        yield "isos", path


@pytest.mark.parametrize("kind", KINDS)
def test_schema_is_one(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(make_schema(kind))


def test_every_shipped_file_is_valid() -> None:
    found = {str(path): errors(kind, load_document(path)) for kind, path in shipped_files()}
    assert len(found) > 50
    assert {path: messages for path, messages in found.items() if messages} == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"provides": {"dist": "web", "versions": [9.1]}},
        {"provides": {"dist": "web"}},
        {"versions_specific": []},
        {"version_specific": [{"defs": {}}]},
        {"version_specific": [{"version": "1", "machine": {"memroy": "1G"}}]},
        {"platforms": 5},
        {"method": "append"},
        {"machine": {"cpus": "many"}},
        {"machine": {"memory": "lots"}},
        {"machine": {"firmware": "efi64"}},
        {"machine": {"disk_interface": "scsi3"}},
        {"installer": {"boot": "usb"}},
        {"files": [{"dest": "/etc/x", "sources": "x"}]},
        {"files": [{"dest": "x"}]},
        {"required_files": [{"url": "x"}]},
        {"steps": ["x"]},
    ],
    ids=json.dumps,
)
def test_schema_refuses_what_the_reader_refuses(wrong: dict[str, Any]) -> None:
    assert errors("spec", {**WEB, **wrong})
    assert errors("spec", WEB) == []


def test_a_marker_may_stand_for_any_value() -> None:
    machine = {"memory": ">>memory<<", "cpus": "#>cores*2<#", "firmware": "E>'uefi'<E"}
    assert errors("spec", {**WEB, "machine": machine}) == []
