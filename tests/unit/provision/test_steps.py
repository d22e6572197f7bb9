"""Steps against a real sshd: order, events, exit status, and what an error says."""

from __future__ import annotations

from pathlib import Path

import pytest

from osimager.env import Env
from osimager.errors import Place, ProvisionError
from osimager.events import OutputLine, StepEnded, StepStarted
from osimager.plan.model import Step, StepKind
from osimager.provision.ssh import open_ssh
from osimager.provision.steps import Way, run_steps
from tests.unit.provision.conftest import Seen, Sshd


def _script(name: str, text: str, *, kind: StepKind = StepKind.SCRIPT, **environment: str) -> Step:
    return Step(
        name=name,
        kind=kind,
        content=text.encode(),
        origin=Place(Path(f"/scripts/{name}.sh")),
        environment=tuple(environment.items()),
    )


async def test_steps_run_in_order_and_tell_each_line(sshd: Sshd, env: Env, seen: Seen, tmp_path: Path) -> None:
    target = tmp_path / "file"
    file = Step(
        name="file",
        kind=StepKind.FILE,
        content=b"content",
        origin=Place("spec"),
        destination=str(target),
        mode=0o640,
    )
    async with open_ssh(sshd.endpoint, sshd.user, sshd.key, env) as guest:
        await run_steps([file, _script("show", f'cat {target}; echo " $A"', A="é")], guest, env, deadline_s=30)
    texts = [event.text for event in seen.of(OutputLine) if isinstance(event, OutputLine)]
    assert texts == ["content é"]
    assert [event.name for event in seen.of(StepStarted) if isinstance(event, StepStarted)] == ["file", "show"]
    assert [event.status for event in seen.of(StepEnded) if isinstance(event, StepEnded)] == [0, 0]


async def test_failing_step_ends_the_rest_and_quotes_its_last_lines(sshd: Sshd, env: Env, seen: Seen) -> None:
    steps = [_script("bad", "seq 1 9; exit 3"), _script("never", "true")]
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        with pytest.raises(ProvisionError) as caught:
            await run_steps(steps, guest, env, deadline_s=30)
    assert caught.value.what.startswith("step bad exited with status 3\n    5\n    6")
    assert caught.value.where == (steps[0].origin,)
    assert len(seen.of(StepStarted)) == 1


async def test_step_over_its_deadline_is_named(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        with pytest.raises(ProvisionError, match="step slow: a script ran in the guest for more than"):
            await run_steps([_script("slow", "sleep 60")], guest, env, deadline_s=0.5)


async def test_local_step_gets_a_way_into_the_guest(sshd: Sshd, env: Env, seen: Seen) -> None:
    script = """#!/bin/sh
        echo out; echo err >&2
        ssh -i "$OSIMAGER_SSH_KEY" -o UserKnownHostsFile="$OSIMAGER_SSH_KNOWN_HOSTS" -o IdentitiesOnly=yes \
            -o StrictHostKeyChecking=yes -o BatchMode=yes -p "$OSIMAGER_SSH_PORT" \
            "$OSIMAGER_SSH_USER@$OSIMAGER_SSH_HOST" "echo there $A" </dev/null; exit 5"""
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        way = Way(sshd.endpoint, sshd.root, sshd.key, guest.host_key)
        with pytest.raises(ProvisionError, match="step here exited with status 5"):
            await run_steps([_script("here", script, kind=StepKind.LOCAL, A="b")], guest, env, deadline_s=30, way=way)
    assert [event.text for event in seen.of(OutputLine) if isinstance(event, OutputLine)] == ["out", "err", "there b"]
    assert list(env.workspace.iterdir()) == []


async def test_playbook_runs_against_the_guest(sshd: Sshd, env: Env, tmp_path: Path) -> None:
    pytest.importorskip("ansible", reason="ansible-core is not installed")
    target = tmp_path / "made"
    playbook = tmp_path / "site.yml"
    playbook.write_text(
        "- hosts: guest\n  gather_facts: false\n  tasks:\n"
        f"    - raw: 'id -un >{target}; echo {{{{ word | quote }}}} >>{target}'\n"
    )
    step = Step(
        name="site",
        kind=StepKind.ANSIBLE,
        content=playbook.read_bytes(),
        origin=Place(playbook),
        environment=(("word", "it's data"),),
    )
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        way = Way(sshd.endpoint, sshd.root, sshd.key, guest.host_key)
        await run_steps([step], guest, env, deadline_s=60, way=way)
        playbook.write_text("- hosts: all\n")
        with pytest.raises(ProvisionError, match="has changed since the plan was made"):
            await run_steps([step], guest, env, deadline_s=60, way=way)
    assert target.read_text().splitlines() == ["root", "it's data"]
