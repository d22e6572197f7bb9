"""The shipped specs of Red Hat's family, unchanged, from media with RHEL's own menus (tests/installers).

The installer there takes the kickstart through the real pykickstart, and its payload is Debian: see docs/installers.md
for what that proves. Each case is one build to a registered image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from osimager.arch import Arch
from tests.guest.lab import HOME, ROOT, Ran, run
from tests.installers.media import TOOLS, product_iso, vendors_filename

pytestmark = [pytest.mark.guest, pytest.mark.needs(*TOOLS)]
DEADLINE_S = 3600.0
# Said by a step in the installed system: what the kickstart's commands and its %post left there.
LOOK = """\
#!/bin/sh
hostname -f
cat /etc/timezone /etc/default/locale
echo "$(findmnt -no FSTYPE /) $(cat "/sys/dev/block/$(findmnt -rno MAJ:MIN /)/dm/name" 2>/dev/null)"
findmnt -no FSTYPE,SOURCE /boot
cat /etc/sudoers.d/osimager-build
grep '^root:' /etc/shadow
tr ' ' '\\n' </proc/cmdline
grep -hs . /etc/evidence-* || true
"""


@dataclass(frozen=True)
class Shelf:
    """A project folder whose isos/ holds the product's ISO by its vendor's name, as a user puts it there."""

    folder: Path
    target: str
    arch: Arch
    sha256: str

    def build(self, *words: str | Path, look: bool = True) -> Ran:
        """Build the target with the shipped spec, and look at what was installed."""
        step = self.folder / "look.sh"
        step.write_text(LOOK)
        more: list[str | Path] = ["--step", step] if look else []
        fixed: tuple[str | Path, ...] = (
            "--arch",
            self.arch,
            "--iso-checksum",
            f"sha256:{self.sha256}",
            "--project",
            self.folder,
            "--force",
            "--json",
        )
        return run("build", self.target, *fixed, *more, *words, deadline_s=DEADLINE_S)


def open_shelf(folder: Path, target: str, arch: Arch = Arch.X86_64) -> Shelf:
    """Make the product's ISO, where it is not kept from an earlier run, and put it on a shelf."""
    iso = product_iso(target, arch, HOME)
    (folder / "isos").mkdir(parents=True)
    (folder / "isos" / vendors_filename(target, arch)).symlink_to(iso)
    with iso.open("rb") as file:
        return Shelf(folder, target, arch, hashlib.file_digest(file, "sha256").hexdigest())


def said(ran: Ran, source: str) -> list[str]:
    return [event["text"] for event in ran.of_kind("output_line") if event["source"] == source]


def check_built(ran: Ran, *, target: str, way: str, boots: str) -> None:
    """Prove that an image was registered, by which way its kickstart came, and what was installed by it."""
    assert ran.status == 0, ran.err
    [published] = ran.of_kind("image_published")
    assert Path(published["path"]).is_file()
    assert any(event["text"].startswith(f"boots {boots}:") for event in ran.of_kind("notice"))
    fetched = [event["name"] for event in ran.of_kind("answer_fetched")]
    serial = "\n".join(said(ran, "serial"))
    if way == "http":
        assert fetched == ["ks.cfg"]
        assert "using the kickstart of inst.ks" in serial
    else:
        assert fetched == []
        assert "using the kickstart /ks.cfg of the volume OEMDRV" in serial
    dist, _, version = target.partition("-")
    syntax = f"F{version}" if dist == "fedora" else f"RHEL{version.partition('.')[0]}"
    assert f"kickstart syntax {syntax}" in serial
    look = said(ran, "look")
    assert look[1:3] == ["Etc/UTC", "LANG=en_US.UTF-8"]
    assert [line.split()[0] for line in look[3:5]] == ["xfs", "xfs"]
    assert "osimager ALL=(ALL) NOPASSWD: ALL" in look
    assert "console=ttyS0,115200" in look or "console=ttyAMA0,115200" in look


def test_rhel_is_installed_from_its_own_isolinux_medium(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, "rhel-9.5")
    ran = shelf.build("--firmware", "bios", "--no-verify")
    check_built(ran, target="rhel-9.5", way="seed", boots="direct")
    entry = "the entry 'Install Red Hat Enterprise Linux 9.5' of /isolinux/isolinux.cfg"
    assert any(entry in event["text"] for event in ran.of_kind("notice"))


@pytest.mark.full
@pytest.mark.parametrize(
    ("target", "firmware", "way", "boots"),
    [
        ("rhel-9.5", "uefi", "http", "direct"),
        ("rhel-9.5", "bios", "seed", "typed"),
        ("rhel-9.5", "bios", "http", "typed"),
        ("rhel-9.5", "uefi", "seed", "typed"),
        ("rhel-9.5", "bios", "seed", "menu"),
        ("alma-9.6", "bios", "http", "direct"),
        ("alma-9.6", "uefi", "http", "typed"),
        ("alma-9.6", "uefi", "seed", "menu"),
        ("fedora-43", "bios", "http", "typed"),
        ("fedora-43", "uefi", "seed", "direct"),
        ("fedora-42", "bios", "seed", "menu"),
        ("fedora-42", "uefi", "http", "typed"),
        ("rhel-10.0", "uefi", "seed", "menu"),
        ("alma-10.0", "bios", "http", "typed"),
    ],
)
def test_shipped_spec_is_installed(tmp_path: Path, target: str, firmware: str, way: str, boots: str) -> None:
    """By each firmware's menu, both ways for the kickstart, every rung of the ladder. `menu`: "Test this media".

    The rung makes no difference to the image, so those that are booted directly stand for all in VERIFY.
    """
    shelf = open_shelf(tmp_path, target)
    verify = [] if boots == "direct" else ["--no-verify"]
    ran = shelf.build("--firmware", firmware, "-D", f"answers={way}", "--boot", boots, *verify)
    check_built(ran, target=target, way=way, boots=boots)
    serial = "\n".join(said(ran, "serial"))
    assert ("The media check is complete, the result is: PASS" in serial) is (boots == "menu")


@pytest.mark.full
def test_aarch64_is_installed_by_grub(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, "rhel-9.5", Arch.AARCH64)
    check_built(shelf.build("--no-verify"), target="rhel-9.5", way="seed", boots="direct")


@pytest.mark.full
def test_root_on_lvm_with_a_static_address(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, "rhel-9.5")
    locations = tmp_path / "specs/locations"
    locations.mkdir(parents=True)
    (locations / "lab.yml").write_text(
        "defs: {cidr: 192.168.77.0/24, gateway: 192.168.77.1, dns: [192.168.77.1], domain: lab.example}\n"
    )
    own = Shelf(shelf.folder, "qemu/lab/rhel-9.5", shelf.arch, shelf.sha256)
    words = ("-D", "disk_layout=lvm", "-D", "answers=http", "--name", "myhost", "--ip", "192.168.77.10")
    ran = own.build("--firmware", "bios", *words)
    assert ran.status == 0, ran.err
    look = said(ran, "look")
    assert look[0] == "myhost.lab.example"
    assert look[3] == "xfs system-root"


SCRIPTS = """\
%pre --log=/tmp/pre.log
echo the pre script ran on $(uname -m)
echo 'timezone Asia/Tokyo --utc' > /tmp/from-pre.cfg
%end
%include /tmp/from-pre.cfg
%post --nochroot --interpreter=/usr/bin/python3
import os
root = os.environ["ANA_INSTALL_PATH"]
log = open("/tmp/pre.log").read()
open(root + "/etc/evidence-nochroot", "w").write("nochroot saw: " + log)
%end
%post --log=/root/post.log
echo evidence of the chroot > /etc/evidence-chroot
rsync --version | head -1 > /etc/evidence-package
cp /root/post.log /etc/evidence-log || true
%end
"""


@pytest.mark.full
def test_pre_and_post_scripts_leave_their_traces(tmp_path: Path) -> None:
    """A fragment of the user's own goes before the shipped one of its name; the spec stays as it is."""
    shelf = open_shelf(tmp_path, "rhel-9.5")
    shipped = (ROOT / "files/anaconda/post.cfg").read_text()
    own = tmp_path / "files/anaconda/post.cfg"
    own.parent.mkdir(parents=True)
    own.write_text(f"{SCRIPTS}{shipped}")
    profiles = tmp_path / "specs/profiles"
    profiles.mkdir(parents=True)
    (profiles / "sync.yml").write_text("packages: [rsync]\n")
    ran = shelf.build("--firmware", "bios", "--no-verify", "--profile", "sync")
    assert ran.status == 0, ran.err
    look = said(ran, "look")
    assert look[1] == "Asia/Tokyo"
    assert "nochroot saw: the pre script ran on x86_64" in look
    assert "evidence of the chroot" in look
    assert any(line.startswith("rsync  version") for line in look)


@pytest.mark.full
@pytest.mark.parametrize(
    ("fragment", "wrong", "cause"),
    [
        ("packages.cfg", "%packages\n%end\nno-such-command --at-all\n", "the installer refused its answer file"),
        ("disk-plain.cfg", "zerombr\n", "the installer asks a question"),
        ("disk-plain.cfg", "zerombr\nclearpart --all\npart / --size=1024\n", "biosboot"),
    ],
    ids=["syntax", "open-question", "disk"],
)
def test_kickstart_that_anaconda_would_refuse_is_named(tmp_path: Path, fragment: str, wrong: str, cause: str) -> None:
    shelf = open_shelf(tmp_path, "rhel-9.5")
    own = tmp_path / "files/anaconda" / fragment
    own.parent.mkdir(parents=True)
    own.write_text(wrong)
    ran = shelf.build("--firmware", "bios", "--no-verify", "-D", "validate=false", look=False)
    assert ran.status == 6, ran.err
    assert cause in ran.err
