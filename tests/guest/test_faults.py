"""Every cause in a real guest: named rightly, soon, with status 6, a screenshot and the end of the console.

A contract, not a timed test: how long after its last progress a guest may be named is `watch.PATIENCE.most_s`, and the
events carry the times.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from osimager.machine.watch import PATIENCE
from tests.guest.faults import FAULTS, Bench, Fault
from tests.guest.lab import run

pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-img", "mmdebstrap", "xorriso")]
_SIGNS = frozenset(
    {"screen_changed", "answer_fetched", "answer_refused", "proof_of_life", "qmp_event", "machine_started"}
)


def find_progress(events: list[dict[str, Any]]) -> float:
    """Give the time of the last event that shows a guest at work, its end and ours left out."""
    last = [time_of(event) for event in events if event["kind"] in _SIGNS and event.get("name") != "SHUTDOWN"]
    said: dict[str, float] = {}
    for event in events:
        if event["kind"] == "output_line" and event["source"] in ("serial", "screen"):
            said.setdefault("".join(letter for letter in event["text"] if not letter.isdigit()), time_of(event))
    disks = [event for event in events if event["kind"] == "disk_activity"]
    moved = [time_of(new) for old, new in pairwise(disks) if total_of(new) - total_of(old) > 1 << 16]
    return max((*last, *said.values(), *moved))


def time_of(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def total_of(event: dict[str, Any]) -> int:
    return int(event["read_bytes"] + event["written_bytes"])


@pytest.mark.parametrize(
    "fault", [pytest.param(each, id=each.name, marks=() if each.quick else pytest.mark.full) for each in FAULTS]
)
def test_fault_is_named_soon_and_leaves_its_evidence(fault: Fault, tmp_path: Path) -> None:
    if missing := [name for name in fault.needs if not Path(name).exists()]:
        pytest.skip(f"not on this host: {missing[0]}")
    words = fault.plant(Bench(tmp_path, fault.arch))
    where = ("--arch", fault.arch, "--accel", "tcg", "--project", tmp_path)
    ran = run("build", "debian-12", *where, "--no-verify", "--json", *words, deadline_s=1500)
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
