"""What the test installer of Red Hat's family decides, without a disk: sizes, refusals, the syntax, what runs first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.config.catalog import Catalog, Roots
from osimager.paths import shipped
from tests.installers.el.installer.kickstart import PRE, Product, parse_kickstart, read_product, read_scripts
from tests.installers.el.installer.source import Arguments
from tests.installers.el.installer.storage import Volume, check_layout, share_space
from tests.installers.el.installer.talk import Stopped
from tests.installers.media import find_product, render_menu

RHEL9 = Product("Red Hat Enterprise Linux 9.5", "RHEL9")
ROOT = Volume("/", "xfs", 4096, grow=True)
BIOSBOOT = Volume("biosboot", "biosboot", 1)


def test_what_is_left_goes_to_what_grows() -> None:
    assert share_space([BIOSBOOT, Volume("/boot", "xfs", 1024), ROOT], 10238) == [1, 1024, 9213]


def test_what_may_not_grow_further_leaves_the_rest_to_others() -> None:
    swap = Volume("swap", "swap", 512, grow=True, most_mib=1024)
    assert share_space([swap, ROOT], 10000) == [1024, 8976]


def test_disk_that_is_too_small_is_refused() -> None:
    with pytest.raises(Stopped, match="not enough free space on disks: 96 MiB"):
        share_space([ROOT], 4000)


@pytest.mark.parametrize(
    ("volumes", "uefi", "why"),
    [
        ([ROOT], False, "biosboot"),
        ([ROOT], True, "EFI System Partition"),
        ([BIOSBOOT], False, "root partition"),
    ],
)
def test_layout_that_could_not_boot_is_refused(volumes: list[Volume], uefi: bool, why: str) -> None:
    with pytest.raises(Stopped, match=why):
        check_layout(volumes, volumes, label="gpt", uefi=uefi)


def test_refusal_of_pykickstart_is_passed_on_with_its_line() -> None:
    with pytest.raises(Stopped, match=r"(?s)occurred on line 2 of the kickstart file.*Unknown command"):
        parse_kickstart("text\nno-such-command\n", RHEL9)


def test_syntax_is_the_products_own() -> None:
    parse_kickstart("timesource --ntp-server=a.example\n", RHEL9)
    with pytest.raises(Stopped, match="Unknown command: timesource"):
        parse_kickstart("timesource --ntp-server=a.example\n", Product("", "RHEL8"))


def test_pre_script_is_found_before_what_it_writes_is_included() -> None:
    text = "%include /nowhere/yet.cfg\n%pre --interpreter=/bin/bash\necho hello\n%end\n"
    [script] = read_scripts(text, RHEL9, PRE)
    assert (script.script, script.interp) == ("echo hello\n", "/bin/bash")
    with pytest.raises(Stopped, match=r"yet\.cfg"):
        parse_kickstart(text, RHEL9)


def test_arguments_of_the_kernel_are_known_with_and_without_inst() -> None:
    arguments = Arguments({"inst.noverifyssl": "", "ip": "dhcp", "net.ifnames": "0"})
    assert (arguments.get("noverifyssl"), arguments.get("ip"), arguments.get("ks")) == ("", "dhcp", None)
    assert arguments.for_target == "net.ifnames=0"


@pytest.mark.parametrize(
    ("target", "arch", "syntax"),
    [("rhel-9.5", "x86_64", "RHEL9"), ("alma-9.6", "aarch64", "RHEL9"), ("fedora-43", "x86_64", "F43")],
)
def test_products_are_named_as_the_catalogue_knows_the_vendors_media(
    tmp_path: Path, target: str, arch: str, syntax: str
) -> None:
    product = find_product(target, Arch(arch))
    catalog = Catalog.open(Roots(specs=(shipped("specs"),), files=(shipped("files"),), isos=(shipped("isos.d"),)))
    entry = catalog.find_iso(target, arch)
    assert entry is not None
    assert entry.volume_id is not None
    assert re.fullmatch(entry.volume_id, product.volume_id)
    (tmp_path / ".treeinfo").write_text(render_menu("treeinfo", product, Arch(arch)))
    assert read_product(tmp_path) == Product(product.title, syntax)
