"""What every test has: surroundings under its own folder, tools asked for by name, and a check that nothing leaks.

`full` tests run only where `-m` names them. `--update-golden` rewrites the golden files; the diff is the review.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest

from osimager.env import Env
from osimager.events import Bus, Event, Stamped
from osimager.paths import Places
from osimager.redact import Masker

REPOSITORY = Path(__file__).parent.parent
SETTLE_S = float(os.environ.get("OSIMAGER_TEST_SETTLE_S", "5"))
INTERRUPTED = threading.Event()

# No timed tests: a slow machine is no failure. CI tries the same examples each time; `deep` is for a night.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden`."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files with what is made now")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker `needs`."""
    config.addinivalue_line("markers", "needs(*tools): skip, by name, where one of these programs is not on this host")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out `full` tests unless `-m` names them, and run the guests last: the fast failures come first."""
    if "full" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("full")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("guest") is not None)
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.append("no_leaked_task")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Obey the marker `needs`."""
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            find_or_skip(tool)


def find_or_skip(tool: str) -> Path:
    """Give the program's path, or skip the test by the program's name."""
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"the program {tool!r} is not on this host")
    return Path(found)


@pytest.fixture
def needs() -> Callable[[str], Path]:
    """Give `find_or_skip`, for tests that want the program's path."""
    return find_or_skip


# Surroundings ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """Give folders of the test's own; OSIMAGER_HOME names them for child processes too."""
    monkeypatch.setenv("OSIMAGER_HOME", str(tmp_path / "home"))
    made = Places.from_environment(os.environ)
    yield made
    shutil.rmtree(made.runtime, ignore_errors=True)


@pytest.fixture
def events() -> list[Event]:
    """Give the list that `env`'s bus records into, in order."""
    return []


@pytest.fixture
def env(places: Places, tmp_path: Path, events: list[Event]) -> Iterator[Env]:
    """Give surroundings as a build has them, with the real clock, real randomness and a bus that records."""
    workspace = tmp_path / "workspace"
    workspace.mkdir(mode=0o700)
    masker = Masker()
    bus = Bus(now=lambda: datetime.now(UTC), masker=masker, build="test")

    def record(stamped: Stamped) -> None:
        events.append(stamped.event)

    with bus.listening(record):
        yield Env(places=places, workspace=workspace, bus=bus, masker=masker)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Say whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def check_golden(update_golden: bool) -> Callable[[Path, str], None]:
    """Give a function that compares a text with a golden file, or rewrites the file."""

    def check(path: Path, text: str) -> None:
        if update_golden:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.is_file(), f"{path} is missing: make it with --update-golden"
        assert text == path.read_text(), f"not as {path.relative_to(REPOSITORY)}; if it should be: --update-golden"

    return check


# Leaks ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What this process holds: threads, descriptors with what they point at, and children by their process ids."""

    threads: frozenset[str]
    descriptors: frozenset[str]
    children: frozenset[int]

    def list_more(self, before: Held) -> list[str]:
        """Name what is held now and was not `before`."""
        return [
            *(f"thread {name}" for name in sorted(self.threads - before.threads)),
            *(f"descriptor {name}" for name in sorted(self.descriptors - before.descriptors)),
            *(f"process {pid} {read_command_line(pid)}" for pid in sorted(self.children - before.children)),
        ]


def look_around() -> Held:
    """Give what this process holds now. Descriptors and children are known on Linux only."""
    return Held(
        threads=frozenset(f"{thread.name} ({thread.ident})" for thread in threading.enumerate()),
        descriptors=frozenset(list_descriptors()),
        children=frozenset(list_children()),
    )


def list_descriptors() -> Iterator[str]:
    """Give each open descriptor with what it points at."""
    folder = Path("/proc/self/fd")
    for link in list(folder.iterdir()) if folder.is_dir() else ():
        if int(link.name) <= 2:  # pytest's capturing moves the standard ones
            continue
        with contextlib.suppress(OSError):
            yield f"{link.name} -> {link.readlink()}"


def list_children() -> Iterator[int]:
    """Give the process id of each child, zombies too."""
    for tasks in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, tasks.read_text().split())


def read_command_line(pid: int) -> str:
    """Give the command line of a process, which it may change: it names a process, and does not tell two apart."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") or "(a zombie)"
    return "(gone)"


def pytest_keyboard_interrupt() -> None:
    """Let an interrupted test leave what it held: its own stack is the message then."""
    INTERRUPTED.set()


@pytest.fixture(autouse=True)
def no_leak() -> Iterator[None]:
    """Fail a test that leaves a thread, descriptor or process behind. What ends by itself has a moment for it."""
    before = look_around()
    yield
    end = time.monotonic() + SETTLE_S
    pause_s = 0.001
    while (left := look_around().list_more(before)) and not INTERRUPTED.is_set():
        if time.monotonic() > end:
            end_children(before)
            pytest.fail("the test left behind: " + "; ".join(left))
        gc.collect()
        time.sleep(pause_s)
        pause_s = min(0.1, pause_s * 2)


def end_children(before: Held) -> None:
    """Kill the children that a failed test left: a guest must not run on beside the tests that follow."""
    for pid in look_around().children - before.children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def no_leaked_task() -> AsyncIterator[None]:
    """Fail an async test that leaves a task behind. Added to each of them, after its own fixtures."""
    before = asyncio.all_tasks()
    yield
    left = [task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()]
    for task in left:
        task.cancel()
    if left:
        pytest.fail("the test left behind: " + "; ".join(f"task {task.get_name()} {task.get_coro()}" for task in left))
