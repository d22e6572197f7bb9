"""How fast the verbs answer that are typed all day, each as a whole process, the best of several runs.

    python bench/startup.py [--peer PEER_VENV] [--runs N] [--json]

With `--peer`, a virtual environment that holds OSImager 1.11, its data tree is the measure of `spec list` and of
`spec check --all`, and its own `mkosimage --list` runs side by side. Exit status 1 where a bound is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

OSIMAGER = (sys.executable, "-m", "osimager")


@dataclass
class Measured:
    """The best wall time and CPU time of one command, in milliseconds, and what it may take."""

    name: str
    argv: Sequence[str]
    bound_ms: float | None = None
    wall_ms: float = float("inf")
    cpu_ms: float = float("inf")

    @property
    def is_kept(self) -> bool:
        return self.bound_ms is None or self.wall_ms <= self.bound_ms


def run_once(measured: Measured, environment: dict[str, str], cwd: str) -> None:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(measured.argv, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    wall_s = time.perf_counter() - started
    if done.returncode not in (0, 3):  # 3: `spec check` found a mistake in the peer's tree
        sys.exit(f"{measured.name}: status {done.returncode}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    measured.wall_ms, measured.cpu_ms = min(measured.wall_ms, wall_s * 1000), min(measured.cpu_ms, cpu_s * 1000)


def make_cases(folder: Path, peer: Path | None) -> list[Measured]:
    iso = folder / "some.iso"
    iso.touch()
    cases = [
        Measured("python -c pass", (sys.executable, "-c", "pass")),
        Measured("osimager --help", (*OSIMAGER, "--help"), 150),
        Measured("osimager plan", (*OSIMAGER, "plan", "debian-12", "--arch", "x86_64", "--iso", str(iso)), 250),
    ]
    if peer is not None:
        tree = str(next((peer / "lib").glob("python*/site-packages/osimager/data")))
        cases += [
            Measured("mkosimage --list", (str(peer / "bin/mkosimage"), "--list")),
            Measured("osimager spec list", (*OSIMAGER, "spec", "list", "--data-dir", tree)),
            Measured("osimager spec check --all", (*OSIMAGER, "spec", "check", "--all", "--data-dir", tree), 20_000),
        ]
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--peer", type=Path, help="a virtual environment with OSImager 1.11")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="osimager-bench-") as name:
        folder = Path(name)
        environment = {**os.environ, "OSIMAGER_HOME": name, "HOME": name}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as bootstrap and pip leave it
        cases = make_cases(folder, options.peer)
        for number in range(options.runs):
            for case in cases:  # side by side: what else the host does meets all of them
                if case.bound_ms is None or case.bound_ms < 10_000 or number < 2:
                    run_once(case, environment, name)
    by_name = {case.name: case for case in cases}
    if options.peer is not None:
        by_name["osimager spec list"].bound_ms = 0.8 * by_name["mkosimage --list"].wall_ms
    if options.json:
        print(json.dumps([asdict(case) for case in cases], indent=1))
    else:
        for case in cases:
            bound = f"at most {case.bound_ms:.0f}" if case.bound_ms else ""
            verdict = "" if not case.bound_ms else "kept" if case.is_kept else "NOT KEPT"
            print(f"{case.name:<26} {case.wall_ms:8.0f} ms  (CPU {case.cpu_ms:6.0f})  {bound:<16} {verdict}")
    sys.exit(not all(case.is_kept for case in cases))


if __name__ == "__main__":
    main()
