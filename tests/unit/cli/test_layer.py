"""`layer` over a real store, and what `plan` and `resume` say of layers and of builds that were told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from osimager.build.layers import LayerStore
from osimager.paths import Places
from tests.unit.build.layer_lab import make_digest, publish_layer
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_ps import example, write_record

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")


@pytest.fixture
def store(places: Places) -> LayerStore:
    return LayerStore(places)


def test_example_of_a_listed_layer_has_the_fields_that_are_printed(store: LayerStore, run: Run) -> None:
    disk = publish_layer(store, 1)
    publish_layer(store, 2, on=disk, memory="m")
    below, above = run("layer", "list", "--json").json()
    assert list(below) == list(example("layer")[0])
    assert (above["parent"], above["index"], above["memory"], above["in_use"]) == (below["layer"], 1, True, False)
    assert [line.split()[0] for line in run("layer", "list").out.splitlines()] == [make_digest(1)[:12]] * 2


def test_layer_is_shown_with_the_inputs_that_it_is_found_by(store: LayerStore, run: Run) -> None:
    layer = publish_layer(store, 1, inputs={"iso": "a" * 64})
    shown = run("layer", "show", layer.folder.name, "--json").json()
    assert (shown["path"], shown["inputs"]) == (str(layer.folder), {"iso": "a" * 64})
    assert "iso" in run("layer", "show", layer.folder.name).out


def test_layer_that_is_none_or_several_is_a_usage_error(store: LayerStore, run: Run) -> None:
    publish_layer(store, 1)
    publish_layer(store, 2)
    assert run("layer", "show", "nothing").status == 2
    assert "2 layers" in run("layer", "show", "0").err


def test_gc_removes_what_stands_on_another_first_and_says_so(store: LayerStore, run: Run) -> None:
    disk = publish_layer(store, 1)
    publish_layer(store, 2, on=disk)
    said = run("layer", "gc", "--max-size", "0")
    assert [line.split("  ")[-1] for line in said.err.splitlines()] == ["step-1", "installed disk"]
    assert run("layer", "list", "--json").json() == []
    assert "nothing to remove" in run("layer", "gc").err


def test_resume_says_why_a_build_cannot_be_said_again(places: Places, run: Run, tmp_path: Path) -> None:
    write_record(places, "20200101T000000Z-tiny-1-dead", words=[], folder="")
    said = run("resume", "last")
    assert (said.status, "did not keep its words" in said.err) == (2, True)
    write_record(places, "20200101T000000Z-tiny-1-dead", words=["debian-12"], folder=str(tmp_path / "gone"))
    said = run("resume", "last")
    assert (said.status, "gone" in said.err) == (2, True)


def test_resume_says_the_words_of_one_target_in_their_folder(places: Places, run: Run, tmp_path: Path) -> None:
    before = Path.cwd()
    write_record(
        places,
        "20200101T000000Z-tiny-1-dead",
        target="qemu/local/none-2-x86_64",
        words=["debian-12", "none-2", "--dry-run"],
        folder=str(tmp_path),
    )
    try:
        said = run("resume", "last")
        assert Path.cwd() == tmp_path
    finally:
        os.chdir(before)
    assert (said.status, "none-2" in said.err) == (2, True)
