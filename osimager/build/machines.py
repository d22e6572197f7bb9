"""The machines of a build: what they have in common, and the installed system that is provisioned."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import in_thread, supervised
from osimager.build.evidence import fetch_logs, witnessed
from osimager.build.failing import Failing
from osimager.build.layering import Base, BuildLayers
from osimager.build.openssh import run_ssh, ssh_words
from osimager.build.workspace import EVIDENCE, find_socket
from osimager.env import Env
from osimager.errors import OsimagerError
from osimager.events import Notice
from osimager.kept import make_folder, write_kept
from osimager.machine.firmware import make_variables
from osimager.machine.ladder import SYSTEM
from osimager.machine.qemu import VARIABLES, MachineRun, QemuMachine, start_machine
from osimager.machine.tpm import STATE, copy_state
from osimager.plan.argv import Display
from osimager.plan.facts import HostFacts
from osimager.plan.model import BuildPlan, MachineShape
from osimager.ports import Machine
from osimager.provision.banner import wait_banner
from osimager.provision.keys import BuildKey
from osimager.provision.planting import plant_key
from osimager.provision.ssh import SshCommunicator, load_ssh, open_ssh
from osimager.provision.waking import wake_up

_WAKE_S = 30.0  # so long a machine that goes on from saved memory has to answer


@dataclass(frozen=True, slots=True)
class Rig:
    """What every machine of a build runs on: this host, where the guest's screen is shown, what a failure means."""

    host: HostFacts
    display: Display = Display.NONE
    failing: Failing | None = None

    def make_run(self, role: str, shape: MachineShape, env: Env, drives: Mapping[str, Path]) -> MachineRun:
        """Give what all runs have in common; makes the folders of the serial log and of a TPM, which is new.

        `drives` are the machine's files by name: a disk's id, and VARIABLES (UEFI).
        """
        evidence = make_folder(env.workspace / EVIDENCE, private=True)
        tpm = make_folder(env.workspace / f"tpm-{role}", private=True) if shape.tpm else None
        return MachineRun(
            role=role,
            shape=shape,
            host=self.host,
            disks=tuple(drives[disk.id] for disk in shape.disks),
            variables=drives.get(VARIABLES),
            tpm=tpm,
            serial_log=evidence / f"serial-{role}.log",
            display=self.display,
            vnc_socket=_vnc_socket(env) if self.display is Display.VNC else None,
        )

    async def clean_variables(self, folder: Path) -> dict[str, Path]:
        """Make firmware variables as a new machine has them (UEFI), or none (BIOS), as one of its drives."""
        if self.host.firmware is None:
            return {}
        return {VARIABLES: await make_variables(self.host.firmware, folder / f"{VARIABLES}.qcow2")}


def _vnc_socket(env: Env) -> Path:
    """Give the place of QEMU's VNC socket, in a folder that only the user can enter."""
    make_folder(env.places.runtime, private=True)
    return find_socket(env.places, env.workspace.name, "vnc")


@dataclass(frozen=True, slots=True)
class Running:
    """The installed system's machine. `sock`: it went on from saved memory, and its SSH server has spoken there."""

    machine: QemuMachine
    sock: socket.socket | None = None


@contextlib.asynccontextmanager
async def start_installed(
    plan: BuildPlan, base: Base, layers: BuildLayers, rig: Rig, env: Env
) -> AsyncIterator[Running]:
    """Give the installed system's machine: where its memory was saved it goes on from there, else its disk boots.

    No installer media, no kernel of ours. A memory that does not load, or does not answer then, is told and left.
    """
    async with contextlib.AsyncExitStack() as up, supervised(in_thread(load_ssh)):
        running = None
        if base.saved is not None:
            running = await _wake(plan, base, layers, rig, env, owner=up)
        if running is None:
            running = Running(await up.enter_async_context(_start(plan, base, layers, rig, env)))
        yield running


async def _wake(
    plan: BuildPlan, base: Base, layers: BuildLayers, rig: Rig, env: Env, *, owner: contextlib.AsyncExitStack
) -> Running | None:
    """Start from saved memory; None where that does not come to life. `owner` has the machine then."""
    async with contextlib.AsyncExitStack() as attempt:
        try:
            machine = await attempt.enter_async_context(_start(plan, base, layers, rig, env))
            async with asyncio.timeout(_WAKE_S):
                sock = await wait_banner(await machine.find_endpoint(), env.emit)
        except (OsimagerError, OSError) as exc:  # a deadline is an OSError too
            env.emit(Notice(f"the saved memory does not go on ({exc or 'it does not answer'}): the disk is booted"))
        else:
            attempt.callback(sock.close)
            await owner.enter_async_context(attempt.pop_all())
            return Running(machine, sock)
    layers.forget_memory()
    return None


@contextlib.asynccontextmanager
async def _start(plan: BuildPlan, base: Base, layers: BuildLayers, rig: Rig, env: Env) -> AsyncIterator[QemuMachine]:
    drives = await layers.open_drives(base)
    run = dataclasses.replace(
        rig.make_run("target", plan.machine, env, drives),
        ssh_port=plan.access.port,
        savable=layers.saves_memory,
        saved=layers.saved_memory(base),
    )
    if run.tpm is not None:
        copy_state(base.folder / STATE, run.tpm)
    async with (
        start_machine(run, env) as machine,
        witnessed(machine, env, role=run.role, ladder=SYSTEM, failing=rig.failing),
    ):
        yield machine


@contextlib.asynccontextmanager
async def open_guest(
    plan: BuildPlan, base: Base, running: Running, env: Env, *, failing: Failing | None = None
) -> AsyncIterator[SshCommunicator]:
    """Wait until the installed system lets this build's key in; the guest's death ends the wait, or its being stuck.

    An error in the block is attended to, its logs fetched first, before it is passed on.
    """
    key, machine = base.credentials.key, running.machine
    endpoint = await machine.find_endpoint()
    async with open_ssh(endpoint, plan.access, key, env, sock=running.sock) as guest:
        if plan.access.password is not None:
            await plant_key(guest, plan.access, key)
        if running.sock is not None:
            await guest.get_ready()  # beside the next script's
        await guest.get_ready()
        if running.sock is not None:
            await wake_up(guest, env)
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
    try:
        env.emit(Notice("the build failed: this is a shell in its guest; the build ends when you leave it"))
        await run_ssh(ssh_words(plan.access.user, machine.endpoint, file))
    finally:
        file.unlink(missing_ok=True)
