"""Processes told apart by their start and by their command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from osimager.processes import find_start, is_running

WAYS = [pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")), False]


@pytest.mark.needs("ps")
@pytest.mark.parametrize("has_proc", WAYS)
async def test_start_is_a_processs_own_and_gone_with_it(has_proc: bool) -> None:
    ours = await find_start(os.getpid(), has_proc=has_proc)
    assert ours
    assert await find_start(os.getpid(), has_proc=has_proc) == ours
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        assert await find_start(sleeper.pid, has_proc=has_proc)
        sleeper.kill()
    assert await find_start(sleeper.pid, has_proc=has_proc) is None


@pytest.mark.needs("ps", "tail")
@pytest.mark.parametrize("has_proc", WAYS)
async def test_only_the_process_of_this_command_line_is_meant(tmp_path: Path, has_proc: bool) -> None:
    file = tmp_path / "file"
    file.write_text("up\n")
    argv = ["/usr/bin/qemu-system-none", "-f", str(file)]
    with subprocess.Popen(argv, executable=shutil.which("tail"), stdout=subprocess.PIPE) as qemu:
        try:
            assert qemu.stdout is not None
            assert qemu.stdout.readline() == b"up\n"  # right after exec the kernel shows no command line for a moment
            assert await is_running(qemu.pid, argv, has_proc=has_proc)
            assert not await is_running(qemu.pid, [*argv, "more"], has_proc=has_proc)
            assert not await is_running(os.getpid(), argv, has_proc=has_proc)
        finally:
            qemu.kill()
    assert not await is_running(qemu.pid, argv, has_proc=has_proc)
