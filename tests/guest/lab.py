"""What the guest tests share: a home kept between runs (made ISOs cost minutes), and the command as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("OSIMAGER_TEST_HOME", ROOT / ".test-home"))
OSIMAGER = [sys.executable, "-m", "osimager"]
ENVIRONMENT = {**os.environ, "OSIMAGER_HOME": str(HOME), "NO_COLOR": "1"}


@dataclass(frozen=True)
class Ran:
    """How a command ended: its status, the data on stdout, the talk on stderr."""

    status: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines of `build --json`."""
        return [json.loads(line) for line in self.out.splitlines()]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Give the events of one kind."""
        return [event for event in self.events if event["kind"] == kind]


def run(*words: str | Path, deadline_s: float = 900, home: Path = HOME, cwd: Path = ROOT) -> Ran:
    """Run `osimager` to its end."""
    environment = {**ENVIRONMENT, "OSIMAGER_HOME": str(home)}
    done = subprocess.run(
        [*OSIMAGER, *map(str, words)],
        env=environment, cwd=cwd, capture_output=True, text=True, timeout=deadline_s, check=False,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(*words: str | Path, home: Path = HOME, cwd: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
    """Start `osimager`; whatever is left of it at the end of the block is killed."""
    environment = {**ENVIRONMENT, "OSIMAGER_HOME": str(home)}
    with subprocess.Popen(
        [*OSIMAGER, *map(str, words)],
        env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            child.kill()


def wait_for_event(child: subprocess.Popen[str], matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read the JSON lines of a running build until one `matches`."""
    assert child.stdout is not None
    for line in child.stdout:
        event: dict[str, Any] = json.loads(line)
        if matches(event):
            return event
    raise AssertionError("the build ended before the event came")


def find_processes(needle: str) -> list[int]:
    """Give the processes whose command line holds `needle`, this one left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        pid = int(entry.parent.name)
        if needle in words and pid != os.getpid():
            found.append(pid)
    return found


def wait_until(is_so: Callable[[], bool], *, deadline_s: float) -> bool:
    """Look again and again until `is_so` or the deadline; what is waited for has no event."""
    until = time.monotonic() + deadline_s
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def interrupt(child: subprocess.Popen[str], number: signal.Signals) -> int:
    """Send a signal and give the exit status."""
    child.send_signal(number)
    child.communicate(timeout=60)
    return child.returncode


def ssh(words: Sequence[str], command: str, *, deadline_s: float) -> str:
    """Run `command` over the ssh command line `words`, trying until the guest is up."""
    until = time.monotonic() + deadline_s
    while True:
        done = subprocess.run(
            [*words, "-o", "ConnectTimeout=5", "-o", "BatchMode=yes", command],
            capture_output=True, text=True, timeout=deadline_s, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return done.stdout
        assert time.monotonic() < until, done.stderr
        time.sleep(0.5)
