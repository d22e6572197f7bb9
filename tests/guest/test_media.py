"""Media and a real guest: the real debian-installer, started from an ISO's own menu, fetches its answer."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from osimager.aio import in_thread
from osimager.arch import Firmware
from osimager.env import Env
from osimager.events import AnswerFetched, AnswerRefused, Event
from osimager.media.answer_server import open_answer_server
from osimager.media.iso import extract_boot_files, inspect_iso
from osimager.plan.boot import make_command_line
from osimager.plan.facts import MenuEntry
from osimager.proc import open_child, run_tool

INSTALLER = Path("/usr/lib/debian-installer/images/12/amd64/text/debian-installer")
DEADLINE_S = 300.0
MEMORY_MIB = 1280  # with 768 the installer stops and asks ("low memory mode")

pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs("xorriso", "qemu-system-x86_64"),
    pytest.mark.skipif(not INSTALLER.is_dir(), reason="the package debian-installer-12-netboot-amd64 is not installed"),
]


@pytest.fixture
async def installer_iso(tmp_path: Path) -> Path:
    """Make an ISO of the real installer, with the menus that Debian ships beside it."""
    tree = tmp_path / "tree"
    own = tree / "debian-installer/amd64"
    await in_thread(lambda: shutil.copytree(INSTALLER, tree / "debian-installer", symlinks=True))
    shutil.copyfile(own / "boot-screens/syslinux.cfg", tree / "syslinux.cfg")
    (tree / "boot/grub").mkdir(parents=True)
    shutil.copyfile(own / "grub/grub.cfg", tree / "boot/grub/grub.cfg")
    path = tmp_path / "installer.iso"
    argv: list[str | Path] = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", "Debian 12 netboot", "-o", path, tree]
    await run_tool(argv, deadline_s=120)
    return path


def choose(entries: tuple[MenuEntry, ...], firmware: Firmware) -> MenuEntry:
    return next(entry for entry in entries if entry.firmware is firmware and entry.title == "Install")


async def test_debians_own_menus_name_the_same_kernel_for_both_firmwares(installer_iso: Path) -> None:
    facts = await in_thread(lambda: inspect_iso(installer_iso))
    bios, uefi = (choose(facts.entries, firmware) for firmware in (Firmware.BIOS, Firmware.UEFI))
    assert bios.kernel == uefi.kernel == "/debian-installer/amd64/linux"
    assert bios.initrds == uefi.initrds == ("/debian-installer/amd64/initrd.gz",)
    assert bios.arguments == uefi.arguments == "vga=788 --- quiet"
    assert bios.menu_file == "/debian-installer/amd64/boot-screens/txt.cfg"


async def test_the_real_installer_fetches_its_preseed(
    installer_iso: Path, tmp_path: Path, env: Env, events: list[Event]
) -> None:
    facts = await in_thread(lambda: inspect_iso(installer_iso))
    entry = choose(facts.entries, Firmware.BIOS)
    kernel, initrd = await in_thread(
        lambda: extract_boot_files(installer_iso, kernel=entry.kernel, initrds=entry.initrds, folder=tmp_path / "boot")
    )
    answers = {"preseed.cfg": b"d-i preseed/include string more.cfg\n", "more.cfg": b"# nothing more\n"}
    async with open_answer_server(answers, env) as server:
        ours = ("auto=true", "priority=critical", f"url={server.url_for_guest()}/preseed.cfg", "console=ttyS0")
        command_line = make_command_line(entry.arguments, ours, ("vga=.*",))
        # The random path is not to be in argv: QEMU reads the command line from a file.
        config = tmp_path / "boot.cfg"
        config.write_text(f'[machine]\nkernel = "{kernel}"\ninitrd = "{initrd}"\nappend = "{command_line}"\n')
        argv: list[str | Path] = [
            "qemu-system-x86_64",
            "-nodefaults",
            "-accel",
            "tcg",
            "-m",
            str(MEMORY_MIB),
            "-display",
            "none",
        ]
        argv += ["-readconfig", config, "-nic", "user,model=virtio-net-pci", "-serial", f"file:{tmp_path}/serial.log"]
        async with asyncio.timeout(DEADLINE_S), open_child(argv):
            await env.bus.wait_for(AnswerFetched, lambda event: event.name == "more.cfg")
    fetched = [event for event in events if isinstance(event, AnswerFetched)]
    assert fetched[0] == AnswerFetched("preseed.cfg")
    assert {event.name for event in fetched} == set(answers)
    assert not [event for event in events if isinstance(event, AnswerRefused)]
