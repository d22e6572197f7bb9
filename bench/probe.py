"""How long it takes to learn what this host can run: the first time, and when it is known.

    python -m bench.probe [--runs N]

Each first time is a new OSIMAGER_HOME: the QEMU binary is asked for its lists, and a probe guest runs under each
accelerator. Beside this host as it is, a QEMU whose KVM hangs, which is the slowest verdict. Exit status 1 where a
bound is not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from osimager.arch import Firmware, host_arch
from osimager.errors import PrerequisiteError
from osimager.machine import accelerator
from osimager.machine.host import inspect_host
from osimager.paths import Places

FIRST_S, AGAIN_S = 2.0, 0.02


def make_hanging_qemu(folder: Path) -> None:
    """Put a QEMU into `folder` that is the real one, but for KVM: there it hangs."""
    name = f"qemu-system-{host_arch()}"
    real = shutil.which(name)
    if real is None:
        sys.exit(f"there is no {name}")
    path = folder / name
    hang = 'case " $* " in *" -accel kvm "*) exec sleep 60 ;; *" -accel help "*) printf "\\nkvm\\ntcg\\n"; exit ;; esac'
    path.write_text(f'#!/bin/sh\n{hang}\nexec {real} "$@"\n')
    path.chmod(0o755)
    device = folder / "kvm"
    device.touch()
    accelerator._KVM = device


async def measure(firmware: Firmware) -> tuple[float, float, str]:
    """Give the seconds of the first look and of the second, and the verdict's reason."""
    with tempfile.TemporaryDirectory(prefix="osimager-bench-") as home:
        places = Places.from_environment({**os.environ, "OSIMAGER_HOME": home})
        seconds, reason = [], ""
        for _ in range(2):
            started = time.perf_counter()
            try:
                facts = await inspect_host(host_arch(), firmware, places=places)
                reason = f"{facts.accelerator.accelerator}: {facts.accelerator.reason}"
            except PrerequisiteError as exc:
                reason = exc.what
            seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1], reason


def report(name: str, runs: int) -> bool:
    """Measure, print a line, and say whether the bounds are kept."""
    measured = [asyncio.run(measure(Firmware.UEFI)) for _ in range(runs)]
    first, again = statistics.median(run[0] for run in measured), statistics.median(run[1] for run in measured)
    worst = max(run[0] for run in measured)
    print(f"{name:<18} first {first:.2f} s (worst {worst:.2f})  again {again * 1000:.1f} ms  {measured[0][2]}")
    return first < FIRST_S and again < AGAIN_S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    kept = [report("this host", runs)]
    with tempfile.TemporaryDirectory(prefix="osimager-bench-") as folder:
        make_hanging_qemu(Path(folder))
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
        kept.append(report("a KVM that hangs", runs))
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
