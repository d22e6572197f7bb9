"""Other processes of this host: since when one runs, and as what, so that a reused process id is noticed.

Linux is asked by proc(5); elsewhere ps(1) answers, whose options here are POSIX's and BSD's.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from osimager.proc import find_tool, run_tool

_HAS_PROC = sys.platform == "linux"
_PS_S = 10.0


async def find_start(pid: int, *, has_proc: bool = _HAS_PROC) -> str | None:
    """Give when the process `pid` started, in the system's own words (to be compared only); None where none runs."""
    if has_proc:
        return _read_start(pid)
    done = await _ask_ps("-o", "lstart=", "-p", str(pid))
    return done.strip() or None


async def is_running(pid: int, argv: Sequence[str], *, has_proc: bool = _HAS_PROC) -> bool:
    """Say whether the process `pid` is one that was started as `argv`, and not a later one of the same id."""
    line = _read_command(pid) if has_proc else await _ask_ps("-ww", "-o", "command=", "-p", str(pid))
    return line.strip() == " ".join(argv)


def _read_start(pid: int) -> str | None:
    """Read the state and the start time, in ticks since the boot, behind the name, which may hold anything."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    return None


def _read_command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" "))
    return ""


async def _ask_ps(*words: str) -> str:
    return (await run_tool([find_tool("ps", package="procps"), *words], deadline_s=_PS_S, check=False)).text
