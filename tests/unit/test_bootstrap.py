"""`./bootstrap` where everything is there already: what it says, where its command runs, and with what environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run(bootstrap: Path, *argv: str, cwd: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    return subprocess.run(
        [str(bootstrap), *argv], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """Give a copy under a path with spaces whose environment is stamped as made."""
    if not list(REPOSITORY.glob(".venv/.bootstrap-*")):
        pytest.skip("this checkout was not made ready by ./bootstrap, so a run could install packages")
    here = (tmp_path / "a folder").resolve()
    (here / ".venv/bin").mkdir(parents=True)
    for name in ("bootstrap", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, here)
    (here / ".venv/bin/python").symlink_to(sys.executable)
    content = (here / "pyproject.toml").read_bytes() + (here / "bootstrap").read_bytes()
    digest = subprocess.run(["cksum"], input=content, stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    (here / ".venv/.bootstrap-run").write_text(f"{here} {digest}\n")
    (here / ".venv/.bootstrap-dev").write_text(f"{here} {digest}\n")
    not_offered = REPOSITORY / ".venv/.bootstrap-not-offered"
    if not_offered.exists():
        shutil.copy(not_offered, here / ".venv")
    return here


@pytest.mark.parametrize("argv", [[], ["--help"]])
def test_without_a_command_it_says_how_it_is_used(argv: list[str], tmp_path: Path) -> None:
    done = run(REPOSITORY / "bootstrap", *argv, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ./bootstrap CMD")
    assert done.stdout == ""


def test_a_ready_machine_runs_the_command_at_once_where_the_caller_stands(ready: Path, tmp_path: Path) -> None:
    done = run(ready / "bootstrap", "sh", "-c", 'pwd; command -v python; echo "$VIRTUAL_ENV"; exit 7', cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [str(tmp_path), str(ready / ".venv/bin/python"), str(ready / ".venv")]
    assert done.returncode == 7


def test_arguments_reach_the_command_as_they_are(ready: Path, tmp_path: Path) -> None:
    done = run(ready / "bootstrap", "printf", "%s|", "a b", "", "*", "$HOME", cwd=tmp_path)
    assert done.stdout == "a b||*|$HOME|"


def test_the_developers_tools_run_in_the_repository(ready: Path, tmp_path: Path) -> None:
    tool = ready / ".venv/bin/ruff"
    tool.write_text("#!/bin/sh\npwd\n")
    tool.chmod(0o755)
    assert run(ready / "bootstrap", "ruff", cwd=tmp_path).stdout.strip() == str(ready)
    assert run(ready / "bootstrap", "ruff", cwd=ready / ".venv").stdout.strip() == str(ready / ".venv")


def test_a_python_that_only_stands_there_is_passed_over(ready: Path, tmp_path: Path) -> None:
    """As pyenv's shims do for versions that are not installed. The real one behind it is taken."""
    shims = tmp_path / "shims"
    shims.mkdir()
    for name in ("python3.14", "python3.13", "python3.12"):
        (shims / name).write_text("#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n")
        (shims / name).chmod(0o755)
    (shims / "python3.11").symlink_to(sys.executable)
    script = (ready / "bootstrap").read_text()
    finder = script[script.index("is_usable()") : script.index("install_python()")]
    argv = ["sh", "-euc", f'{finder}\nfind_python && echo "$python"']
    environment = {"PATH": f"{shims}:/usr/bin:/bin"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "python3.11"
