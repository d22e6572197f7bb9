"""Builds from the outside in: their id, folders, log and record; several targets in order; what is swept before."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import first_cause, in_thread
from osimager.build.evidence import EVIDENCE
from osimager.build.machines import Rig
from osimager.build.prepare import prepare
from osimager.build.request import BuildRequest, OnError
from osimager.build.runner import run_build
from osimager.build.stages import Recorder
from osimager.build.workspace import KEPT, BuildFolder, make_build_id, open_workspace, sweep_workspaces
from osimager.env import Clock, Env
from osimager.errors import OsimagerError
from osimager.events import BuildFailed, Bus, ImagePublished, Notice, Sink, Stage
from osimager.paths import Places
from osimager.plan.argv import Display
from osimager.plan.deadlines import make_deadlines
from osimager.plan.facts import Accelerator
from osimager.redact import Masker
from osimager.registry.entry import Entry


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one build ended. `error` None: `entry` is its image."""

    build: str
    target: str
    status: int
    seconds: float
    stages: dict[Stage, float]
    entry: Entry | None = None
    error: BaseException | None = None
    evidence: Path | None = None


async def build_one(asked: BuildRequest, places: Places, *, sinks: Sequence[Sink]) -> Outcome:
    """Build one target and say how it ended; only a cancellation is raised, after everything is cleaned up."""
    clock, masker = Clock(), Masker()
    started = clock.monotonic()
    build_id = make_build_id(asked.request.target.replace("/", "_"), clock.now(), time.monotonic_ns().to_bytes(8)[-2:])
    bus = Bus(now=clock.now, masker=masker, build=build_id)
    with ExitStack() as stack:
        folder = BuildFolder(places, build_id)
        stack.callback(folder.close)
        for sink in (folder.log, *sinks):
            stack.enter_context(bus.listening(sink))
        workspace = stack.enter_context(open_workspace(places, build_id))
        env = Env(
            places=places, workspace=workspace, bus=bus, masker=masker, clock=clock, offline=asked.options.offline
        )
        deadlines = {each.stage: each.seconds for each in make_deadlines(Accelerator.TCG, asked.options.deadlines)}
        rec = Recorder(env, save=lambda rec: folder.write_record(_record(asked, build_id, rec)), deadline_s=deadlines)
        error: BaseException | None = None
        entry: Entry | None = None
        try:
            await _sweep(places, env)
            prepared = await rec.run(Stage.RESOLVE, prepare(asked, env))
            rec.deadline_s.update({each.stage: each.seconds for each in prepared.plan.deadlines})
            chosen = prepared.host.accelerator
            env.emit(Notice(f"runs under {chosen.accelerator}: {chosen.reason}"))
            rig = Rig(prepared.host, Display(asked.display))
            entry = await run_build(prepared, rig, env, rec, shell=asked.on_error is OnError.SHELL)
        except BaseException as raised:
            error = first_cause(raised)
        status = rec.settle(error)
        evidence = _keep_evidence(workspace, folder) if isinstance(error, Exception) else None
        if isinstance(error, Exception):
            if asked.on_error is OnError.KEEP:
                (workspace / KEPT).touch()
            bus.emit(_failure(error, status, evidence))
        elif error is not None:
            raise error
        if entry is not None:
            bus.emit(ImagePublished(entry.id, str(entry.path), entry.size_bytes, entry.sha256))
        return Outcome(
            build_id,
            asked.request.target,
            status,
            clock.monotonic() - started,
            dict(rec.seconds),
            entry,
            error,
            evidence,
        )
    raise AssertionError("an ExitStack of ours swallows nothing")


async def _sweep(places: Places, env: Env) -> None:
    for name in await in_thread(lambda: sweep_workspaces(places)):
        env.emit(Notice(f"swept what the build {name} left when it was killed"))


def _record(asked: BuildRequest, build_id: str, rec: Recorder) -> dict[str, object]:
    """Give `record.json`: what a killed build leaves to say where it was."""
    return {
        "v": 1,
        "build": build_id,
        "target": asked.request.target,
        "stages": {
            stage: {"state": state, "seconds": round(rec.seconds[stage], 3) if stage in rec.seconds else None}
            for stage, state in rec.states.items()
        },
    }


def _keep_evidence(workspace: Path, folder: BuildFolder) -> Path | None:
    """Move the evidence out of the workspace, which goes."""
    found = workspace / EVIDENCE
    if not found.is_dir():
        return None
    with contextlib.suppress(OSError):
        shutil.copytree(found, folder.evidence, dirs_exist_ok=True)
    return folder.evidence


def _failure(error: Exception, status: int, evidence: Path | None) -> BuildFailed:
    hint = error.hint or "" if isinstance(error, OsimagerError) else ""
    return BuildFailed(str(error), status, hint, str(evidence or ""))
