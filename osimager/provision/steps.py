"""Run a plan's steps, one after the other, and obey their exit status."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from osimager.env import Env
from osimager.errors import PrerequisiteError, ProvisionError
from osimager.events import OutputLine, StepEnded, StepStarted
from osimager.plan.model import Access, Step, StepKind
from osimager.ports import Communicator, Endpoint
from osimager.provision.keys import BuildKey

LAST_LINES = 5

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Way:
    """How a program on this host gets into the guest: what LOCAL and ANSIBLE steps are given."""

    endpoint: Endpoint
    access: Access
    key: BuildKey
    host_key: str


async def run_steps(
    steps: Sequence[Step],
    guest: Communicator,
    env: Env,
    *,
    deadline_s: float,
    way: Way | None = None,
    done: int = 0,
    keep: Callable[[int], Awaitable[None]] | None = None,
) -> None:
    """Run `steps` within `deadline_s` in all. Raises ProvisionError for the first that fails, with its last lines.

    The first `done` have been run before. `keep` is called with the number of those that are done, before the first
    and after each: what a step wrote is on the guest's disk then.
    """
    ends = env.clock.monotonic() + deadline_s
    if keep is not None:
        await keep(done)
    for index, step in enumerate(steps[done:], start=done + 1):
        env.emit(StepStarted(step.name, index, len(steps)))
        started = env.clock.monotonic()
        last: deque[str] = deque(maxlen=LAST_LINES)

        def tell(line: str, name: str = step.name, last: deque[str] = last) -> None:
            if line.strip():
                last.append(line)
            env.emit(OutputLine(name, line))

        try:
            if index == len(steps):
                await guest.get_ready()  # for the seal; the steps are each to see what the last one set
            left_s = max(0.0, ends - started)
            status = await _run_step(step, guest, env, tell=tell, deadline_s=left_s, way=way, settle=keep is not None)
        except ProvisionError as exc:
            raise ProvisionError(
                f"step {step.name}: {exc.what}{_quoted(last)}", where=step.origin, hint=exc.hint
            ) from exc
        env.emit(StepEnded(step.name, status, env.clock.monotonic() - started))
        if status != 0:
            raise ProvisionError(
                f"step {step.name} exited with status {status}{_quoted(last)}",
                where=step.origin,
                hint="mend it and say `osimager resume last`: it goes on before this step",
            )
        if keep is not None:
            await keep(index)


async def _run_step(
    step: Step, guest: Communicator, env: Env, *, tell: Tell, deadline_s: float, way: Way | None, settle: bool
) -> int:
    status = 0
    match step.kind:
        case StepKind.SCRIPT:
            script, environment = step.content.decode(errors="surrogateescape"), dict(step.environment)
            return await guest.run(script, on_line=tell, environment=environment, deadline_s=deadline_s, settle=settle)
        case StepKind.FILE:
            await guest.put(step.content, step.destination, mode=step.mode, deadline_s=deadline_s)
        case StepKind.LOCAL:
            from osimager.provision.local import run_local

            status = await run_local(step, _known(way), env, tell=tell, deadline_s=deadline_s)
        case StepKind.ANSIBLE:
            from osimager.provision.ansible import run_playbook

            status = await run_playbook(step, _known(way), env, tell=tell, deadline_s=deadline_s)
        case _:
            assert_never(step.kind)
    if settle:
        await guest.run("exit 0", deadline_s=deadline_s, settle=True)
    return status


def _known(way: Way | None) -> Way:
    if way is None:
        raise PrerequisiteError("this machine has no endpoint that a program on this host could reach")
    return way


def _quoted(last: Sequence[str]) -> str:
    """Give the last lines as part of a message."""
    return "".join(f"\n    {line}" for line in last)
