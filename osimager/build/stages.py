"""The recorder: the only one who knows which stage runs, how long it may, and what became of it.

State is written before the side effect it announces, so that a killed build says where it was (docs/contracts.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from osimager.aio import first_cause
from osimager.env import Env
from osimager.errors import (
    GuestGone,
    MachineError,
    MediaError,
    OsimagerError,
    PrerequisiteError,
    ProvisionError,
    PublishError,
    StageTimeout,
)
from osimager.events import Awaiting, Stage, StageChanged, State
from osimager.kept import cause_of
from osimager.machine.causes import StuckGuest
from osimager.units import format_duration

T = TypeVar("T")

# The exit status of a stage's own failures (design.md, "Exit status").
STATUS: dict[Stage, int] = {
    Stage.RESOLVE: 3,
    Stage.FETCH: MediaError.status,
    **dict.fromkeys((Stage.SEED, Stage.INSTALL, Stage.START, Stage.CONNECT), MachineError.status),
    **dict.fromkeys((Stage.PROVISION, Stage.SEAL, Stage.STOP), ProvisionError.status),
    **dict.fromkeys((Stage.CONVERT, Stage.VERIFY, Stage.PUBLISH), PublishError.status),
}

_AWAITED: dict[Stage, str] = {
    Stage.RESOLVE: "the configuration and this host's facts",
    Stage.FETCH: "the installer ISO",
    Stage.SEED: "the answer files",
    Stage.INSTALL: "the installer to end",
    Stage.START: "the installed disk's machine",
    Stage.CONNECT: "SSH to accept this build's key",
    Stage.PROVISION: "the provisioning steps",
    Stage.SEAL: "the seal",
    Stage.STOP: "the guest to switch itself off",
    Stage.CONVERT: "the image file",
    Stage.VERIFY: "the image to boot and let a new key in",
    Stage.PUBLISH: "the registry",
}


class Recorder:
    """Run stages one after the other; keep each one's state and time. One a build.

    `expected_s` is how long stages took in the last good build of the same plan, once that is known.
    """

    def __init__(self, env: Env, *, save: Callable[[Recorder], None], deadline_s: Mapping[Stage, float]) -> None:
        self._env = env
        self._save = save
        self.deadline_s = dict(deadline_s)
        self.expected_s: Mapping[Stage, float] = {}
        self.states: dict[Stage, State] = dict.fromkeys(Stage, State.PENDING)
        self.seconds: dict[Stage, float] = {}
        self.failed_in: Stage | None = None
        self._cut_short: Stage | None = None

    async def run(self, stage: Stage, work: Awaitable[T]) -> T:
        """Await `work` as `stage`, within the stage's deadline."""
        self._change(stage, State.RUNNING)
        self._env.emit(
            Awaiting(_AWAITED[stage], self.deadline_s[stage], self.expected_s.get(stage), self._left_s(stage))
        )
        started = self._env.clock.monotonic()
        try:
            async with asyncio.timeout(self.deadline_s[stage]) as limit:
                result = await work
        except BaseException as error:
            self.seconds[stage] = self._env.clock.monotonic() - started
            failure = self._failure(stage, error, timed_out=limit.expired())
            if failure is error:
                raise
            raise failure from error
        self.seconds[stage] = self._env.clock.monotonic() - started
        self._change(stage, State.SUCCEEDED, seconds=self.seconds[stage])
        return result

    async def enter(self, stage: Stage, stack: AsyncExitStack, resource: AbstractAsyncContextManager[T]) -> T:
        """Open `resource` as `stage`; `stack` owns it from then on."""
        return await self.run(stage, stack.enter_async_context(resource))

    def _left_s(self, now: Stage) -> float | None:
        """Give what `now` and the stages after it are expected to take; None where nothing is known."""
        waiting = [stage for stage, state in self.states.items() if stage is now or state is State.PENDING]
        known = [self.expected_s[stage] for stage in waiting if stage in self.expected_s]
        return round(sum(known), 3) if known else None

    async def find(self, stage: Stage, work: Awaitable[T | None]) -> T | None:
        """Await the search for the layer that makes `stage` needless, within the stage's deadline; found: skipped."""
        async with asyncio.timeout(self.deadline_s[stage]):
            found = await work
        if found is not None:
            self.skip([stage], "its layer was found")
        return found

    @property
    def pending(self) -> list[Stage]:
        """Give the stages that are still to come."""
        return [stage for stage, state in self.states.items() if state is State.PENDING]

    def skip(self, stages: Iterable[Stage], why: str) -> None:
        """Record that `stages` need not run."""
        for stage in stages:
            self._change(stage, State.SKIPPED, detail=why)

    def settle(self, error: BaseException | None) -> int:
        """Record the end of the build, and give the exit status that `error` (None: all went well) means.

        An error whose stage saw only a cancel (a supervisor's: the guest died) is that stage's.
        """
        if (stage := self._cut_short) is not None:
            if self.failed_in is None and isinstance(error, Exception):
                self.failed_in = stage
                self._change(stage, State.FAILED, detail=str(error), seconds=self.seconds[stage])
            else:
                self._change(stage, State.CANCELLED, seconds=self.seconds[stage])
        self._save(self)
        return 0 if error is None else self._status_of(error)

    def _status_of(self, error: BaseException) -> int:
        if isinstance(error, (GuestGone, StageTimeout, StuckGuest)) and self.failed_in is not None:
            return STATUS[self.failed_in]
        return error.status if isinstance(error, OsimagerError) else 1

    def _failure(self, stage: Stage, error: BaseException, *, timed_out: bool) -> BaseException:
        """Record how `stage` failed, and give what to raise for it."""
        cause = first_cause(error)
        if isinstance(cause, asyncio.CancelledError):
            self._cut_short = stage  # by a person or by what went wrong elsewhere: `settle` is told
            return cause
        if isinstance(cause, TimeoutError) and not isinstance(cause, OsimagerError):
            allowed = format_duration(self.deadline_s[stage])
            reason = f"its {allowed} passed" if timed_out else "a deadline in it passed"
            cause = StageTimeout(
                f"{stage} did not end: {reason} while waiting for {_AWAITED[stage]}",
                hint=f"look at the serial log and the screenshot; give it longer with --timeout {stage.lower()}=…",
            )
        elif isinstance(cause, OSError) and not isinstance(cause, OsimagerError):
            what, named = f"{stage} failed on this host: {cause}", cause_of(cause)
            cause = PrerequisiteError(what, hint="see the evidence folder", cause=named)
        if self.failed_in is None:
            self.failed_in = stage
        self._change(stage, State.FAILED, detail=str(cause), seconds=self.seconds[stage])
        return cause

    def _change(self, stage: Stage, state: State, *, detail: str = "", seconds: float | None = None) -> None:
        self.states[stage] = state
        self._save(self)
        self._env.emit(StageChanged(stage, state, detail, seconds))
