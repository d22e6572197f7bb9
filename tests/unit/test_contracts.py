"""docs/contracts.md tells the truth: its examples have the fields that the code gives, no kind is missing."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from osimager import events
from osimager.build.records import parse_record, render_record
from osimager.events import Event, Stage, kind_of, parse_stamped
from osimager.machine.causes import RULES
from osimager.machine.ladder import CONTINUED, SYSTEM, installer_ladder
from osimager.registry.entry import render_entry
from osimager.registry.form import parse_registry

PAGE = (Path(__file__).parents[2] / "docs/contracts.md").read_text()
ENVELOPE = {"v", "time", "build", "stage", "state", "kind"}
KINDS = {
    kind_of(kind.__new__(kind)): kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
}


def examples(label: str) -> list[Any]:
    return [json.loads(text) for text in re.findall(rf"```json {label}\n(.*?)\n```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("example", examples("event"), ids=lambda example: str(example["kind"]))
def test_example_of_an_event_has_the_fields_of_its_class(example: dict[str, Any]) -> None:
    own = {field.name for field in dataclasses.fields(KINDS[example["kind"]])}
    assert set(example) == ENVELOPE | own
    assert example["stage"] in list(Stage)


def test_every_kind_of_event_is_listed() -> None:
    listed = re.search(r"The kinds: (.*?)\. Each", PAGE, re.DOTALL)
    assert listed is not None
    assert re.findall(r"`(\w+)`", listed[1]) == sorted(KINDS)


def test_example_of_a_record_is_what_is_read_and_written() -> None:
    [example] = examples("record")
    assert render_record(parse_record(example)) == example


def test_every_event_is_read_back_as_it_was_written() -> None:
    for example in examples("event"):
        assert parse_stamped(example).to_json() == example


def test_every_cause_is_explained() -> None:
    explained = set(re.findall(r"`([a-z-]+)`", PAGE.partition("| cause |")[2].partition("A guest is stuck")[0]))
    ladders = (installer_ladder(serves_answers=True), CONTINUED, SYSTEM)
    named = {rule.cause for rule in RULES} | {rung.cause for ladder in ladders for rung in ladder.rungs}
    assert named <= explained
    own = {"loop", "nothing-installed", "guest-gone", "host-disk-full", "host-out-of-memory", "deadline"}
    assert explained - named == own


def test_example_of_an_image_is_what_the_registry_reads_and_writes() -> None:
    [[example]] = examples("image")
    name = example.pop("id")
    [entry] = parse_registry({"version": 1, "images": {name: example}, "latest": {}, "channels": {}})
    assert render_entry(entry) == example
