"""One build: a flat list of awaited stages."""

from __future__ import annotations

from contextlib import AsyncExitStack

from osimager.build.credentials import make_credentials
from osimager.build.install import install, open_seed
from osimager.build.machines import Rig, open_guest, start_installed
from osimager.build.prepare import Prepared
from osimager.build.publish import Made, publish
from osimager.build.stages import Recorder
from osimager.build.trial import Trial, verify
from osimager.env import Env
from osimager.events import Notice, Stage
from osimager.finalize.convert import open_image
from osimager.finalize.seal import seal
from osimager.media.fetch import fetch
from osimager.plan.boot import complete_boot
from osimager.plan.digests import make_digests
from osimager.provision.steps import Way, run_steps
from osimager.registry.entry import Entry


async def run_build(prepared: Prepared, rig: Rig, env: Env, rec: Recorder) -> Entry:
    """Run every stage after RESOLVE and give the image's entry in the registry."""
    accelerator = prepared.host.accelerator
    env.emit(Notice(f"runs under {accelerator.accelerator}: {accelerator.reason}"))
    media = await rec.run(Stage.FETCH, fetch(prepared.plan.media, env, arch=prepared.plan.machine.arch))
    plan = complete_boot(prepared.plan, media)
    env.emit(Notice(f"boots {plan.install.boot.rung}: {plan.install.boot.reason}"))
    credentials = make_credentials(env)
    async with AsyncExitStack() as up:
        seed = await rec.enter(Stage.SEED, up, open_seed(plan, credentials, env))
        installed = await rec.run(Stage.INSTALL, install(plan, media, seed, rig, env))
    async with AsyncExitStack() as up:
        machine = await rec.enter(Stage.START, up, start_installed(plan, installed, rig, env))
        guest = await rec.enter(Stage.CONNECT, up, open_guest(plan, installed, machine, env, failing=rig.failing))
        way = Way(machine.endpoint, plan.access, credentials.key, guest.host_key)
        deadline_s = plan.deadline_s(Stage.PROVISION)
        await rec.run(Stage.PROVISION, run_steps(plan.steps, guest, env, deadline_s=deadline_s, way=way))
        sealed = await rec.run(Stage.SEAL, seal(plan.seal, guest, env))
        await rec.run(Stage.STOP, machine.shut_down(plan.deadline_s(Stage.STOP)))
    async with AsyncExitStack() as up:
        image = await rec.enter(Stage.CONVERT, up, open_image(installed.disk, plan.output, env))
        if plan.verify:
            await rec.run(Stage.VERIFY, verify(plan, Trial(image.path, credentials, sealed), rig, env))
        else:
            rec.skip([Stage.VERIFY], "not asked for")
        made = Made(plan=plan, media=media, digests=make_digests(plan, media, prepared.protect), image=image)
        return await rec.run(Stage.PUBLISH, publish(made, rec, env))
