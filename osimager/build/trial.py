"""VERIFY: the finished image booted as its user will; the machines and connections that `finalize` may not know."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from osimager.build.credentials import Credentials
from osimager.build.evidence import witnessed
from osimager.build.machines import Rig
from osimager.env import Env
from osimager.finalize import verify as trial_by
from osimager.finalize.seal import Sealed
from osimager.kept import make_folder
from osimager.machine.ladder import SYSTEM
from osimager.machine.qemu import start_machine
from osimager.media.seed import make_seed
from osimager.plan.model import Access, BuildPlan
from osimager.ports import Communicator, Endpoint, Machine
from osimager.provision.keys import BuildKey, make_key
from osimager.provision.ssh import has_login, open_ssh


@dataclass(frozen=True, slots=True)
class Trial:
    """The image, and what must not work in it any more: the build's access, the sealed machine's identity."""

    image: Path
    credentials: Credentials
    sealed: Sealed


async def verify(plan: BuildPlan, trial: Trial, rig: Rig, env: Env) -> None:
    """Boot the image as its user will, and prove what was promised. Raises PublishError for what does not hold."""
    key = make_key(env)

    def open_guest(endpoint: Endpoint, user: str) -> contextlib.AbstractAsyncContextManager[Communicator]:
        return open_ssh(endpoint, Access(user=user), key, env)

    @contextlib.asynccontextmanager
    async def start(disk: Path, cds: tuple[Path, ...]) -> AsyncIterator[Machine]:
        clean = await rig.clean_variables(make_folder(env.workspace / "clean", private=True))
        image = plan.machine.disks[0]
        shape = dataclasses.replace(plan.machine, disks=(image,))
        run = rig.make_run("verify", shape, env, {image.id: disk, **clean})
        run = dataclasses.replace(run, cds=cds, ssh_port=plan.access.port)
        async with (
            start_machine(run, env) as machine,
            witnessed(machine, env, role=run.role, ladder=SYSTEM, failing=rig.failing),
        ):
            yield machine

    means = trial_by.Means(
        start=start,
        open_ssh=open_guest,
        public_line=key.public_line,
        make_seed=make_seed,
        find_accepted=functools.partial(_find_accepted, plan.access.user, trial.credentials),
    )
    await trial_by.verify(trial.image, plan.seal, trial.sealed, means, env, hostname=plan.hostname)


async def _find_accepted(user: str, credentials: Credentials, endpoint: Endpoint) -> tuple[str, ...]:
    """Name those of the build's credentials that sshd still takes: there must be none."""
    offered: dict[str, BuildKey | str] = {
        "the build's key": credentials.key,
        "the build's password": credentials.password,
    }
    return tuple([name for name, credential in offered.items() if await has_login(endpoint, user, credential)])
