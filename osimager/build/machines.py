"""The machines of a build: what they have in common, and the installed system that is provisioned."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from osimager.build.credentials import Credentials
from osimager.build.evidence import EVIDENCE, fetch_logs, witnessed
from osimager.build.failing import Failing
from osimager.build.workspace import find_socket
from osimager.env import Env
from osimager.events import Notice
from osimager.kept import make_folder, write_kept
from osimager.machine.firmware import make_variables
from osimager.machine.ladder import SYSTEM
from osimager.machine.qemu import MachineRun, QemuMachine, start_machine
from osimager.plan.argv import Display
from osimager.plan.facts import HostFacts
from osimager.plan.model import BuildPlan, MachineShape
from osimager.ports import Machine
from osimager.proc import find_tool, run_foreground
from osimager.provision.planting import plant_key
from osimager.provision.ssh import BuildKey, SshCommunicator, open_ssh


@dataclass(frozen=True, slots=True)
class Rig:
    """What every machine of a build runs on: this host, where the guest's screen is shown, what a failure means."""

    host: HostFacts
    display: Display = Display.NONE
    failing: Failing | None = None

    def make_run(self, role: str, shape: MachineShape, env: Env, *, disk: Path, variables: Path | None) -> MachineRun:
        """Give what all runs have in common; makes the folder of the serial log."""
        evidence = make_folder(env.workspace / EVIDENCE, private=True)
        return MachineRun(
            role=role,
            shape=shape,
            host=self.host,
            disks=(disk,),
            variables=variables,
            serial_log=evidence / f"serial-{role}.log",
            display=self.display,
            vnc_socket=_vnc_socket(env) if self.display is Display.VNC else None,
        )

    async def clean_variables(self, path: Path) -> Path | None:
        """Make firmware variables as a new machine has them (UEFI), or none (BIOS)."""
        return None if self.host.firmware is None else await make_variables(self.host.firmware, path)


def _vnc_socket(env: Env) -> Path:
    """Give the place of QEMU's VNC socket, in a folder that only the user can enter."""
    make_folder(env.places.runtime, private=True)
    return find_socket(env.places, env.workspace.name, "vnc")


@dataclass(frozen=True, slots=True)
class InstalledDisk:
    """What INSTALL leaves: the disk, the firmware's variables beside it (UEFI), and the way in that was planted."""

    disk: Path
    variables: Path | None
    credentials: Credentials


@contextlib.asynccontextmanager
async def start_installed(plan: BuildPlan, installed: InstalledDisk, rig: Rig, env: Env) -> AsyncIterator[QemuMachine]:
    """Boot the installed disk: no installer media, no kernel of ours."""
    run = rig.make_run("target", plan.machine, env, disk=installed.disk, variables=installed.variables)
    run = dataclasses.replace(run, ssh_port=plan.access.port)
    async with (
        start_machine(run, env) as machine,
        witnessed(machine, env, role=run.role, ladder=SYSTEM, failing=rig.failing),
    ):
        yield machine


@contextlib.asynccontextmanager
async def open_guest(
    plan: BuildPlan, installed: InstalledDisk, machine: QemuMachine, env: Env, *, failing: Failing | None = None
) -> AsyncIterator[SshCommunicator]:
    """Wait until the installed system lets this build's key in; the guest's death ends the wait, or its being stuck.

    An error in the block is attended to, its logs fetched first, before it is passed on.
    """
    key = installed.credentials.key
    async with open_ssh(machine.endpoint, plan.access, key, env) as guest:
        if plan.access.password is not None:
            await plant_key(guest, plan.access, key)
        try:
            yield guest
        except Exception as error:  # whatever failed: it is raised again when the shell ends
            if failing is not None and not failing.leaves_at_once:
                await fetch_logs(guest, env)
                await failing.attend(error, lambda: _open_shell(plan, key, machine, env))
            raise


async def _open_shell(plan: BuildPlan, key: BuildKey, machine: Machine, env: Env) -> None:
    """Run OpenSSH in the foreground with the build's key, which lies 0600 in the workspace meanwhile."""
    file = env.workspace / "shell-key"
    write_kept(file, key.private, mode=0o600)
    env.emit(Notice("the build failed: this is a shell in its guest; the build ends when you leave it"))
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    words = [word for option in options for word in ("-o", option)]
    where = [f"{plan.access.user}@{machine.endpoint.host}", "-p", str(machine.endpoint.port)]
    await run_foreground([find_tool("ssh", package="openssh-client"), *words, "-i", file, *where])
    file.unlink(missing_ok=True)
