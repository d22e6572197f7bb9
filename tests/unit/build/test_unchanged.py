"""An image that is there already answers for a plan that would make it once more, and for no other."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from osimager.build.unchanged import find_unchanged
from osimager.config.sections import Target
from osimager.env import Env
from osimager.events import Stage
from osimager.plan.model import BuildPlan
from osimager.registry.entry import Entry, StageRecord, Status
from osimager.registry.store import Registry
from tests.unit.plan.test_digests import PLAN, make_all, with_step
from tests.unit.registry.test_store import make_entry

CONTENT = b"an image" * 1000
Change = Callable[[BuildPlan], BuildPlan]


def publish(env: Env, plan: BuildPlan = PLAN, *, status: Status = Status.VERIFIED, hours: int = 0) -> Entry:
    """Register the image of a plan, as PUBLISH does."""
    plan.output.folder.mkdir(parents=True, exist_ok=True)
    entry = make_entry(folder=plan.output.folder)
    entry = dataclasses.replace(
        entry,
        id=f"{entry.id}-{hours}",
        path=plan.output.folder / f"image-{hours}.qcow2",
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        stages=(StageRecord(Stage.PUBLISH, make_all(plan).image.digest, 1.0),),
        status=status,
        label=plan.output.label,
        created=entry.created + timedelta(hours=hours),
    )
    entry.path.write_bytes(CONTENT)
    Registry.open(env.places.registry).add(entry)
    return entry


@pytest.fixture
def plan(tmp_path: Path) -> BuildPlan:
    return dataclasses.replace(PLAN, output=dataclasses.replace(PLAN.output, folder=tmp_path / "images"))


async def find(env: Env, plan: BuildPlan) -> Entry | None:
    return await find_unchanged(plan, make_all(plan), env)


async def test_newest_image_of_the_same_plan_answers(env: Env, plan: BuildPlan) -> None:
    assert await find(env, plan) is None
    publish(env, plan)
    newest = publish(env, plan, hours=1)
    found = await find(env, plan)
    assert found is not None
    assert found.id == newest.id


def output(**changes: object) -> Change:
    return lambda plan: dataclasses.replace(plan, output=dataclasses.replace(plan.output, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: dataclasses.replace(plan, steps=plan.steps[:-1]),
        lambda plan: dataclasses.replace(plan, steps=with_step(content=b"another").steps),
        lambda plan: dataclasses.replace(plan, steps=with_step(cache=False).steps),
        lambda plan: dataclasses.replace(plan, seal=dataclasses.replace(plan.seal, remove_build_user=False)),
        lambda plan: dataclasses.replace(plan, target=Target("qemu", "lab", "debian", "12", "x86_64")),
        lambda plan: dataclasses.replace(plan, profile="developer"),
        output(label="another"),
        output(folder=Path("/elsewhere")),
        output(replace=True, stem="debian-12"),
    ],
)
async def test_image_of_another_plan_name_or_place_does_not(env: Env, plan: BuildPlan, change: Change) -> None:
    publish(env, plan)
    assert await find(env, change(plan)) is None


@pytest.mark.parametrize(
    ("status", "verify", "answers"),
    [
        (Status.VERIFIED, True, True),
        (Status.VERIFIED, False, True),
        (Status.BUILT, False, True),
        (Status.BUILT, True, False),
    ],
)
async def test_image_must_be_as_well_proven_as_is_asked(
    env: Env, plan: BuildPlan, status: Status, verify: bool, answers: bool
) -> None:
    publish(env, plan, status=status)
    assert (await find(env, dataclasses.replace(plan, verify=verify)) is not None) == answers


@pytest.mark.parametrize("content", [CONTENT[:-1], b"An image" * 1000, CONTENT + b"\0", None])
async def test_image_that_was_touched_does_not_and_an_older_whole_one_does(
    env: Env, plan: BuildPlan, content: bytes | None
) -> None:
    older, newest = publish(env, plan), publish(env, plan, hours=1)
    if content is None:
        newest.path.unlink()
    else:
        newest.path.write_bytes(content)
    found = await find(env, plan)
    assert found is not None
    assert found.id == older.id
