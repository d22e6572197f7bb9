"""The main job on real guests: one whole build as a user runs it, and what its image is worth."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest.lab import HOME, Ran, run, ssh, started

pytestmark = [pytest.mark.guest]
BUILD = ("build", "debian-12", "--arch", "x86_64", "--iso", "debian-12-made", "--json")
STEP = "#!/bin/sh\nset -e\necho made-by-the-step > /etc/step-ran\necho a line of the step\n"
LOOK = "cat /etc/machine-id; cat /etc/ssh/ssh_host_ed25519_key.pub; cat /etc/step-ran; getent passwd osimager || true"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One build, BIOS, with a step of its own; made media included, and a real install, whatever was built before."""
    step = tmp_path_factory.mktemp("steps") / "mark.sh"
    step.write_text(STEP)
    ran = run(*BUILD, "--step", step, "--force", deadline_s=1500)
    assert ran.status == 0, ran.err
    return ran


def test_image_is_published_verified_with_its_digest(built: Ran) -> None:
    [published] = built.of_kind("image_published")
    path = Path(published["path"])
    assert path.parent == HOME / "data/images"
    assert re.fullmatch(r"debian-12-x86_64-\d{8}T\d{6}Z(-\d+)?\.qcow2", path.name)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == published["sha256"]
    assert run("image", "path", "debian-12").out == f"{path}\n"
    assert "verified" in run("image", "show", published["image"]).out


def test_every_stage_succeeded_in_order(built: Ran) -> None:
    ended = [event["of"] for event in built.of_kind("stage_changed") if event["to"] == "SUCCEEDED"]
    stages = "RESOLVE FETCH SEED INSTALL START CONNECT PROVISION SEAL STOP CONVERT VERIFY PUBLISH"
    assert ended == stages.split()


def test_step_is_streamed_line_by_line(built: Ran) -> None:
    assert "a line of the step" in [
        event["text"] for event in built.of_kind("output_line") if event["source"] == "mark"
    ]


def test_nothing_of_a_good_build_is_left_behind(built: Ran) -> None:
    assert list((HOME / "cache/work").iterdir()) == []
    assert [path.name for path in (HOME / "data/images").iterdir() if path.name.startswith(".")] == []


def test_clone_has_an_identity_of_its_own_and_lets_the_seeds_key_in(
    built: Ran, tmp_path: Path, needs: Callable[[str], Path]
) -> None:
    needs("ssh-keygen")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with started("image", "run", "debian-12", "--key", f"{key}.pub") as child:
        assert child.stderr is not None
        line = next(line for line in child.stderr if "log in with:" in line)
        words = shlex.split(line.partition("log in with:")[2])
        machine_id, host_key, step, *account = ssh(words, LOOK, deadline_s=300).splitlines()
    said = [event["text"] for event in built.of_kind("output_line")]
    [verify_id] = [text.rpartition(" ")[2] for text in said if "the machine-id is new" in text]
    sealed_keys = [text.split()[3] for text in said if text.startswith("was host-key ssh-ed25519")]
    assert re.fullmatch("[0-9a-f]{32}", machine_id)
    assert machine_id != verify_id
    assert host_key.split()[1] not in sealed_keys
    assert step == "made-by-the-step"
    # `image run` makes its own account of that name; the build's is gone, so it is a new one without sudoers of ours.
    assert len(account) == 1


def test_build_of_what_has_not_changed_gives_the_image_that_is_there(built: Ran, tmp_path: Path) -> None:
    step = tmp_path / "mark.sh"
    step.write_text(STEP)
    ran = run(*BUILD, "--step", step, deadline_s=300)
    assert ran.status == 0, ran.err
    [published], [again] = (each.of_kind("image_published") for each in (built, ran))
    assert again["path"] == published["path"]
    assert ran.of_kind("machine_started") == []


def test_step_that_changed_is_all_that_runs_again_in_the_machine_that_was_saved(built: Ran, tmp_path: Path) -> None:
    step = tmp_path / "mark.sh"
    step.write_text(f"{STEP}echo {os.urandom(4).hex()} >/etc/never-seen\n")
    ran = run(*BUILD, "--step", step, "--no-verify", deadline_s=1500)
    assert ran.status == 0, ran.err
    skipped = [event["of"] for event in ran.of_kind("stage_changed") if event["to"] == "SKIPPED"]
    assert skipped == ["INSTALL", "SEED", "VERIFY"]
    assert [event["name"] for event in ran.of_kind("step_started")] == ["mark"]
    [machine] = ran.of_kind("machine_started")
    assert machine["role"] == "target"
    assert "-incoming" in machine["argv"]
