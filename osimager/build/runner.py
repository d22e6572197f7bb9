"""One build: a flat list of awaited stages."""

from __future__ import annotations

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
from osimager.build.steps import check_inputs
from osimager.build.trial import Trial, verify
from osimager.build.unchanged import find_unchanged
from osimager.env import Env
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
            keep = _keeping(layers.keeping(machine), prepared, after=base.steps)
            steps = run_steps(plan.steps, guest, env, deadline_s=deadline_s, way=way, done=base.steps, keep=keep)
            await rec.run(Stage.PROVISION, steps)
            sealing = seal(plan.seal, guest, env, deadline_s=plan.deadline_s(Stage.SEAL))
            sealed = await rec.run(Stage.SEAL, sealing)
            await rec.run(Stage.STOP, machine.shut_down(plan.deadline_s(Stage.STOP)))
        image = await rec.enter(Stage.CONVERT, up, open_image(layers.drive(disk_name), plan.output, env, ahead))
        if plan.verify:
            await rec.run(Stage.VERIFY, verify(plan, Trial(image.path, base.credentials, sealed), rig, env))
        else:
            rec.skip([Stage.VERIFY], "not asked for")
        made = Made(plan=plan, media=media, keys=keys, image=image)
        return await rec.run(Stage.PUBLISH, publish(made, rec, env))


def _keeping(
    keep: Callable[[int], Awaitable[None]], prepared: Prepared, *, after: int
) -> Callable[[int], Awaitable[None]]:
    """Give `keep` for what the steps beyond the first `after` leave, each held against what it was to depend on."""

    async def checked(done: int) -> None:
        if done > after and prepared.plan.steps[done - 1].inputs:
            now = await in_thread(prepared.load_steps)
            check_inputs(prepared.plan.steps[done - 1], now[done - 1])
        await keep(done)

    return checked


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
