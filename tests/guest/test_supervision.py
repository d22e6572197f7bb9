"""Builds seen and ended from outside, on a terminal and off it; what a failed one leaves, and what is asked then.

The guests are boot sectors (tiny_build.py); all else is real: processes, sockets, terminals.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.guest.lab import ENVIRONMENT, OSIMAGER, run, started, wait_for_event
from tests.guest.tiny_build import WORD, Site, is_guest, is_machine, is_up, load_tiny, open_site

pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-system-x86_64", "qemu-img")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site whose guest rests."""
    with open_site(tmp_path) as made:
        yield made


# Stopped from outside -------------------------------------------------------------------------------------------------


def test_stop_ends_one_build_of_several_as_an_interrupt_would(site: Site) -> None:
    with started(*site.words, site.words[1], "--jobs", "2", "--json", home=site.home) as child:
        builds = [wait_for_event(child, is_machine)["build"] for _ in range(2)]
        stopped = run("stop", builds[0], home=site.home)
        assert (stopped.status, stopped.err) == (0, f"stopped {builds[0]}\n")
        assert [each["build"] for each in site.builds()] == builds[1:]
        assert run("stop", "last", home=site.home).status == 0
        child.communicate(timeout=60)
    assert child.returncode == 130
    ends = {each["build"]: (each["state"], each["status"]) for each in site.builds("--all")}
    assert ends == dict.fromkeys(builds, ("interrupted", 130))
    site.assert_swept()


def test_terminated_build_says_so_in_its_record(site: Site) -> None:
    with started(*site.words, "--json", home=site.home) as child:
        wait_for_event(child, is_up)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=60)
    [record] = site.builds("--all")
    assert (child.returncode, record["state"], record["status"]) == (143, "interrupted", 143)


def test_console_is_read_and_logs_are_followed_until_the_build_ends(site: Site) -> None:
    with started(*site.words, "--json", home=site.home) as child:
        wait_for_event(child, is_up)
        with (
            started("console", "last", home=site.home) as console,
            started("logs", "tiny-1", "-f", "-v", home=site.home) as logs,
        ):
            assert console.stdout is not None
            assert console.stdout.read(len(WORD)) == WORD
            child.send_signal(signal.SIGINT)
            out, _ = logs.communicate(timeout=60)
            console.communicate(timeout=60)
        child.communicate(timeout=60)
    assert f"  serial: {WORD}" in out
    assert out.splitlines()[-1] == "error: interrupted (status 130)"
    assert (console.returncode, logs.returncode) == (0, 0)


def test_no_wait_ends_where_another_build_makes_what_is_needed(site: Site) -> None:
    shared = [word for word in site.words if word != "--force"]
    with started(*shared, "--json", home=site.home) as child:
        wait_for_event(child, is_up)
        ran = run(*shared, "--no-wait", home=site.home)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert ran.status == 75
    assert "error: another osimager holds" in ran.err
    site.assert_swept()


# On a terminal --------------------------------------------------------------------------------------------------------


@contextmanager
def on_terminal(site: Site, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `osimager` on a terminal of its own; give the process and the terminal's other end."""
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "OSIMAGER_HOME": str(site.home), "TERM": "xterm"}
    argv = [*OSIMAGER, *words]
    try:
        with subprocess.Popen(argv, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as child:
            try:
                yield child, ours
            finally:
                child.kill()
    finally:
        os.close(ours)
        os.close(theirs)


def read_until(terminal: int, *texts: str) -> str:
    """Read what is shown until `texts` are, one after the other."""
    shown = ""
    at = 0
    for text in texts:
        while (found := shown.find(text, at)) < 0:
            data = os.read(terminal, 4096)
            assert data, shown
            shown += data.decode(errors="replace")
        at = found + len(text)
    return shown


def wait_end(child: subprocess.Popen[bytes], terminal: int) -> tuple[int, str]:
    """Wait for the end, reading what is shown meanwhile."""
    shown = b""
    os.set_blocking(terminal, False)
    while child.poll() is None:
        with suppress(BlockingIOError):
            shown += os.read(terminal, 65536)
        time.sleep(0.02)
    with suppress(BlockingIOError):
        shown += os.read(terminal, 65536)
    return child.returncode, shown.decode(errors="replace")


def test_keys_go_to_the_guest_and_the_escape_leaves_it_running(tmp_path: Path) -> None:
    with open_site(tmp_path, load_tiny().ECHO_SERIAL) as site, started(*site.words, "--json", home=site.home) as child:
        wait_for_event(child, is_up)
        with on_terminal(site, "console", "last") as (console, terminal):
            read_until(terminal, WORD)
            os.write(terminal, b"echo me\x03")  # in raw mode Ctrl-C is a key like any other
            read_until(terminal, "echo me\x03")
            os.write(terminal, b"\x1d")
            status, shown = wait_end(console, terminal)
            assert (status, "left the console" in shown) == (0, True)
        assert [each["state"] for each in site.builds("--all")] == ["running"]
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)


def test_on_error_ask_does_what_is_answered(site: Site) -> None:
    words = (*site.words, "--timeout", "install=4s", "--on-error", "ask")
    with on_terminal(site, *words) as (child, terminal):
        shown = read_until(terminal, "shell in the guest first: ")
        assert "failed. What now? [c] clean up" in shown
        assert [pid for pid in site.find() if is_guest(pid)], "the guest is there to be looked at"
        os.write(terminal, b"what?\nk\n")
        status, shown = wait_end(child, terminal)
    assert status == 6
    [kept] = re.findall(r"kept: (.*?)\r?\n", shown)
    assert list(Path(kept).glob("disk*.qcow2"))


def test_who_is_asked_is_told_what_failed(tmp_path: Path) -> None:
    """A panic is the machine's own word: who uses it sees only that it is cancelled."""
    with open_site(tmp_path, load_tiny().PANIC) as site:
        with on_terminal(site, *site.words, "--on-error", "ask") as (child, terminal):
            read_until(terminal, "failed: the guest's kernel panicked", "What now? [c] clean up")
            os.write(terminal, b"c\n")
            status, _ = wait_end(child, terminal)
        assert status == 6
        site.assert_swept()


def test_no_shell_is_offered_in_a_guest_that_is_gone(site: Site) -> None:
    with on_terminal(site, *site.words, "--on-error", "ask") as (child, terminal):
        read_until(terminal, WORD)
        [guest] = [pid for pid in site.find() if is_guest(pid)]
        os.kill(guest, signal.SIGKILL)
        shown = read_until(terminal, "failed: QEMU", "What now? ", "then keep the disk")
        os.write(terminal, b"c\n")
        status, rest = wait_end(child, terminal)
    assert "a shell in the guest" not in shown + rest
    assert status == 6


def test_on_error_shell_attaches_to_the_failing_guest(tmp_path: Path) -> None:
    with open_site(tmp_path, load_tiny().ECHO_SERIAL) as site:
        words = (*site.words, "--timeout", "install=4s", "--on-error", "shell")
        with on_terminal(site, *words) as (child, terminal):
            read_until(terminal, "Ctrl-] leaves it", WORD)  # from then on keys go to the guest
            os.write(terminal, b"anybody there?")
            read_until(terminal, "anybody there?")
            os.write(terminal, b"\x1d")
            status, shown = wait_end(child, terminal)
        assert status == 6
        assert "INSTALL did not end" in shown
        site.assert_swept()


# How builds fail ------------------------------------------------------------------------------------------------------


def test_failed_build_leaves_everything_to_read_in_one_folder_and_one_file(site: Site) -> None:
    ran = run(*site.words, "--timeout", "install=8s", "--bundle", home=site.home)
    assert ran.status == 6
    assert "error: INSTALL did not end" in ran.err
    evidence = Path(ran.err.rpartition("evidence: ")[2].strip())
    bundle = Path(re.findall(r"bundle: (.*)", ran.err)[0])
    names = {path.relative_to(evidence).as_posix() for path in evidence.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("screens/")} == {
        "events.jsonl", "host.json", "plan.json", "qemu-installer.txt", "screen-installer.png", "serial-installer.log",
    }  # fmt: skip
    assert any(name.startswith("screens/installer-") for name in names)
    assert f"] {WORD}" in (evidence / "serial-installer.log").read_text()
    argv = (evidence / "qemu-installer.txt").read_text()
    assert "-nodefaults" in argv
    assert argv.splitlines()[-1].endswith("ended: asked, status 0")
    assert json.loads((evidence / "events.jsonl").read_text().splitlines()[-1])["kind"] == "build_failed"
    listed = subprocess.run(["tar", "tzf", bundle], check=True, capture_output=True, text=True).stdout.split()
    build = evidence.parent.name
    assert set(listed) == {f"{build}/record.json", f"{build}/events.jsonl", *(f"{build}/evidence/{n}" for n in names)}


@pytest.mark.parametrize("mode", ["keep", "abort"])
def test_kept_workspace_stays_without_a_process(site: Site, mode: str) -> None:
    ran = run(*site.words, "--timeout", "install=3s", "--on-error", mode, home=site.home)
    assert ran.status == 6
    [kept] = re.findall(r"kept: (.*)", ran.err)
    assert list(Path(kept).glob("disk*.qcow2"))
    assert site.find() == []
    assert run("gc", home=site.home).err == "nothing to sweep\n"
    assert run("gc", "--kept", home=site.home).err == f"swept {Path(kept).name}\n"


def test_one_failure_stops_no_other_and_the_first_in_order_is_the_status(site: Site) -> None:
    words = (*site.words, "tiny-9", site.words[1], "--jobs", "3", "--timeout", "install=3s")
    ran = run(*words, home=site.home)
    assert ran.status == 6
    table = [line.split()[:3] for line in ran.err.splitlines()[-3:]]
    assert table == [["tiny-1", "failed", "(6)"], ["tiny-9", "failed", "(2)"], ["tiny-1", "failed", "(6)"]]
