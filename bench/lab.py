"""What all contestants share: one ISO, one rendered preseed, one key, the same scripts, as osimager plans them."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from osimager.arch import Firmware, host_arch
from osimager.build.credentials import make_credentials
from osimager.build.fetching import fetch_alone
from osimager.build.prepare import prepare
from osimager.build.request import BuildRequest
from osimager.config.request import Request
from osimager.env import Clock, Env
from osimager.events import Bus
from osimager.finalize.seal import read_seal_script
from osimager.holes import fill_holes
from osimager.media.iso import extract_boot_files
from osimager.paths import Places
from osimager.plan.argv import resolve_cpu
from osimager.plan.boot import complete_boot
from osimager.plan.options import BuildOptions
from osimager.redact import Masker

PORT = 18088
SHIPPED = Path(__file__).parents[1]
# How long Packer must wait for the ISO's boot menu: nothing tells it that the menu is there, and in 5 s it is gone.
BOOT_WAIT_S = {("x86_64", "bios"): 3, ("x86_64", "uefi"): 5, ("aarch64", "uefi"): 8}
STEPS = ("echo step-one > /etc/bench-1", "sha256sum /usr/bin/* > /etc/bench-2", "ls -R /etc > /root/bench-3")
# osimager's own seal, told by the environment what to do. It shuts everybody out at its end, so that end switches off.
_SEAL_HEAD = """#!/bin/sh
export OSIMAGER_SEAL=template OSIMAGER_BUILD_USER=osimager OSIMAGER_REMOVE_USER=yes
nohup sh -c "while kill -0 $$; do sleep 0.2; done; systemctl poweroff" >/dev/null 2>&1 </dev/null &
"""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The common ground. `append` and `boot_command` have ANSWERS where the answer server's address goes."""

    work: Path
    target: str
    arch: str
    firmware: str
    iso: Path
    kernel: Path
    initrd: Path
    append: str
    boot_command: str
    boot_wait_s: int
    answers: Path
    key: Path
    user: str
    steps: tuple[Path, ...]
    own_steps: tuple[Path, ...]
    seal: Path
    memory_mib: int
    cpus: int
    disk_bytes: int
    cpu: str
    firmware_code: Path | None
    firmware_variables: Path | None
    port: int = PORT
    wrote: dict[str, str] = field(default_factory=lambda: {"/etc/bench-1": "step-one"})
    _counter: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def project(self) -> Path:
        """The folder whose scripts go before osimager's own: the first step stands there."""
        return _project(self.work)

    @property
    def images(self) -> Path:
        """Where osimager's images go."""
        return self.work / "images"

    @property
    def home(self) -> Path:
        """What osimager has for itself: layers, registry."""
        return _home(self.work)

    def clear(self) -> None:
        """Remove what a contestant left: Packer refuses an output folder that is there."""
        for left in (self.work / "packer", self.images, self.home / "cache/layers"):
            shutil.rmtree(left, ignore_errors=True)
        for left in self.work.glob("*.qcow2"):
            left.unlink()

    def change(self, index: int) -> None:
        """Let step `index` (0 or -1) write a number that it never wrote, for all contestants."""
        name, mine = ("first", self.project / "scripts.d/base.sh") if index == 0 else ("last", self.own_steps[-1])
        self.wrote[f"/etc/bench-{name}"] = number = str(next(self._counter))
        line = f"echo {number} > /etc/bench-{name}\n"
        for path in (mine, self.steps[index]):
            kept = [each for each in path.read_text().splitlines(keepends=True) if f"/etc/bench-{name}" not in each]
            path.write_text("".join(kept) + line)


def open_lab(work: Path, *, target: str, iso: str, firmware: str, arch: str) -> Lab:
    """Make the common ground in `work` (which may be there)."""
    return asyncio.run(_open_lab(work, target=target, iso=iso, firmware=firmware, arch=arch))


async def _open_lab(work: Path, *, target: str, iso: str, firmware: str, arch: str) -> Lab:
    shutil.rmtree(_home(work), ignore_errors=True)
    (_project(work) / "scripts.d").mkdir(parents=True, exist_ok=True)
    shutil.copy(SHIPPED / "scripts.d/base.sh", _project(work) / "scripts.d/base.sh")
    places = Places.from_environment({**os.environ, "OSIMAGER_HOME": str(_home(work))})
    env = Env(places=places, workspace=work, bus=Bus(now=Clock().now, masker=Masker()), masker=Masker())
    own_steps = tuple(
        _write(work / f"bench-{number}.sh", f"#!/bin/sh\nset -e\n{text}\n") for number, text in enumerate(STEPS)
    )
    asked = BuildRequest(
        request=Request(target=target, host_arch=host_arch(), arch=arch, iso=iso, firmware=firmware),
        options=BuildOptions(firmware=Firmware(firmware)),
        project=_project(work),
        steps=own_steps,
    )
    prepared = await prepare(asked, env)
    # The ISO is the user's, kept between runs; all else of osimager's is the bench's own.
    users = Places.from_environment(os.environ)
    media = await fetch_alone(prepared.plan.media, prepared.plan.machine.arch, users, sinks=[])
    plan = complete_boot(prepared.plan, media)
    credentials = make_credentials(env)
    holes = {**credentials.holes, "answer_url": "ANSWERS"}
    answers = work / "answers"
    answers.mkdir(exist_ok=True)
    for answer in plan.install.answers:
        _write(answers / answer.name, fill_holes(answer.text, holes))
    key = _write(work / "key", credentials.key.private)
    key.chmod(0o600)
    steps = tuple(_write(work / f"step-{number}.sh", step.content.decode()) for number, step in enumerate(plan.steps))
    kernel, initrd = extract_boot_files(
        media.path, kernel=plan.install.boot.kernel, initrds=plan.install.boot.initrds, folder=work
    )
    assert initrd is not None
    typed = "".join(prepared.configuration.sections.installer.boot_command)
    files = prepared.host.firmware
    lab = Lab(
        work=work,
        target=target,
        arch=arch,
        firmware=firmware,
        iso=media.path,
        kernel=kernel,
        initrd=initrd,
        append=fill_holes(plan.install.boot.command_line, holes),
        boot_command=fill_holes(typed, holes).replace("ANSWERS", "http://{{ .HTTPIP }}:{{ .HTTPPort }}"),
        boot_wait_s=BOOT_WAIT_S[arch, firmware],
        answers=answers,
        key=key,
        user=plan.access.user,
        steps=steps,
        own_steps=own_steps,
        seal=_write(work / "seal.sh", _SEAL_HEAD + read_seal_script()),
        memory_mib=plan.machine.memory_mib,
        cpus=plan.machine.cpus,
        disk_bytes=plan.machine.disks[0].size_bytes,
        cpu=resolve_cpu(plan.machine.cpu, prepared.host),
        firmware_code=files.code if files else None,
        firmware_variables=files.variables if files else None,
    )
    lab.change(0)
    lab.change(-1)
    return lab


def _project(work: Path) -> Path:
    return work / "project"


def _home(work: Path) -> Path:
    return work / "home"


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
