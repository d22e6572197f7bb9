"""`osimager image`: what is said of images that cannot be used."""

from __future__ import annotations

import pytest

from osimager.build import running
from osimager.env import Env
from osimager.errors import MachineError
from osimager.paths import Places
from osimager.plan.facts import Accelerator
from osimager.ports import Endpoint
from osimager.registry.store import Registry
from tests.unit.cli.conftest import Run
from tests.unit.provision.conftest import free_port
from tests.unit.registry.test_store import make_entry


@pytest.mark.parametrize("verb", ["path", "run"])
def test_an_image_whose_file_is_gone_is_told_before_anything_starts(run: Run, places: Places, verb: str) -> None:
    entry = make_entry()
    Registry.open(places.registry).add(entry)
    said = run("image", verb, entry.id)
    assert said.status == 2
    assert f"its file {entry.path} is gone" in said.err
    assert f"osimager image rm {entry.id}" in said.err


async def test_a_guest_whose_ssh_server_never_comes_up_is_given_up(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_UP_S", 0.1)
    with pytest.raises(MachineError, match="no SSH server answered") as caught:
        await running._wait_up(Endpoint("127.0.0.1", free_port()), Accelerator.KVM, env)
    assert "--display vnc" in str(caught.value.hint)
