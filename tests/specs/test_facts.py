"""What real installers stumble over, where the reviewed answers (test_golden_answers.py) do not show it.

Each line is something that an installer asks, refuses or never does otherwise; the spec or the file says by whose word.
"""

from __future__ import annotations

import pytest

from osimager.arch import Arch, Firmware
from osimager.config.catalog import Catalog, Roots
from osimager.config.configuration import Configuration
from osimager.config.lookups import Lookups
from osimager.config.request import Request
from osimager.config.sections import Rung
from osimager.holes import OF_BUILD, hole, name_holes
from osimager.media.grub import parse_grub
from osimager.plan.boot import choose_entry, make_command_line
from osimager.plan.model import BootPlan
from osimager.plan.resolve import render_answers
from tests.specs.test_specs import REPOSITORY

ROOTS = Roots(specs=(REPOSITORY / "specs",), files=(REPOSITORY / "files",), isos=(REPOSITORY / "isos.d",))
# isoBuilder.py of https://github.com/vmware/photon: the medium is named by what GRUB's probe finds.
PHOTON_MENU = """probe -s photondisk -u ($root)
menuentry "Install" {
    linux /isolinux/vmlinuz root=/dev/ram0 loglevel=3 photon.media=UUID=$photondisk
    initrd /isolinux/initrd.img
}
"""
MIRROR = "https://mirror.example.org/alpine/v3.22"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.open(ROOTS)


def resolve(
    catalog: Catalog, target: str, lookups: Lookups, *, firmware: str | None = None, defines: tuple[str, ...] = ()
) -> Configuration:
    given = {name: hole(name) for name in OF_BUILD}
    return catalog.resolve(Request(target=target, firmware=firmware, defines=defines, given=given), lookups)


@pytest.mark.parametrize(
    ("target", "firmware", "defines", "line"),
    [
        # sudo and the guest agent are in `community`, which is off unless it is asked for
        ("alpine-3.22-x86_64", "bios", (), "APKREPOSOPTS='-c -1'"),
        ("alpine-3.22-x86_64", "bios", (f"mirror={MIRROR}/main",), f"APKREPOSOPTS='{MIRROR}/main {MIRROR}/community'"),
        ("alpine-3.22-x86_64", "bios", (), "mount /dev/vda2 /mnt"),
        ("alpine-3.22-x86_64", "bios", ("disk_layout=lvm",), "mount /dev/vg0/lv_root /mnt"),
        # its script brings up no network
        ("freebsd-15.1-x86_64", "bios", (), "dhclient vtnet0"),
        # YaST of SLES 12 knows an interface by this name alone
        ("sles-12.5-x86_64", "bios", (), "        <device>eth0</device>"),
        # it summarises, and waits
        ("mint-22.3-x86_64", "bios", (), "ubiquity ubiquity/summary note"),
    ],
)
def test_a_line_that_the_installer_needs(
    catalog: Catalog, lookups: Lookups, target: str, firmware: str, defines: tuple[str, ...], line: str
) -> None:
    configuration = resolve(catalog, target, lookups, firmware=firmware, defines=defines)
    text = "\n".join(name_holes(answer.text) for answer in render_answers(configuration))
    assert line in text.splitlines()


def test_xcp_ng_gets_its_answers_on_the_kernels_part_of_the_line(catalog: Catalog, lookups: Lookups) -> None:
    """What follows the last `---` goes to the RAM disk, which nobody reads."""
    installer = resolve(catalog, "xcpng-8.3-x86_64", lookups).sections.installer
    _xen, kernel, ramdisk = "".join(installer.boot_command).split("---")
    assert kernel.split()[0] == "/boot/vmlinuz"
    assert {f"answerfile={hole('answer_url')}/answerfile.xml", "install"} <= {*kernel.split()}
    assert ramdisk.strip() == "/install.img<enter>"


def test_photon_is_told_of_one_medium(catalog: Catalog, lookups: Lookups) -> None:
    installer = resolve(catalog, "photon-5.0-x86_64", lookups).sections.installer
    boot = BootPlan(rung=Rung.DIRECT, reason="", menu=installer.menu or "")
    entries = parse_grub(PHOTON_MENU, "/boot/grub2/grub.cfg", Firmware.UEFI, lambda _path: None)
    entry, _ = choose_entry(entries, boot, Firmware.UEFI)
    line = make_command_line(entry.arguments, installer.kernel_arguments, installer.drop_arguments)
    assert [word for word in line.split() if word.startswith("photon.media")] == ["photon.media=cdrom"]


def test_freebsd_has_its_distribution_sets_on_the_medium(catalog: Catalog) -> None:
    """The image that has them is disc1 up to 14, dvd1 from 15.0 on."""
    urls = {
        name: entry.urls[0]
        for name in catalog.iso_tables()
        for arch in (Arch.X86_64, Arch.AARCH64)
        if name.startswith("freebsd-") and (entry := catalog.find_iso(name, arch))
    }
    assert {url.rpartition("-")[2] for name, url in urls.items() if name < "freebsd-15"} == {"disc1.iso"}
    assert {url.rpartition("-")[2] for name, url in urls.items() if name > "freebsd-15"} == {"dvd1.iso"}


@pytest.mark.parametrize(
    ("target", "end"),
    [
        ("rhel-8.10-x86_64", "2029-05-31"),
        ("alma-8.10-x86_64", "2029-05-31"),
        ("centos-8.5-x86_64", "2021-12-31"),
        ("centos-9-x86_64", "2027-05-31"),
        ("centos-10-x86_64", "2030-05-31"),
        ("oel-8.10-x86_64", "2029-07-31"),
        ("oel-9.5-x86_64", "2032-06-30"),
        ("sles-15.6-x86_64", "2025-12-31"),
        ("sles-15.7-x86_64", "2031-07-31"),
        ("freebsd-14.4-x86_64", "2026-12-31"),
        ("windows-server-2025-x86_64", "2034-11-14"),
        ("ubuntu-22.04-x86_64", "2027-06-01"),
        ("ubuntu-26.04.1-x86_64", "2031-05-29"),
    ],
)
def test_the_end_of_life_is_the_vendors_own(catalog: Catalog, lookups: Lookups, target: str, end: str) -> None:
    assert resolve(catalog, target, lookups).merged.fields["end_of_life"] == end
