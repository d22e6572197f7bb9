"""Judging what a booted image says of itself, for templates and machines."""

from __future__ import annotations

import dataclasses

import pytest

from osimager.finalize.seal import Sealed
from osimager.finalize.verify import ADDED_BYTES, check_seen, parse_seen
from osimager.plan.model import SealMode, SealPlan

SEALED = Sealed(machine_id="a" * 32, host_keys=("ssh-ed25519 AAAA",), root_kib=1000, cloud_init=True, logins=())
TEMPLATE = SealPlan(SealMode.TEMPLATE, "osimager")
MACHINE = SealPlan(SealMode.MACHINE, "osimager")
GOOD = parse_seen(
    f"""cloud-init-status 0
cloud-init-said status: done
machine-id {"b" * 32}
hostname name.example.org
root-kib {1000 + ADDED_BYTES // 1024}
host-key ssh-ed25519 BBBB
host-key ssh-rsa CCCC
"""
)
SAME = dataclasses.replace(GOOD, machine_id=SEALED.machine_id, host_keys=SEALED.host_keys)


def test_good_clone_and_good_machine_pass() -> None:
    assert all(check.good for check in check_seen(GOOD, TEMPLATE, SEALED, hostname="name"))
    assert all(check.good for check in check_seen(SAME, MACHINE, SEALED, hostname="name"))


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"status": 1}, "cloud-init ends well"),
        ({"status": None}, "cloud-init ends well"),
        ({"root_kib": 1000}, "the root file system grows"),
        ({"machine_id": "a" * 32}, "the machine-id is new"),
        ({"machine_id": ""}, "the machine-id is new"),
        ({"host_keys": ("ssh-ed25519 AAAA", "ssh-rsa B")}, "the SSH host keys are new"),
        ({"host_keys": ()}, "the SSH host keys are new"),
        ({"hostname": "localhost"}, "the host name is set"),
        ({"build_account": ("/etc/shadow",)}, "the build's account is gone"),
    ],
)
def test_each_broken_promise_of_a_template_is_seen(change: dict[str, object], failed: str) -> None:
    seen = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]
    assert [check.name for check in check_seen(seen, TEMPLATE, SEALED, hostname="name") if not check.good] == [failed]


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"machine_id": "c" * 32}, "the machine-id is kept"),
        ({"host_keys": ("ssh-ed25519 BBBB",)}, "the SSH host keys are kept"),
    ],
)
def test_machine_that_became_another_is_seen(change: dict[str, object], failed: str) -> None:
    seen = dataclasses.replace(SAME, **change)  # type: ignore[arg-type]
    assert [check.name for check in check_seen(seen, MACHINE, SEALED, hostname="name") if not check.good] == [failed]
