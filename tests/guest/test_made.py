"""The made installer medium in real machines: it obeys the preseed that ships, and says what it lacks.

The medium is made once into the user's own cache (about a minute), as `osimager iso make` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.config.catalog import Catalog, Roots
from osimager.config.request import Request
from osimager.env import Env
from osimager.holes import BUILD_PUBLIC_KEY, fill_holes, find_holes
from osimager.media.made import make_iso
from osimager.paths import Places, shipped
from osimager.plan.model import MadeMedium
from osimager.plan.resolve import render_answers
from osimager.proc import open_child, run_tool

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs("qemu-system-x86_64", "qemu-img", "mmdebstrap", "xorriso", "ssh", "ssh-keygen"),
]
USERS_PLACES = Places.from_environment(os.environ)
DEADLINE_S = 240.0
STUCK = "Press Enter"
OVMF = Path("/usr/share/OVMF")


@dataclass(frozen=True)
class Lab:
    """A folder with a disk, the medium with its kernel, and a key that the answers plant."""

    folder: Path
    iso: Path
    key: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    def answers(self, *defines: str, firmware: str = "bios") -> str:
        """Render the preseed that ships, as a build of debian-12 does, with this lab's key in its holes."""
        catalog = Catalog.open(Roots(specs=(shipped("specs"),), files=(shipped("files"),), isos=(shipped("isos.d"),)))
        defines = ("domain=example.net", "timezone=Europe/Berlin", *defines)
        request = Request(target="debian-12-x86_64", name="myhost", firmware=firmware, defines=defines)
        (answer,) = render_answers(catalog.resolve(request, NoLookups()))
        holes = dict.fromkeys(find_holes(answer.text), "!")
        return fill_holes(answer.text, {**holes, BUILD_PUBLIC_KEY: self.key.with_suffix(".pub").read_text().strip()})


class NoLookups:
    """No secret, host or variable is needed by what ships."""

    def secret(self, path: str, key: str | None) -> str:
        """Refuse."""
        raise AssertionError(path)

    def dns(self, host: str, servers: object, search: object) -> str | None:
        """Refuse."""
        raise AssertionError(host)

    def environment(self, name: str) -> str | None:
        """Refuse."""
        raise AssertionError(name)

    def salt(self, purpose: str) -> str:
        """Give any."""
        return "saltsaltsaltsalt"

    def is_writable(self, path: str) -> bool:
        """Say no."""
        return False


@pytest.fixture
async def lab(tmp_path: Path, env: Env) -> Lab:
    recipe = MadeMedium(recipe="debian-12", folder=shipped("isos.d") / "made" / "debian-12")
    iso = await make_iso(recipe, replace(env, places=USERS_PLACES), arch=Arch.X86_64)
    files = [
        word for name in ("vmlinuz", "initrd.gz") for word in ("-extract", f"/install.amd/{name}", tmp_path / name)
    ]
    await run_tool(["xorriso", "-osirrox", "on", "-indev", iso, *files], deadline_s=60)
    await run_tool(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], deadline_s=60)
    made = Lab(tmp_path, iso, tmp_path / "key")
    await run_tool(["qemu-img", "create", "-q", "-f", "qcow2", made.disk, "8G"], deadline_s=60)
    return made


class Quiet(SimpleHTTPRequestHandler):
    """Serve files, and say nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[int]:
    """Serve `folder` over HTTP on a port of the loopback interface."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.asynccontextmanager
async def machine(
    lab: Lab, *more: str | Path, disk: str = "virtio-blk-pci", port: int = 0
) -> AsyncIterator[asyncio.StreamReader]:
    """Run QEMU and give its serial line."""
    forward = f",hostfwd=tcp:127.0.0.1:{port}-:22" if port else ""
    argv = [
        "qemu-system-x86_64",
        *("-nodefaults", "-machine", "q35", "-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max", "-m", "1024"),
        *("-display", "none", "-vga", "std", "-serial", "stdio", "-action", "reboot=shutdown"),
        *("-drive", f"file={lab.disk},if=none,id=d,cache=unsafe", "-device", "virtio-scsi-pci,id=scsi,addr=0x8"),
        *(
            "-device",
            f"{disk},drive=d,bootindex=1",
            "-netdev",
            f"user,id=n{forward}",
            "-device",
            "virtio-net-pci,netdev=n,addr=0x10",
        ),
        *more,
    ]
    async with open_child(argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT) as child:
        assert child.stdout is not None
        yield child.stdout


def medium(lab: Lab) -> list[str | Path]:
    return [
        "-drive",
        f"file={lab.iso},if=none,id=c,media=cdrom,readonly=on",
        "-device",
        "scsi-cd,bus=scsi.0,drive=c,bootindex=2",
    ]


def direct(lab: Lab, arguments: str) -> list[str | Path]:
    kernel = f"vga=788 --- quiet auto=true priority=critical console=ttyS0 {arguments}"
    return ["-kernel", lab.folder / "vmlinuz", "-initrd", lab.folder / "initrd.gz", "-append", kernel]


async def read_until(serial: asyncio.StreamReader, text: str) -> str:
    """Read the serial line until it shows `text`, or to its end."""
    seen = ""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while text not in seen and (data := await serial.read(4096)):
                seen += data.decode(errors="replace")
                if "[!!]" in seen and text != STUCK and STUCK in seen:
                    break
    except TimeoutError:
        pytest.fail(f"{text!r} did not come within {DEADLINE_S} s: {seen[-2000:]}")
    return seen


async def run_in_guest(lab: Lab, port: int, command: str) -> str:
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    argv: list[str | Path] = ["ssh", "-q", "-i", lab.key, "-p", str(port), *options, "osimager@127.0.0.1", command]
    return (await run_tool(argv, deadline_s=DEADLINE_S)).text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def install(lab: Lab, answers: str, *, until: str = "Installation complete", arguments: str = "") -> str:
    """Start the installer directly, the answers by url=; give what it said."""
    (lab.folder / "preseed.cfg").write_text(answers)
    with serving(lab.folder) as port:
        url = f"url=http://10.0.2.2:{port}/preseed.cfg"
        async with machine(lab, *medium(lab), *direct(lab, f"{url} {arguments}")) as serial:
            said = await read_until(serial, until)
            if STUCK not in said:  # let it flush the disk and reset
                said += (await serial.read()).decode(errors="replace")
            return said


async def test_preseed_by_url_gives_a_system_that_lets_its_key_in(lab: Lab) -> None:
    said = await install(lab, lab.answers().replace(" cloud-guest-utils ", " cloud-guest-utils rsync "))
    assert "Installation complete" in said
    port = free_port()
    async with machine(lab, port=port) as serial:
        assert "login:" in await read_until(serial, "login:")
        facts = "hostname -f; cat /etc/timezone; sudo id -u; rsync --version | head -1"
        seen = await run_in_guest(lab, port, f"{facts}; systemctl is-system-running --wait; ls /boot/initrd.img-*")
    assert seen.splitlines()[:3] == ["myhost.example.net", "Europe/Berlin", "0"]
    assert "rsync  version" in seen
    assert "running" in seen


@pytest.mark.skipif(not (OVMF / "OVMF_CODE_4M.fd").is_file(), reason="OVMF is not on this host")
async def test_own_menu_with_oemdrv_installs_for_uefi_on_scsi(lab: Lab) -> None:
    """The default entry of the GRUB menu, the answers on a volume, a SCSI disk, and clean variables afterwards."""
    (lab.folder / "oem").mkdir()
    (lab.folder / "oem" / "preseed.cfg").write_text(lab.answers(firmware="uefi"))
    oem = lab.folder / "oem.iso"
    await run_tool(["xorriso", "-as", "mkisofs", "-V", "OEMDRV", "-o", oem, lab.folder / "oem"], deadline_s=60)

    def firmware() -> list[str | Path]:
        variables = shutil.copy(OVMF / "OVMF_VARS_4M.fd", lab.folder / "variables.fd")
        code = f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"
        return ["-drive", code, "-drive", f"if=pflash,format=raw,file={variables}"]

    volume = ["-drive", f"file={oem},if=none,id=o,media=cdrom,readonly=on", "-device", "scsi-cd,bus=scsi.0,drive=o"]
    async with machine(lab, *firmware(), *medium(lab), *volume, disk="scsi-hd,bus=scsi.0") as serial:
        said = await read_until(serial, "no such text: to the end")
    assert "on the volume OEMDRV" in said
    assert "Installation complete" in said
    async with machine(lab, *firmware(), disk="scsi-hd,bus=scsi.0") as serial:
        assert "myhost login:" in await read_until(serial, "login:")


@pytest.mark.parametrize(
    ("wrong", "right", "title", "why"),
    [
        ("boolean true", "bolean true", "[!!] Download debconf", "Failed to process the preconfiguration file"),
        ("d-i partman-auto/method", "# ", "[!!] Partition disks", "partman-auto/method"),
        (
            "openssh-server",
            "no-such-package",
            "[!!] Select and install software",
            "Unable to locate package no-such-package",
        ),
        ("set -e;", "exit 7;", "[!!] Finish the installation", "Failed to run preseeded command"),
    ],
    ids=["syntax", "open-question", "unknown-package", "late-command"],
)
async def test_what_is_wrong_is_said_and_waited_at(lab: Lab, wrong: str, right: str, title: str, why: str) -> None:
    said = await install(lab, lab.answers().replace(wrong, right), until=STUCK)
    assert title in said
    assert why in said


async def test_static_network_of_the_kernel_arguments_fetches_the_answers(lab: Lab) -> None:
    address = "netcfg/disable_autoconfig=true netcfg/get_ipaddress=10.0.2.77 netcfg/get_netmask=255.255.255.0"
    gateway = "netcfg/get_gateway=10.0.2.2 netcfg/get_nameservers=10.0.2.3 netcfg/confirm_static=true"
    interfaces = "cat /target/etc/network/interfaces"
    changed = lab.answers().replace("set -e;", f"set -e; {interfaces};")
    assert "address 10.0.2.77/24" in await install(lab, changed, arguments=f"{address} {gateway}")
