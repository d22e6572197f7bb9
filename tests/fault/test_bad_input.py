"""Bad input: one clear message, the exit status of docs/contracts.md, no traceback, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from osimager.media.seed import make_seed
from tests.guest.lab import Ran, run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def build(home: Path, *words: str | Path) -> Ran:
    return run("build", "debian-12", "--arch", "x86_64", "-q", *words, home=home, deadline_s=60)


def check(ran: Ran, status: int, *words: str) -> None:
    """The status, every one of the words in the message, and one message only."""
    assert ran.status == status, ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert ran.err.lower().count("error:") == 1
    for word in words:
        assert word in ran.err


def test_unknown_target_names_the_likely_one(home: Path) -> None:
    check(run("build", "debain-12", home=home), 2, "debain-12", "did you mean debian-12")


def test_unknown_option_value_says_what_there_is(home: Path) -> None:
    check(build(home, "--timeout", "instal=3m"), 2, "instal", "install")
    check(build(home, "--memory", "much"), 2, "much", "20G")


@pytest.mark.parametrize(("option", "size"), [("--memory", "0"), ("--disk", "1k"), ("--memory", "9" * 20 + "G")])
def test_size_that_no_machine_can_have(home: Path, option: str, size: str) -> None:
    check(build(home, option, size), 2, size, "is too")


def test_output_that_cannot_be_written_ends_before_the_build_has_begun(home: Path, tmp_path: Path) -> None:
    """Before anything of the ISO is looked at, too: this one is none."""
    (iso := tmp_path / "text.iso").write_text("hello")
    check(build(home, "--iso", iso, "--output", iso / "images"), 4, "cannot write", f"{iso}/images", "hint: ")


def test_iso_that_is_not_there_is_named(home: Path) -> None:
    check(build(home, "--iso", "/nowhere/at-all.iso"), 5, "/nowhere/at-all.iso")


def test_file_that_is_no_iso_is_refused(home: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.iso"
    text.write_text("hello")
    check(build(home, "--iso", text), 5, "not an ISO", str(text))


def test_iso_that_was_cut_off_is_said_to_be(home: Path, tmp_path: Path) -> None:
    iso = tmp_path / "cut.iso"
    make_seed(iso, "CUT", {"big": os.urandom(1 << 20)})
    os.truncate(iso, 1 << 19)
    check(build(home, "--iso", iso), 5, "truncated", str(iso))


def test_wrong_checksum_shows_both(home: Path, tmp_path: Path) -> None:
    iso = tmp_path / "other.iso"
    make_seed(iso, "OTHER", {"file": b"content"})
    check(build(home, "--iso", iso, "--iso-checksum", "sha256:" + "0" * 64), 5, "0" * 64)


def test_direct_boot_of_an_iso_without_a_boot_menu_says_how_to_go_on(home: Path, tmp_path: Path) -> None:
    iso = tmp_path / "plain.iso"
    make_seed(iso, "PLAIN", {"file": b"content"})
    check(build(home, "--iso", iso, "--boot", "direct"), 5, "boot menu", "--boot typed")


def test_url_without_a_checksum_is_refused(home: Path) -> None:
    check(build(home, "--iso", "https://host.invalid/some.iso"), 2, "checksum")


def test_step_that_is_not_there_is_named(home: Path) -> None:
    check(build(home, "--iso", "debian-12-made", "--step", "/no/such/step.sh"), 2, "/no/such/step.sh")


def test_address_outside_the_locations_network_is_refused(home: Path) -> None:
    check(build(home, "--iso", "debian-12-made", "--ip", "192.0.2.1"), 3, "192.0.2.1", "cidr")


def test_accelerator_that_does_not_work_here_is_named(home: Path) -> None:
    if os.uname().sysname == "Darwin":
        pytest.skip("there is no KVM on macOS to be refused by name")
    ran = build(home, "--accel", "hvf", "--iso", "debian-12-made")
    check(ran, 4, "hvf")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount the small file system that this test fills")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    if mount.returncode:
        pytest.skip("mount of a tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_named_with_the_remedy(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * (1 << 20))
    check(build(small_disk / "home", "--iso", "debian-12-made"), 4, "No space left", "OSIMAGER_HOME")


def test_image_that_is_not_registered(home: Path) -> None:
    check(run("image", "path", "debian-12", home=home), 2, "debian-12", "osimager build")


def test_damaged_registry_is_never_overwritten(home: Path, needs: Callable[[str], Path]) -> None:
    registry = home / "data/registry.yml"
    registry.parent.mkdir(parents=True)
    registry.write_text("version: 1\nimages: [")
    check(run("image", "list", home=home), 3, str(registry))
    assert registry.read_text() == "version: 1\nimages: ["
