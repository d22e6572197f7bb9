"""A room's environment: real places under a temporary folder, a bus that remembers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from osimager.env import Env
from osimager.events import Bus, Event
from osimager.paths import Places
from osimager.redact import Masker


@pytest.fixture
def env(tmp_path: Path) -> Env:
    places = Places(*(tmp_path / name for name in ("config", "data", "cache", "runtime")))
    masker = Masker()
    workspace = tmp_path / "workspace"
    workspace.mkdir(mode=0o700)
    return Env(places=places, workspace=workspace, bus=Bus(now=lambda: datetime.now(UTC), masker=masker), masker=masker)


@pytest.fixture
def events(env: Env) -> list[Event]:
    """Everything that was emitted so far."""
    seen: list[Event] = []
    env.bus._sinks.append(lambda stamped: seen.append(stamped.event))
    return seen
