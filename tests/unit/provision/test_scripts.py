"""Which scripts make the steps, and whether the shipped ones are clean."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from osimager.errors import ConfigError, UsageError
from osimager.paths import shipped
from osimager.provision.scripts import load_steps


def _folder(path: Path, **scripts: str) -> Path:
    path.mkdir()
    for name, text in scripts.items():
        (path / f"{name}.sh").write_text(text)
    return path


def test_base_comes_first_then_the_first_name_that_has_a_script_then_files(tmp_path: Path) -> None:
    project = _folder(tmp_path / "project", debian="of the project")
    ours = _folder(tmp_path / "ours", base="base", default="default", debian="shipped")
    extra = tmp_path / "extra.sh"
    extra.write_text("extra")
    steps = load_steps([project, ours], names=["web", "debian"], files=[extra])
    assert [(step.name, step.content) for step in steps] == [
        ("base", b"base"),
        ("debian", b"of the project"),
        ("extra", b"extra"),
    ]
    assert steps[1].origin.path == project / "debian.sh"


def test_default_is_for_those_without_a_script_of_their_own(tmp_path: Path) -> None:
    ours = _folder(tmp_path / "ours", base="base", default="default")
    assert [step.name for step in load_steps([ours], names=["debian", "../ours/base", ""])] == ["base", "default"]


def test_missing_step_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no step file .*nothing\.sh"):
        load_steps([], names=[], files=[tmp_path / "nothing.sh"])


def test_program_as_step_is_refused(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"\x7fELF\0\0")
    with pytest.raises(ConfigError, match="not text"):
        load_steps([], names=[], files=[tmp_path / "program"])


def test_shipped_scripts_are_clean() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = sorted(shipped("scripts.d").glob("*.sh"))
    assert {"base", "default", "debian"} <= {path.stem for path in scripts}
    subprocess.run(["shellcheck", *scripts], check=True)
