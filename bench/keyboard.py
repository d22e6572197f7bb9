"""How long a kernel line of 120 characters takes to type: osimager's keyboard and Packer's, into the same GRUB prompt.

    python -m bench.keyboard [--runs N]

Packer types as it does by default (`boot_key_interval` unset), over VNC; osimager over QMP. Measured is what the guest
says on its serial port: from the line before to the line itself, which must arrive whole. Debian's `packer` is needed
(apt install packer). Exit status 1 where osimager takes more than a fifth of Packer's time, or a line is not whole.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from osimager.arch import Firmware
from osimager.env import Clock, Env
from osimager.events import Bus
from osimager.paths import Places
from osimager.redact import Masker
from tests.guest.grub import make_grub_iso, start_grub

RATIO = 0.2
DEADLINE_S = 180.0
# What is typed differs from what is said by the two quotes: the prompt's own echo is not taken for the answer.
BEGIN, BEGUN = 'echo be""gun', "begun"
SAID = (
    "linux /install.amd/vmlinuz auto=true priority=critical url=http://10.0.2.2:8080/k3Yx9Qz/preseed.cfg console=ttyS0"
)
TYPED = SAID.replace("linux", 'echo li""nux', 1)
# osimager's log has times, and GRUB breaks its lines at 80 characters.
_BREAKS = re.compile(r"[\r\n]+(\[[^]\n]*\] )?")


async def watch(log: Path, ended: Callable[[], bool]) -> float:
    """Give the seconds between the two lines in the guest's serial log. Raises TimeoutError, or ends with `ended`."""
    begun = 0.0
    async with asyncio.timeout(DEADLINE_S):
        while True:
            text = _BREAKS.sub("", log.read_text(errors="replace")) if log.exists() else ""
            if not begun and BEGUN in text:
                begun = time.perf_counter()
            if begun and SAID in text:
                return time.perf_counter() - begun
            if ended():
                sys.exit(f"the line did not arrive whole: {text[-400:]!r}")
            await asyncio.sleep(0.005)


async def type_with_osimager(iso: Path, work: Path) -> float:
    env = Env(
        places=Places.from_environment(os.environ),
        workspace=work,
        bus=Bus(now=Clock().now, masker=Masker()),
        masker=Masker(),
    )
    async with start_grub(iso, Firmware.BIOS, env) as machine, asyncio.TaskGroup() as group:
        seen = group.create_task(watch(work / "serial.log", lambda: False))
        await machine.type_keys(f"{BEGIN}<enter>{TYPED}<enter>")
    return seen.result()


async def type_with_packer(iso: Path, work: Path) -> float:
    builder = {
        "type": "qemu",
        "accelerator": "tcg",
        "machine_type": "q35",
        "headless": True,
        "iso_url": f"file://{iso}",
        "iso_checksum": "none",
        "output_directory": str(work / "output"),
        "disk_size": "1M",
        "memory": 256,
        "communicator": "none",
        "boot_wait": "10s",
        "boot_command": [f"{BEGIN}<enter>", f"{TYPED}<enter>", "<wait600s>"],
        "qemuargs": [["-serial", f"file:{work / 'serial.log'}"]],
    }
    template = work / "packer.json"
    template.write_text(json.dumps({"builders": [builder]}))
    environment = {**os.environ, "PACKER_CACHE_DIR": str(work / "cache"), "CHECKPOINT_DISABLE": "1"}
    with (work / "packer.log").open("w") as log:
        child = subprocess.Popen(["packer", "build", "-color=false", template], stdout=log, stderr=log, env=environment)
    try:
        return await watch(work / "serial.log", lambda: child.poll() is not None)
    finally:
        child.terminate()  # it ends its QEMU
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
        child.kill()


async def run(runs: int) -> bool:
    seconds: dict[str, list[float]] = {"osimager": [], "packer": []}
    with tempfile.TemporaryDirectory(prefix="osimager-bench-") as folder:
        iso = await make_grub_iso(Path(folder))
        for number in range(runs):
            for name, type_with in (("osimager", type_with_osimager), ("packer", type_with_packer)):
                work = Path(folder) / f"{name}-{number}"
                work.mkdir()
                seconds[name].append(await type_with(iso, work))
                print(f"{name:<9} {seconds[name][-1]:6.2f} s", file=sys.stderr)
    ours, theirs = (statistics.median(seconds[name]) for name in ("osimager", "packer"))
    print(f"{len(TYPED)} characters: osimager {ours:.2f} s, packer {theirs:.2f} s, ratio {ours / theirs:.3f}")
    return ours <= theirs * RATIO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    sys.exit(not asyncio.run(run(parser.parse_args().runs)))


if __name__ == "__main__":
    main()
