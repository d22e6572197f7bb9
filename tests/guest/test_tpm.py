"""A guest's TPM: swtpm's own, gone with its machine, and what it remembers kept with the layers."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from pathlib import Path

import pytest

from osimager.arch import Arch, Firmware
from osimager.env import Env
from osimager.errors import GuestGone, PrerequisiteError
from osimager.machine.host import inspect_host
from osimager.machine.qemu import MachineRun, start_machine
from osimager.machine.tpm import find_swtpm
from tests.guest import tiny
from tests.guest.lab import find_processes, run
from tests.guest.test_layers import Built
from tests.guest.test_machine import LIMIT_S, SHAPE, make_run

pytestmark = [pytest.mark.guest, pytest.mark.needs("swtpm", "qemu-system-x86_64", "qemu-img")]

SPEC = """\
provides: {dist: trusted, versions: ["12"], arches: [x86_64]}
include: debian
machine: {firmware: uefi, tpm: true}
"""
# TPM 2.0 Library, part 3: TPM2_ReadClock; in its answer, after ten bytes of header, time and clock (8 each) and the
# count of resets: how often this TPM was switched on, as it remembers. TPM2_PCR_Extend of register 16 by SHA-256 with
# an empty password: what is in the register is forgotten with the power.
ASK = """\
#!/usr/bin/python3
import pathlib, struct
def ask(command):
    with open("/dev/tpm0", "r+b", buffering=0) as tpm:
        tpm.write(command)
        answer = tpm.read(4096)
    assert answer[6:10] == bytes(4), answer.hex()
    return answer
"""
EXTEND = (
    ASK
    + """\
password = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
body = struct.pack(">II", 16, len(password)) + password + struct.pack(">IH", 1, 0x000B) + b"x" * 32
ask(struct.pack(">HII", 0x8002, 10 + len(body), 0x182) + body)
"""
)
SAY = (
    ASK
    + """\
[resets] = struct.unpack(">I", ask(struct.pack(">HII", 0x8001, 10, 0x181))[26:30])
register = pathlib.Path("/sys/class/tpm/tpm0/pcr-sha256/16").read_text().strip()
print("resets", resets)
print("register", "empty" if set(register) == {"0"} else "extended")
"""
)


async def make_tpm_run(env: Env) -> MachineRun:
    host = await inspect_host(Arch.X86_64, Firmware.BIOS, places=env.places, accel="tcg")
    folder = env.workspace / "tpm"
    folder.mkdir(mode=0o700)
    return dataclasses.replace(make_run(env, host, tiny.HANG), shape=dataclasses.replace(SHAPE, tpm=True), tpm=folder)


async def test_tpm_is_there_with_its_machine_and_gone_with_it(env: Env) -> None:
    started = await make_tpm_run(env)
    state = f"dir={started.tpm}"
    async with asyncio.timeout(LIMIT_S), start_machine(started, env) as machine:
        models = await machine.qmp.execute("query-tpm")
        assert isinstance(models, list)
        assert [model["model"] for model in models] == ["tpm-crb"]
        assert len(find_processes(state)) == 1
    assert find_processes(state) == []


async def test_tpm_goes_with_a_killed_qemu(env: Env) -> None:
    started = await make_tpm_run(env)
    async with asyncio.timeout(LIMIT_S), start_machine(started, env) as machine:
        os.kill(machine.pid, signal.SIGKILL)
        with pytest.raises(GuestGone):
            await machine.wait_end()
    assert find_processes(f"dir={started.tpm}") == []


def test_host_without_swtpm_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_words: None)
    with pytest.raises(PrerequisiteError, match="swtpm") as caught:
        find_swtpm()
    assert "install swtpm" in str(caught.value.hint)


class Site:
    """A project with a target whose machine has a TPM, and two steps of a user's."""

    def __init__(self, folder: Path) -> None:
        (folder / "specs/trusted").mkdir(parents=True)
        (folder / "specs/trusted/spec.yml").write_text(SPEC)
        self.folder = folder
        self.steps = [self.write("extend", EXTEND), self.write("say", SAY)]

    def write(self, name: str, text: str) -> Path:
        file = self.folder / f"{name}.py"
        file.write_text(text)
        return file

    def build(self, *words: str) -> Built:
        steps = [word for file in self.steps for word in ("--step", file)]
        arguments = ("--project", self.folder, "--iso", "debian-12-made", "--no-verify", "--json")
        ran = run("build", "trusted-12", *arguments, *steps, *words, deadline_s=3600)
        assert ran.status == 0, ran.err
        return Built(ran)


def said(built: Built) -> tuple[int, str]:
    """Give the count of resets and what the register is, as the last step said."""
    lines = dict(
        event["text"].split() for event in built.events if event["kind"] == "output_line" and event["source"] == "say"
    )
    return int(lines["resets"]), lines["register"]


@pytest.mark.full
@pytest.mark.needs("mmdebstrap")
def test_what_the_tpm_knows_goes_with_the_memory_and_what_it_remembers_with_the_disk(tmp_path: Path) -> None:
    site = Site(tmp_path)
    resets, register = said(site.build("--force"))
    assert (resets > 1, register) == (True, "extended")  # the installer's machine had the same TPM

    site.write("say", f"{SAY}# woken\n")
    woken = site.build()
    assert woken.wakes
    assert said(woken) == (resets, "extended")

    site.write("say", f"{SAY}# booted\n")
    booted = site.build("--cold")
    assert not booted.wakes
    assert said(booted) == (resets + 1, "empty")
