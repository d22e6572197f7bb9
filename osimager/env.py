"""What a worker is given: places, clock, randomness, bus, masker. Tests give their own, so runs are exact."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from osimager.events import Bus, Event
from osimager.paths import Places
from osimager.redact import Masker


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall clock (UTC) and the monotonic one (seconds)."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """A build's surroundings, frozen. `workspace` is its own 0700 folder; `offline` forbids downloads and DNS.

    `wait` false: who meets a lock that another osimager holds raises LockedError.
    """

    places: Places
    workspace: Path
    bus: Bus
    masker: Masker
    clock: Clock = Clock()
    entropy: Callable[[int], bytes] = os.urandom
    offline: bool = False
    wait: bool = True

    def emit(self, event: Event) -> None:
        """Put `event` on the bus."""
        self.bus.emit(event)
