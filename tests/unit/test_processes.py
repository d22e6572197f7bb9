"""Processes told apart by their start, and found by a folder that their command line names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from osimager.processes import find_naming, find_start

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
async def test_only_a_qemu_that_names_the_folder_is_found(tmp_path: Path, has_proc: bool) -> None:
    files = [tmp_path / "build-1/disk", tmp_path / "build-10/disk"]
    for file in files:
        file.parent.mkdir()
        file.touch()

    def start(name: str, file: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([name, "-f", file], executable=shutil.which("tail"))

    with (
        start("/usr/bin/qemu-system-none", files[0]) as ours,
        start("/usr/bin/qemu-system-none", files[1]) as near,
        start("/usr/bin/editor", files[0]) as editor,
    ):
        found = await find_naming(files[0].parent, has_proc=has_proc)
        for each in (ours, near, editor):
            each.kill()
    assert found == [ours.pid]
