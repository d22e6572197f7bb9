"""Layers and images whose making is cut short at each system call, by a kill or by a disk that is full.

After each: what is found is whole, what was promised is there, and the next run sweeps what was left and goes on. The
system calls are those of strace(1), whose `inject` kills at the entry of the N-th of a name, or lets it fail.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from osimager.build.layers import LayerStore, read_access
from osimager.build.workspace import sweep
from osimager.registry.store import Registry
from tests.fault.acts import (
    DISK,
    FULL_DISK_CALLS,
    REFUSED,
    content_of,
    find_layer,
    make_layer,
    places_of,
    record_image,
)

pytestmark = [pytest.mark.needs("strace")]
ROOT = Path(__file__).parents[2]
LAYERS, IMAGES = ("install", "step", "warm-step", "collect"), ("image", "replace")
IN_CI = 25  # points of each act; all of them in `full`
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\(")


class Stage:
    """A server of acts, and a home for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        argv = [sys.executable, "-m", "tests.fault.acts"]
        self.server = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait(timeout=60)
        self.server.stdout.close()

    def make_home(self) -> Path:
        """Give a home with a layer and two images, the last of a name that is replaced."""
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        make_layer(home, 1)
        record_image(home, 0)
        record_image(home, 1, replace=True)
        return home

    def run(self, act: str, home: Path, *options: str) -> tuple[int, list[str]]:
        """Run an act under strace with `options`; give its status (negative: the signal) and its system calls."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        log = self.folder / "calls"
        self.server.stdin.write(f"{act} {home}\n")
        pid = int(self.server.stdout.readline())
        argv = ["strace", "-p", str(pid), "-o", str(log), *options]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            said = tracer.stderr.readline()
            if "attached" not in said:
                os.kill(pid, signal.SIGKILL)
                self.server.stdout.readline()
                pytest.skip(f"no right to trace on this host: {said.strip()}")
            os.kill(pid, signal.SIGCONT)
            status = int(self.server.stdout.readline())
            tracer.stderr.read()
        return status, [found[1] for line in log.read_text().splitlines() if (found := _CALL.match(line))]

    def list_points(self, act: str) -> list[tuple[str, int]]:
        """Give each system call of an act: its name, and the how-manieth of that name it is."""
        home = self.make_home()
        status, calls = self.run(act, home)
        assert status == 0
        seen: Counter[str] = Counter()
        points = []
        for call in calls:
            seen[call] += 1
            points.append((call, seen[call]))
        return points


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def assert_whole(home: Path) -> None:
    """Fail where a build would find anything torn, or an image has no file, or a file that is not its own."""
    for number in (1, 2):
        with ExitStack() as holds:
            if (layer := find_layer(home, number, holds)) is not None:
                assert (layer.folder / DISK).read_bytes() == content_of(number)
                assert read_access(layer, LayerStore(places_of(home)))["key"] == "the key"
    for entry in Registry.open(places_of(home).registry).load():
        assert entry.path.stat().st_size == entry.size_bytes
        content = entry.path.read_bytes()
        assert content == content_of(content[0])


def assert_promised(home: Path, act: str) -> None:
    """Fail where something that was told to be there is not."""
    images = {entry.id for entry in Registry.open(places_of(home).registry).load()}
    assert "tiny-1-x86_64-0" in images
    if act != "replace":
        assert "tiny-1-x86_64-1" in images
    promised = home / "promised"
    kind, _, what = (promised.read_text() if promised.exists() else "").partition(" ")
    with ExitStack() as holds:
        if act != "collect":
            assert find_layer(home, 1, holds) is not None
        if kind == "layer":
            assert find_layer(home, 2, holds) is not None
    if kind == "image":
        assert what in images


async def assert_heals(home: Path) -> None:
    """Fail where the next run does not sweep all that is left of the last one, or cannot do what that was to do."""
    places = places_of(home)
    store = LayerStore(places)
    await sweep(places)
    store.sweep()
    whole = {layer.folder.name for layer in store.load()}
    assert {path.name for path in store.folder.iterdir()} - {".lock", "locks"} == whole
    assert list(places.images.glob(".partial-*")) == []
    with ExitStack() as holds:
        below = find_layer(home, 1, holds) or make_layer(home, 1)
        if find_layer(home, 2, holds) is None:
            make_layer(home, 2, on=below)
        assert find_layer(home, 2, holds) is not None
    assert record_image(home, 5).path.is_file()


def choose(points: list[tuple[str, int]], most: int | None) -> list[tuple[str, int]]:
    """Give all points, or `most` of them, evenly spread over the act."""
    if most is None or len(points) <= most:
        return points
    return [points[at * len(points) // most] for at in range(most)]


async def cut_short(stage: Stage, act: str, points: list[tuple[str, int]], how: str) -> Counter[int]:
    """Run the act once for each point, cut short there; give how often it ended with which status."""
    ends: Counter[int] = Counter()
    for call, number in points:
        home = stage.make_home()
        status, _ = stage.run(act, home, "-e", f"inject={call}:{how}:when={number}")
        ends[status] += 1
        try:
            assert status in (0, REFUSED, -signal.SIGKILL)
            assert_whole(home)
            assert_promised(home, act)
            await assert_heals(home)
            assert_whole(home)
            assert_promised(home, act)
        except Exception as exc:
            raise AssertionError(f"{act} cut short by {how} at {call} number {number}: {exc!r}") from exc
    return ends


@pytest.mark.parametrize("act", [*LAYERS, *IMAGES])
async def test_killed_at_a_system_call_nothing_is_torn_or_lost(stage: Stage, act: str) -> None:
    points = choose(stage.list_points(act), IN_CI)
    ends = await cut_short(stage, act, points, "signal=KILL")
    assert ends[-signal.SIGKILL] >= len(points) * 9 // 10


@pytest.mark.parametrize("act", [*LAYERS[:3], *IMAGES])
async def test_full_disk_at_any_write_is_refused_and_nothing_is_torn_or_lost(stage: Stage, act: str) -> None:
    points = [point for point in stage.list_points(act) if point[0] in FULL_DISK_CALLS]
    assert len(points) >= 5
    ends = await cut_short(stage, act, points, "error=ENOSPC")
    assert ends[REFUSED] >= len(points) // 2
    assert ends[-signal.SIGKILL] == 0


@pytest.mark.full
async def test_two_thousand_crash_points(stage: Stage) -> None:
    count = 0
    while count < 2000:
        for act in (*LAYERS, *IMAGES):
            points = stage.list_points(act)
            ends = await cut_short(stage, act, points, "signal=KILL")
            count += ends[-signal.SIGKILL]
