"""Boot menus of real installers, and text that no installer would have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.arch import Firmware
from osimager.errors import MediaError
from osimager.media.grub import parse_grub
from osimager.media.isolinux import parse_isolinux
from osimager.plan.facts import MenuEntry

MENUS = Path(__file__).parent / "menus"


def text_of(name: str) -> str:
    return (MENUS / name).read_text()


def isolinux(name: str, menu_file: str, included: Mapping[str, str] | None = None) -> tuple[MenuEntry, ...]:
    return parse_isolinux(text_of(name), menu_file, (included or {}).get)


def grub(
    name: str, menu_file: str, firmware: Firmware = Firmware.UEFI, sourced: Mapping[str, str] | None = None
) -> tuple[MenuEntry, ...]:
    return parse_grub(text_of(name), menu_file, firmware, (sourced or {}).get)


def default_of(entries: tuple[MenuEntry, ...]) -> MenuEntry:
    (default,) = [entry for entry in entries if entry.is_default]
    return default


def test_media_check_is_the_default_of_rhels_isolinux_menu() -> None:
    entries = isolinux("el9-isolinux.cfg", "/isolinux/isolinux.cfg")
    assert [entry.label for entry in entries] == ["linux", "check", "basic", "rescue", "memtest"]
    default = default_of(entries)
    assert default.title == "Test this media & install AlmaLinux 9.5"
    assert default.kernel == "/isolinux/vmlinuz"
    assert default.initrds == ("/isolinux/initrd.img",)
    assert default.arguments == "inst.stage2=hd:LABEL=AlmaLinux-9-5-x86_64-dvd rd.live.check quiet"
    assert default.firmware is Firmware.BIOS


def test_media_check_is_the_default_of_rhels_grub_menu() -> None:
    entries = grub("el9-grub.cfg", "/EFI/BOOT/grub.cfg")
    assert len(entries) == 4
    default = default_of(entries)
    assert default.title == "Test this media & install AlmaLinux 9.5"
    assert default.kernel == "/images/pxeboot/vmlinuz"
    assert default.initrds == ("/images/pxeboot/initrd.img",)
    assert default.arguments == "inst.stage2=hd:LABEL=AlmaLinux-9-5-x86_64-dvd rd.live.check quiet"


@pytest.mark.parametrize("firmware", list(Firmware))
def test_fedora_boots_both_firmwares_by_grub(firmware: Firmware) -> None:
    entries = grub("fedora-grub.cfg", "/boot/grub2/grub.cfg", firmware)
    assert default_of(entries).title == "Test this media & install Fedora 41"
    assert len(entries) == 4
    assert {entry.firmware for entry in entries} == {firmware}


def test_ubuntus_memory_test_is_on_its_bios_menu_only() -> None:
    uefi = grub("ubuntu-24.04-grub.cfg", "/boot/grub/grub.cfg")
    assert [entry.kernel for entry in uefi] == ["/casper/vmlinuz", "/casper/hwe-vmlinuz"]
    assert default_of(uefi).arguments == "---"
    bios = grub("ubuntu-24.04-grub.cfg", "/boot/grub/grub.cfg", Firmware.BIOS)
    assert [entry.title for entry in bios][-1] == "Test memory"


def test_variables_that_nobody_set_are_empty() -> None:
    (entry,) = grub("ubuntu-24.04-loopback.cfg", "/boot/grub/loopback.cfg")
    assert entry.arguments == "iso-scan/filename= ---"


def test_debians_isolinux_menu_is_read_through_its_includes() -> None:
    names = ("menu", "stdmenu", "gtk", "txt", "adtxt", "drk", "spkgtk", "prompt")
    included = {f"/isolinux/{name}.cfg": text_of(f"debian-12-{name}.cfg") for name in names}
    entries = isolinux("debian-12-isolinux.cfg", "/isolinux/isolinux.cfg", included)
    assert [entry.label for entry in entries] == [
        "installgui",
        "install",
        "expert",
        "auto",
        "installdark",
        "installspk",
    ]
    # The highlighted one, though a timeout starts speech synthesis.
    assert default_of(entries).label == "installgui"
    install = entries[1]
    assert (install.title, install.kernel) == ("Install", "/install.amd/vmlinuz")
    assert install.initrds == ("/install.amd/initrd.gz",)
    assert install.arguments == "vga=788 --- quiet"
    assert install.menu_file == "/isolinux/txt.cfg"


def test_debians_grub_menu_is_read_through_the_prefix_that_its_efi_part_sets() -> None:
    sourced = {
        "/boot/grub/x86_64-efi/grub.cfg": text_of("debian-12-x86_64-efi-grub.cfg"),
        "/boot/grub/grub.cfg": text_of("debian-12-grub.cfg"),
    }
    entries = grub("debian-12-efi-grub.cfg", "/EFI/debian/grub.cfg", sourced=sourced)
    assert [entry.title for entry in entries] == [
        "Graphical install",
        "Install",
        "... Graphical expert install",
        "... Automated install",
    ]
    assert default_of(entries).initrds == ("/install.amd/gtk/initrd.gz",)
    assert entries[3].arguments == "auto=true priority=critical vga=788 --- quiet"


def test_a_menu_of_doors_only_is_read_through_them() -> None:
    menu = "default select\nlabel select\ncom32 whichsys.c32\nappend -sys- sys\nlabel sys\nconfig /boot/sys.cfg"
    included = {"/boot/sys.cfg": "label arch\nlinux /vmlinuz\ninitrd /a.img,/b.img\nappend x=y"}
    (entry,) = parse_isolinux(menu, "/boot/syslinux/syslinux.cfg", included.get)
    assert (entry.label, entry.initrds, entry.arguments) == ("arch", ("/a.img", "/b.img"), "x=y")


def test_a_default_that_boots_the_hard_disk_leaves_no_default_entry() -> None:
    entries = isolinux("leap-15.6-isolinux.cfg", "/boot/x86_64/loader/isolinux.cfg")
    assert [entry.is_default for entry in entries] == [False] * 4
    assert entries[0].kernel == "/boot/x86_64/loader/linux"


def test_a_grub_default_may_be_a_title_and_arguments_with_spaces_are_quoted() -> None:
    default = default_of(grub("leap-15.6-grub.cfg", "/EFI/BOOT/grub.cfg"))
    assert default.title == "Installation"
    assert default.arguments == 'splash=silent "dyndbg=file a +p"'


@pytest.mark.parametrize(
    ("default", "title"),
    [("0", "one"), ("1>0", "inner"), ("1", "inner"), ("deep", "inner"), ("Sub>inner", "inner"), ("saved", "one")],
)
def test_grub_default_by_number_title_or_id(default: str, title: str) -> None:
    script = f"""set default='{default}'
    menuentry one {{ linux /a; initrd /b /c }}
    submenu Sub --id deep {{
    menuentry inner {{ linux /d
    }} }}"""
    entries = parse_grub(script, "/boot/grub/grub.cfg", Firmware.UEFI, lambda _path: None)
    assert default_of(entries).title == title
    assert entries[0].initrds == ("/b", "/c")


def test_paths_cannot_leave_the_iso() -> None:
    menu = "label a\nkernel ../../../etc/passwd\nappend initrd=../../x,//y"
    (entry,) = parse_isolinux(menu, "/isolinux/isolinux.cfg", lambda _path: None)
    assert (entry.kernel, entry.initrds) == ("/etc/passwd", ("/x", "/y"))
    (entry,) = parse_grub("menuentry a { linux (cd0)/../../etc/shadow }", "/x/grub.cfg", Firmware.UEFI, lambda _p: None)
    assert entry.kernel == "/etc/shadow"


def test_a_menu_that_includes_itself_is_refused() -> None:
    with pytest.raises(MediaError, match="includes"):
        parse_isolinux("include a", "/isolinux.cfg", lambda _path: "include a")
    with pytest.raises(MediaError, match="includes"):
        parse_grub("source /a", "/grub.cfg", Firmware.UEFI, lambda _path: "source /a")


def test_a_variable_that_doubles_is_refused() -> None:
    with pytest.raises(MediaError, match="characters"):
        parse_grub("set a=xxxxxxxx\n" + "set a=$a$a\n" * 60, "/grub.cfg", Firmware.UEFI, lambda _path: None)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(MediaError, match="blocks"):
        parse_grub("submenu x {\n" * 5000, "/grub.cfg", Firmware.UEFI, lambda _path: None)


GRUB_WORDS = [
    *("menuentry 'a' {", "submenu", "{", "}", "if", "[ $x = y ];", "then", "elif", "else", "fi", "linux /k a=b ---"),
    *("initrd /i", "set default=1", "set x=$x$x", "source $y", "'", '"', "\\", "\n", "$", "${", "for a in b; do"),
    *("done", "function f {", "while", "#", "\x00", "é", "--id", ";", "[", "!"),
]
SYSLINUX_WORDS = [
    *("label x", "menu begin", "menu end", "menu default", "kernel k", "append initrd=a,b --- c", "include d", "\n"),
    *("default x", "text help", "endtext", "menu label ^y", "config e", "localboot 0", "linux", "initrd", "menu", "\0"),
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(GRUB_WORDS), max_size=60).map(" ".join)), st.text())
def test_hostile_grub_menus_give_entries_or_media_error(text: str, sourced: str) -> None:
    try:
        entries = parse_grub(text, "/boot/grub/grub.cfg", Firmware.UEFI, lambda _path: sourced)
    except MediaError:
        return
    assert all(entry.kernel.startswith("/") and ".." not in entry.kernel.split("/") for entry in entries)
    assert sum(entry.is_default for entry in entries) <= 1


@given(st.one_of(st.text(), st.lists(st.sampled_from(SYSLINUX_WORDS), max_size=60).map("\n".join)), st.text())
def test_hostile_isolinux_menus_give_entries_or_media_error(text: str, included: str) -> None:
    try:
        entries = parse_isolinux(text, "/isolinux/isolinux.cfg", lambda _path: included)
    except MediaError:
        return
    assert all(entry.kernel.startswith("/") and ".." not in entry.kernel.split("/") for entry in entries)
    assert sum(entry.is_default for entry in entries) <= 1
