"""QEMU never outlives its runner, whenever and however that is ended."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from osimager.arch import Arch, Firmware
from osimager.env import Env
from osimager.machine.host import inspect_host
from osimager.machine.qemu import MachineRun, start_machine
from osimager.plan.model import DiskShape, MachineShape, NicShape

pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-system-x86_64", "qemu-img")]

# Run as a program: starts a guest that hangs, says so, and waits.
RUNNER = """
import asyncio, os, sys
from datetime import UTC, datetime
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_machine_kills as kills
from osimager.env import Env
from osimager.events import Bus
from osimager.paths import Places
from osimager.redact import Masker

masker = Masker()
bus = Bus(now=lambda: datetime.now(UTC), masker=masker)
env = Env(places=Places.from_environment(os.environ), workspace=Path(sys.argv[1]), bus=bus, masker=masker)
asyncio.run(kills.run_forever(env))
"""


def _load_tiny() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parents[1] / "guest" / "tiny.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def make_run(env: Env) -> MachineRun:
    tiny = _load_tiny()
    host = await inspect_host(Arch.X86_64, Firmware.BIOS, places=env.places, accel="tcg")
    shape = MachineShape(
        arch=Arch.X86_64,
        firmware=Firmware.BIOS,
        machine="q35",
        cpu="x86-64-v2",
        cpus=1,
        memory_mib=32,
        disks=(DiskShape("disk0", 1 << 20),),
        nics=(NicShape("net0"),),
    )
    disk = env.workspace / "disk.qcow2"
    if not disk.is_file():
        tiny.make_disk(disk, tiny.make_boot_sector("up", tiny.HANG))
    return MachineRun(role="target", shape=shape, host=host, disks=(disk,), serial_log=env.workspace / "serial.log")


async def run_forever(env: Env) -> None:
    async with start_machine(await make_run(env), env) as machine:
        print(machine.pid, machine.endpoint.port, flush=True)
        await asyncio.Event().wait()


def find_guests(workspace: Path) -> list[int]:
    """Find the QEMU processes whose command line names `workspace`; zombies have none."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if line.startswith(b"/") and b"qemu-system" in line and os.fsencode(workspace) in line:
                    found.append(int(entry.name))
    return found


def wait_until_gone(workspace: Path, seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while (left := find_guests(workspace)) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def start_runner(workspace: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(workspace), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and PR_SET_PDEATHSIG of Linux")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_qemu_dies_with_its_runner(number: signal.Signals, env: Env) -> None:
    with start_runner(env.workspace) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline()
        assert find_guests(env.workspace)
        runner.send_signal(number)
        runner.wait(30)
    assert wait_until_gone(env.workspace, 5) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and PR_SET_PDEATHSIG of Linux")
def test_kill_at_any_moment_of_the_start_leaves_no_qemu(env: Env) -> None:
    chance = random.Random(4)  # the same moments each time
    for _ in range(12):
        with start_runner(env.workspace) as runner:
            time.sleep(chance.uniform(0.15, 0.6))
            runner.kill()
        assert wait_until_gone(env.workspace, 5) == []


async def test_cancel_at_any_moment_leaves_nothing(env: Env) -> None:
    run = await make_run(env)
    chance = random.Random(4)

    async def build() -> None:
        async with start_machine(run, env):
            await asyncio.Event().wait()

    for _ in range(15):
        task = asyncio.create_task(build())
        await asyncio.sleep(chance.uniform(0, 0.15))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert find_guests(env.workspace) == []


async def test_second_cancel_still_reaps_qemu(env: Env) -> None:
    run = await make_run(env)
    up = asyncio.Event()

    async def build() -> None:
        async with start_machine(run, env) as machine:
            os.kill(machine.pid, signal.SIGSTOP)  # so that the ladder takes its time
            up.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(build())
    await up.wait()
    for _ in range(4):
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert find_guests(env.workspace) == []


async def test_full_disk_under_the_serial_log_ends_the_block(env: Env) -> None:
    run = await make_run(env)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full on this host")
    run.serial_log.symlink_to(full)

    async def build() -> None:
        async with start_machine(run, env):
            await asyncio.Event().wait()

    with pytest.raises(OSError, match="No space"):
        async with asyncio.timeout(30):
            await build()
    assert find_guests(env.workspace) == []
