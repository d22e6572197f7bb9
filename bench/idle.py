"""What a build costs that is being watched while nothing happens in its guest: CPU of one core, and memory.

    python -m bench.idle [--seconds N] [--terminal] [--provision] [--json]

The guest is a boot sector that halts the CPU, so what is measured is the watching: the runner, and all that QEMU does,
screen dumps above all. The answer server runs; `--terminal` adds the live display, on a terminal of its own. Memory is
the runner's resident set beyond that of `python -c ''`, halfway through. `--provision` measures while a step of a real
Debian sleeps, over SSH: its QEMU runs the guest's own clocks too and is told, but not counted. Exit status 1 where a
bound is not kept. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.guest.lab import HOME, OSIMAGER, run, wait_until
from tests.guest.tiny_build import make_project

MOST_CPU_PERCENT, MOST_MEMORY_MB = 2.0, 60.0
_SETTLE_S = 15.0  # imports, the firmware's own start, the first pictures; the layer before the step
_INSTALL_S = 1800.0
_SLEEPER = "sleeps"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Shares of one core in percent; memory beyond Python's own in MB."""

    seconds: float
    runner_percent: float
    qemu_percent: float
    memory_mb: float
    counts_qemu: bool = True

    @property
    def percent(self) -> float:
        return self.runner_percent + (self.qemu_percent if self.counts_qemu else 0)

    @property
    def is_kept(self) -> bool:
        return self.percent < MOST_CPU_PERCENT and self.memory_mb < MOST_MEMORY_MB


def cpu_seconds(pid: int) -> float:
    """Give what a process has used, by the scheduler's own clock in nanoseconds, threads included (proc(5))."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def resident_mb(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6


def python_mb() -> float:
    """Give the resident set of an interpreter that has nothing to do."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as python:
        wait_until(lambda: "S (sleeping)" in Path(f"/proc/{python.pid}/status").read_text(), deadline_s=10)
        time.sleep(0.5)
        mb = resident_mb(python.pid)
        python.kill()
    return mb


@contextlib.contextmanager
def watched(words: tuple[str, ...], home: Path, *, on_terminal: bool, sleeper: str = "") -> Iterator[tuple[int, int]]:
    """Run the build, and give the processes of the runner and of QEMU once the guest rests, in step `sleeper`."""
    environment = {**os.environ, "OSIMAGER_HOME": str(home), "TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    out = theirs if on_terminal else subprocess.DEVNULL
    threading.Thread(target=_drain, args=(ours,), daemon=True).start()
    with subprocess.Popen([*OSIMAGER, *words], env=environment, stdin=theirs, stdout=out, stderr=out) as runner:
        try:
            children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children")
            assert wait_until(lambda: "qemu-system" in _command_lines(children), deadline_s=60), "no QEMU came up"
            if sleeper:
                assert wait_until(lambda: _is_in(sleeper, home, runner), deadline_s=_INSTALL_S), "its step never began"
            time.sleep(_SETTLE_S)
            yield runner.pid, _find_qemu(children)
        finally:
            runner.send_signal(signal.SIGINT)
            runner.wait(60)


def _find_qemu(children: Path) -> int:
    return next(
        int(pid) for pid in children.read_text().split() if "qemu-system" in Path(f"/proc/{pid}/cmdline").read_text()
    )


def _is_in(step: str, home: Path, runner: subprocess.Popen[bytes]) -> bool:
    """Tell whether the runner's build has begun `step`."""
    assert runner.poll() is None, "the build ended before its step began"
    for record in (home / "data/builds").glob("*/record.json"):
        if json.loads(record.read_text())["pid"] == runner.pid:
            whole = (record.parent / "events.jsonl").read_text().rpartition("\n")[0]
            said = map(json.loads, whole.splitlines())
            return any(event["kind"] == "step_started" and event["name"] == step for event in said)
    return False


def _drain(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass


def _command_lines(children: Path) -> str:
    with contextlib.suppress(OSError):
        return " ".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in children.read_text().split())
    return ""


def _make_sleeper(folder: Path) -> tuple[str, ...]:
    """Write a step that sleeps, and give the words of a build of a real Debian with it: the one from packages."""
    step = folder / f"{_SLEEPER}.sh"
    step.write_text(f"#!/bin/sh\n# {time.time()}\nsleep 3600\n")  # no other build has run this one
    medium = run("iso", "make", "debian-12-made", "--arch", "x86_64", deadline_s=_INSTALL_S).out.strip()
    assert medium, "its medium was not made"
    words = ("build", "debian-12", "--arch", "x86_64", "--accel", "tcg", "--iso", medium, "--step", str(step))
    return (*words, "--no-verify", "--force")


def measure(seconds: float, *, on_terminal: bool, provisions: bool = False) -> Measured:
    with tempfile.TemporaryDirectory(prefix="osimager-idle-") as name:
        folder = Path(name)
        (folder / "project").mkdir()
        words = _make_sleeper(folder) if provisions else make_project(folder / "project", serve=True)
        home, sleeper = (HOME, _SLEEPER) if provisions else (folder / "home", "")
        with watched(words, home, on_terminal=on_terminal, sleeper=sleeper) as (runner, qemu):
            before = cpu_seconds(runner), cpu_seconds(qemu)
            time.sleep(seconds / 2)
            memory = resident_mb(runner)
            time.sleep(seconds / 2)
            used = cpu_seconds(runner) - before[0], cpu_seconds(qemu) - before[1]
    return Measured(
        seconds=seconds,
        runner_percent=round(100 * used[0] / seconds, 2),
        qemu_percent=round(100 * used[1] / seconds, 2),
        memory_mb=round(memory - python_mb(), 1),
        counts_qemu=not provisions,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--terminal", action="store_true", help="with the live display")
    parser.add_argument("--provision", action="store_true", help="while a step of a real guest sleeps")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = measure(options.seconds, on_terminal=options.terminal, provisions=options.provision)
    if options.json:
        print(json.dumps(asdict(measured), indent=1))
    else:
        print(f"CPU     {measured.percent:5.2f} % of one core, at most {MOST_CPU_PERCENT}", end="  ")
        print(f"(runner {measured.runner_percent}, QEMU {measured.qemu_percent})")
        print(f"memory  {measured.memory_mb:5.1f} MB beyond Python itself, at most {MOST_MEMORY_MB}")
        print("kept" if measured.is_kept else "NOT KEPT")
    sys.exit(not measured.is_kept)


if __name__ == "__main__":
    main()
