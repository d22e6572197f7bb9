"""The linters and the type checker as tests, so that one command is the whole truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
TOOLS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy --strict": ["mypy"],
}
SHELLS = ("sh", "bash", "dash")


def list_scripts() -> list[str]:
    """Give every shell script that git knows, by its first line."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0") if listed.returncode == 0 else ["bootstrap", ".ci/run"]
    return [name for name in names if is_script(REPOSITORY / name)]


def is_script(path: Path) -> bool:
    if not path.is_file() or path.suffix in (".j2", ".py"):
        return False
    with path.open("rb") as file:
        first = file.readline(80)
    words = first[2:].decode(errors="replace").replace("/", " ").split() if first.startswith(b"#!") else []
    return any(word in SHELLS for word in words)


@pytest.mark.parametrize("name", TOOLS)
def test_tool_has_nothing_to_say(name: str) -> None:
    argv = [sys.executable, "-m", *TOOLS[name]]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("shellcheck", "git")
def test_shellcheck_has_nothing_to_say() -> None:
    # What lies in files/ is rendered first: its markers are no shell.
    scripts = [name for name in list_scripts() if not name.startswith("files/")]
    assert {"bootstrap", ".ci/run"} <= set(scripts)
    # An installer's scripts are for busybox and get variables from outside: there only errors count.
    installers = [name for name in scripts if name.startswith(("isos.d/", "tests/installers/"))]
    others = [name for name in scripts if name not in installers]
    for options, names in (([], others), (["-S", "error", "-e", "SC1097"], installers)):
        argv = ["shellcheck", "-x", "-P", "SCRIPTDIR", *options, *names]
        done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
