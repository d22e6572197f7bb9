"""How builds end that are cut short, with real guests: by a signal, by QEMU's death, by a kernel that never gets up."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from osimager.media.iso import extract_boot_files, inspect_iso
from tests.guest.lab import HOME, find_processes, interrupt, run, started, wait_for_event, wait_until

pytestmark = [pytest.mark.guest]
BUILD = ("build", "debian-12", "--arch", "x86_64", "--iso", "debian-12-made", "--force", "--no-verify", "--json")


def is_installer_start(event: dict[str, object]) -> bool:
    return event["kind"] == "machine_started" and event["role"] == "installer"


@pytest.fixture(scope="module", autouse=True)
def medium() -> Path:
    """The made ISO, so that no test pays for it."""
    ran = run("iso", "make", "debian-12-made", "--arch", "x86_64", deadline_s=1500)
    assert ran.status == 0, ran.err
    return Path(ran.out.strip())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_everything_and_sets_the_status(number: signal.Signals, status: int) -> None:
    with started(*BUILD) as child:
        event = wait_for_event(child, is_installer_start)
        assert interrupt(child, number) == status
    assert find_processes(event["build"]) == []
    assert list((HOME / "cache/work").glob(f"{event['build']}*")) == []


def test_sigkill_leaves_no_process_and_the_next_run_sweeps() -> None:
    with started(*BUILD) as child:
        event = wait_for_event(child, is_installer_start)
        child.kill()
        child.communicate()
    assert wait_until(lambda: find_processes(event["build"]) == [], deadline_s=5)
    left = HOME / "cache/work" / event["build"]
    assert left.is_dir()
    assert [path for path in left.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)] == []
    assert event["build"] in run("gc").err
    assert not left.exists()


def test_death_of_qemu_is_noticed_at_once_and_keeps_the_evidence() -> None:
    with started(*BUILD) as child:
        event = wait_for_event(child, is_installer_start)
        os.kill(event["pid"], signal.SIGKILL)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 6
    assert "error:" in err
    evidence = HOME / "data/builds" / event["build"] / "evidence"
    assert (evidence / "serial-installer.log").is_file()
    assert f"evidence: {evidence}" in err


def test_kernel_that_panics_is_named_long_before_the_deadline(medium: Path, tmp_path: Path) -> None:
    """A kernel without its initrd finds no root file system."""
    from osimager.media.seed import make_seed

    entry = next(entry for entry in inspect_iso(medium).entries if entry.is_default)
    kernel, _ = extract_boot_files(medium, kernel=entry.kernel, initrds=(), folder=tmp_path)
    menu = "default install\nlabel install\n menu label Install\n kernel /vmlinuz\n append console=ttyS0\n"
    iso = tmp_path / "broken.iso"
    make_seed(iso, "BROKEN", {"isolinux/isolinux.cfg": menu.encode(), "vmlinuz": kernel.read_bytes()})
    ran = run("build", "debian-12", "--arch", "x86_64", "--iso", iso, "--no-verify", deadline_s=300)
    assert ran.status == 6, ran.err
    assert "panic" in ran.err
    evidence = Path(ran.err.rpartition("evidence: ")[2].strip())
    assert "Kernel panic" in (evidence / "serial-installer.log").read_text()
    assert (evidence / "screen-installer.png").read_bytes().startswith(b"\x89PNG")
