"""How soon a planted fault is named: for each, its cause and the seconds from the last progress to the name.

`python -m bench.faults [NAME…]`; all of them take about an hour under TCG. The faults are the tests' own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from osimager.machine.watch import PATIENCE
from tests.guest.faults import FAULTS, build, find_progress, time_of


def main() -> int:
    """Print a row for each, and give 1 where one was not named rightly and in time."""
    wanted = set(sys.argv[1:]) or {fault.name for fault in FAULTS}
    bad = 0
    print(f"{'fault':24} {'arch':8} {'cause':20} {'status':>6} {'silent':>8} {'in all':>8}")
    for fault in (each for each in FAULTS if each.name in wanted):
        with tempfile.TemporaryDirectory(prefix="osimager-fault-") as folder:
            ran = build(fault, Path(folder))
        [failed] = ran.of_kind("build_failed") or [{"cause": "", "time": ran.events[-1]["time"], "error": ran.err}]
        silent_s = time_of(failed) - find_progress(ran.events)
        total_s = time_of(failed) - time_of((ran.of_kind("machine_started") or ran.events)[0])
        good = failed["cause"] == fault.cause and ran.status == fault.status and silent_s <= PATIENCE.most_s
        bad += not good
        row = f"{fault.name:24} {fault.arch:8} {failed['cause']:20} {ran.status:6} {silent_s:7.1f}s {total_s:7.1f}s"
        print(row + ("" if good else f"  WRONG, {fault.cause} is it: {failed['error']}"), flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
