"""Whole builds killed at any moment, and many at once: no orphan, no collision, nothing lost, and the next one works.

The guests are boot sectors (tests/guest/tiny_build.py); all else is real: processes, ports, sockets, locks, folders.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.guest.lab import ENVIRONMENT, OSIMAGER, started, wait_for_event, wait_until
from tests.guest.tiny_build import Site, is_guest, is_machine, is_up, open_site, read_words

pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-system-x86_64", "qemu-img")]
MOST_ORPHANED_S = 5


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site whose guest rests."""
    with open_site(tmp_path) as made:
        yield made


def assert_next_build_works(site: Site) -> None:
    """It sweeps what was left, gets as far as any build of this guest, and ends in good order."""
    with started(*site.words, "--json", home=site.home) as child:
        wait_for_event(child, is_up)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == 130
    site.assert_swept()
    assert site.builds() == []


# Many at once ---------------------------------------------------------------------------------------------------------


def check_many(site: Site, count: int) -> None:
    """Start `count` builds in the same moment; while all run, no two share anything; then all end in good order."""
    with ExitStack() as stack:
        children = [stack.enter_context(started(*site.words, "--json", home=site.home)) for _ in range(count)]
        for child in children:
            wait_for_event(child, is_up)
        running = site.builds()
        assert len({each["build"] for each in running}) == count
        guests = [pid for pid in site.find() if is_guest(pid)]
        ports = [port for pid in guests for port in list_ports(pid)]
        assert len(guests) == len(ports) == len(set(ports)) == count
        assert len([path for path in site.runtime.iterdir() if path.is_socket()]) == count
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            child.communicate(timeout=120)
    assert [child.returncode for child in children] == [130] * count
    assert not site.find()
    site.assert_swept()


def list_ports(pid: int) -> list[int]:
    """Give the TCP ports on which a process listens, by proc(5)."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in inodes]


def test_builds_started_at_once_share_nothing(site: Site) -> None:
    check_many(site, 6)


@pytest.mark.full
def test_fifty_builds_started_at_once_share_nothing(site: Site) -> None:
    check_many(site, 50)


def test_many_targets_of_one_command_share_nothing_and_end_together(site: Site) -> None:
    with started(*site.words, *[site.words[1]] * 7, "--jobs", "8", "--json", home=site.home) as child:
        pids: set[int] = set()
        up: set[str] = set()

        def are_all_up(event: dict[str, Any]) -> bool:
            """The first may be up before the last has started."""
            if is_machine(event):
                pids.add(event["pid"])
            if is_up(event):
                up.add(event["build"])
            return len(pids) == len(up) == 8

        wait_for_event(child, are_all_up)
        ports = {port for pid in pids for port in list_ports(pid)}
        assert len(pids) == len(ports) == 8
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == 130
    assert {each["status"] for each in site.builds("--all")} == {130}
    site.assert_swept()


# Kills ----------------------------------------------------------------------------------------------------------------

# The command as it is where the kernel does not tie a child's death to its parent's (macOS): a watcher does.
WITHOUT_KERNEL = """
import functools
from osimager import proc
from osimager.machine import orphan, qemu
proc._LIBC = None
qemu.ended_with_us = functools.partial(orphan.ended_with_us, needed=True)
from osimager.cli.main import main
main()
"""


@contextmanager
def killable(site: Site, *, by_watcher: bool) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", WITHOUT_KERNEL] if by_watcher else OSIMAGER
    environment = {**ENVIRONMENT, "OSIMAGER_HOME": str(site.home)}
    with subprocess.Popen(
        [*argv, *site.words, "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def find_children(pid: int, word: str) -> list[int]:
    """Give the children of a process whose command line holds `word`."""
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if word in " ".join(read_words(int(child)))]
    return []


def kill_at_some_moment(site: Site, chance: random.Random) -> bool:
    """Kill one process of a build: its runner, its guest, or the watcher that stands in for the kernel.

    Say whether it did: it ties QEMU alone; a tool such as qemu-img, which ends by itself, it lets end.
    """
    by_watcher = chance.random() < 0.5
    whom = chance.choice(["runner", "guest", "watcher"] if by_watcher else ["runner", "guest"])
    with killable(site, by_watcher=by_watcher) as child:
        assert child.stdout is not None
        for _ in range(chance.randint(0, 18)):
            assert child.stdout.readline(), "the build did not get as far as any does"
        time.sleep(chance.uniform(0, 0.1))
        words = {"guest": "qemu-system", "watcher": "import os, signal, sys"}
        found = find_children(child.pid, words[whom]) if whom in words else []
        for pid in found or [child.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if whom == "watcher" and found:
            child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
        expected = {"guest": 6, "watcher": 130}[whom] if found else -signal.SIGKILL
        assert child.returncode == expected, (whom, by_watcher)
    return by_watcher


def check_kills(site: Site, count: int, *, seed: int) -> None:
    assert_next_build_works(site)
    kept = {each["build"] for each in site.builds("--all")}
    chance = random.Random(seed)  # the same moments each time, as far as a machine's own pace allows
    for number in range(count):
        by_watcher = kill_at_some_moment(site, chance)
        wait_until(lambda: not site.find(), deadline_s=MOST_ORPHANED_S)
        orphans = [pid for pid in site.find() if is_guest(pid) or not by_watcher]
        assert [(number, read_words(pid)) for pid in orphans] == []
        assert wait_until(lambda: not site.find(), deadline_s=60)
        found = {each["build"] for each in site.builds("--all")}
        assert kept <= found
        kept = found
    assert_next_build_works(site)
    assert {each["state"] for each in site.builds("--all")} <= {"killed", "failed", "interrupted"}


def test_no_kill_at_any_moment_leaves_an_orphan_or_spoils_the_next_build(site: Site) -> None:
    check_kills(site, 20, seed=0)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1, 11))
def test_fifty_more_kills_leave_no_orphan_and_lose_nothing(site: Site, seed: int) -> None:
    check_kills(site, 50, seed=seed)
