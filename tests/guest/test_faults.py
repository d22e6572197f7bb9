"""Every cause in a real guest: named rightly, soon, with status 6, a screenshot and the end of the console.

A contract, not a timed test: how long after its last progress a guest may be named is `watch.PATIENCE.most_s`, and the
events carry the times.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from osimager.machine.watch import PATIENCE
from tests.guest import faults
from tests.guest.faults import FAULTS, Bench, Fault, build, find_progress, time_of
from tests.guest.lab import run, started, wait_for_event
from tests.guest.tiny import HANG

pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-img", "mmdebstrap", "xorriso")]


@pytest.mark.parametrize(
    "fault", [pytest.param(each, id=each.name, marks=() if each.quick else pytest.mark.full) for each in FAULTS]
)
def test_fault_is_named_soon_and_leaves_its_evidence(fault: Fault, tmp_path: Path) -> None:
    if missing := [name for name in fault.needs if not Path(name).exists()]:
        pytest.skip(f"not on this host: {missing[0]}")
    ran = build(fault, tmp_path)
    events = ran.events
    [failed] = ran.of_kind("build_failed")
    assert (failed["cause"], failed["status"], ran.status) == (fault.cause, fault.status, fault.status), ran.err
    assert fault.says in failed["error"]
    assert failed["hint"]
    assert time_of(failed) - find_progress(events) <= PATIENCE.most_s
    evidence = Path(failed["evidence"])
    [role] = {event["role"] for event in ran.of_kind("machine_started")[-1:]}
    assert (evidence / f"screen-{role}.png").read_bytes().startswith(b"\x89PNG")
    serial = (evidence / f"serial-{role}.log").read_text()
    assert all(line in serial for line in failed["seen"].splitlines() if not any(is_of_screen(line, e) for e in events))


def is_of_screen(line: str, event: dict[str, Any]) -> bool:
    return bool(event["kind"] == "output_line" and event["source"] == "screen" and event["text"] == line)


@pytest.mark.full
def test_healthy_build_on_a_busy_host_is_never_named(tmp_path: Path) -> None:
    """Four times as much to do as there are cores: the guest crawls, and is not stuck."""
    busy = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(busy) for _ in range(4 * (os.cpu_count() or 1))]
    try:
        words = ("--arch", "x86_64", "--accel", "tcg", "--iso", faults.MADE, "--force", "--no-verify", "--json")
        ran = run("build", "debian-12", *words, deadline_s=3600)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert ran.of_kind("build_failed") == []
    assert ran.status == 0, ran.err


def test_guest_that_is_killed_at_once_leaves_a_picture_too(tmp_path: Path) -> None:
    words = faults.tiny(HANG)(Bench(tmp_path, "x86_64"))
    with started("build", "debian-12", "--arch", "x86_64", "--accel", "tcg", "--json", *words) as child:
        event = wait_for_event(child, lambda event: event["kind"] == "machine_started")
        wait_for_event(child, lambda event: event["kind"] == "screen_changed")
        os.kill(event["pid"], signal.SIGKILL)
        failed = wait_for_event(child, lambda event: event["kind"] == "build_failed")
        child.communicate(timeout=60)
    assert (failed["cause"], child.returncode) == ("guest-gone", 6)
    assert "SIGKILL" in failed["error"]
    assert (Path(failed["evidence"]) / "screen-installer.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
def test_host_without_the_memory_for_a_guest_is_named(tmp_path: Path) -> None:
    words = ("--accel", "tcg", "--memory", "3G", "--json", *faults.tiny(HANG)(Bench(tmp_path, "x86_64")))
    with started("build", "debian-12", "--arch", "x86_64", *words) as child:
        resource.prlimit(child.pid, resource.RLIMIT_AS, (3 << 30, 3 << 30))  # its children have it too
        failed = wait_for_event(child, lambda event: event["kind"] == "build_failed")
        child.communicate(timeout=60)
    assert (failed["cause"], child.returncode) == ("host-out-of-memory", 4)


@pytest.mark.full
def test_host_whose_disk_fills_up_while_a_guest_writes_is_named(tmp_path: Path) -> None:
    bench, home = Bench(tmp_path, "x86_64"), tmp_path / "home"
    home.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", home]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a tmpfs on this host")
    try:
        words = ("--arch", "x86_64", "--accel", "tcg", "--iso", bench.medium(faults.MADE), "--force", "--json")
        ran = run("build", "debian-12", *words, home=home, deadline_s=900)
    finally:
        subprocess.run(["umount", "-l", home], check=True)
    [failed] = ran.of_kind("build_failed")
    assert (failed["cause"], ran.status) == ("host-disk-full", 4)
