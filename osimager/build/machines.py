"""The machines of a build after the installer's: the installed system that is provisioned, and the image on trial."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from osimager.build.evidence import witnessed
from osimager.build.install import InstalledDisk
from osimager.env import Env
from osimager.machine.qemu import MachineRun, start_machine
from osimager.plan.facts import HostFacts
from osimager.plan.model import BuildPlan
from osimager.ports import Machine
from osimager.provision.ssh import SshCommunicator, open_ssh


@contextlib.asynccontextmanager
async def start_installed(
    plan: BuildPlan, installed: InstalledDisk, host: HostFacts, env: Env
) -> AsyncIterator[Machine]:
    """Boot the installed disk: no installer media, no kernel of ours."""
    run = MachineRun(
        role="target",
        shape=plan.machine,
        host=host,
        disks=(installed.disk,),
        variables=installed.variables,
        ssh_port=plan.access.port,
        serial_log=env.workspace / "evidence" / "serial-target.log",
    )
    async with start_machine(run, env) as machine, witnessed(machine, env.workspace / "evidence", role=run.role):
        yield machine


def open_guest(
    plan: BuildPlan, installed: InstalledDisk, machine: Machine, env: Env
) -> AbstractAsyncContextManager[SshCommunicator]:
    """Wait until the installed system lets this build's key in; the machine's death ends the wait."""
    return open_ssh(machine.endpoint, plan.access, installed.credentials.key, env)
