"""One build: a flat list of awaited stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from osimager.aio import in_thread
from osimager.build.credentials import make_credentials
from osimager.build.install import install, open_seed
from osimager.build.layering import Base, BuildLayers, open_layers
from osimager.build.machines import Rig, open_guest, start_installed
from osimager.build.prepare import Prepared
from osimager.build.publish import Made, publish
from osimager.build.request import CacheUse
from osimager.build.stages import Recorder
from osimager.build.steps import find_changed_inputs
from osimager.build.trial import Trial, verify
from osimager.build.unchanged import find_unchanged
from osimager.env import Env
from osimager.errors import ConfigError
from osimager.events import Notice, Stage
from osimager.finalize.convert import open_image
from osimager.finalize.precompress import precompressing
from osimager.finalize.seal import seal
from osimager.media.fetch import fetch
from osimager.plan.boot import complete_boot
from osimager.plan.digests import make_keys, make_memory_key
from osimager.plan.facts import MediaFacts
from osimager.plan.model import BuildPlan
from osimager.provision.steps import Way, run_steps
from osimager.registry.entry import Entry


async def run_build(prepared: Prepared, use: CacheUse, rig: Rig, env: Env, rec: Recorder) -> Entry:
    """Run every stage after RESOLVE and give the image's entry in the registry: of an image that is there already,
    where nothing has changed.
    """
    media = await rec.run(Stage.FETCH, fetch(prepared.plan.media, env, arch=prepared.plan.machine.arch))
    plan = complete_boot(prepared.plan, media)
    keys = make_keys(plan, media, prepared.outside, prepared.protect)
    if use.first_made is None and (same := await find_unchanged(plan, keys, env)) is not None:
        rec.skip(rec.pending, f"nothing has changed since {same.id}")
        return same
    memory_key = make_memory_key(plan.machine, prepared.host, prepared.outside)
    async with AsyncExitStack() as up:
        layers = await up.enter_async_context(open_layers(plan, keys, use, env, memory_key=memory_key))
        base = await rec.find(Stage.INSTALL, layers.find_base())
        if base is None:
            base = await _install(plan, media, layers, rig, env, rec=rec)
        else:
            rec.skip([Stage.SEED], "its layer was found")
        disk_name = plan.machine.disks[0].id
        below = base.folder / f"{disk_name}.qcow2"
        ahead = await up.enter_async_context(precompressing(below, env, layers.copies))
        async with AsyncExitStack() as on:
            running = await rec.enter(Stage.START, on, start_installed(plan, base, layers, rig, env))
            guest = await rec.enter(Stage.CONNECT, on, open_guest(plan, base, running, env, failing=rig.failing))
            machine = running.machine
            way = Way(machine.endpoint, plan.access, base.credentials.key, guest.host_key)
            deadline_s = plan.deadline_s(Stage.PROVISION)
            kept = _Keeping(layers.keeping(machine), prepared, env, after=base.steps)
            steps = run_steps(plan.steps, guest, env, deadline_s=deadline_s, way=way, done=base.steps, keep=kept.keep)
            await rec.run(Stage.PROVISION, steps)
            sealing = seal(plan.seal, guest, env, deadline_s=plan.deadline_s(Stage.SEAL))
            sealed = await rec.run(Stage.SEAL, sealing)
            await rec.run(Stage.STOP, machine.shut_down(plan.deadline_s(Stage.STOP)))
        image = await rec.enter(Stage.CONVERT, up, open_image(layers.drive(disk_name), plan.output, env, ahead))
        if plan.verify:
            await rec.run(Stage.VERIFY, verify(plan, Trial(image.path, base.credentials, sealed), rig, env))
        else:
            rec.skip([Stage.VERIFY], "not asked for")
        if not kept.is_true:
            keys = dataclasses.replace(keys, image=dataclasses.replace(keys.image, digest=""))
        made = Made(plan=plan, media=media, keys=keys, image=image)
        return await rec.run(Stage.PUBLISH, publish(made, rec, env))


class _Keeping:
    """Keep what each step leaves, unless what it depends on changed since the plan was made: it is neither's then."""

    def __init__(self, keep: Callable[[int], Awaitable[None]], prepared: Prepared, env: Env, *, after: int) -> None:
        self._keep = keep
        self._prepared = prepared
        self._env = env
        self._after = after
        self.is_true = True

    async def keep(self, done: int) -> None:
        """Keep what the first `done` steps have left; the first `after` had left it before."""
        step = self._prepared.plan.steps[done - 1] if done > self._after else None
        if self.is_true and step is not None and step.inputs:
            try:
                now = (await in_thread(self._prepared.load_steps))[done - 1]
            except ConfigError:  # something is gone
                now = dataclasses.replace(step, inputs=())
            if changed := find_changed_inputs(step, now):
                self.is_true = False
                what = f"{', '.join(changed)} changed while the build ran, and the step {step.name} depends on it"
                self._env.emit(Notice(f"{what}: from here on nothing is kept for the next build", "warning"))
        if self.is_true:
            await self._keep(done)


async def _install(
    plan: BuildPlan, media: MediaFacts, layers: BuildLayers, rig: Rig, env: Env, *, rec: Recorder
) -> Base:
    """Run the installer, which leaves the first layer."""
    env.emit(Notice(f"boots {plan.install.boot.rung}: {plan.install.boot.reason}"))
    credentials = make_credentials(env)
    async with AsyncExitStack() as feeding:
        seed = await rec.enter(Stage.SEED, feeding, open_seed(plan, credentials, env))
        work = layers.make_installed(credentials, lambda into: install(plan, media, seed, rig, env, into=into))
        return await rec.run(Stage.INSTALL, work)
