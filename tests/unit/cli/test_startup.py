"""Start-up stays fast: what costs a tenth of a second is imported by those only who use it. Times: bench/startup.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from osimager.paths import Places

# Each of them costs 20 to 300 ms.
HEAVY = {"aiohttp", "cryptography", "dns", "hvac", "paramiko", "pycdlib", "pydantic", "qemu", "requests", "rich"}


def imported(*words: str, cwd: Path) -> set[str]:
    """Run `osimager WORDS…` in a process of its own and give the top-level names of what it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "osimager", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return {name.partition(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)}


@pytest.mark.parametrize("words", [("--help",), ("spec", "list"), ("config", "list"), ("location", "list")])
def test_small_verbs_import_nothing_heavy(words: tuple[str, ...], places: Places, tmp_path: Path) -> None:
    assert imported(*words, cwd=tmp_path) & HEAVY == set()


def test_help_reads_no_configuration(places: Places, tmp_path: Path) -> None:
    assert "yaml" not in imported("--help", cwd=tmp_path)


@pytest.mark.needs("qemu-system-x86_64")
def test_plan_imports_nothing_heavy(places: Places, tmp_path: Path) -> None:
    (tmp_path / "some.iso").touch()
    words = ("plan", "debian-12", "--arch", "x86_64", "--iso", str(tmp_path / "some.iso"))
    assert imported(*words, cwd=tmp_path) & HEAVY == set()
