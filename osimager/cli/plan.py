"""`osimager plan`: all that a build would do."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from osimager.cli.options import json_option, plan_options, target_options
from osimager.units import format_duration, format_size

if TYPE_CHECKING:
    from osimager.build.forecast import Forecast
    from osimager.build.prepare import Prepared
    from osimager.build.request import BuildRequest


@click.command()
@click.argument("target")
@target_options
@plan_options
@json_option
def command(target: str, *, as_json: bool, **said: Any) -> None:
    """Show what `build TARGET` would do, without doing it."""
    from osimager.cli.build import make_request

    show_plan(make_request(target, **said), as_json=as_json)


def show_plan(request: BuildRequest, *, as_json: bool) -> None:
    """Resolve `request` and print its plan, secrets masked and this build's values named."""
    from osimager.build.prepare import plan_to_json

    prepared, layers, mask = resolve(request)
    if as_json:
        # Each text is masked before it is quoted: a mask laid over JSON could take a quote with it.
        plain = plan_to_json(prepared, mask, layers[:-1], image=layers[-1])
        click.echo(json.dumps(plain, indent=1, ensure_ascii=False))
    else:
        click.echo(mask(_render(prepared, layers)))


def resolve(request: BuildRequest) -> tuple[Prepared, tuple[Forecast, ...], Callable[[str], str]]:
    """Run RESOLVE alone, with notices on stderr, and look for the layers and, last, the image."""
    from osimager.build.forecast import forecast
    from osimager.build.prepare import prepare
    from osimager.build.request import make_cache_use
    from osimager.cli.render import PlainLines
    from osimager.env import Clock, Env
    from osimager.events import Bus
    from osimager.paths import Places
    from osimager.redact import Masker

    masker, clock = Masker(), Clock()
    bus = Bus(now=clock.now, masker=masker)
    with (
        tempfile.TemporaryDirectory(prefix="osimager-plan-") as workspace,
        bus.listening(PlainLines()),
        masker.over_errors(),
    ):
        env = Env(
            places=Places.from_environment(os.environ),
            workspace=Path(workspace),
            bus=bus,
            masker=masker,
            clock=clock,
            offline=request.options.offline,
        )

        async def look() -> tuple[Prepared, tuple[Forecast, ...]]:
            prepared = await prepare(request, env)
            return prepared, await forecast(prepared, make_cache_use(request), env)

        return (*asyncio.run(look()), masker.mask)


def _render(prepared: Prepared, layers: Sequence[Forecast]) -> str:
    """Give the plan as a page of text."""
    from osimager.config.request import own_profile
    from osimager.holes import name_holes

    plan, host = prepared.plan, prepared.host
    machine, boot, media = plan.machine, plan.install.boot, plan.media
    source = media.path or (f"made by the recipe {media.made.recipe}" if media.made else ", ".join(media.urls))
    disks = ", ".join(f"{disk.id} {format_size(disk.size_bytes)} {disk.interface}" for disk in machine.disks)
    lines = [
        f"target      {plan.target}" + (f"  profile {own}" if (own := own_profile(plan.profile)) else ""),
        f"machine     {machine.machine} {machine.firmware}, {machine.cpus} × {machine.cpu}, {machine.memory_mib} MiB",
        f"disks       {disks}",
        f"runs under  {host.accelerator.accelerator}: {host.accelerator.reason}",
        f"iso         {media.name}: {source}",
        f"boot        {boot.rung}: {boot.reason}",
        *(f"            {argument}" for argument in map(name_holes, boot.arguments)),
        *(f"types       {name_holes(boot.boot_command)}" for _ in [0] if boot.boot_command),
        f"answers     {', '.join(answer.name for answer in plan.install.answers) or 'none'} "
        + (
            "served over HTTP"
            if plan.install.serve
            else f"on a seed labelled {plan.install.seed.label}"
            if plan.install.seed
            else "inside the initrd"
            if plan.install.inject
            else "not given"
        ),
        *(f"step {number:<6} {step.name}  {step.origin}" for number, step in enumerate(plan.steps, 1)),
        *(f"layer       {each.name}: {_say_fate(each)}" for each in layers[:-1]),
        f"image       {_say_fate(layers[-1])}",
        f"seal        {plan.seal.mode}",
        f"verify      {'boots the image' if plan.verify else 'no'}",
        f"output      {plan.output.folder / plan.output.stem}.qcow2",
        "deadlines   " + " ".join(f"{each.stage.lower()} {format_duration(each.seconds)}" for each in plan.deadlines),
    ]
    width = max((len(each.name) for each in plan.defs), default=0)
    lines += ["", "--- defs", *(f"{each.name:<{width}}  {name_holes(each.text)}" for each in plan.defs)]
    for answer in plan.install.answers:
        lines += ["", f"--- {answer.name}", name_holes(answer.text).rstrip()]
    return "\n".join(lines)


# Inputs whose names say little.
_IN_WORDS = {
    "schema": "osimager's own way of making it",
    "iso": "the ISO",
    "firmware": "the firmware's files",
    "answers by": "the way of the answers",
    "boot.rung": "the way of booting the installer",
    "restarts": "the number of the installer's restarts",
}


def _say_fate(each: Forecast) -> str:
    """Say what becomes of a stage, and why."""
    took = "" if each.seconds is None else f" ({format_duration(each.seconds)})"
    match each.fate:
        case "hit":
            return f"hit{took}"
        case "never":
            return "never kept: a step before it, or it itself, says cache: false"
        case "unknown":
            return "not known before the ISO is here"
    if each.asked:
        return "miss: made anew, as asked"
    if each.below and each.stage == "PUBLISH":
        return "miss: the layers below are made anew"
    reasons = [*(["the layer below"] if each.below else []), *(_IN_WORDS.get(name, name) for name in each.changed)]
    if reasons and (each.seconds is not None or each.stage == "PUBLISH"):
        return f"miss: {', '.join(reasons)} changed"
    return f"miss: {'its files are damaged' if each.damaged else 'there is none yet'}"
