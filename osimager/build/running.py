"""`osimager image run`: a registered image in a throw-away overlay, with a NoCloud seed that holds one's own key."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from osimager.aio import in_thread
from osimager.arch import Arch, Firmware
from osimager.build.machines import Rig
from osimager.build.openssh import run_ssh, ssh_words
from osimager.build.workspace import open_workspace
from osimager.env import Clock, Env
from osimager.errors import MachineError, UsageError
from osimager.events import Bus, Sink
from osimager.machine.host import inspect_host
from osimager.machine.qemu import MachineRun, start_machine
from osimager.media.seed import make_seed
from osimager.paths import Places
from osimager.plan.argv import Display
from osimager.plan.deadlines import slowness
from osimager.plan.facts import Accelerator
from osimager.plan.model import DiskShape, MachineShape, NicShape
from osimager.ports import Endpoint
from osimager.provision.banner import wait_banner
from osimager.qemu_img import create_overlay, read_size
from osimager.redact import Masker
from osimager.registry.entry import Entry
from osimager.units import format_duration

USER = "osimager"
_MEMORY_MIB = 2048
_UP_S = 300.0
_DISK = "disk0"


async def run_image(
    entry: Entry,
    places: Places,
    *,
    public_key: Path | None,
    log_in: bool,
    display: Display,
    sinks: Sequence[Sink],
    say: Callable[[str], None],
) -> int:
    """Boot an overlay of the image and give the SSH session's exit status, or 0 when the guest switches itself off."""
    clock, masker = Clock(), Masker()
    bus = Bus(now=clock.now, masker=masker, build=entry.id)
    public_key = public_key or _find_public_key(Path.home() / ".ssh")
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(bus.listening(sink))
        workspace = stack.enter_context(open_workspace(places, f"run-{entry.short}", clock.now()))
        env = Env(places=places, workspace=workspace, bus=bus, masker=masker, clock=clock)
        run = await _make_run(entry, env, public_key=public_key, display=display)
        async with start_machine(run, env) as machine:
            private = public_key.with_suffix("")
            words = ssh_words(USER, machine.endpoint, private if private.is_file() else None)
            say(f"{entry.id} runs; log in with: {' '.join(words)}")
            if run.vnc_socket is not None:
                say(f"its screen: a VNC viewer on the socket {run.vnc_socket}")
            if log_in:
                await _wait_up(machine.endpoint, run.host.accelerator.accelerator, env)
                return await run_ssh(words)
            say("Ctrl-C ends it, and nothing of it is kept")
            await machine.wait_end()
    return 0


async def _wait_up(endpoint: Endpoint, accelerator: Accelerator, env: Env) -> None:
    """Wait for the guest's SSH server. Raises MachineError where it does not come up."""
    deadline_s = _UP_S * slowness(accelerator)
    try:
        async with asyncio.timeout(deadline_s):
            (await wait_banner(endpoint, env.emit)).close()
    except TimeoutError as exc:
        what = f"no SSH server answered within {format_duration(deadline_s)}"
        raise MachineError(what, hint="look at its screen: osimager image run --display vnc") from exc


async def _make_run(entry: Entry, env: Env, *, public_key: Path, display: Display) -> MachineRun:
    """Put together the machine: the image's architecture and firmware, otherwise what suits most."""
    host = await inspect_host(entry.arch, entry.firmware, places=env.places)
    seed = env.workspace / "seed.iso"
    await in_thread(lambda: make_seed(seed, "CIDATA", _seed_files(entry, public_key)))
    disk = await create_overlay(env.workspace / "run.qcow2", entry.path)
    shape = MachineShape(
        arch=entry.arch,
        firmware=entry.firmware if entry.arch is not Arch.AARCH64 else Firmware.UEFI,
        machine="virt" if entry.arch is Arch.AARCH64 else "q35",
        cpu="max",
        cpus=min(2, host.cores),
        memory_mib=_MEMORY_MIB,
        disks=(DiskShape(_DISK, await read_size(disk)),),
        nics=(NicShape("nic0"),),
    )
    rig = Rig(host, display)
    drives = {_DISK: disk, **await rig.clean_variables(env.workspace)}
    return dataclasses.replace(rig.make_run("run", shape, env, drives), cds=(seed,), end_expected=True)


def _find_public_key(folder: Path) -> Path:
    """Find one's own public key, the newest kind first. Raises UsageError where there is none."""
    for kind in ("ed25519", "ecdsa", "rsa"):
        if (path := folder / f"id_{kind}.pub").is_file():
            return path
    raise UsageError(f"there is no public key in {folder}", hint="make one with ssh-keygen, or say --key FILE.pub")


def _seed_files(entry: Entry, public_key: Path) -> dict[str, bytes]:
    """Give a NoCloud seed (cloud-init's documentation, "NoCloud"): one user, who may become root."""
    user = {
        "name": USER,
        "lock_passwd": True,
        "shell": "/bin/sh",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [public_key.read_text(encoding="utf-8").strip()],
    }
    meta = {"instance-id": f"run-{entry.id}", "local-hostname": entry.short.rpartition("-")[0].replace(".", "-")}
    return {  # JSON is YAML
        "user-data": b"#cloud-config\n" + json.dumps({"users": [user]}).encode() + b"\n",
        "meta-data": json.dumps(meta).encode() + b"\n",
    }
