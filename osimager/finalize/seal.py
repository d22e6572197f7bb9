"""SEAL: take out of the guest what must not be in an image: the build's access, and a template's identity.

One script over the build's own connection, `seal.sh` beside this file; its last act removes the account that the
connection belongs to. It checks itself: what it says is left, is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from osimager.env import Env
from osimager.errors import ProvisionError
from osimager.events import OutputLine
from osimager.plan.model import SealPlan
from osimager.ports import Communicator

_SOURCE = "seal"


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the machine was before it was sealed: VERIFY proves that a template's clone is none of it.

    `logins` are the accounts that a password or key opens in the image as it is (the configuration's).
    """

    machine_id: str
    host_keys: tuple[str, ...]
    root_kib: int
    cloud_init: bool
    logins: tuple[str, ...]


def read_seal_script() -> str:
    """Give the guest's script: the image's digest covers it."""
    return Path(__file__).with_name("seal.sh").read_text(encoding="utf-8")


async def seal(plan: SealPlan, guest: Communicator, env: Env, *, deadline_s: float) -> Sealed:
    """Seal the guest; the connection is of no use afterwards. Raises ProvisionError that names what is left."""
    was: list[tuple[str, str]] = []
    logins: list[str] = []
    left: list[str] = []

    def look(line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "was":
            name, _, value = rest.partition(" ")
            was.append((name, value))
        elif kind == "left":
            left.append(rest)
        elif kind == "login":
            logins.append(rest)
        env.emit(OutputLine(_SOURCE, line))

    environment = {
        "OSIMAGER_SEAL": plan.mode,
        "OSIMAGER_BUILD_USER": plan.build_user,
        "OSIMAGER_REMOVE_USER": "yes" if plan.remove_build_user else "no",
    }
    status = await guest.run(read_seal_script(), on_line=look, environment=environment, deadline_s=deadline_s)
    if left:
        raise ProvisionError(
            f"the seal could not remove {', '.join(left)}",
            hint="a provisioning step may hold it or make it anew: see the output of the seal",
        )
    if status != 0:
        raise ProvisionError(f"the seal exited with status {status}", hint="see its output")
    facts = dict(was)
    return Sealed(
        machine_id=facts.get("machine-id", ""),
        host_keys=tuple(value for name, value in was if name == "host-key"),
        root_kib=int(facts.get("root-kib") or 0),
        cloud_init="cloud-init" in facts,
        logins=tuple(logins),
    )
