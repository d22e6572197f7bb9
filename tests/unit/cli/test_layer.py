"""`layer` over a real store, and what `plan` and `resume` say of layers and of builds that were told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from osimager.build.layers import LayerStore
from osimager.build.workspace import open_workspace
from osimager.env import Clock
from osimager.machine.ram import MEMORY
from osimager.paths import Places
from osimager.plan.digests import StageKey
from tests.unit.build.layer_lab import publish_layer
from tests.unit.cli.conftest import Run, Said
from tests.unit.cli.test_ps import example, write_record

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")
TINY = '{provides: {dist: tiny, versions: ["1"], arches: [x86_64]}, installer: {boot: [menu]}}'


@pytest.fixture
def store(places: Places) -> LayerStore:
    return LayerStore(places)


def test_example_of_a_listed_layer_has_the_fields_that_are_printed(store: LayerStore, run: Run) -> None:
    disk = publish_layer(store, 1)
    publish_layer(store, 2, on=disk, memory="m")
    below, above = run("layer", "list", "--json").json()
    assert list(below) == list(example("layer")[0])
    assert (above["parent"], above["index"], above["memory"], above["in_use"]) == (below["layer"], 1, True, False)


def test_disk_and_the_same_once_more_with_its_memory_are_told_apart(store: LayerStore, run: Run) -> None:
    disk = publish_layer(store, 1)
    booted = publish_layer(store, 2, on=disk, memory="m", digest=1)
    names = [line.split()[0] for line in run("layer", "list").out.splitlines()]
    assert len({len(name) for name in names}) == 1
    assert [run("layer", "show", name, "--json").json()["layer"] for name in names] == [
        disk.folder.name,
        booted.folder.name,
    ]
    assert "2 layers" in run("layer", "show", names[0].partition(".")[0]).err


def test_memory_that_is_damaged_is_none(store: LayerStore, run: Run) -> None:
    disk = publish_layer(store, 1, memory="m")
    publish_layer(store, 2, on=disk, memory="m", changes=True)
    assert [row["memory"] for row in run("layer", "list", "--json").json()] == [True, True]
    assert run("layer", "list").out.count("memory") == 2
    (disk.folder / MEMORY).unlink()
    assert [row["memory"] for row in run("layer", "list", "--json").json()] == [False, False]
    assert "memory" not in run("layer", "list").out


def test_gc_says_what_it_is_that_goes(store: LayerStore, run: Run) -> None:
    with store.open_new(StageKey(digest="ab" * 32, inputs={}), "") as half:
        name = half.folder.name
        shutil.copytree(half.folder, store.folder / f"copy-{name}")
    (store.folder / f"copy-{name}").rename(store.folder / name)
    assert run("gc").err == f"swept the unfinished or damaged layer {name[:12]}.{name.partition('.')[2]}\n"
    assert run("gc").err == "nothing to sweep\n"


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


def resume_in(folder: Path, run: Run) -> Said:
    """Resume the last build, which runs in `folder`, and come back."""
    before = Path.cwd()
    try:
        said = run("resume", "last")
        assert Path.cwd() == folder
    finally:
        os.chdir(before)
    return said


def test_resume_says_why_a_build_cannot_be_said_again(places: Places, run: Run, tmp_path: Path) -> None:
    write_record(places, "20200101T000000Z-tiny-1-dead", words=[], folder="")
    said = run("resume", "last")
    assert (said.status, "did not keep its words" in said.err) == (2, True)
    write_record(places, "20200101T000000Z-tiny-1-dead", words=["debian-12"], folder=str(tmp_path / "gone"))
    said = run("resume", "last")
    assert (said.status, "gone" in said.err) == (2, True)


def test_build_that_runs_is_not_resumed_beside_itself(places: Places, run: Run) -> None:
    with open_workspace(places, "tiny-1", Clock().now()) as workspace:
        write_record(places, workspace.name, status=None, ended=None, words=["debian-12", "--dry-run"], folder="/")
        said = run("resume", "last")
    assert (said.status, f"{workspace.name} still runs" in said.err) == (2, True)


def test_resume_says_the_words_of_one_target_in_their_folder(places: Places, run: Run, tmp_path: Path) -> None:
    write_record(
        places,
        "20200101T000000Z-tiny-1-dead",
        target="qemu/local/none-2-x86_64",
        words=["debian-12", "none-2", "--dry-run"],
        folder=str(tmp_path),
    )
    said = resume_in(tmp_path, run)
    assert (said.status, "none-2" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "made", "anew"),
    [
        (["--force"], [], [0, 1, 2, 3]),  # it failed before its first layer: all of it is still to be made
        (["--force"], [0, 1], [2, 3]),
        (["--from", "step:1"], [2], [3]),
        (["--from", "step:1", "--force"], [0, 1, 2, 3], []),
        (["--force"], [0, 1, 2, 3, 4, 5], []),  # it had more steps
        ([], [0, 1], []),
    ],
)
def test_resume_makes_no_layer_anew_that_the_failed_build_has_made(
    places: Places, store: LayerStore, run: Run, project: Path, words: list[str], made: list[int], anew: list[int]
) -> None:
    files = {"tiny.iso": "an ISO", "mine.sh": "true", "specs/tiny/spec.yml": TINY}
    for name, content in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)
    below = None
    for index in range(max(made, default=-1) + 1):
        below = publish_layer(store, index, on=below, build="mine" if index in made else "another's")
    target = ["tiny-1", "--iso", "tiny.iso", "--step", "mine.sh", "--project", str(project), "--dry-run", "--json"]
    write_record(places, "mine", target="qemu/local/tiny-1-x86_64", words=[*target, *words], folder=str(project))
    said = resume_in(project, run)
    assert said.status == 0, said.err
    assert [index for index, layer in enumerate(said.json()["layers"]) if layer["asked"]] == anew
