"""Packer, a hand-written script over bare QEMU (bench/floor.py) and osimager: the same ISO, preseed, machine and steps.

    ./bootstrap python -m bench.compare --runs 3

Each contestant installs, boots, runs the same scripts, seals with the same script, switches off and converts; nobody
verifies (`osimager --no-verify`). They take turns in one run, so that a noisy machine is noisy for all. Prints minimum,
median and maximum of each, and the ratios of the medians; `--write` puts the table into bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.lab import Lab, open_lab

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contestant:
    """A name, what it runs, and what people should know of it."""

    name: str
    run: Callable[[Lab, int], None]


def main() -> int:
    """Run the comparison and print the table."""
    options = _parse()
    lab = open_lab(options.work, target=options.target, iso=options.iso, firmware=options.firmware, arch=options.arch)
    chosen = [each for each in CONTESTANTS if each.name in options.only.split(",")]
    times: dict[str, list[float]] = {each.name: [] for each in chosen}
    for number in range(options.runs):
        for each in chosen:
            lab.clear()
            started = time.monotonic()
            each.run(lab, number)
            times[each.name].append(time.monotonic() - started)
            print(f"run {number + 1}: {each.name} {times[each.name][-1]:.1f} s", file=sys.stderr, flush=True)
    table = _render(times, lab)
    print(table)
    if options.write:
        (HERE / "RESULTS.md").write_text(table)
    return 0


def run_floor(lab: Lab, number: int) -> None:
    """A script that knows exactly what it waits for, with direct kernel boot."""
    firmware = ["--firmware", f"{lab.firmware_code},{lab.firmware_variables}"] if lab.firmware == "uefi" else []
    _run(
        [
            sys.executable, HERE / "floor.py", "--iso", lab.iso, "--kernel", lab.kernel, "--initrd", lab.initrd,
            "--append", lab.append.replace("ANSWERS", f"http://10.0.2.2:{lab.port}"), "--answers", lab.answers,
            "--http-port", lab.port, "--key", lab.key, "--user", lab.user, "--arch", lab.arch,
            "--memory", lab.memory_mib, "--cpus", lab.cpus, "--disk", lab.disk_bytes, "--work", lab.work,
            "--out", lab.work / f"floor-{number}.qcow2", *firmware, "--steps", *lab.steps, lab.seal,
        ]
    )  # fmt: skip


def run_packer(lab: Lab, number: int) -> None:
    """Packer's qemu builder: types into the ISO's boot menu, serves the preseed, waits for SSH."""
    output = lab.work / f"packer-{number}"
    template = {
        "builders": [
            {
                "type": "qemu",
                "qemu_binary": f"qemu-system-{lab.arch}",
                "accelerator": "tcg",
                "machine_type": "q35" if lab.arch == "x86_64" else "virt",
                "qemuargs": [
                    ["-cpu", "max"],
                    ["-serial", f"file:{lab.work / 'packer-serial.log'}"],
                    *([["-bios", str(lab.firmware_single)]] if lab.firmware == "uefi" else []),
                ],
                "headless": True,
                "iso_url": f"file://{lab.iso}",
                "iso_checksum": "none",
                "output_directory": str(output),
                "vm_name": "packer.qcow2",
                "memory": lab.memory_mib,
                "cpus": lab.cpus,
                "disk_size": f"{lab.disk_bytes // 1024**2}M",
                "disk_interface": "virtio",
                "disk_cache": "unsafe",
                "disk_discard": "unmap",
                "disk_detect_zeroes": "unmap",
                "disk_compression": True,
                "format": "qcow2",
                "net_device": "virtio-net",
                "http_directory": str(lab.answers),
                "boot_wait": lab.boot_wait,
                "boot_command": [lab.boot_command],
                "ssh_username": lab.user,
                "ssh_private_key_file": str(lab.key),
                "ssh_timeout": "30m",
                "shutdown_command": "true",  # the seal has switched it off
            }
        ],
        "provisioners": [
            {
                "type": "shell",
                "expect_disconnect": True,
                "skip_clean": True,
                "execute_command": "chmod +x {{ .Path }}; {{ .Vars }} sudo -E sh {{ .Path }}",
                "scripts": [str(step) for step in (*lab.steps, lab.seal)],
            }
        ],
    }
    (lab.work / "packer.json").write_text(json.dumps(template, indent=1))
    environment = {**os.environ, "PACKER_CACHE_DIR": str(lab.work / "packer_cache"), "CHECKPOINT_DISABLE": "1"}
    _run(["packer", "build", "-color=false", lab.work / "packer.json"], environment)


def run_osimager(lab: Lab, number: int) -> None:
    """The command of the README, without VERIFY; every layer and image made anew."""
    steps = [word for step in lab.own_steps for word in ("--step", step)]
    _run(
        [
            "osimager", "build", lab.target, "--iso", lab.iso, "--arch", lab.arch, "--firmware", lab.firmware,
            "--force", "--no-verify", "--output", lab.work / f"osimager-{number}", *steps,
        ],
        {**os.environ, "OSIMAGER_HOME": str(lab.work / "home")},
    )  # fmt: skip


CONTESTANTS = (Contestant("floor", run_floor), Contestant("packer", run_packer), Contestant("osimager", run_osimager))


def _run(words: list[object], environment: dict[str, str] | None = None) -> None:
    argv = [str(word) for word in words]
    done = subprocess.run(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{argv[0]} failed with status {done.returncode}:\n{done.stdout[-4000:]}")


def _render(times: dict[str, list[float]], lab: Lab) -> str:
    """Give the table in Markdown."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    lines = [
        f"{lab.target} {lab.arch} {lab.firmware}, {lab.memory_mib} MiB, {lab.cpus} CPUs, TCG, "
        f"{len(lab.steps)} steps and the seal, {len(next(iter(times.values())))} runs in turn; VERIFY left out.",
        "",
        "| | min s | median s | max s | of Packer's | of the floor's |",
        "|---|---|---|---|---|---|",
    ]
    for name, values in times.items():
        ratios = [f"{medians[name] / medians[peer]:.2f}" if peer in medians else "" for peer in ("packer", "floor")]
        lines.append(f"| {name} | {min(values):.0f} | {medians[name]:.0f} | {max(values):.0f} | {' | '.join(ratios)} |")
    versions = subprocess.run(
        [f"qemu-system-{lab.arch}", "--version"], capture_output=True, text=True, check=True
    ).stdout
    lines += ["", f"{versions.splitlines()[0]}. The floor's flags: `bench/floor.py`.", ""]
    return "\n".join(lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only", default=",".join(each.name for each in CONTESTANTS))
    parser.add_argument("--target", default="debian-12")
    parser.add_argument("--iso", default="debian-12-made")
    parser.add_argument("--arch", default="x86_64")
    parser.add_argument("--firmware", default="bios")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/osimager-bench"))
    parser.add_argument("--write", action="store_true", help="write bench/RESULTS.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
