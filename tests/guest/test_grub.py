"""Lines typed into a real GRUB console, BIOS and UEFI, on a host that has more to do than it can: all arrive whole."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from osimager.aio import in_thread
from osimager.arch import Arch, Firmware
from osimager.env import Env
from osimager.errors import PrerequisiteError
from osimager.events import Event, Notice
from osimager.machine.firmware import make_variables
from osimager.machine.host import inspect_host
from osimager.machine.qemu import MachineRun, QemuMachine, start_machine
from osimager.plan.model import DiskShape, MachineShape
from osimager.proc import run_tool

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs("qemu-system-x86_64", "qemu-img", "grub-mkrescue", "xorriso", "mformat"),
]
# What kernel command lines are made of and what needs Shift, but for what GRUB's shell takes as its own.
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_=./:,@%^+~?"
# UEFI's own console is on the serial port already: GRUB's would be there twice.
GRUB_CFG = """
if [ "$grub_platform" = pc ]; then
  serial --unit=0 --speed=115200
  terminfo serial dumb
  terminal_output console serial
fi
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;=?]*[A-Za-z]")


@pytest.fixture
async def grub_iso(tmp_path: Path) -> Path:
    """Make an ISO that boots to GRUB's prompt from either firmware, all that GRUB says mirrored to the serial port."""
    config = tmp_path / "tree/boot/grub/grub.cfg"
    config.parent.mkdir(parents=True)
    config.write_text(GRUB_CFG)
    await run_tool(["grub-mkrescue", "-o", tmp_path / "grub.iso", tmp_path / "tree"], deadline_s=120)
    return tmp_path / "grub.iso"


@contextlib.contextmanager
def loading_the_host() -> Iterator[None]:
    """Keep two more processes busy for each core while the block runs."""
    argv = [sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as stack:
        for _ in range(2 * (os.cpu_count() or 1)):
            burner = stack.enter_context(subprocess.Popen(argv))
            stack.callback(burner.kill)
        yield


@contextlib.asynccontextmanager
async def start_grub(iso: Path, firmware: Firmware, env: Env) -> AsyncIterator[QemuMachine]:
    try:
        host = await inspect_host(Arch.X86_64, firmware, places=env.places, accel="tcg")
    except PrerequisiteError as exc:  # no UEFI firmware here
        pytest.skip(str(exc))
    disk = env.workspace / "disk.qcow2"
    await run_tool(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], deadline_s=60)
    variables = None
    if host.firmware is not None:
        variables = await make_variables(host.firmware, env.workspace / "variables.qcow2")
    shape = MachineShape(
        arch=Arch.X86_64,
        firmware=firmware,
        machine="q35",
        cpu="max",
        cpus=1,
        memory_mib=256,
        disks=(DiskShape("disk0", 1 << 20),),
        nics=(),
    )
    run = MachineRun(
        role="installer",
        shape=shape,
        host=host,
        disks=(disk,),
        cds=(iso,),
        variables=variables,
        serial_log=env.workspace / "serial.log",
    )
    async with start_machine(run, env) as machine:
        await machine.type_keys('<waitSerial "grub>"><waitStill>')
        yield machine


def make_lines(count: int) -> list[str]:
    """Give lines of 20 to 70 characters, the same in each run, all different."""
    chosen = random.Random(4)
    return [
        f"line{number:03} " + "".join(chosen.choices(ALPHABET, k=chosen.randint(12, 62))) for number in range(count)
    ]


def read_lines(log: Path) -> list[str]:
    """Give the serial log's lines without their times and the terminal's escapes, and without what was typed."""
    text = _ESCAPES.sub("", log.read_text())
    said = (line.partition("] ")[2].strip() for line in text.splitlines())
    return [line for line in said if line.startswith("line")]


@pytest.mark.parametrize("firmware", Firmware)
@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.full)])
async def test_every_line_arrives_whole_and_once_under_load(
    count: int, firmware: Firmware, grub_iso: Path, env: Env, events: list[Event]
) -> None:
    lines = make_lines(count)
    async with start_grub(grub_iso, firmware, env) as machine:
        with loading_the_host():
            await machine.type_keys("".join(f"echo {line}<enter>" for line in lines))
            await machine.type_keys('echo al""l of it<enter><waitSerial "all of it">')
    assert await in_thread(lambda: read_lines(env.workspace / "serial.log")) == lines
    assert not [event for event in events if isinstance(event, Notice)]
