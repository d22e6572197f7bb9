"""How a build ends that fails: as what failed, whatever else goes wrong while that is written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from osimager.build.building import build_one
from osimager.build.request import BuildRequest
from osimager.build.session import Memory, Session
from osimager.config.request import Request
from osimager.errors import MediaError
from osimager.events import BuildFailed, Event, Notice, Stamped
from osimager.paths import Places


@pytest.mark.needs("qemu-system-x86_64")
async def test_bundle_that_cannot_be_written_is_told_and_the_build_ends_as_what_failed(
    places: Places, tmp_path: Path
) -> None:
    events: list[Event] = []

    def take_its_name(stamped: Stamped) -> None:
        events.append(stamped.event)
        if isinstance(stamped.event, BuildFailed):
            (places.builds / stamped.build / f"{stamped.build}.tar.gz/in the way").mkdir(parents=True)

    (iso := tmp_path / "text.iso").write_text("no ISO")
    asked = BuildRequest(
        request=Request(target="debian-12", arch="x86_64", iso=str(iso)),
        project=tmp_path,
        accelerator="tcg",
        bundle=True,
    )
    outcome = await build_one(asked, places, Session(memory=Memory(None)), sinks=[take_its_name])
    assert (outcome.status, type(outcome.error), outcome.bundle) == (5, MediaError, None)
    assert isinstance(events[-1], Notice)
    assert events[-1].text.startswith("there is no bundle: cannot write")
