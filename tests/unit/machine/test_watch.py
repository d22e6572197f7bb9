"""The rules that name why a guest is stuck, fed with lines as guests print them."""

from __future__ import annotations

import pytest

from osimager.events import (
    AnswerFetched,
    AnswerRefused,
    ConnectionTried,
    DiskActivity,
    Event,
    OutputLine,
    ProofOfLife,
    QmpEvent,
    ScreenChanged,
)
from osimager.machine.causes import StuckGuest
from osimager.machine.ladder import CONTINUED, SYSTEM, Ladder, Proof, installer_ladder
from osimager.machine.load import Load
from osimager.machine.watch import PATIENCE, Diagnostician
from osimager.plan.facts import Accelerator

INSTALLER = installer_ladder(serves_answers=True)
KERNEL = "[    0.000000] Linux version 6.1.0-13-amd64"


def feed(*events: tuple[float, Event], ladder: Ladder = INSTALLER) -> Diagnostician:
    thinker = Diagnostician(0.0, ladder)
    for at, event in events:
        thinker.feed(event, at)
    return thinker


def serial(text: str) -> OutputLine:
    return OutputLine("serial", text)


def cause_of(found: StuckGuest | None) -> str | None:
    return found.cause if found else None


def test_first_cause_wins_over_the_buttons_of_its_dialog() -> None:
    thinker = feed(
        (10, serial("┌─── [!!] Download debconf preconfiguration file ───")),
        (10, serial("The file needed for preconfiguration could not be retrieved from http://x")),
        (12, DiskActivity(50 << 20, 0)),
        (10, serial("    <Go Back>                          <Continue>")),
        *((10, serial(f"text of the dialog {number}")) for number in range(20)),
    )
    assert cause_of(thinker.diagnose(60, Load(0.0))) == "answer-not-fetched"


def test_question_that_was_answered_is_forgotten() -> None:
    thinker = feed(
        (10, serial("[!] Partition disks")),
        *((30 + number, serial(f"Unpacking package {number}")) for number in range(6)),
    )
    assert thinker.diagnose(90, Load(1.0)) is None


def test_menu_that_went_on_is_forgotten_when_the_disk_is_read() -> None:
    thinker = feed(
        (5, serial("Automatic boot in 3 seconds")), (6, DiskActivity(1 << 20, 0)), (20, DiskActivity(50 << 20, 0))
    )
    assert thinker.diagnose(90, Load(1.0)) is None


def test_waiting_is_no_cause_while_the_disk_is_written() -> None:
    thinker = feed((10, serial("[!] Partition disks")), (50, DiskActivity(1 << 20, 0)))
    assert thinker.diagnose(70, Load(1.0)) is None
    assert cause_of(thinker.diagnose(110, Load(0.02))) == "question"


def test_writing_what_is_left_in_memory_is_no_moving_on() -> None:
    """A full disk's last pages, half a minute after the dialog: seen with debian-installer."""
    full = 3 << 30
    thinker = feed(
        (9, serial(KERNEL)),
        (110, serial("cat: write error: No space left on device")),
        (110, serial("  ┌─── [!!] Finish the installation ───")),
        *((at, DiskActivity(0, full)) for at in range(111, 140, 5)),
        *((at, DiskActivity(0, full + (5 << 20))) for at in range(141, 170, 5)),
    )
    assert thinker.diagnose(185, Load(0.02)) is None
    assert cause_of(thinker.diagnose(187, Load(0.02))) == "disk-full"
    assert cause_of(thinker.diagnose(242, Load(0.9))) == "disk-full"


def test_dialog_is_forgotten_when_the_disk_is_written_on_and_on() -> None:
    thinker = feed(
        (9, serial(KERNEL)),
        (10, serial("[!] Partition disks")),
        *((at, DiskActivity(0, at << 20)) for at in range(11, 40, 5)),
    )
    assert thinker.diagnose(170, Load(0.9)) is None


def test_dialog_is_named_though_the_processor_is_busy_but_later() -> None:
    thinker = feed((9, serial(KERNEL)), (10, serial("[!] Partition disks")))
    assert thinker.diagnose(109, Load(1.0)) is None
    assert cause_of(thinker.diagnose(111, Load(1.0))) == "question"


def test_failure_that_may_be_mended_is_none_while_the_processor_works() -> None:
    thinker = feed((10, serial(KERNEL)), (10, serial("Temporary failure in name resolution")))
    assert thinker.diagnose(600, Load(0.9)) is None
    assert cause_of(thinker.diagnose(600, Load(0.02))) == "no-network"


def test_panic_is_final_though_the_screen_still_changes() -> None:
    thinker = feed((10, serial("Kernel panic - not syncing: Fatal exception")), (12, ScreenChanged("a")))
    assert cause_of(thinker.diagnose(14, Load(1.0))) == "kernel-panic"


def test_promise_covers_every_patience() -> None:
    looks_s = 5.0 + 30.0  # the rhythm, and the window over which the processor's use is taken
    kept = (PATIENCE.settled_s, PATIENCE.waiting_s, PATIENCE.loader_s, PATIENCE.refused_s)
    assert all(seconds + looks_s <= PATIENCE.most_s + 5.0 for seconds in kept)
    assert max(PATIENCE.busy_s, PATIENCE.rest_s) <= PATIENCE.most_s - 20.0


def test_guest_that_rests_is_stuck_within_two_minutes() -> None:
    thinker = feed((9, serial(KERNEL)), (10, serial("Loading...")))
    assert thinker.diagnose(100, Load(0.01)) is None
    found = thinker.diagnose(115, Load(0.01))
    assert cause_of(found) == "answer-not-fetched"
    assert "last sign of life was kernel" in str(found)
    assert "Loading..." in str(found)


def test_busy_guest_is_not_stuck_before_its_rungs_deadline() -> None:
    thinker = feed((9, serial(KERNEL)), (10, serial("Loading...")))
    assert thinker.diagnose(899, Load(0.9)) is None
    found = thinker.diagnose(910, Load(0.9))
    assert cause_of(found) == "answer-not-fetched"
    assert "did not come within 15m" in str(found)


def test_real_hardware_has_a_third_of_the_time() -> None:
    thinker = Diagnostician(0.0, INSTALLER, Accelerator.KVM)
    thinker.feed(serial(KERNEL), 10)
    assert thinker.diagnose(309, Load(0.9)) is None
    assert cause_of(thinker.diagnose(311, Load(0.9))) == "answer-not-fetched"


def test_guest_that_fetches_at_ease_gets_more_time() -> None:
    """At real hardware's speed a download takes no processor to speak of."""
    thinker = feed((9, serial(KERNEL)), (40, AnswerFetched("ks.cfg")), (41, serial(" 3) [!] Installation source")))
    assert thinker.diagnose(140, Load(0.02, is_fetching=True)) is None
    assert cause_of(thinker.diagnose(142, Load(0.02, is_fetching=True))) == "question"
    silent = feed((9, serial(KERNEL)), (40, AnswerFetched("ks.cfg")))
    assert silent.diagnose(339, Load(0.02, is_fetching=True)) is None
    assert cause_of(silent.diagnose(341, Load(0.02, is_fetching=True))) == "question"


def test_silent_guest_of_unknown_load_gets_more_time() -> None:
    thinker = feed((0, serial(KERNEL)))
    assert thinker.diagnose(200, Load(None)) is None
    assert cause_of(thinker.diagnose(301, Load(None))) == "answer-not-fetched"


@pytest.mark.parametrize(("read_bytes", "cause"), [(4096, "firmware"), (300_000, "boot-menu")])
def test_still_screen_before_any_kernel_is_named_though_the_processor_is_busy(read_bytes: int, cause: str) -> None:
    """Firmware and boot loaders poll for a key; a menu has been loaded from the medium, firmware was not."""
    thinker = feed(
        (2, ScreenChanged("a", cells=400)), (5, DiskActivity(read_bytes, 0)), (10, DiskActivity(read_bytes, 0))
    )
    assert thinker.diagnose(90, Load(1.0)) is None
    assert cause_of(thinker.diagnose(100, Load(1.0))) == cause


def test_disk_whose_loader_waits_has_no_menu_to_choose_from() -> None:
    thinker = feed((2, ScreenChanged("a", cells=400)), (5, DiskActivity(300_000, 0)), ladder=SYSTEM)
    assert cause_of(thinker.diagnose(100, Load(1.0))) == "boot-loader"


def test_menu_that_counts_down_is_left_alone() -> None:
    thinker = feed((5, serial("Use the arrow keys to change the selection.")))
    for second in range(10, 300, 5):
        thinker.feed(ScreenChanged("a", cells=1), second)
        assert thinker.diagnose(second + 1, Load(1.0)) is None
    assert cause_of(thinker.diagnose(386, Load(1.0))) == "boot-menu"


def test_menu_that_goes_on_after_a_minute_without_a_word_is_left_alone() -> None:
    """isolinux with a prompt: CentOS 5's TIMEOUT is 600, and is shown nowhere."""
    thinker = feed((5, serial("boot: ")))
    assert thinker.diagnose(70, Load(1.0)) is None
    assert cause_of(thinker.diagnose(96, Load(1.0))) == "boot-menu"


def test_menu_is_no_cause_any_more_once_a_kernel_runs() -> None:
    thinker = feed((5, serial("Press enter to boot the selected OS")), (20, ProofOfLife(Proof.KERNEL)))
    assert thinker.diagnose(110, Load(1.0)) is None


def test_error_of_a_boot_loader_stands_though_its_menu_comes_back() -> None:
    menu = ("GNU GRUB  version 2.06", "Press enter to boot the selected OS", "a command-line.", "*Install", "c", "d")
    thinker = feed((17, serial("error: file `/vmlinuz' not found.")), *((40, serial(line)) for line in menu))
    assert cause_of(thinker.diagnose(90, Load(1.0))) == "boot-loader"


def test_clock_that_ticks_is_no_progress() -> None:
    bar = "[  (1*installer)  2 shell  4- log  ][ Nov 26 17:{} ]"
    thinker = feed((5, serial(KERNEL)), (10, serial("Prompt: '?' for help> ")))
    for minute in range(1, 4):
        thinker.feed(serial(bar.format(15 + minute)), 60.0 * minute)
        thinker.feed(ScreenChanged("a", cells=2), 60.0 * minute)
    assert cause_of(thinker.diagnose(181, Load(0.01))) == "question"


def test_job_that_counts_down_is_waited_for() -> None:
    job = "[ ***  ] (1 of 2) A start job is running for Raise network interfaces ({}s / 5min)"
    thinker = feed((5, serial(KERNEL)), ladder=SYSTEM)
    for second in range(10, 290, 10):
        thinker.feed(serial(job.format(second)), second)
        assert thinker.diagnose(second + 1, Load(0.01)) is None


def test_text_screen_that_scrolls_what_was_said_before_does_not_move() -> None:
    thinker = feed((5, serial(KERNEL)), (9, OutputLine("screen", "ERROR: no such file")))
    for second in range(10, 110, 5):
        thinker.feed(ScreenChanged("a", cells=300, is_text=True), second)
    assert cause_of(thinker.diagnose(110, Load(0.02))) == "answer-not-fetched"
    thinker.feed(ScreenChanged("a", cells=300), 110)  # of a picture
    assert thinker.diagnose(111, Load(0.02)) is None


def test_job_without_a_limit_is_not_waited_for() -> None:
    job = "[ ***  ] (1 of 2) A start job is running for /dev/disk/by-uuid/6f3c ({}s / no limit)"
    thinker = feed((5, serial(KERNEL)), ladder=SYSTEM)
    for second in range(10, 60, 10):
        thinker.feed(serial(job.format(second)), second)
        assert thinker.diagnose(second + 1, Load(0.01)) is None
    assert cause_of(thinker.diagnose(96, Load(0.01))) == "no-root"


def test_next_try_in_so_many_seconds_is_no_countdown_when_it_comes_again() -> None:
    thinker = feed((5, serial(KERNEL)))
    for second in range(10, 110, 5):
        thinker.feed(serial("No reply from 10.0.2.2, retrying in 5 seconds..."), second)
        assert thinker.diagnose(second + 1, Load(0.02)) is None
    assert cause_of(thinker.diagnose(111, Load(0.02))) == "answer-not-fetched"


@pytest.mark.parametrize(("before", "cause"), [((), "answer-not-fetched"), (((9, AnswerFetched("ks.cfg")),), "loop")])
def test_busy_guest_that_only_repeats_what_failed_is_stuck(before: tuple[tuple[float, Event], ...], cause: str) -> None:
    thinker = feed((5, serial(KERNEL)), *before)
    for second in range(10, 110):
        assert thinker.diagnose(second, Load(0.9)) is None
        thinker.feed(serial(f"[   {second}.000001] attempt {second}: no answer, trying again"), second)
    assert cause_of(thinker.diagnose(112, Load(0.9))) == cause
    assert thinker.diagnose(145, Load(0.9)) is None


def test_what_both_consoles_say_is_no_repetition() -> None:
    said = [f"device {letter} failed" for letter in "abcdefghijkl"]
    thinker = feed((5, serial(KERNEL)), *((10, serial(line)) for line in said))
    for line in said:
        thinker.feed(OutputLine("screen", line), 100)
    assert thinker.diagnose(112, Load(0.9)) is None


def test_failure_that_is_said_round_after_round_is_named_by_its_text() -> None:
    thinker = feed((5, serial(KERNEL)))
    for second in range(10, 60, 3):
        for line in ("Sending discover...", "udhcpc: no lease, failing", "sleeping", "waking", "trying again"):
            thinker.feed(serial(line), second)
    assert cause_of(thinker.diagnose(60, Load(0.02))) == "no-network"


def test_text_that_a_frame_breaks_in_two_is_read() -> None:
    rows = ("│ The installer met a problem: the kickstart file could not  │", "│ be found.   │", "│   <Ok>   │")
    thinker = feed((5, serial(KERNEL)), *((10, serial(row)) for row in rows))
    assert cause_of(thinker.diagnose(56, Load(0.0))) == "answer-not-fetched"


def test_installer_without_a_word_is_named_by_how_far_it_came() -> None:
    """Graphical, nothing on serial: the processor's registers, the answer server and the disk's counters tell."""
    thinker = feed((5, ScreenChanged("a", cells=900)), (20, ProofOfLife(Proof.KERNEL)), (40, AnswerFetched("ks.cfg")))
    assert thinker.diagnose(139, Load(0.02)) is None
    assert cause_of(thinker.diagnose(141, Load(0.02))) == "question"
    thinker.feed(DiskActivity(0, 50 << 20), 141)
    assert thinker.diagnose(240, Load(0.02)) is None
    assert "last sign of life was disk" in str(thinker.diagnose(250, Load(0.02)))


def test_silent_install_that_writes_or_computes_is_never_stuck() -> None:
    thinker = feed((5, ProofOfLife(Proof.KERNEL)), (40, AnswerFetched("ks.cfg")))
    for step in range(1, 400):
        now = 40.0 + step * 20
        thinker.feed(DiskActivity(0, step << 20), now)
        assert thinker.diagnose(now + 19, Load(0.02)) is None
    assert thinker.diagnose(40 + 400 * 20 + 5000, Load(0.8)) is None


def test_system_that_answers_no_ssh_is_named() -> None:
    silent = feed((5, serial(KERNEL)), (30, serial("debian login: ")), (35, ConnectionTried("refused")), ladder=SYSTEM)
    assert cause_of(silent.diagnose(136, Load(0.02))) == "no-ssh"
    tries = ((35 + n, ConnectionTried(("refused", "no-banner")[n % 2])) for n in range(90))
    assert cause_of(feed((5, serial(KERNEL)), *tries, ladder=SYSTEM).diagnose(137, Load(0.02))) == "no-ssh"
    lost = feed((5, serial(KERNEL)), (30, serial("debian login: ")), (35, ConnectionTried("no-banner")), ladder=SYSTEM)
    assert cause_of(lost.diagnose(136, Load(0.02))) == "no-network"


def test_server_that_breaks_off_is_no_missing_network() -> None:
    tries = [(30, ConnectionTried("broken-off", "it said 'Exceeded MaxStartups'"))]
    tries += [(31 + second, ConnectionTried("broken-off", "no kex")) for second in range(110)]
    thinker = feed((5, serial(KERNEL)), (10, ConnectionTried("no-banner")), *tries[:100], ladder=SYSTEM)
    assert thinker.diagnose(129, Load(0.5)) is None
    found = thinker.diagnose(131, Load(0.5))
    assert cause_of(found) == "no-ssh"
    assert "no kex" in str(found)
    once = feed((5, serial(KERNEL)), tries[0], ladder=SYSTEM)  # it may have hung
    assert once.diagnose(200, Load(0.5)) is None
    assert cause_of(once.diagnose(200, Load(0.01))) == "no-ssh"


def knocked(*, read: int = 0, said: str = "") -> Diagnostician:
    """A system whose port answers and closes, and that writes of each attempt into a log: seen with TCP wrappers."""
    thinker = feed(
        (5, serial(KERNEL)), (30, serial("debian login: ")), (33, ConnectionTried("no-banner")), ladder=SYSTEM
    )
    for second in range(35, 136):
        thinker.feed(ConnectionTried("refused", "closed before a banner"), second)
        if second % 5 == 0:
            thinker.feed(DiskActivity(read * second, 80_000 * second), second)
        if said:
            thinker.feed(serial(f"{said} {'x' * second}"), second)
    return thinker


def test_system_that_works_at_nothing_but_turning_us_away_is_named() -> None:
    thinker = knocked()
    assert thinker.diagnose(134, Load(0.3)) is None
    assert cause_of(thinker.diagnose(141, Load(0.3))) == "no-ssh"
    assert thinker.diagnose(141, Load(0.9)) is None
    assert knocked(read=20_000).diagnose(141, Load(0.3)) is None
    assert knocked(said="Starting").diagnose(141, Load(0.3)) is None


def test_server_that_keeps_silent_after_too_many_tries_has_refused_the_key() -> None:
    """OpenSSH 9.8, PerSourcePenalties."""
    kinds = ("key-refused", "broken-off", "no-banner")
    tries = ((30 + second, ConnectionTried(kinds[second % 3])) for second in range(61))
    assert cause_of(feed((5, serial(KERNEL)), *tries, ladder=SYSTEM).diagnose(91, Load(0.5))) == "key-refused"
    gone = feed((30, ConnectionTried("key-refused")), (60, ConnectionTried("refused")), ladder=SYSTEM)
    assert gone.diagnose(95, Load(0.5)) is None


def test_system_that_let_us_in_may_rest_and_ask_but_not_panic() -> None:
    thinker = feed((5, serial(KERNEL)), (30, ConnectionTried("open")), ladder=SYSTEM)
    thinker.feed(serial("[!!] Select a language"), 40)
    assert thinker.diagnose(5000, Load(0.0)) is None
    thinker.feed(serial("Kernel panic - not syncing: x"), 5000)
    assert cause_of(thinker.diagnose(5010, Load(0.0))) == "kernel-panic"


@pytest.mark.parametrize(
    ("after", "cause"),
    [("   Minimal BASH-like line editing is supported.", "grub-shell"), ("GNU GRUB  version 2.06", "boot-menu")],
)
def test_command_that_a_loader_lacks_and_does_not_boot_with_hides_nothing(after: str, cause: str) -> None:
    thinker = feed((5, serial("error: can't find command `load_video'.")), (6, serial(after)))
    assert cause_of(thinker.diagnose(97, Load(1.0))) == cause


def test_typing_holds_the_clock() -> None:
    thinker = feed((5, serial("grub> ")))
    thinker.hold(300)
    assert thinker.diagnose(340, Load(1.0)) is None
    assert cause_of(thinker.diagnose(346, Load(1.0))) == "grub-shell"


def test_second_fetch_of_the_answers_is_an_installer_in_a_loop() -> None:
    thinker = feed((60, AnswerFetched("ks.cfg")), ladder=CONTINUED)
    assert cause_of(thinker.diagnose(61, Load(1.0))) == "loop"
    assert feed((60, AnswerFetched("ks.cfg"))).diagnose(61, Load(1.0)) is None


def test_medium_that_boots_once_more_is_an_installer_in_a_loop() -> None:
    """The second turn is the disk's; what reads from the medium once that has started a kernel is its own affair."""
    again = feed((8, DiskActivity(12 << 20, 0, 12 << 20)), ladder=CONTINUED)
    assert cause_of(again.diagnose(9, Load(1.0))) == "loop"
    disk = feed(
        (8, DiskActivity(30 << 20, 0, 40_000)),
        (9, serial(KERNEL)),
        (30, DiskActivity(900 << 20, 0, 800 << 20)),
        ladder=CONTINUED,
    )
    assert disk.diagnose(31, Load(1.0)) is None


def test_refused_key_is_named_after_a_minute() -> None:
    refused = ConnectionTried("key-refused")
    thinker = feed((10, refused), (20, refused), (69, serial("x")))
    assert thinker.diagnose(75, Load(1.0)) is None  # twice: a guest that crawls
    thinker = feed((10, refused), (20, refused), (30, refused), (69, serial("x")))
    assert thinker.diagnose(69, Load(1.0)) is None
    assert cause_of(thinker.diagnose(71, Load(1.0))) == "key-refused"


def test_restarts_without_a_written_disk_are_a_loop() -> None:
    reset = QmpEvent("RESET", '{"guest":true,"reason":"guest-reset"}')
    thinker = feed(*((number * 10.0, reset) for number in range(2)))
    assert thinker.diagnose(11, Load(1.0)) is None
    thinker = feed(*((number * 10.0, reset) for number in range(3)))
    assert cause_of(thinker.diagnose(41, Load(1.0))) == "loop"


def test_restarts_between_writes_are_none() -> None:
    reset = QmpEvent("RESET", '{"guest":true,"reason":"guest-reset"}')
    thinker = feed(*((n * 10.0, event) for n in range(5) for event in (DiskActivity(0, n << 30), reset)))
    assert thinker.diagnose(61, Load(1.0)) is None


def test_guest_that_restarts_for_ever_is_in_a_loop_though_it_writes() -> None:
    reset = QmpEvent("RESET", '{"guest":true,"reason":"guest-reset"}')
    thinker = feed(*((n * 10.0, event) for n in range(6) for event in (DiskActivity(0, n << 30), reset)))
    assert cause_of(thinker.diagnose(61, Load(1.0))) == "loop"


def test_answer_that_was_refused_is_told_with_the_question() -> None:
    thinker = feed((5, AnswerRefused("/x/preseed.cfg")), (10, serial("[!!] Select a language")))
    assert "/x/preseed.cfg" in str(thinker.diagnose(60, Load(0.0)))
