"""Packer, a hand-written script over bare QEMU (bench/floor.py) and osimager: the same ISO, answers, machine and steps.

    ./bootstrap python -m bench.compare --runs 3 [--firmware uefi] [--arch aarch64] [--only floor,cold] [--write]

Each contestant installs, boots, runs the same five steps, seals with the same script, switches off and converts;
nobody verifies (`osimager --no-verify`). They take turns in one run, so that a noisy machine is noisy for all. Before
each turn the first or the last step is given a number that it never wrote, and after it (not timed) that number is
looked for in the image. Prints minimum, median and maximum, ratios of the medians and where osimager's time goes;
`--write` puts all that into bench/results.json and the pages made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from bench.lab import Lab, open_lab
from bench.look import find_differences
from bench.packer import KEY_INTERVAL, TUNED_KEY_INTERVAL, write_template
from bench.results import Series, render_table, write
from osimager.arch import host_arch
from osimager.build.layers import LayerStore
from osimager.paths import Places
from osimager.registry.store import Registry

Stages = dict[str, float]
PAUSED = "of it the guest paused"
# A Packer that has missed the boot menu waits on.
DEADLINE_S = 10 * 60


class ContestantFailed(Exception):
    """A contestant made no image, or not the one that it was to make."""


@dataclass(frozen=True)
class Outcome:
    """The image that a contestant made, and the seconds of its stages where it says them."""

    image: Path
    stages: Stages


@dataclass(frozen=True)
class Contestant:
    """`change`: the step that is changed before; `fresh`: everything that was made before is removed."""

    name: str
    run: Callable[[Lab], Outcome]
    change: int | None = -1
    fresh: bool = False


@dataclass
class Taken:
    """What was measured of one contestant."""

    seconds: list[float] = field(default_factory=list)
    stages: list[Stages] = field(default_factory=list)


def main() -> int:
    """Run the comparison and print the table."""
    options = _parse()
    work = options.work / f"{options.arch}-{options.firmware}"
    lab = open_lab(work, target=options.target, iso=options.iso, firmware=options.firmware, arch=options.arch)
    chosen = [each for each in CONTESTANTS if each.name in options.only.split(",")]
    taken, failed, layers_mib = {each.name: Taken() for each in chosen}, dict[str, str](), 0
    for number in range(1, options.runs + 1):
        for each in chosen:
            try:
                _take(each, lab, taken[each.name])
            except ContestantFailed as error:
                failed[each.name] = str(error).splitlines()[0]
                print(f"run {number}: {each.name} failed: {error}", file=sys.stderr, flush=True)
                continue
            print(f"run {number}: {each.name} {taken[each.name].seconds[-1]:.1f} s", file=sys.stderr, flush=True)
            if each.name == "cold":
                layers_mib = _layers_mib(lab)
    series = _gather(taken, failed, lab, layers_mib=layers_mib)
    print(render_table(series))
    if options.write:
        write(f"{lab.arch} {lab.firmware}", series)
    return 1 if failed else 0


def run_floor(lab: Lab) -> Outcome:
    """A script that knows exactly what it waits for, with direct kernel boot."""
    firmware = ["--firmware", f"{lab.firmware_code},{lab.firmware_variables}"] if lab.firmware == "uefi" else []
    image = lab.work / "floor-image.qcow2"
    said = _run(
        [
            sys.executable, "-m", "bench.floor", "--iso", lab.iso, "--kernel", lab.kernel, "--initrd", lab.initrd,
            "--append", lab.append.replace("ANSWERS", f"http://10.0.2.2:{lab.port}"), "--answers", lab.answers,
            "--http-port", lab.port, "--key", lab.key, "--user", lab.user, "--arch", lab.arch, "--cpu", lab.cpu,
            "--memory", lab.memory_mib, "--cpus", lab.cpus, "--disk", lab.disk_bytes, "--work", lab.work,
            "--out", image, *firmware, "--steps", *lab.steps, lab.seal,
        ]
    )  # fmt: skip
    return Outcome(image, json.loads(said.splitlines()[-1]))


def run_packer(lab: Lab, *, tuned: bool = False) -> Outcome:
    """Packer's qemu builder: types into the ISO's boot menu, serves the answers, waits for SSH."""
    output = lab.work / "packer"
    environment = {**os.environ, "PACKER_CACHE_DIR": str(lab.work / "packer_cache"), "CHECKPOINT_DISABLE": "1"}
    _run(["packer", "build", "-color=false", write_template(lab, output, tuned=tuned)], environment)
    return Outcome(output / "packer.qcow2", {})


def run_osimager(lab: Lab, *words: str) -> Outcome:
    """The command of the README, without VERIFY."""
    steps = [word for step in lab.own_steps for word in ("--step", step)]
    said = _run(
        [
            sys.executable, "-m", "osimager", "build", "-q", lab.target, "--iso", lab.iso, "--arch", lab.arch,
            "--firmware", lab.firmware, "--project", lab.project, "--no-verify", "--output", lab.images, *steps, *words,
        ],
        {**os.environ, "OSIMAGER_HOME": str(lab.home)},
    )  # fmt: skip
    image = Path(said.splitlines()[-1])
    [entry] = [entry for entry in Registry.open(_places(lab).registry).load() if entry.path == image]
    stages = {str(record.stage): record.seconds for record in entry.stages}
    return Outcome(image, {**stages, PAUSED: find_paused_s(_places(lab).builds / entry.build / "events.jsonl")})


def find_paused_s(events: Path) -> float:
    """Give how long the guest of a build stood still while what it had written became a layer."""
    stopped: datetime | None = None
    seconds = 0.0
    for event in map(json.loads, events.read_text().splitlines()):
        if event["kind"] == "qmp_event" and event["name"] in ("STOP", "RESUME"):
            at = datetime.fromisoformat(event["time"])
            seconds += (at - stopped).total_seconds() if stopped and event["name"] == "RESUME" else 0
            stopped = at if event["name"] == "STOP" else None
    return seconds


def run_again(lab: Lab) -> Outcome:
    """What was built last, asked for once more: the stages in its entry are the earlier build's."""
    return Outcome(run_osimager(lab).image, {})


CONTESTANTS = (
    Contestant("floor", run_floor, fresh=True),
    Contestant("packer", run_packer, fresh=True),
    Contestant("packer-tuned", lambda lab: run_packer(lab, tuned=True), fresh=True),
    Contestant("no-layers", lambda lab: run_osimager(lab, "--no-layers"), fresh=True),
    Contestant("cold", run_osimager, fresh=True),
    Contestant("last", run_osimager),
    Contestant("last-disk", lambda lab: run_osimager(lab, "--cold")),
    Contestant("first", run_osimager, change=0),
    Contestant("unchanged", run_again, change=None),
)


def _take(contestant: Contestant, lab: Lab, taken: Taken) -> None:
    """Run a contestant once and add what was measured. Raises ContestantFailed."""
    if contestant.fresh:
        lab.clear()
    elif not _layers_mib(lab):
        run_osimager(lab)  # what the others stand on; not timed
    if contestant.change is not None:
        lab.change(contestant.change)
    elif not any(lab.images.glob("*.qcow2")):
        run_osimager(lab)
    started = time.monotonic()
    outcome = contestant.run(lab)
    seconds = time.monotonic() - started
    if differences := find_differences(outcome.image, lab.wrote, lab.work):
        raise ContestantFailed(f"its image is not what the steps make: {'; '.join(differences)}")
    taken.seconds.append(seconds)
    taken.stages.append(outcome.stages)


def _gather(taken: dict[str, Taken], failed: dict[str, str], lab: Lab, *, layers_mib: int) -> Series:
    runs = max(len(each.seconds) for each in taken.values())
    version = _run([f"qemu-system-{lab.arch}", "--version"]).splitlines()[0]
    return Series(
        conditions=f"{lab.target} {lab.arch} {lab.firmware}, {lab.memory_mib} MiB, {lab.cpus} CPUs, TCG, "
        f"{len(lab.steps)} steps and the seal, {runs} runs in turn; VERIFY left out. "
        f"{version}, {os.cpu_count()} processors.",
        notes=[
            f"- All have `-cpu {lab.cpu}`, disks with cache=unsafe, the same seal, zstd; Packer's machine and "
            "the floor's: `bench/packer.py`, `bench/floor.py`.",
            f"- Packer waits {lab.boot_wait_s} s for the boot menu, found by trying. `packer` pauses {KEY_INTERVAL} "
            f"after each key, its default; `packer-tuned` {TUNED_KEY_INTERVAL}.",
            "- `last` and `first`: that step changed, the guest's memory loaded; `last-disk`: the same layers, "
            "the guest booted (`--cold`). What they left is looked for in each image, not timed.",
        ],
        seconds={name: each.seconds for name, each in taken.items()},
        stages={name: _medians(each.stages) for name, each in taken.items() if any(each.stages)},
        layers_mib=layers_mib,
        failed={name: why for name, why in failed.items() if not taken[name].seconds},
    )


def _medians(runs: list[Stages]) -> Stages:
    return {stage: statistics.median(run.get(stage, 0.0) for run in runs) for stage in runs[0]}


def _layers_mib(lab: Lab) -> int:
    return sum(layer.size_bytes for layer in LayerStore(_places(lab)).load()) >> 20


def _places(lab: Lab) -> Places:
    return Places.from_environment({"OSIMAGER_HOME": str(lab.home)})


def _run(words: list[object], environment: dict[str, str] | None = None) -> str:
    """Give what a command wrote to stdout. Raises ContestantFailed."""
    argv = [str(word) for word in words]
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        try:
            out, err = process.communicate(timeout=DEADLINE_S)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # its guest too
            if isinstance(error, subprocess.TimeoutExpired):
                raise ContestantFailed(f"{argv[0]} was not done after {DEADLINE_S} s") from None
            raise
    if process.returncode:
        raise ContestantFailed(f"{argv[0]} ended with status {process.returncode}\n{(out + err)[-4000:]}")
    return out


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only", default=",".join(each.name for each in CONTESTANTS))
    parser.add_argument("--target", default="debian-12")
    parser.add_argument("--iso", default="debian-12-made")
    parser.add_argument("--arch", choices=("x86_64", "aarch64"), default=str(host_arch()))
    parser.add_argument("--firmware", choices=("bios", "uefi"))
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/osimager-bench"))
    parser.add_argument("--write", action="store_true", help="into bench/results.json, RESULTS.md and the README")
    options = parser.parse_args()
    options.work = options.work.absolute()  # it goes into file:// addresses
    options.firmware = options.firmware or ("uefi" if options.arch == "aarch64" else "bios")
    return options


if __name__ == "__main__":
    sys.exit(main())
