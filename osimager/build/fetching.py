"""FETCH alone, outside a build: for `osimager iso`, and for the benches."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from osimager.arch import Arch
from osimager.env import Clock, Env
from osimager.events import Bus, Sink
from osimager.media.fetch import fetch
from osimager.paths import Places
from osimager.plan.facts import MediaFacts
from osimager.plan.model import MediaPlan
from osimager.redact import Masker


async def fetch_alone(media: MediaPlan, arch: Arch, places: Places, *, sinks: Sequence[Sink]) -> MediaFacts:
    """Get, make or check the ISO of `media`, telling `sinks` how it goes."""
    with open_env(places, sinks=sinks) as env:
        return await fetch(media, env, arch=arch)


@contextlib.contextmanager
def open_env(places: Places, *, sinks: Sequence[Sink] = ()) -> Iterator[Env]:
    """Give surroundings of no build, with a workspace that goes with them."""
    clock, masker = Clock(), Masker()
    bus = Bus(now=clock.now, masker=masker)
    with contextlib.ExitStack() as stack:
        workspace = stack.enter_context(tempfile.TemporaryDirectory(prefix="osimager-fetch-"))
        for sink in sinks:
            stack.enter_context(bus.listening(sink))
        stack.enter_context(masker.over_errors())
        yield Env(places=places, workspace=Path(workspace), bus=bus, masker=masker, clock=clock)
