"""What the shipped specs make of the vendors' own boot menus: the entry taken, and the kernel's line.

The menus are those of tests/unit/media/menus, taken from the ISOs; the parser is the one that FETCH uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from osimager.arch import Firmware
from osimager.config.catalog import Catalog, Roots
from osimager.config.configuration import Configuration
from osimager.config.lookups import Lookups
from osimager.config.request import Request
from osimager.config.sections import Rung
from osimager.holes import ANSWER_URL, BUILD_PUBLIC_KEY, hole, name_holes
from osimager.media.grub import parse_grub
from osimager.media.isolinux import parse_isolinux
from osimager.plan.boot import choose_entry, make_command_line
from osimager.plan.facts import MenuEntry
from osimager.plan.model import BootPlan

REPOSITORY = Path(__file__).parent.parent.parent
MENUS = REPOSITORY / "tests" / "unit" / "media" / "menus"
LAB = "defs: {cidr: 192.168.77.0/24, gateway: 192.168.77.1, dns: [192.168.77.1], domain: example.org}\n"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Give the shipped catalogue with a location that has a network."""
    (tmp_path / "locations").mkdir()
    (tmp_path / "locations" / "lab.yml").write_text(LAB)
    return Catalog.open(Roots(specs=(tmp_path, REPOSITORY / "specs"), files=(REPOSITORY / "files",)))


def resolve(
    catalog: Catalog, target: str, firmware: Firmware, ip: str, defines: Sequence[str], lookups: Lookups
) -> Configuration:
    given = {name: hole(name) for name in (ANSWER_URL, BUILD_PUBLIC_KEY)}
    request = Request(
        target=f"qemu/lab/{target}",
        name="web1",
        ip=ip,
        firmware=firmware.value,
        defines=tuple(defines),
        given=given,
    )
    return catalog.resolve(request, lookups)


def read_menu(name: str, firmware: Firmware) -> tuple[MenuEntry, ...]:
    text = (MENUS / name).read_text()
    included = {
        f"/isolinux/{path.name.removeprefix('debian-12-')}": path.read_text() for path in MENUS.glob("debian-*")
    }
    if "isolinux" in name:
        return parse_isolinux(text, f"/isolinux/{name}", included.get)
    return parse_grub(text, f"/boot/grub/{name}", firmware, included.get)


EL9 = "inst.stage2=hd:LABEL=AlmaLinux-9-5-x86_64-dvd"
CONSOLES = "console=tty0 console=ttyS0,115200"
STATIC = "ip=192.168.77.10::192.168.77.1:255.255.255.0:web1::none nameserver=192.168.77.1"
CASES = [
    ("alma-9.5-x86_64", "el9-isolinux.cfg", "bios", "dhcp", "", "linux", f"{EL9} inst.text {CONSOLES}"),
    ("rhel-9.5-x86_64", "el9-grub.cfg", "uefi", "dhcp", "", "", f"{EL9} inst.text {CONSOLES}"),
    (
        "rhel-9.5-x86_64",
        "el9-grub.cfg",
        "uefi",
        "192.168.77.10",
        "answers=http",
        "",
        f"{EL9} inst.text {CONSOLES} inst.ks={{{{answer_url}}}}/ks.cfg {STATIC}",
    ),
    (
        "fedora-41-x86_64",
        "fedora-grub.cfg",
        "uefi",
        "dhcp",
        "answers=http",
        "",
        f"inst.stage2=hd:LABEL=Fedora-S-dvd-x86_64-41 inst.text {CONSOLES} inst.ks={{{{answer_url}}}}/ks.cfg ip=dhcp",
    ),
    ("ubuntu-24.04-x86_64", "ubuntu-24.04-grub.cfg", "bios", "dhcp", "", "", f"autoinstall {CONSOLES} ---"),
    (
        "ubuntu-24.04-x86_64",
        "ubuntu-24.04-grub.cfg",
        "uefi",
        "192.168.77.10",
        "answers=http",
        "",
        f"autoinstall {CONSOLES} ip=192.168.77.10::192.168.77.1:255.255.255.0:web1::off:192.168.77.1"
        " ds=nocloud-net;s={{answer_url}}/ ---",
    ),
    ("opensuse-15.6-x86_64", "leap-15.6-isolinux.cfg", "bios", "dhcp", "", "linux", f"showopts textmode=1 {CONSOLES}"),
    (
        "opensuse-15.6-x86_64",
        "leap-15.6-isolinux.cfg",
        "bios",
        "192.168.77.10",
        "answers=http",
        "linux",
        f"showopts textmode=1 {CONSOLES} ifcfg=*=192.168.77.10/24,192.168.77.1,192.168.77.1"
        " autoyast={{answer_url}}/autoinst.xml",
    ),
]


@pytest.mark.parametrize(("target", "menu", "firmware", "ip", "defines", "label", "line"), CASES)
def test_the_kernels_line_is_the_menus_with_ours(
    catalog: Catalog,
    lookups: Lookups,
    *,
    target: str,
    menu: str,
    firmware: str,
    ip: str,
    defines: str,
    label: str,
    line: str,
) -> None:
    kind = Firmware(firmware)
    installer = resolve(catalog, target, kind, ip, [defines] if defines else [], lookups).sections.installer
    boot = BootPlan(
        rung=Rung.DIRECT,
        reason="",
        menu=installer.menu or "",
        arguments=installer.kernel_arguments,
        drop=installer.drop_arguments,
    )
    entry, reason = choose_entry(read_menu(menu, kind), boot, kind)
    assert reason.endswith("as the spec says")
    assert entry.label == label
    assert name_holes(make_command_line(entry.arguments, boot.arguments, boot.drop)) == line


def test_debians_text_installer_is_taken_and_not_the_graphical_one(catalog: Catalog, lookups: Lookups) -> None:
    installer = resolve(catalog, "debian-12-x86_64", Firmware.BIOS, "dhcp", [], lookups).sections.installer
    boot = BootPlan(rung=Rung.DIRECT, reason="", menu=installer.menu or "")
    entry, _ = choose_entry(read_menu("debian-12-isolinux.cfg", Firmware.BIOS), boot, Firmware.BIOS)
    assert entry.label == "install"


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_each_architecture_speaks_on_its_own_serial_port(catalog: Catalog, lookups: Lookups, arch: str) -> None:
    console = {"x86_64": "console=ttyS0,115200", "aarch64": "console=ttyAMA0,115200"}[arch]
    for target in (f"rhel-9.5-{arch}", f"fedora-43-{arch}", f"ubuntu-26.04-{arch}", f"sles-15.6-{arch}"):
        installer = resolve(catalog, target, Firmware.UEFI, "dhcp", [], lookups).sections.installer
        assert console in installer.kernel_arguments
        assert any(console in text for text in installer.boot_command)
