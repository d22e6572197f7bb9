"""How busy a guest is, by what proc(5) says of its process."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from osimager.machine.load import CpuMeter


def write_process(process: Path, *, used_s: float, threads: dict[str, tuple[float, float]]) -> None:
    """Write what proc(5) says of a process, its name as awkward as it may be; of a thread what it used and waited."""
    shutil.rmtree(process, ignore_errors=True)
    for thread, (ran_s, waited_s) in threads.items():
        (process / "task" / thread).mkdir(parents=True)
        (process / "task" / thread / "schedstat").write_text(f"{int(ran_s * 1e9)} {int(waited_s * 1e9)} 7\n")
    process.mkdir(exist_ok=True)
    ticks = int(used_s * os.sysconf("SC_CLK_TCK"))
    (process / "stat").write_text(f"1 (a) b) S {'0 ' * 10}{ticks} 0 0\n")


NONE = {"main": (0.0, 0.0), "cpu": (0.0, 0.0)}


@pytest.mark.parametrize(
    ("used_s", "threads", "least", "most"),
    [
        pytest.param(0.5, {"main": (0.1, 14.0), "cpu": (0.2, 17.0)}, 0.0, 0.05, id="rests, and waits for each turn"),
        pytest.param(3.5, {"main": (0.4, 21.0), "cpu": (3.0, 26.7)}, 0.9, 1.1, id="computes, and is starved"),
        pytest.param(0.2, {"main": (0.0, 2.0), "cpu": (0.2, 29.7)}, 0.6, 0.7, id="computes, and has hardly a turn"),
        pytest.param(24.0, {"main": (1.0, 0.0), "cpu": (23.0, 0.0)}, 0.8, 0.8, id="computes"),
        pytest.param(0.5, {**NONE, "disk": (0.2, 29.0)}, 0.0, 0.05, id="rests, and its disk has been written"),
        pytest.param(24.0, {}, 0.8, 0.8, id="its kernel does not count"),
    ],
)
def test_busy_host_makes_no_guest_busy_and_hides_none_that_is(
    used_s: float, threads: dict[str, tuple[float, float]], least: float, most: float, tmp_path: Path
) -> None:
    """The first two as measured with twelve processes for each core."""
    meter = CpuMeter(tmp_path / "process")
    write_process(tmp_path / "process", used_s=0, threads=NONE if threads else {})
    assert meter.measure(0) is None
    write_process(tmp_path / "process", used_s=used_s, threads=threads)
    share = meter.measure(30)
    assert share is not None
    assert least - 0.001 <= share <= most + 0.001
