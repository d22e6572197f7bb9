"""The shipped Ubuntu spec's CIDATA in front of real cloud-init: found by its label or by the kernel's line, and taken.

The guest is Debian's cloud-init (from the system inside debian-12-made, its first boot): that is what a live Ubuntu
medium starts as well, before its own installer takes the `autoinstall` section, which no test here runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.config.catalog import Catalog, Roots
from osimager.config.configuration import Configuration
from osimager.config.request import Request
from osimager.env import Env
from osimager.events import AnswerFetched, Event
from osimager.holes import ANSWER_URL, BUILD_PUBLIC_KEY, fill_holes, find_holes, hole
from osimager.media.answer_server import open_answer_server
from osimager.media.made import make_iso
from osimager.media.seed import make_seed
from osimager.paths import Places, shipped
from osimager.plan.model import MadeMedium
from osimager.plan.resolve import render_answers
from osimager.proc import open_child, run_tool
from tests.guest.lab import HOME
from tests.guest.test_made import NoLookups

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs("qemu-system-x86_64", "qemu-img", "mmdebstrap", "xorriso", "debugfs", "resize2fs"),
]
DEADLINE_S = 600.0
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOfTheTestAndOfNobodyElseAAAAAAAAAAAAAAAAAAAA osimager-build"
# A unit that tells, when cloud-init has ended, what it made of the seed; then the guest is off.
REPORT = """\
[Unit]
After=cloud-final.service
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -c 'cloud-init status --wait >/dev/null'
ExecStart=/usr/bin/python3 -c "import json, yaml; r = json.load(open('/run/cloud-init/result.json'))['v1']; \
c = yaml.safe_load(open('/var/lib/cloud/instance/cloud-config.txt')); \
i = json.load(open('/run/cloud-init/instance-data.json'))['v1']; \
print('REPORT ' + json.dumps(dict(result=r, config=c, instance=i['instance_id'], hostname=i['local_hostname'])))"
ExecStart=-/bin/sh -c 'cloud-init schema --system 2>&1 | sed "s/^/SCHEMA /"'
ExecStart=/bin/sh -c 'echo THE END'
"""


@dataclass(frozen=True)
class Seeded:
    """What the shipped spec gives for a target: the seed's label, its files, and the kernel's added arguments."""

    label: str
    files: dict[str, bytes]
    arguments: tuple[str, ...]

    def arguments_for(self, url: str) -> str:
        """Give the kernel's arguments with the answer server's address in them."""
        return " ".join(fill_holes(argument, {ANSWER_URL: url}) for argument in self.arguments)


def render(answers: str) -> Seeded:
    """Render the spec as a build of Ubuntu 24.04 does."""
    catalog = Catalog.open(Roots(specs=(shipped("specs"),), files=(shipped("files"),), isos=(shipped("isos.d"),)))
    request = Request(
        target="ubuntu-24.04-x86_64",
        name="myhost",
        defines=(f"answers={answers}",),
        given={ANSWER_URL: hole(ANSWER_URL)},
    )
    configuration: Configuration = catalog.resolve(request, NoLookups())
    installer = configuration.sections.installer
    assert installer.seed is not None
    files = {}
    for answer in render_answers(configuration):
        holes = dict.fromkeys(find_holes(answer.text), "!")
        files[answer.name] = fill_holes(answer.text, {**holes, BUILD_PUBLIC_KEY: KEY}).encode()
    assert set(files) == set(installer.seed.files)
    return Seeded(installer.seed.label, files, installer.kernel_arguments)


@dataclass(frozen=True)
class System:
    """Debian's system as the made medium carries it: never booted before, with the reporting unit put in."""

    folder: Path

    @property
    def boot(self) -> list[str | Path]:
        """Give the arguments of QEMU that are the same in every boot."""
        return [
            *("-nodefaults", "-machine", "q35", "-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max", "-m", "1024"),
            *("-display", "none", "-serial", "stdio", "-no-reboot"),
            *("-kernel", self.folder / "vmlinuz", "-initrd", self.folder / "initrd"),
            *("-drive", f"file={self.folder / 'disk.qcow2'},if=virtio,cache=unsafe"),
            *("-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n"),
        ]


@pytest.fixture
async def system(tmp_path: Path, env: Env) -> System:
    places = Places.from_environment({"OSIMAGER_HOME": str(HOME)})
    recipe = MadeMedium(recipe="debian-12", folder=shipped("isos.d") / "made" / "debian-12")
    iso = await make_iso(recipe, replace(env, places=places), arch=Arch.X86_64)
    root = tmp_path / "root.ext4"
    await run_tool(
        ["xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/made/root.ext4", root], deadline_s=DEADLINE_S
    )
    root.chmod(0o600)
    listing = (await run_tool(["debugfs", "-R", "ls -p /boot", root], deadline_s=60)).text
    [version] = re.findall(r"/vmlinuz-([^/]+)/", listing)
    (tmp_path / "report.service").write_text(REPORT)
    # The target that cloud-init's generator wants where it finds a source; multi-user.target comes before cloud-final.
    wanted = "/etc/systemd/system/cloud-init.target.wants/report.service"
    commands = tmp_path / "commands"
    commands.write_text(
        f"dump /boot/vmlinuz-{version} {tmp_path / 'vmlinuz'}\n"
        f"dump /boot/initrd.img-{version} {tmp_path / 'initrd'}\n"
        f"write {tmp_path / 'report.service'} /etc/systemd/system/report.service\n"
        f"mkdir {wanted.rpartition('/')[0]}\n"
        f"symlink {wanted} /etc/systemd/system/report.service\n"
    )
    await run_tool(["debugfs", "-w", "-f", commands, root], deadline_s=DEADLINE_S)
    os.truncate(root, 2 << 30)  # as it is on the medium it has no room
    await run_tool(["resize2fs", "-f", root], deadline_s=DEADLINE_S)
    backing = ("create", "-q", "-f", "qcow2", "-F", "raw", "-b", root, tmp_path / "disk.qcow2")
    await run_tool(["qemu-img", *backing], deadline_s=60)
    return System(tmp_path)


@contextlib.asynccontextmanager
async def running(system: System, arguments: str, *more: str | Path) -> AsyncIterator[asyncio.StreamReader]:
    """Boot the system and give its serial line. The kernel's line is in a file: it may hold the server's address."""
    config = system.folder / "boot.cfg"
    config.write_text(f'[machine]\nappend = "root=LABEL=root rw {arguments}"\n')
    argv = ["qemu-system-x86_64", *system.boot, "-readconfig", config, *more]
    async with open_child(argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT) as child:
        assert child.stdout is not None
        yield child.stdout


async def read_report(serial: asyncio.StreamReader) -> tuple[dict[str, object], list[str]]:
    """Give what the unit reported, and the schema's verdict, line by line."""
    seen: list[str] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not any("THE END" in line for line in seen[-3:]) and (line := await serial.readline()):
                seen.append(line.decode(errors="replace").strip())
    except TimeoutError:
        pytest.fail(f"no report within {DEADLINE_S} s: {seen[-30:]}")
    reports = [line.partition("REPORT ")[2] for line in seen if "REPORT {" in line]
    assert reports, seen[-30:]
    report: dict[str, object] = json.loads(reports[0])
    return report, [line.partition("SCHEMA ")[2] for line in seen if "SCHEMA " in line]


def check_taken(report: dict[str, object], schema: list[str], *, source: str) -> None:
    """Prove that cloud-init found the seed, had nothing to complain of, and has the whole autoinstall section."""
    result = report["result"]
    assert isinstance(result, dict)
    assert result["errors"] == []
    assert source in result["datasource"]
    assert report["instance"] == "osimager-install"
    assert report["hostname"] == "myhost"
    config = report["config"]
    assert isinstance(config, dict)
    autoinstall = config["autoinstall"]
    assert autoinstall["version"] == 1
    assert autoinstall["ssh"]["authorized-keys"] == [KEY]
    assert autoinstall["identity"]["hostname"] == "myhost"
    assert autoinstall["shutdown"] == "poweroff"
    assert not [line for line in schema if "rror" in line or "nvalid" in line], schema


async def test_seed_is_found_by_its_label_and_taken(system: System) -> None:
    seeded = render("seed")
    seed = system.folder / "seed.iso"
    make_seed(seed, seeded.label, seeded.files)
    cd = ("-drive", f"file={seed},if=none,id=s,media=cdrom,readonly=on", "-device", "ide-cd,drive=s")
    async with running(system, seeded.arguments_for(""), *cd) as serial:
        report, schema = await read_report(serial)
    check_taken(report, schema, source="DataSourceNoCloud [seed=/dev/sr0]")


@pytest.mark.full
async def test_files_are_fetched_from_the_answer_server_and_taken(
    system: System, env: Env, events: list[Event]
) -> None:
    seeded = render("http")
    async with (
        open_answer_server(seeded.files, env) as server,
        running(system, seeded.arguments_for(server.url_for_guest())) as serial,
    ):
        report, schema = await read_report(serial)
    assert {event.name for event in events if isinstance(event, AnswerFetched)} >= {"user-data", "meta-data"}
    check_taken(report, schema, source="DataSourceNoCloudNet")
