"""`doctor --self-test`: a small install, from a CD that is made here to a disk, and what that disk then does.

It goes the way of a build (a CD, an installer that ends with a restart, the disk booted by itself, its word on the
serial port, a power-off) in seconds, and downloads nothing. The guests are some bytes of machine code.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from osimager.aio import in_thread
from osimager.arch import Arch, Firmware
from osimager.build.workspace import open_workspace
from osimager.config.sections import DiskInterface
from osimager.env import Clock, Env
from osimager.errors import OsimagerError
from osimager.events import Bus, OutputLine, Stamped
from osimager.kept import write_kept
from osimager.machine.firmware import make_variables
from osimager.machine.host import inspect_host
from osimager.machine.qemu import MachineRun, QemuMachine, start_machine
from osimager.media.iso9660 import make_image
from osimager.paths import Places
from osimager.plan.model import DiskShape, MachineShape, NicShape
from osimager.ports import EndReason
from osimager.qemu_img import create_disk
from osimager.redact import Masker

_DEADLINE_S = 120.0
_SECTOR = 512
_SAID = "osimager: installed"
# What a UEFI firmware's boot manager says first (MdeModulePkg/Universal/BdsDxe, in every build of EDK II).
_FIRMWARE_SAYS = "BdsDxe"

# 16-bit code, assembled with GNU as. The installer writes the sector that lies behind it to the first disk and resets:
#     ds=es=ss=0; sp=0x7c00; ax=0x0301; bx=0x7e00; cx=1; dx=0x80; int 0x13; out 0xcf9,6; 1: hlt; jmp 1b
_INSTALLER = bytes.fromhex("31c08ed88ec08ed0bc007cb80103bb007eb90100ba8000cd13baf90cb006eef4ebfd")
# The installed system prints the text behind it to COM1 and switches off (ACPI's S5, at SeaBIOS's port):
#     ds=ss=0; sp=0x7c00; cld; si=text; 1: lodsb; test al,al; jz 2f; ah=al; dx=0x3fd; 3: in; test 0x20; jz 3b;
#     dx=0x3f8; al=ah; out; jmp 1b; 2: out 0x604,0x2000 (16 bit); 4: hlt; jmp 4b
_SYSTEM = bytes.fromhex("31c08ed88ed0bc007cfcbe2e7cac84c0741288c4bafd03eca82074fbbaf80388e0eeebe9ba0406b80020eff4ebfd")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried: how long it took, and what went wrong, where something did."""

    arch: Arch
    what: str
    seconds: float
    accelerator: str
    problem: str = ""


async def run_self_test(arch: Arch, places: Places, *, firmwares: Sequence[Firmware] = tuple(Firmware)) -> list[Check]:
    """Try what a build needs of guests of `arch`: an install by BIOS (x86), and that the UEFI firmware comes up."""
    trials = {
        Firmware.BIOS: ("an install from a CD boots from its disk", _try_install),
        Firmware.UEFI: ("UEFI firmware comes up", _try_firmware),
    }
    checks = []
    clock, masker = Clock(), Masker()
    for firmware in firmwares:
        if arch is Arch.AARCH64 and firmware is Firmware.BIOS:
            continue
        what, attempt = trials[firmware]
        started, accelerator, problem = time.monotonic(), "", ""
        with open_workspace(places, f"self-test-{arch}", clock.now()) as workspace:
            env = Env(places=places, workspace=workspace, bus=Bus(now=clock.now, masker=masker), masker=masker)
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    run = await _make_run(arch, firmware, env)
                    accelerator = str(run.host.accelerator.accelerator)
                    await attempt(run, env)
            except TimeoutError:
                problem = f"not done within {_DEADLINE_S:.0f} s"
            except OsimagerError as exc:
                problem = exc.what
        checks.append(Check(arch, what, time.monotonic() - started, accelerator, problem))
    return checks


def make_installer(text: str) -> bytes:
    """Give an ISO whose installer puts a system on the first disk that says `text`."""
    system = (_SYSTEM + text.encode() + b"\r\n\0").ljust(_SECTOR - 2, b"\0") + b"\x55\xaa"
    image = (_INSTALLER.ljust(_SECTOR, b"\0") + system).ljust(4 * _SECTOR, b"\0")
    return make_image("SELFTEST", {"boot.img": image}, boot="boot.img")


async def _make_run(arch: Arch, firmware: Firmware, env: Env) -> MachineRun:
    host = await inspect_host(arch, firmware, places=env.places)
    arm = arch is Arch.AARCH64
    shape = MachineShape(
        arch=arch,
        firmware=firmware,
        machine="virt" if arm else "q35",
        cpu="max",
        cpus=1,
        memory_mib=256,
        disks=(DiskShape("disk0", 1 << 20),),
        nics=(NicShape("nic0"),),
        cdrom_interface=DiskInterface.SCSI if arm else DiskInterface.SATA,
    )
    disk = await create_disk(env.workspace / "disk0.qcow2", shape.disks[0].size_bytes)
    variables = await make_variables(host.firmware, env.workspace / "variables.qcow2") if host.firmware else None
    log = env.workspace / "serial.log"
    return MachineRun(role="self-test", shape=shape, host=host, disks=(disk,), variables=variables, serial_log=log)


async def _try_install(run: MachineRun, env: Env) -> None:
    """Install, boot what was installed, and hear it. Raises what a build raises."""
    cd = env.workspace / "installer.iso"
    await in_thread(lambda: write_kept(cd, make_installer(_SAID)))
    async with start_machine(dataclasses.replace(run, cds=(cd,), ends_on_reset=True), env) as machine:
        await _wait_end(machine, EndReason.GUEST_RESET)
    async with _hearing(run, env, _SAID) as machine:
        await _wait_end(machine, EndReason.GUEST_SHUTDOWN)


async def _try_firmware(run: MachineRun, env: Env) -> None:
    async with _hearing(run, env, _FIRMWARE_SAYS):
        pass


@contextlib.asynccontextmanager
async def _hearing(run: MachineRun, env: Env, text: str) -> AsyncIterator[QemuMachine]:
    """Start the machine, and wait for `text` on its serial port before the block ends."""
    heard = asyncio.Event()

    def listen(stamped: Stamped) -> None:
        event = stamped.event
        if isinstance(event, OutputLine) and event.source == "serial" and text in event.text:
            heard.set()

    with env.bus.listening(listen):
        async with start_machine(dataclasses.replace(run, end_expected=True), env) as machine:
            yield machine
            await heard.wait()


async def _wait_end(machine: QemuMachine, wanted: EndReason) -> None:
    if (reason := await machine.wait_end()) is not wanted:
        raise OsimagerError(f"the guest ended with {reason}, not {wanted}")
