"""A build's answers are shown to their validators before anything is booted."""

from __future__ import annotations

import pytest

from osimager.build.validating import validate_answers
from osimager.config.sections import Target
from osimager.env import Env
from osimager.errors import ConfigErrors, Place
from osimager.events import Event, Notice
from osimager.plan.model import Answer

DEBIAN = Target("qemu", "local", "debian", "12", "x86_64")
FEDORA = Target("qemu", "local", "fedora", "999", "x86_64")


@pytest.mark.needs("debconf-set-selections")
async def test_a_wrong_answer_stops_with_its_line_and_no_secret(env: Env) -> None:
    env.masker.register("s3cr3t-value")
    text = "# head\nd-i clock-setup/utc boolean s3cr3t-value\n"
    with pytest.raises(ConfigErrors) as caught:
        await validate_answers([Answer("preseed.cfg", text, "preseed")], DEBIAN, env)
    [error] = caught.value.errors
    assert error.where == (Place("preseed.cfg", 2),)
    assert "must be true or false" in error.what
    assert "s3cr3t" not in error.what
    assert "-D validate=false" in (error.hint or "")


async def test_a_validator_that_is_not_at_hand_is_named_and_stops_nothing(env: Env, events: list[Event]) -> None:
    await validate_answers([Answer("ks.cfg", "bogus\n", "kickstart"), Answer("x", "y", "")], FEDORA, env)
    assert any(isinstance(event, Notice) and "not checked by ksvalidator F999" in event.text for event in events)
