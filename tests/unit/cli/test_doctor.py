"""`osimager doctor`: what this host can do."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Run


@pytest.mark.needs("qemu-system-x86_64", "qemu-img")
def test_doctor_names_the_guests_that_can_be_built(run: Run) -> None:
    said = run("doctor", "--json")
    assert said.status == 0
    assert "x86_64" in said.json()["builds"]
    assert "qemu-system-x86_64" in run("doctor").out


def test_host_that_can_build_nothing_is_status_4_and_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("osimager.machine.host._EXTRA_FOLDERS", ())
    said = run("doctor", "--json")
    assert (said.status, said.json()["builds"]) == (4, [])
    assert "hint: install" in said.err
