"""Which entry of an ISO's menu is booted, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from osimager.arch import Arch, Firmware
from osimager.config.sections import Rung
from osimager.errors import MediaError
from osimager.plan.boot import check_arch, choose_entry, complete_boot
from osimager.plan.facts import MediaFacts, MenuEntry
from osimager.plan.model import BootPlan
from tests.unit.plan.test_digests import PLAN


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


def medium(*arches: Arch) -> MediaFacts:
    return MediaFacts(path=Path("/x.iso"), sha256="ab" * 32, verified=True, volume_id="X", entries=(), arches=arches)


@pytest.mark.parametrize(
    ("own", "machine"),
    [
        (Arch.AARCH64, Arch.X86_64),
        (Arch.X86_64, Arch.AARCH64),
        (Arch.X86_64, Arch.I386),
        (Arch.I386, Arch.AARCH64),
    ],
)
def test_iso_of_another_architecture_is_refused_and_both_are_named(own: Arch, machine: Arch) -> None:
    with pytest.raises(MediaError, match=f"it is for {own}, and the machine is {machine}") as caught:
        check_arch(medium(own), machine)
    assert f"--arch {own}" in str(caught.value.hint)


def test_plan_is_not_completed_from_an_iso_of_another_architecture() -> None:
    with pytest.raises(MediaError, match=f"the machine is {PLAN.machine.arch}"):
        complete_boot(PLAN, medium(Arch.AARCH64))


@pytest.mark.parametrize("arches", [(), (Arch.X86_64,), (Arch.I386,), (Arch.AARCH64, Arch.X86_64)])
def test_iso_that_the_machine_starts_or_that_does_not_tell_is_taken(arches: tuple[Arch, ...]) -> None:
    check_arch(medium(*arches), Arch.X86_64)
