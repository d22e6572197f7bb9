"""Other processes of this host: since when one runs, so that a reused process id is noticed, and who names a folder.

Linux is asked by proc(5); elsewhere ps(1) answers, whose options here are POSIX's and BSD's.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
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


async def find_naming(word: Path, *, has_proc: bool = _HAS_PROC) -> list[int]:
    """Give the processes, but this one, whose command line begins with a QEMU and names `word` or what is in it."""
    lines = _read_proc() if has_proc else _parse_ps(await _ask_ps("-axww", "-o", "pid=,command="))
    return [
        pid
        for pid, line in lines
        if pid != os.getpid() and Path(line.partition(" ")[0]).name.startswith("qemu") and f"{word}/" in f"{line}/"
    ]


def _read_start(pid: int) -> str | None:
    """Read the state and the start time, in ticks since the boot, behind the name, which may hold anything."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    return None


def _read_proc() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield int(entry.parent.name), os.fsdecode(entry.read_bytes().replace(b"\0", b" "))


def _parse_ps(text: str) -> Iterator[tuple[int, str]]:
    for line in text.splitlines():
        pid, _, command = line.strip().partition(" ")
        if pid.isdigit():
            yield int(pid), command.strip()


async def _ask_ps(*words: str) -> str:
    return (await run_tool([find_tool("ps", package="procps"), *words], deadline_s=_PS_S, check=False)).text
