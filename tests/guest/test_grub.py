"""Lines typed into a real GRUB console, BIOS and UEFI, on a host that has more to do than it can: all arrive whole."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from osimager.aio import in_thread
from osimager.arch import Arch, Firmware
from osimager.env import Env
from osimager.events import Event, Notice
from osimager.machine.firmware import find_firmware
from tests.guest.grub import TOOLS, make_grub_iso, read_said, start_grub, writing_said

pytestmark = [pytest.mark.guest, pytest.mark.needs(*TOOLS)]
# What kernel command lines are made of and what needs Shift, but for what GRUB's shell takes as its own.
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_=./:,@%^+~?"


@contextlib.contextmanager
def loading_the_host() -> Iterator[None]:
    """Keep two more processes busy for each core while the block runs."""
    argv = [sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as stack:
        for _ in range(2 * (os.cpu_count() or 1)):
            burner = stack.enter_context(subprocess.Popen(argv))
            stack.callback(burner.kill)
        yield


def make_lines(count: int) -> list[str]:
    """Give lines of 20 to 70 characters, the same in each run, all different."""
    chosen = random.Random(4)
    return [
        f"line{number:03} " + "".join(chosen.choices(ALPHABET, k=chosen.randint(12, 62))) for number in range(count)
    ]


@pytest.mark.parametrize("firmware", Firmware)
@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.full)])
async def test_every_line_arrives_whole_and_once_under_load(
    count: int, firmware: Firmware, tmp_path: Path, env: Env, events: list[Event]
) -> None:
    if firmware is Firmware.UEFI and find_firmware(Arch.X86_64) is None:
        pytest.skip("there is no UEFI firmware on this host")
    lines = make_lines(count)
    async with start_grub(await make_grub_iso(tmp_path), firmware, env) as machine:
        with writing_said(machine, env), loading_the_host():
            await machine.type_keys("".join(f"echo {line}<enter>" for line in lines))
            await machine.type_keys('echo al""l of it<enter><waitSerial "all of it">')
    said = await in_thread(lambda: read_said(env))
    assert [line for line in said if line.startswith("line")] == lines
    assert not [event for event in events if isinstance(event, Notice)]
