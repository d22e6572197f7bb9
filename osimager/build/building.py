"""One build from the outside in: its id, folders, log and record, how it ended, and what it leaves if it failed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osimager.aio import first_cause, in_thread
from osimager.build.evidence import QemuNotes, keep_evidence, write_bundle
from osimager.build.failing import Failing
from osimager.build.layers import LayerStore
from osimager.build.machines import Rig
from osimager.build.prepare import Prepared, prepare
from osimager.build.records import BuildFolder, BuildRecord, find_expected
from osimager.build.request import BuildRequest, make_cache_use
from osimager.build.runner import run_build
from osimager.build.session import Session, Stopped
from osimager.build.stages import Recorder
from osimager.build.workspace import KEPT, open_workspace, sweep
from osimager.env import Clock, Env
from osimager.errors import STATUS_SIGINT, OsimagerError
from osimager.events import BuildFailed, Bus, ImagePublished, Notice, Sink, Stage
from osimager.kept import check_writable
from osimager.paths import Places
from osimager.plan.argv import Display
from osimager.plan.deadlines import make_deadlines
from osimager.plan.digests import make_digest, make_keys
from osimager.plan.facts import Accelerator
from osimager.processes import find_start
from osimager.redact import Masker
from osimager.registry.entry import Entry
from osimager.units import format_size

_QEMU_MIB = 160  # what a QEMU takes beside its guest's memory: its own heap, TCG's buffer in part, firmware


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one build ended. `error` None: `entry` is its image. `kept` is the workspace, where it stays."""

    build: str
    target: str
    status: int
    seconds: float
    stages: dict[Stage, float]
    entry: Entry | None = None
    error: BaseException | None = None
    evidence: Path | None = None
    bundle: Path | None = None
    kept: Path | None = None


async def build_one(asked: BuildRequest, places: Places, session: Session, *, sinks: Sequence[Sink]) -> Outcome:
    """Build one target and say how it ended; only a cancellation is raised, after everything is cleaned up."""
    pid_started = await find_start(os.getpid()) or ""
    clock, masker = Clock(), Masker()
    with contextlib.ExitStack() as stack:
        workspace = stack.enter_context(open_workspace(places, asked.request.target, clock.now()))
        record = BuildRecord(
            build=workspace.name,
            target=asked.request.target,
            pid=os.getpid(),
            pid_started=pid_started,
            started=clock.now(),
            words=asked.words,
            folder=str(Path.cwd()) if asked.words else "",
        )
        folder = stack.enter_context(contextlib.closing(BuildFolder(places, record)))
        bus = Bus(now=clock.now, masker=masker, build=record.build)
        env = Env(
            places=places,
            workspace=workspace,
            bus=bus,
            masker=masker,
            clock=clock,
            offline=asked.options.offline,
            wait=asked.wait,
        )
        build = _Build(asked, session, folder, env)
        listeners: tuple[Sink, ...] = (folder.log, build.notes, *sinks)
        for sink in listeners:
            stack.enter_context(bus.listening(sink))
        stack.enter_context(session.running(workspace))
        return await build.run()
    raise AssertionError("an ExitStack of ours swallows nothing")


class _Build:
    """One build on its way: what its stages are given, and what is made of their end."""

    def __init__(self, asked: BuildRequest, session: Session, folder: BuildFolder, env: Env) -> None:
        self._asked = asked
        self._session = session
        self._folder = folder
        self._env = env
        self._started = env.clock.monotonic()
        deadlines = {each.stage: each.seconds for each in make_deadlines(Accelerator.TCG, asked.options.deadlines)}
        self._rec = Recorder(env, save=self._save, deadline_s=deadlines)
        self._failing = Failing(asked.on_error, session, env)
        self._prepared: Prepared | None = None
        self.notes = QemuNotes()

    def _save(self, rec: Recorder) -> None:
        self._folder.update(stages={stage: (state, rec.seconds.get(stage)) for stage, state in rec.states.items()})

    async def run(self) -> Outcome:
        """Run all stages, and settle what became of them."""
        try:
            entry = await self._run_stages()
        except BaseException as raised:
            return await self._settle_failure(first_cause(raised))
        self._rec.settle(None)
        self._folder.update(status=0, ended=self._env.clock.now(), image=entry.id)
        self._env.emit(ImagePublished(entry.id, str(entry.path), entry.size_bytes, entry.sha256))
        return self._outcome(0, entry=entry)

    async def _run_stages(self) -> Entry:
        env, rec = self._env, self._rec
        for name in await sweep(env.places):
            env.emit(Notice(f"swept what the build {name} left when it was killed"))
        layers = LayerStore(env.places)
        await in_thread(layers.sweep)
        prepared = await rec.run(Stage.RESOLVE, self._prepare())
        self._prepared = prepared
        plan = prepared.plan
        chosen = prepared.host.accelerator
        keys = make_keys(plan, None, prepared.outside, prepared.protect)
        digest = make_digest((keys, plan.machine, plan.verify, chosen.accelerator))
        self._folder.update(target=str(plan.target), plan=digest)
        rec.expected_s = await in_thread(lambda: find_expected(env.places, digest))
        rec.deadline_s.update({each.stage: each.seconds for each in plan.deadlines})
        env.emit(Notice(f"runs under {chosen.accelerator}: {chosen.reason}"))
        rig = Rig(prepared.host, Display(self._asked.display), self._failing)
        needed_mib = _QEMU_MIB + max(plan.install.machine.memory_mib, plan.machine.memory_mib)
        async with self._session.memory.reserved(needed_mib, on_wait=lambda: env.emit(_waits(needed_mib))):
            entry = await run_build(prepared, make_cache_use(self._asked), rig, env, rec)
        for layer in await in_thread(layers.gc):
            env.emit(Notice(f"the layer of {layer.name} ({layer.target}) made room for newer ones"))
        return entry

    async def _prepare(self) -> Prepared:
        """Make the plan, and see that its image has a place to go: after an hour of building it would be late."""
        prepared = await prepare(self._asked, self._env)
        await in_thread(lambda: check_writable(prepared.plan.output.folder))
        return prepared

    async def _settle_failure(self, error: BaseException) -> Outcome:
        """Record how the build failed, and keep what tells of it; raise what ends the whole command."""
        self._env.masker.mask_error(error)
        status, evidence, bundle = self._rec.settle(error), None, None
        try:
            if isinstance(error, Exception):
                await self._failing.attend(error)
                if self._failing.keeps_workspace:
                    (self._env.workspace / KEPT).touch()
                evidence = await keep_evidence(self._folder, self.notes, self._prepared, self._env)
        except asyncio.CancelledError as cancelled:
            error = cancelled
        if not isinstance(error, Exception):
            status = self._session.interrupted or STATUS_SIGINT
            if self._session.interrupted is None and self._session.is_ended(self._env.workspace):
                error = Stopped("the build was stopped", hint=f"see it with: osimager logs {self._env.bus.build}")
        hint = error.hint or "" if isinstance(error, OsimagerError) else ""
        said = str(error) or "interrupted"
        cause, seen = getattr(error, "cause", ""), getattr(error, "seen", "")
        self._env.emit(BuildFailed(said, status, hint, str(evidence or ""), cause, seen))
        self._folder.update(status=status, ended=self._env.clock.now(), error=said)
        if not isinstance(error, Exception):
            raise error
        if self._asked.bundle and evidence is not None:
            try:
                bundle = await in_thread(lambda: write_bundle(self._folder))
            except (OsimagerError, OSError) as exc:  # the evidence is there, and the other builds go on
                self._env.emit(Notice(f"there is no bundle: {exc}", "warning"))
        return self._outcome(status, error=error, evidence=evidence, bundle=bundle)

    def _outcome(self, status: int, **how: Any) -> Outcome:
        workspace = self._env.workspace
        return Outcome(
            build=self._env.bus.build,
            target=self._asked.request.target,
            status=status,
            seconds=self._env.clock.monotonic() - self._started,
            stages=dict(self._rec.seconds),
            kept=workspace if (workspace / KEPT).exists() else None,
            **how,
        )


def _waits(mib: int) -> Notice:
    return Notice(f"waits for {format_size(mib << 20)} of memory, which other builds of this command hold")
