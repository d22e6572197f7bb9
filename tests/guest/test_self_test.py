"""`doctor --self-test`: a small install, from a CD to a disk that boots, on this host as it is."""

from __future__ import annotations

import json

import pytest

from osimager.arch import Arch, Firmware
from osimager.build import self_test
from osimager.paths import Places
from tests.guest.lab import run

pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-system-x86_64", "qemu-img")]


def test_self_test_installs_boots_and_reports() -> None:
    said = run("doctor", "--self-test", "--json")
    assert said.status == 0, said.err
    checks = json.loads(said.out)["self_test"]
    assert [check["problem"] for check in checks] == [""] * len(checks)
    assert ("x86_64", "an install from a CD boots from its disk") in [(each["arch"], each["what"]) for each in checks]


async def test_install_that_leaves_nothing_is_told(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installer restarts without having written: the disk that it leaves says nothing and never ends."""
    monkeypatch.setattr(self_test, "_DEADLINE_S", 15.0)
    written = bytes.fromhex("cd13")
    monkeypatch.setattr(self_test, "_INSTALLER", self_test._INSTALLER.replace(written, b"\x90\x90"))
    check = (await self_test.run_self_test(Arch.X86_64, places, firmwares=(Firmware.BIOS,)))[0]
    assert check.problem == "not done within 15 s"
