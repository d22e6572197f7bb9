"""The command line run in this process, as `main` runs it: status, stdout and stderr of each call."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from osimager.cli.main import command
from osimager.cli.report import report
from osimager.paths import Places


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def run(places: Places, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs `osimager WORDS…` in folders of the test's own."""

    def run_words(*words: str | Path) -> Said:
        capsys.readouterr()
        status = 0
        try:
            command([str(word) for word in words], standalone_mode=False)
        except BaseException as error:
            status = report(error)
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    return run_words


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give an empty project folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def write(project: Path) -> Callable[[str, str], Path]:
    """Give a function that writes a file of the project, dedented."""

    def write_file(name: str, text: str) -> Path:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    return write_file
