"""A real GRUB at its prompt, on either firmware, with all that it says mirrored to the serial port."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from osimager.arch import Arch, Firmware
from osimager.env import Env
from osimager.machine.firmware import make_variables
from osimager.machine.host import inspect_host
from osimager.machine.qemu import MachineRun, QemuMachine, start_machine
from osimager.machine.serial import SerialLog
from osimager.plan.model import DiskShape, MachineShape
from osimager.proc import run_tool

TOOLS = ("qemu-system-x86_64", "qemu-img", "grub-mkrescue", "xorriso", "mformat")
# UEFI's own console is on the serial port already: GRUB's would be there twice.
_CONFIG = """
if [ "$grub_platform" = pc ]; then
  serial --unit=0 --speed=115200
  terminfo serial dumb
  terminal_output console serial
fi
"""
_SAID = "said.log"
_ESCAPES = re.compile(r"\x1b\[[0-9;=?]*[A-Za-z]")


async def make_grub_iso(folder: Path) -> Path:
    """Make an ISO in `folder` that boots to GRUB's prompt."""
    config = folder / "tree/boot/grub/grub.cfg"
    config.parent.mkdir(parents=True)
    config.write_text(_CONFIG)
    await run_tool(["grub-mkrescue", "-o", folder / "grub.iso", folder / "tree"], deadline_s=120)
    return folder / "grub.iso"


@contextlib.asynccontextmanager
async def start_grub(iso: Path, firmware: Firmware, env: Env) -> AsyncIterator[QemuMachine]:
    """Boot `iso` under TCG and give the machine when GRUB's prompt is there. Raises PrerequisiteError."""
    host = await inspect_host(Arch.X86_64, firmware, places=env.places, accel="tcg")
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


@contextlib.contextmanager
def writing_said(machine: QemuMachine, env: Env) -> Iterator[None]:
    """Write what GRUB says while the block runs, for `read_said`: lines end where GRUB ends them.

    The machine's own log also ends one that stays open for a second, and a starved guest stops anywhere in a line.
    """
    log = SerialLog(env.workspace / _SAID, env, source="said")
    try:
        with machine.serial.hearing(log.feed):
            yield
    finally:
        log.close()


def read_said(env: Env) -> list[str]:
    """Give the lines that GRUB said, without their times and the terminal's escapes."""
    text = _ESCAPES.sub("", (env.workspace / _SAID).read_text())
    return [line.partition("] ")[2].strip() for line in text.splitlines()]
