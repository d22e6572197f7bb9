"""How busy a guest is, by what its QEMU uses of the host's processors (proc(5)). Knows no guest and no cause."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 5.0
_WINDOW_S = 30.0
_IDLE_CPU = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """How busy QEMU was lately: `cpu` of one core, None where that is not known. `is_fetching`: the guest holds a
    connection to the outside, which at real hardware's speed hardly costs anything."""

    cpu: float | None
    is_fetching: bool = False

    @property
    def is_busy(self) -> bool:
        """Tell whether the guest computes."""
        return self.cpu is not None and self.cpu > _IDLE_CPU

    @property
    def is_rest(self) -> bool:
        """Tell whether it may well rest."""
        return not self.is_busy and not self.is_fetching


@dataclass(frozen=True, slots=True)
class _Thread:
    """What a thread used of a processor and how long it waited for one, by proc(5)'s schedstat, in seconds."""

    used_s: float
    waited_s: float


class CpuMeter:
    """How much of one core a process would have used over the last half minute, had it had the host to itself; None
    where nothing is known.

    By proc(5): what it used, and where the kernel counts that, what its threads waited for on a busy host. They did not
    sleep then, so that time is left out of theirs: of one that computes all is left, of one that rests next to nothing
    however long it waited for each of its turns. Only threads that were there all the time count so: those that read
    and write for a disk come and go by the dozen, and a processor's thread stays.
    """

    def __init__(self, process: Path) -> None:
        self._process = process
        self._samples: deque[tuple[float, float, dict[str, _Thread]]] = deque(maxlen=int(_WINDOW_S / LOOK_S) + 1)

    def measure(self, now: float) -> float | None:
        """Take a sample and give the share."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            self._samples.append((now, self._read_used_s(), self._read_threads()))
            first_at, first_used_s, first_threads = self._samples[0]
            _, used_s, threads = self._samples[-1]
            if (passed_s := now - first_at) > 0:
                stayed = ((first_threads[name], threads[name]) for name in first_threads.keys() & threads.keys())
                return (used_s - first_used_s) / passed_s + sum(_kept_from(*pair, passed_s) for pair in stayed)
        return None

    def _read_used_s(self) -> float:
        fields = (self._process / "stat").read_text("ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _read_threads(self) -> dict[str, _Thread]:
        threads = {}
        for file in self._process.glob("task/*/schedstat"):
            with contextlib.suppress(OSError):  # the thread has ended meanwhile
                used_ns, waited_ns, _ = map(int, file.read_text("ascii").split())
                threads[file.parent.name] = _Thread(used_ns / 1e9, waited_ns / 1e9)
        return threads


def _kept_from(first: _Thread, last: _Thread, passed_s: float) -> float:
    """Give the share of a core that a busy host kept from a thread."""
    used_s, waited_s = last.used_s - first.used_s, last.waited_s - first.waited_s
    own_s = max(passed_s - waited_s, used_s)
    return used_s / own_s - used_s / passed_s if own_s > 0 else 0.0
