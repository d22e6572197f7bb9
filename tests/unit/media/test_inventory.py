"""What ISOs are, by what they say of themselves; what of the cache may go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.arch import Arch
from osimager.config.documents import load_document
from osimager.config.isos import make_iso
from osimager.media.inventory import (
    find_garbage,
    identify_volume,
    parse_disk_info,
    parse_products,
    parse_treeinfo,
    recognise_iso,
    remove_garbage,
    render_entry,
)
from osimager.media.seed import make_seed
from osimager.media.store import IsoStore, StoredIso
from osimager.paths import Places

TREEINFO = """[header]
type = productmd.treeinfo
version = 1.2

[release]
name = Red Hat Enterprise Linux
short = RHEL
version = 9.5

[tree]
arch = x86_64
platforms = x86_64,xen

[general]
family = Red Hat Enterprise Linux
version = 9.5
arch = x86_64
"""
OLD_TREEINFO = "[general]\nfamily = CentOS\nversion = 6.10\narch = i386\n"
DEBIAN = 'Debian GNU/Linux 12.8.0 "Bookworm" - Official amd64 NETINST with firmware 20241109-11:05\n'
SUSE = "/ openSUSE-Leap 15.6-0\n"
UBUNTU = 'Ubuntu-Server 24.04.1 LTS "Noble Numbat" - Release arm64 (20240827)'


@pytest.mark.parametrize(
    ("name", "text", "label", "dist", "version", "arch"),
    [
        (".treeinfo", TREEINFO, "RHEL-9-5-0-BaseOS-x86_64", "rhel", "9.5", Arch.X86_64),
        (".treeinfo", OLD_TREEINFO, "CentOS_6.10_Final", "centos", "6.10", Arch.I386),
        (".disk/info", DEBIAN, "Debian 12.8.0 amd64 n", "debian", "12.8.0", Arch.X86_64),
        (".disk/info", UBUNTU, "Ubuntu-Server 24.04.1 LTS arm64", "ubuntu", "24.04.1", Arch.AARCH64),
        ("media.1/products", SUSE, "openSUSE-Leap-15.6-DVD-x86_64", "opensuse", "15.6", Arch.X86_64),
        ("readme.txt", "", "Rocky-9-5-aarch64-dvd", "rocky", "9.5", Arch.AARCH64),
        ("readme.txt", "", "SOMETHING", "", "", None),
        (".treeinfo", "not ini at all", "AlmaLinux-9-5-x86_64-dvd", "alma", "9.5", Arch.X86_64),
    ],
)  # fmt: skip
def test_an_iso_says_what_it_is(
    tmp_path: Path, name: str, text: str, label: str, dist: str, version: str, arch: Arch | None
) -> None:
    make_seed(tmp_path / "x.iso", label, {name: text.encode()})
    found = recognise_iso(tmp_path / "x.iso")
    assert (found.dist, found.version, found.arch, found.volume_id) == (dist, version, arch, label)


@pytest.mark.parametrize(
    ("volume_id", "dist", "version", "arch"),
    [
        ("RHEL-9-5-0-BaseOS-x86_64", "rhel", "9.5", Arch.X86_64),
        ("RHEL-7.9 Server.x86_64", "rhel", "7.9", Arch.X86_64),
        ("OL-9-5-0-BaseOS-x86_64", "oel", "9.5", Arch.X86_64),
        ("CentOS-Stream-9-BaseOS-aarch64", "centos-stream", "9", Arch.AARCH64),
        ("CentOS 7 x86_64", "centos", "7", Arch.X86_64),
        ("CentOS-8-5-2111-x86_64-dvd", "centos", "8.5.2111", Arch.X86_64),
        ("Fedora-S-dvd-x86_64-41", "fedora", "41", Arch.X86_64),
        ("SLE-15-SP6-Full-x86_64501.1.1", "sles", "15-SP6", Arch.X86_64),
        ("Install-Leap-16.0-x86_64", "opensuse", "16.0", Arch.X86_64),
        ("alpine-virt 3.20.3 aarch64", "alpine", "3.20.3", Arch.AARCH64),
        ("14_1_RELEASE_AMD64_CD", "freebsd", "14.1", Arch.X86_64),
        ("OpenBSD/amd64   7.6 Install CD", "openbsd", "7.6", Arch.X86_64),
        ("ARCH_202411", "arch", "202411", None),
        ("ESXI-8.0U2-22380479-STANDARD", "esxi", "8.0U2", None),
        ("SSS_X64FRE_EN-US_DV9", "windows", "", Arch.X86_64),
        ("CCCOMA_A64FRE_EN-US_DV9", "windows", "", Arch.AARCH64),
        ("PVE", "proxmox-ve", "", None),
    ],
)
def test_volume_id_tells_what_an_iso_is(volume_id: str, dist: str, version: str, arch: Arch | None) -> None:
    found = identify_volume(volume_id)
    assert (found.dist, found.version, found.arch) == (dist, version, arch)


@given(st.text(), st.text())
def test_hostile_text_is_read_without_an_error(text: str, volume_id: str) -> None:
    for parse in (parse_treeinfo, parse_disk_info, parse_products):
        parse(text, volume_id)
    identify_volume(volume_id)


def test_an_entry_is_one_that_the_catalogue_takes(tmp_path: Path) -> None:
    make_seed(tmp_path / "x.iso", 'A "b" + c', {".disk/info": UBUNTU.encode()})
    identity = recognise_iso(tmp_path / "x.iso")
    text = render_entry(
        identity, name="mine", arch=Arch.AARCH64, filename="x y.iso", sha256="a" * 64, size_bytes=5 << 30
    )
    (tmp_path / "mine.yml").write_text(text)
    table = load_document(tmp_path / "mine.yml")["mine"]
    entry = make_iso("mine", "aarch64", table)  # type: ignore[arg-type]
    assert entry is not None
    assert (entry.sha256, entry.patterns, entry.size_bytes) == ("a" * 64, ("x y.iso",), 5 << 30)
    assert make_iso("mine", "x86_64", table) is None  # type: ignore[arg-type]


def store_iso(places: Places, content: bytes, digit: str) -> StoredIso:
    store = IsoStore(places)
    partial = store.partial(digit)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(content)
    record = StoredIso(
        sha256=digit * 64,
        name=digit,
        filename="x.iso",
        size_bytes=len(content),
        verified=True,
        fetched_at=0,
        checked_at=0,
    )
    store.publish(partial, record)
    return record


def test_what_was_not_used_for_long_may_go(places: Places) -> None:
    old, new = (store_iso(places, b"x" * 100, digit) for digit in "ab")
    store = IsoStore(places)
    for path in (store.path_of(old.sha256), store.path_of(old.sha256).with_suffix(".json")):
        os.utime(path, (1000, 1000))
    left = store.partial("left")
    left.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    store.partial("busy").write_bytes(b"half")
    garbage = find_garbage(places, unused_s=30 * 86400)
    assert [item.path for item in garbage] == [store.path_of(old.sha256), left]
    assert remove_garbage(places, garbage) == 104
    assert list(store.records()) == [new]
    assert store.partial("busy").exists()
    # What was found by a build just now stays, however small the limit.
    store.mark_used(new.sha256)
    assert find_garbage(places, unused_s=0) == ()


def test_of_made_isos_the_newest_of_each_recipe_stays(places: Places) -> None:
    folder = places.isos / "made"
    folder.mkdir(parents=True)
    for number, name in enumerate(["debian-12-x86_64-a", "debian-12-x86_64-b", "debian-12-aarch64-c"]):
        (folder / f"{name}.iso").write_bytes(b"x")
        os.utime(folder / f"{name}.iso", (1000 + number, 1000 + number))
    garbage = find_garbage(places, unused_s=86400)
    assert [item.path.stem for item in garbage] == ["debian-12-x86_64-a"]
    remove_garbage(places, garbage)
    assert len(list(folder.iterdir())) == 2
