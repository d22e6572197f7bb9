"""What a failed build leaves to read: the guest's last screen, its serial log, the answers, all through the masker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Never

from osimager.aio import finish, supervised
from osimager.env import Env
from osimager.errors import OsimagerError
from osimager.kept import make_folder, write_kept
from osimager.machine.qemu import QemuMachine
from osimager.machine.watch import watch_machine
from osimager.ports import Machine

EVIDENCE = "evidence"
# A screen dump stops QEMU's main loop for some milliseconds; a guest that dies leaves the last one.
_SCREEN_EVERY_S = 10.0
_LAST_SCREEN_S = 5.0


@contextlib.asynccontextmanager
async def witnessed(machine: QemuMachine, env: Env, *, role: str, unattended: bool) -> AsyncIterator[None]:
    """Keep the guest's last screen as `screen-ROLE.png` while the block runs; take one more when an error ends it.

    A guest that is stuck ends the block with the cause's name (`machine/watch`); `unattended`: so does one that rests,
    which a guest in which a step of ours runs may do.
    """
    picture = make_folder(env.workspace / EVIDENCE, private=True) / f"screen-{role}.png"
    watch = watch_machine(machine, env, unattended=unattended)
    try:
        async with supervised(_keep_screen(machine, picture), watch):
            yield
    except BaseException:
        await finish(_take_screen(machine, picture), _LAST_SCREEN_S)
        raise


async def _keep_screen(machine: Machine, picture: Path) -> Never:
    while True:
        await asyncio.sleep(_SCREEN_EVERY_S)
        await _take_screen(machine, picture)


async def _take_screen(machine: Machine, picture: Path) -> None:
    """Take a screenshot; a guest that is gone has none, and that is not what the build should end with."""
    with contextlib.suppress(OsimagerError, OSError, TimeoutError):
        async with asyncio.timeout(_LAST_SCREEN_S):
            await machine.screenshot(picture)


def write_answers(answers: Mapping[str, str], env: Env) -> None:
    """Keep the answer files as the guest got them, masked."""
    for name, text in answers.items():
        write_kept(env.workspace / EVIDENCE / "answers" / name.replace("/", "_"), env.masker.mask(text), mode=0o600)
