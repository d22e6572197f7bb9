"""The rules that name why a guest is stuck, fed with lines as guests print them."""

from __future__ import annotations

import pytest

from osimager.events import (
    AnswerRefused,
    ConnectionTried,
    DiskActivity,
    Event,
    OutputLine,
    QmpEvent,
    ScreenChanged,
)
from osimager.machine.watch import Diagnostician, StuckGuest


def feed(*events: tuple[float, Event]) -> Diagnostician:
    thinker = Diagnostician(0.0)
    for at, event in events:
        thinker.feed(event, at)
    return thinker


def serial(text: str) -> OutputLine:
    return OutputLine("serial", text)


def cause_of(found: StuckGuest | None) -> str | None:
    return found.cause if found else None


LINES = [
    ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", "no-root"),
    ("[    1.2] Kernel panic - not syncing: Attempted to kill init!", "kernel-panic"),
    ("cp: error writing '/target/x': No space left on device", "disk-full"),
    ("[  9.1] Out of memory: Killed process 312 (dpkg) total-vm:1", "guest-out-of-memory"),
    ("  │ The file needed for preconfiguration could not be retrieved from http://10.0.2.2:9/x.", "answer-not-fetched"),
    ("  │ Failed to process the preconfiguration file", "answer-refused"),
    ("The following problem occurred on line 7 of the kickstart file:", "answer-refused"),
    ("No bootable device.", "no-bootable-medium"),
    ("BdsDxe: No bootable option or device was found.", "no-bootable-medium"),
    ("UEFI Interactive Shell v2.2", "uefi-shell"),
    ("Shell> ", "uefi-shell"),
    ('Generating "/run/initramfs/rdsosreport.txt"', "emergency-shell"),
    ("ALERT!  UUID=abc does not exist.  Dropping to a shell!", "emergency-shell"),
    ("(initramfs) ", "emergency-shell"),
    ("grub rescue> ", "grub-shell"),
    ("boot: ", "boot-menu"),
    ("Network autoconfiguration failed", "no-network"),
    ("  ┌───────────┤ [!!] Select a language ├───────────┐", "question"),
    ("Continue with autoinstall? (yes|no)", "question"),
]


@pytest.mark.parametrize(("line", "cause"), LINES)
def test_line_names_its_cause_once_the_guest_is_quiet(line: str, cause: str) -> None:
    thinker = feed((10, serial(line)))
    assert thinker.diagnose(10, cpu=1.0) is None
    found = thinker.diagnose(120, cpu=1.0)
    assert cause_of(found) == cause
    assert found is not None
    assert found.hint
    assert line.strip() in found.what


@pytest.mark.parametrize(
    "line",
    [
        "[    0.000000] Linux version 6.1.0-13-amd64",
        "Setting up linux-image-6.1.0-13-amd64 (6.1.55-1) ...",
        "panic=30 is set on the command line",
        "[  OK  ] Stopped target Emergency Mode... no",
        "debian login: ",
    ],
)
def test_ordinary_line_names_nothing(line: str) -> None:
    assert feed((10, serial(line))).diagnose(60, cpu=1.0) is None


def test_first_cause_wins_over_the_buttons_of_its_dialog() -> None:
    thinker = feed(
        (10, serial("┌─── [!!] Download debconf preconfiguration file ───")),
        (10, serial("The file needed for preconfiguration could not be retrieved from http://x")),
        (12, DiskActivity(50 << 20, 0)),
        (10, serial("    <Go Back>                          <Continue>")),
        *((10, serial(f"text of the dialog {number}")) for number in range(20)),
    )
    assert cause_of(thinker.diagnose(60, cpu=0.0)) == "answer-not-fetched"


def test_question_that_was_answered_is_forgotten() -> None:
    thinker = feed(
        (10, serial("[!] Partition disks")),
        *((30 + number, serial(f"Unpacking package {number}")) for number in range(6)),
    )
    assert thinker.diagnose(90, cpu=1.0) is None


def test_menu_that_went_on_is_forgotten_when_the_disk_is_read() -> None:
    thinker = feed(
        (5, serial("Automatic boot in 3 seconds")), (6, DiskActivity(1 << 20, 0)), (20, DiskActivity(50 << 20, 0))
    )
    assert thinker.diagnose(90, cpu=1.0) is None


def test_waiting_is_no_cause_while_the_disk_is_written() -> None:
    thinker = feed((10, serial("[!] Partition disks")), (50, DiskActivity(1 << 20, 0)))
    assert thinker.diagnose(70, cpu=1.0) is None
    assert cause_of(thinker.diagnose(110, cpu=1.0)) == "question"


def test_panic_is_final_though_the_screen_still_changes() -> None:
    thinker = feed((10, serial("Kernel panic - not syncing: Fatal exception")), (12, ScreenChanged("a")))
    assert cause_of(thinker.diagnose(14, cpu=1.0)) == "kernel-panic"


def test_idle_guest_is_stuck_within_two_minutes() -> None:
    thinker = feed((10, serial("Loading...")))
    assert thinker.diagnose(100, cpu=0.01) is None
    found = thinker.diagnose(115, cpu=0.01)
    assert cause_of(found) == "idle"
    assert "Loading..." in str(found)


def test_busy_guest_is_not_idle() -> None:
    assert feed((10, serial("Loading..."))).diagnose(1000, cpu=0.9) is None


def test_silent_guest_of_unknown_load_gets_more_time() -> None:
    thinker = feed()
    assert thinker.diagnose(200, cpu=None) is None
    assert cause_of(thinker.diagnose(301, cpu=None)) == "idle"


def test_refused_key_is_named_after_a_minute() -> None:
    refused = ConnectionTried("key-refused")
    thinker = feed((10, refused), (20, refused), (69, serial("x")))
    assert thinker.diagnose(69, cpu=1.0) is None
    assert cause_of(thinker.diagnose(71, cpu=1.0)) == "key-refused"


def test_restarts_without_a_written_disk_are_a_loop() -> None:
    reset = QmpEvent("RESET", '{"guest":true,"reason":"guest-reset"}')
    thinker = feed(*((number * 10.0, reset) for number in range(4)))
    assert cause_of(thinker.diagnose(41, cpu=1.0)) == "loop"


def test_restarts_between_writes_are_none() -> None:
    reset = QmpEvent("RESET", '{"guest":true,"reason":"guest-reset"}')
    thinker = feed(*((n * 10.0, event) for n in range(6) for event in (DiskActivity(0, n << 30), reset)))
    assert thinker.diagnose(61, cpu=1.0) is None


def test_answer_that_was_refused_is_told_with_the_question() -> None:
    thinker = feed((5, AnswerRefused("/x/preseed.cfg")), (10, serial("[!!] Select a language")))
    assert "/x/preseed.cfg" in str(thinker.diagnose(60, cpu=1.0))


def test_attended_guest_may_wait_and_be_idle_but_not_panic() -> None:
    thinker = Diagnostician(0.0, unattended=False)
    thinker.feed(serial("[!!] Select a language"), 10)
    assert thinker.diagnose(500, cpu=0.0) is None
    thinker.feed(serial("Kernel panic - not syncing: x"), 500)
    assert cause_of(thinker.diagnose(510, cpu=0.0)) == "kernel-panic"
