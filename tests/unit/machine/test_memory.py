"""The kernel's count of processes that it killed for memory."""

from __future__ import annotations

from pathlib import Path

from osimager.machine.memory import count_oom_kills


def test_kills_are_counted(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("pgfault 12\noom_kill 3\nnuma_hit 9\n")
    assert count_oom_kills(vmstat) == 3


def test_host_that_does_not_count_says_nothing(tmp_path: Path) -> None:
    assert count_oom_kills(tmp_path / "vmstat") is None
    (tmp_path / "vmstat").write_text("pgfault 12\n")
    assert count_oom_kills(tmp_path / "vmstat") is None
