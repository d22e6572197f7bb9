"""PUBLISH: the verified file gets its name and its record, in one locked change of the registry."""

from __future__ import annotations

from dataclasses import dataclass

from osimager.aio import in_thread
from osimager.build.stages import Recorder
from osimager.config.request import own_profile
from osimager.env import Env
from osimager.events import Stage, State
from osimager.finalize.convert import ImageFile, image_path
from osimager.plan.digests import PlanKeys
from osimager.plan.facts import MediaFacts
from osimager.plan.model import BuildPlan
from osimager.registry.entry import Entry, IsoRecord, StageRecord, Status
from osimager.registry.store import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A finished image that has no name yet, and what it was made from."""

    plan: BuildPlan
    media: MediaFacts
    keys: PlanKeys
    image: ImageFile


async def publish(made: Made, rec: Recorder, env: Env) -> Entry:
    """Give the image its name and its record. Raises PublishError, the file under its temporary name removed later."""
    entry = make_entry(made, rec, env)
    registry = Registry.open(env.places.registry)
    return await in_thread(lambda: registry.publish(entry, made.image.path, replace=made.plan.output.replace))


def make_entry(made: Made, rec: Recorder, env: Env) -> Entry:
    """Give the record of the image."""
    plan, digests = made.plan, made.keys.by_stage()
    verified = rec.states[Stage.VERIFY] is State.SUCCEEDED
    return Entry(
        id=plan.output.stem,
        target=str(plan.target),
        profile=own_profile(plan.profile),
        arch=plan.machine.arch,
        firmware=plan.machine.firmware,
        path=image_path(plan.output),
        size_bytes=made.image.size_bytes,
        sha256=made.image.sha256,
        iso=IsoRecord(plan.media.name, made.media.sha256, made.media.verified),
        created=env.clock.now().replace(microsecond=0),
        status=Status.VERIFIED if verified else Status.BUILT,
        stages=tuple(
            StageRecord(stage, digests.get(stage, ""), rec.seconds.get(stage, 0.0))
            for stage in Stage
            if stage in rec.seconds or stage in digests
        ),
        label=plan.output.label,
        build=env.bus.build,
    )
