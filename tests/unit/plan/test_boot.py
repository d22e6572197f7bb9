"""Which entry of an ISO's menu is booted, and why."""

from __future__ import annotations

import pytest

from osimager.arch import Firmware
from osimager.config.sections import Rung
from osimager.errors import MediaError
from osimager.plan.boot import choose_entry
from osimager.plan.facts import MenuEntry
from osimager.plan.model import BootPlan


def entry(
    title: str, *, default: bool = False, firmware: Firmware = Firmware.BIOS, kernel: str = "/vmlinuz"
) -> MenuEntry:
    return MenuEntry(title, title.lower(), kernel, ("/initrd",), "quiet", default, f"/{firmware}.cfg", firmware)


def boot(menu: str = "") -> BootPlan:
    return BootPlan(rung=Rung.DIRECT, reason="", menu=menu)


def test_named_entry_goes_before_the_default_one() -> None:
    entries = (entry("Graphical install", default=True), entry("Install"))
    chosen, reason = choose_entry(entries, boot("^install$"), Firmware.BIOS)
    assert chosen.title == "Install"
    assert "as the spec says" in reason


def test_menu_of_the_machines_firmware_goes_first() -> None:
    entries = (entry("Install"), entry("Install", firmware=Firmware.UEFI))
    chosen, _ = choose_entry(entries, boot("^install$"), Firmware.UEFI)
    assert chosen.firmware is Firmware.UEFI


def test_menu_with_other_titles_gives_its_default_and_says_so() -> None:
    entries = (entry("Rescue"), entry("Set this machine up", default=True))
    chosen, reason = choose_entry(entries, boot("^install$"), Firmware.BIOS)
    assert chosen.title == "Set this machine up"
    assert "none matches" in reason


def test_iso_without_a_kernel_in_its_menu_is_refused() -> None:
    with pytest.raises(MediaError, match="no boot menu"):
        choose_entry((entry("Boot from disk", kernel=""),), boot(), Firmware.BIOS)
