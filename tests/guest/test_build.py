"""The main job on real guests: one whole build as a user runs it, and what its image is worth."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest.lab import HOME, Ran, run, ssh, started

pytestmark = [pytest.mark.guest]
STEP = "#!/bin/sh\nset -e\necho made-by-the-step > /etc/step-ran\necho a line of the step\n"
LOOK = "cat /etc/machine-id; cat /etc/ssh/ssh_host_ed25519_key.pub; cat /etc/step-ran; getent passwd osimager || true"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One build, BIOS, with a step of its own; made media included."""
    step = tmp_path_factory.mktemp("steps") / "mark.sh"
    step.write_text(STEP)
    ran = run(
        "build", "debian-12", "--arch", "x86_64", "--iso", "debian-12-made", "--step", step, "--json", deadline_s=1500
    )
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
