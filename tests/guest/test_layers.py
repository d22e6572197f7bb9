"""Nothing is done twice: layers found, shared, lost and made anew, by builds as a user runs them.

The quick ones install a boot sector that writes itself to the disk: its INSTALL is a layer, and its CONNECT fails, for
nobody answers there. Those of a whole system are `full`, but for what `test_build.py` sees of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from osimager.build.layers import Layer, LayerStore
from osimager.paths import Places
from tests.guest.disks import list_differences, list_files
from tests.guest.lab import HOME, Ran, find_processes, run, started, wait_for_event, wait_until
from tests.guest.tiny_build import Site, load_tiny, open_site

pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-system-x86_64", "qemu-img")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site whose guest installs itself and switches off; its builds share layers."""
    with open_site(tmp_path, load_tiny().INSTALL) as made:
        yield Site(made.home, tuple(word for word in made.words if word != "--force"))


@pytest.fixture
def slow_site(tmp_path: Path) -> Iterator[Site]:
    """Give one whose guest takes its time."""
    with open_site(tmp_path, load_tiny().INSTALL_LATER) as made:
        yield Site(made.home, tuple(word for word in made.words if word != "--force"))


def open_store(home: Path) -> LayerStore:
    return LayerStore(Places.from_environment({"OSIMAGER_HOME": str(home)}))


def states(events: list[dict[str, Any]], stage: str) -> list[str]:
    """Give what became of a stage, in order."""
    return [event["to"] for event in events if event["kind"] == "stage_changed" and event["of"] == stage]


INSTALLED, FOUND = ["RUNNING", "SUCCEEDED"], ["SKIPPED"]


def build(site: Site, *words: str) -> Ran:
    """Build as far as it goes: the guest has no SSH."""
    ran = run(*site.words, "--json", *words, home=site.home)
    assert ran.status == 6, ran.err
    return ran


def only_layer(site: Site) -> Layer:
    [layer] = open_store(site.home).load()
    return layer


def test_installed_disk_is_found_again_and_force_makes_it_anew(site: Site) -> None:
    assert states(build(site).events, "INSTALL") == INSTALLED
    layer = only_layer(site)
    assert states(build(site).events, "INSTALL") == FOUND
    assert only_layer(site) == layer
    for words in (["--force"], ["--from", "install"]):
        assert states(build(site, *words).events, "INSTALL") == INSTALLED
    assert states(build(site, "--memory", "33M").events, "INSTALL") == INSTALLED


def test_build_that_keeps_no_layers_leaves_none(site: Site) -> None:
    assert states(build(site, "--no-layers").events, "INSTALL") == INSTALLED
    assert open_store(site.home).load() == []


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "record"])
def test_damaged_layer_is_made_anew(site: Site, damage: str) -> None:
    build(site)
    layer = only_layer(site)
    [disk] = layer.drives.values()
    match damage:
        case "cut":
            os.truncate(disk, disk.stat().st_size // 2)
        case "flip":
            content = bytearray(disk.read_bytes())
            content[len(content) // 2] ^= 1
            disk.write_bytes(content)
        case "remove":
            disk.unlink()
        case "record":
            (layer.folder / "layer.json").write_text("{")
    assert states(build(site).events, "INSTALL") == INSTALLED
    assert only_layer(site).folder != layer.folder
    assert states(build(site).events, "INSTALL") == FOUND
    assert not layer.folder.exists()  # what was found damaged is swept by the next


@contextmanager
def starting(site: Site, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start so many builds of the same target at once; whatever is left of them at the end is killed."""
    with ExitStack() as stack:
        yield [stack.enter_context(started(*site.words, "--json", home=site.home)) for _ in range(count)]


def finish(child: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait for a build, and give its events that nobody has read yet."""
    assert child.stdout is not None
    assert child.stderr is not None
    events = [json.loads(line) for line in child.stdout]
    err = child.stderr.read()
    assert child.wait(timeout=60) == 6, err
    return events


def is_machine(event: dict[str, Any]) -> bool:
    return bool(event["kind"] == "machine_started")


def stop_in_install(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait until the installer runs and let it get no further; give the event."""
    event = wait_for_event(child, is_machine)
    os.kill(event["pid"], signal.SIGSTOP)
    return event


def is_fetched(event: dict[str, Any]) -> bool:
    return bool(event["kind"] == "stage_changed" and (event["of"], event["to"]) == ("FETCH", "SUCCEEDED"))


def test_eight_builds_started_together_install_once(site: Site) -> None:
    with starting(site, 8) as builds:
        ends = [states(finish(child), "INSTALL") for child in builds]
    assert ends.count(INSTALLED) == 1
    assert ends.count(FOUND) == 7
    assert only_layer(site).index == 0


def test_collector_beside_builds_removes_no_layer_in_use(site: Site) -> None:
    """Four builds at a time; what one installed may go as soon as nobody uses it, and no build trips over that."""
    store = open_store(site.home)
    removed = 0
    for _ in range(3):
        with starting(site, 4) as builds:
            while any(child.poll() is None for child in builds):
                removed += len(store.gc(0))
            ends = [states(finish(child), "INSTALL") for child in builds]
        assert all(end in (INSTALLED, FOUND) for end in ends)
        assert INSTALLED in ends
        removed += len(store.gc(0))
    assert removed >= 3
    assert store.load() == []


def test_builder_that_is_killed_before_its_layer_is_published_leaves_what_the_next_sweeps(slow_site: Site) -> None:
    with starting(slow_site, 1) as [child]:
        event = stop_in_install(child)
        [folder] = [path for path in open_store(slow_site.home).folder.iterdir() if (path / "held").exists()]
        child.kill()
        child.communicate()
    assert wait_until(lambda: find_processes(event["build"]) == [], deadline_s=5)
    assert open_store(slow_site.home).load() == []
    assert folder.is_dir()
    assert states(build(slow_site).events, "INSTALL") == INSTALLED
    assert not folder.exists()
    assert only_layer(slow_site).index == 0


def test_others_go_on_when_the_one_who_makes_the_layer_is_killed(slow_site: Site) -> None:
    with starting(slow_site, 1) as [maker]:
        stop_in_install(maker)
        with starting(slow_site, 2) as others:
            for other in others:
                wait_for_event(other, is_fetched)
            maker.kill()
            ends = [states(finish(other), "INSTALL") for other in others]
    assert sorted(ends) == [INSTALLED, FOUND]


# A whole system -------------------------------------------------------------------------------------------------------


class Edits:
    """A user's loop: two steps of their own, edited between builds of debian-12."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "first.sh", folder / "last.sh"]
        for file in self.files:
            self.edit(file)

    @property
    def first(self) -> Path:
        return self.files[0]

    @property
    def last(self) -> Path:
        return self.files[1]

    def edit(self, file: Path) -> None:
        """Let the step be one that nobody has run."""
        token = os.urandom(4).hex()
        file.write_text(f"#!/bin/sh\nset -e\necho {token} >/etc/{file.stem}\necho {file.stem} says {token}\n")

    def build(self, *words: str) -> Built:
        steps = [word for file in self.files for word in ("--step", file)]
        arguments = ("--arch", "x86_64", "--iso", "debian-12-made", "--no-verify", "--json")
        ran = run("build", "debian-12", *arguments, *steps, *words, deadline_s=3600)
        assert ran.status == 0, ran.err
        return Built(ran)


class Built:
    """What a build did, by its events."""

    def __init__(self, ran: Ran) -> None:
        self.events = ran.events
        [published] = ran.of_kind("image_published")
        self.path = Path(published["path"])
        self.install = states(ran.events, "INSTALL")
        self.steps = [event["name"] for event in ran.of_kind("step_started")]
        machines = [event for event in ran.of_kind("machine_started") if event["role"] == "target"]
        self.machines = len(machines)
        self.wakes = bool(machines) and "-incoming" in machines[-1]["argv"]
        self.notices = [event["text"] for event in ran.of_kind("notice")]


def same(name: str) -> list[Layer]:
    """Give the newest layer of a step, and those that stand beside it under the same digest."""
    layers = [layer for layer in open_store(HOME).load() if layer.name == name]
    return [layer for layer in layers if layer.digest == layers[-1].digest]


# Files that differ between any two installations of the same answers, and why.
DIFFER = {
    r"\d:/etc/fstab|\d:/boot/grub/grub.cfg": "the file system's UUID, which mkfs makes",
    r"\d:/boot/initrd.img-.*": "the times of the files in it",
    r"\d:/var/log/.*": "what was said when",
    r"\d:/var/lib/systemd/(random-seed|timesync/clock|timers/.*)": "made at each shutdown, or by the time of day",
    r"\d:/var/cache/ldconfig/aux-cache": "holds inode numbers and times",
}


@pytest.mark.full
def test_only_what_changed_is_done_again(tmp_path: Path) -> None:
    edits = Edits(tmp_path)
    cold = edits.build("--force")
    assert (cold.install, cold.wakes, cold.steps[-2:]) == (INSTALLED, False, ["first", "last"])
    unchanged = edits.build()
    assert (unchanged.path, unchanged.machines) == (cold.path, 0)

    edits.edit(edits.last)
    warm = edits.build()
    assert (warm.install, warm.wakes, warm.steps) == (FOUND, True, ["last"])
    edits.edit(edits.first)
    assert (both := edits.build()).steps == ["first", "last"]
    assert (both.install, both.wakes) == (FOUND, True)

    edits.edit(edits.last)
    booted = edits.build("--cold")
    assert (booted.install, booted.wakes, booted.steps) == (FOUND, False, ["last"])
    anew = edits.build("--from", f"step:{len(cold.steps) - 1}")
    assert (anew.install, anew.steps) == (FOUND, ["first", "last"])

    edits.edit(edits.last)
    for layer in open_store(HOME).load():
        record = layer.folder / "layer.json"
        if layer.memory:
            record.write_text(json.dumps({**json.loads(record.read_text()), "memory": "another machine's"}))
    fallen = edits.build()
    assert (fallen.install, fallen.wakes, fallen.steps) == (FOUND, False, ["last"])
    assert any("memory is another machine's" in text for text in fallen.notices)

    edits.edit(edits.last)
    for layer in same("first"):
        os.truncate(layer.folder / "disk0.qcow2", 4096)
    healed = edits.build()
    assert (healed.install, healed.steps) == (FOUND, ["first", "last"])
    everything = edits.build("--force")
    assert (everything.install, everything.steps) == (INSTALLED, cold.steps)


@pytest.mark.full
@pytest.mark.needs("sfdisk", "mount")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount an image")
def test_image_of_a_cached_build_is_that_of_a_cold_one(tmp_path: Path) -> None:
    edits = Edits(tmp_path)
    edits.build("--force")
    edits.edit(edits.last)
    cached = edits.build()
    assert (cached.install, cached.wakes, cached.steps) == (FOUND, True, ["last"])
    cold = edits.build("--force", "--cold", "--no-layers")
    assert (cold.install, cold.wakes) == (INSTALLED, False)
    one, other = (list_files(built.path, tmp_path) for built in (cached, cold))
    assert len(one) > 1000
    differ = list_differences(one, other)
    unexplained = {name: said for name, said in differ.items() if not any(re.fullmatch(rule, name) for rule in DIFFER)}
    assert unexplained == {}
