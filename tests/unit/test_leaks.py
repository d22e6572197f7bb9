"""The leak checks of `tests/conftest.py`, tried on tests that leak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LEAKS = {
    "thread": "def test_it():\n    threading.Thread(target=time.sleep, args=(60,), daemon=True, name='stray').start()",
    "descriptor": "def test_it():\n    kept.append(os.pipe())",
    "process": "def test_it():\n    kept.append(subprocess.Popen(['sleep', '600']))",
    "task": "async def test_it():\n    kept.append(asyncio.create_task(asyncio.sleep(600), name='stray'))",
}
NO_LEAKS = """
async def test_tasks_threads_and_processes_that_end(env, events):
    await asyncio.to_thread(time.sleep, 0)
    child = await asyncio.create_subprocess_exec("true")
    await child.wait()

@pytest.mark.full
def test_full():
    assert False

@pytest.mark.needs("no-such-program")
def test_needy():
    assert False
"""
HEAD = "import asyncio, os, subprocess, threading, time\nimport pytest\nkept = []\n"


def run_pytest(folder: Path, text: str) -> str:
    (folder / "test_it.py").write_text(HEAD + text)
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nmarkers = full: long ones\n"
    )
    argv = [sys.executable, "-m", "pytest", "-rs", "-p", "tests.conftest", "--rootdir", str(folder), str(folder)]
    environment = {**os.environ, "OSIMAGER_TEST_SETTLE_S": "0.5"}
    return subprocess.run(argv, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("kind", LEAKS)
def test_a_test_that_leaks_fails_and_the_leak_is_named(tmp_path: Path, kind: str) -> None:
    output = run_pytest(tmp_path, LEAKS[kind])
    assert f"Failed: the test left behind: {kind} " in output
    assert "1 passed, 1 error" in output


def test_what_ends_by_itself_is_no_leak_and_missing_tools_skip_by_name(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, NO_LEAKS)
    assert "the program 'no-such-program' is not on this host" in output
    assert "1 passed, 1 skipped, 1 deselected" in output
