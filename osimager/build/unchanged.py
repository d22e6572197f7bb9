"""An image that is there already: the same digests all the way, and its file still what the registry says of it."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from osimager.aio import in_thread
from osimager.config.request import own_profile
from osimager.env import Env
from osimager.events import Stage
from osimager.finalize.convert import image_path
from osimager.plan.digests import PlanKeys
from osimager.plan.model import BuildPlan
from osimager.registry.entry import Entry, Status
from osimager.registry.store import Registry


async def find_unchanged(plan: BuildPlan, keys: PlanKeys, env: Env, *, hashed: bool = True) -> Entry | None:
    """Find the newest image that this plan would only make once more, in the same folder and as well proved.

    Where a step says `cache: false` there is none. The file is hashed: an image that was touched is built again.
    Without `hashed` it is only looked at.
    """
    if keys.cached < len(plan.steps):
        return None
    registry = Registry.open(env.places.registry)
    if not registry.mentions(keys.image.digest):
        return None
    entries = await in_thread(registry.load)
    for entry in reversed(entries):
        if _is_meant(entry, plan, keys) and await in_thread(functools.partial(_is_whole, entry, hashed=hashed)):
            return entry
    return None


def is_sealed_otherwise(keys: PlanKeys, env: Env) -> bool:
    """Tell whether there is an image of the same guest whose seal was another."""
    below = keys.by_stage()[Stage.PROVISION]
    registry = Registry.open(env.places.registry)
    if not below or not registry.mentions(below):
        return False
    kept = [{record.stage: record.digest for record in entry.stages} for entry in registry.load()]
    return any(digests.get(Stage.PROVISION) == below and digests.get(Stage.PUBLISH) for digests in kept) and not any(
        digests.get(Stage.PUBLISH) == keys.image.digest for digests in kept
    )


def _is_meant(entry: Entry, plan: BuildPlan, keys: PlanKeys) -> bool:
    digests = {record.stage: record.digest for record in entry.stages}
    profile = own_profile(plan.profile)
    return (
        digests.get(Stage.PUBLISH) == keys.image.digest
        and (entry.target, entry.profile, entry.label) == (str(plan.target), profile, plan.output.label)
        and entry.path.parent == plan.output.folder
        and (not plan.output.replace or entry.path == image_path(plan.output))
        and not (plan.verify and entry.status is Status.BUILT)
    )


def _is_whole(entry: Entry, *, hashed: bool) -> bool:
    path: Path = entry.path
    try:
        if path.stat().st_size != entry.size_bytes:
            return False
        if not hashed:
            return True
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
    except OSError:
        return False
