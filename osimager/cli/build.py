"""`osimager build`: the main job."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from osimager.cli.options import json_option, plan_options, target_options
from osimager.cli.report import Interrupted, Reported
from osimager.errors import STATUS_SIGINT, STATUS_SIGTERM, UsageError
from osimager.plan.model import Deadline

if TYPE_CHECKING:
    from osimager.build.request import BuildRequest


class _Command(click.Command):
    """A command that knows its own words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words, and keep them."""
        words = tuple(args)
        rest = super().parse_args(ctx, args)
        ctx.params["words"] = words
        return rest


@click.command(cls=_Command)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET…")
@target_options
@plan_options
@click.option(
    "--display", type=click.Choice(["none", "window", "vnc"]), default="none", help="Show the guest's screen."
)
@click.option("--dry-run", is_flag=True, help="Resolve and show the plan, build nothing.")
@click.option("--no-layers", is_flag=True, help="Keep nothing but the image for the next build.")
@click.option(
    "--on-error",
    type=click.Choice(["cleanup", "keep", "shell", "ask", "abort"]),
    default="cleanup",
    help="What becomes of a failed build: keep and abort leave its disk, abort looks at nothing any more.",
)
@click.option("--bundle", is_flag=True, help="Put the evidence of a failed build into one tar file, too.")
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 1000), default=1, help="So many targets at a time, as memory allows."
)
@click.option("--no-wait", is_flag=True, help="End with status 75 where another osimager holds what is needed.")
@click.option("--label", default="", help="A note for the registry.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Only the result and what went wrong.")
@click.option("-v", "--verbose", count=True, help="Show the guest's console too.")
def command(
    targets: tuple[str, ...],
    *,
    quiet: bool,
    verbose: int,
    as_json: bool,
    dry_run: bool,
    jobs: int,
    **said: Any,
) -> None:
    """Build an image of each TARGET: [PLATFORM/[LOCATION/]]DIST-VERSION[-ARCH].

    \b
    osimager build debian-12
    osimager build debian-12 --arch aarch64 --profile developer
    osimager build qemu/lab/debian-12 --name myhost --ip 192.168.77.10
    """
    if len(targets) > 1 and (said["name"] or said["ip"]):
        raise UsageError("--name and --ip are one machine's", hint="build one target at a time with them")
    requests = [make_request(target, **said) for target in targets]
    if dry_run:
        from osimager.cli.plan import show_plan

        for request in requests:
            show_plan(request, as_json=as_json)
        return
    from osimager.cli.building import build_targets

    statuses = build_targets(requests, jobs=jobs, as_json=as_json, verbosity=-1 if quiet else verbose)
    if failed := next((status for status in statuses if status), 0):
        raise Reported(failed)


def make_request(target: str, **said: Any) -> BuildRequest:
    """Turn the command line's words into the request that `build` takes."""
    from osimager.arch import Firmware, host_arch
    from osimager.build.request import BuildRequest, OnError, apply_settings
    from osimager.config.request import Request
    from osimager.config.sections import Rung
    from osimager.config.settings import load_settings
    from osimager.paths import Places
    from osimager.plan.model import SealMode
    from osimager.plan.options import BuildOptions

    if said.get("boot_command") is not None and said.get("boot", "auto") not in ("auto", "typed"):
        raise UsageError(f"--boot {said['boot']} types nothing", hint="leave --boot-command out, or say --boot typed")
    timeouts: tuple[tuple[Deadline, ...], ...] = said.get("timeouts", ())
    boot, seal, firmware, memory = said.get("boot", "auto"), said.get("seal"), said["firmware"], said.get("memory")
    asked = BuildRequest(
        request=Request(
            target=target,
            host_arch=host_arch(),
            arch=said["arch"],
            profile=said["profile"],
            name=said["name"],
            ip=said["ip"],
            fqdn=said["fqdn"],
            defines=said["defines"],
            firmware=firmware,
            iso=said["iso"],
        ),
        options=BuildOptions(
            name=said["name"] or said["fqdn"],
            ip=said["ip"],
            firmware=Firmware(firmware) if firmware else None,
            boot=None if boot == "auto" else Rung(boot),
            boot_command=said.get("boot_command"),
            memory_mib=memory // 1024**2 if memory else None,
            cpus=said.get("cpus"),
            disk_bytes=said.get("disk"),
            seal=SealMode(seal) if seal else None,
            deadlines=tuple(deadline for group in timeouts for deadline in group),
            offline=said.get("offline", False),
            verify=not said.get("no_verify", False),
            output=said["output"].absolute() if said.get("output") else None,
            replace=said.get("replace", False),
            label=said.get("label", ""),
        ),
        project=said["project"].absolute(),
        data_dir=said["data_dir"],
        iso_checksum=said.get("iso_checksum"),
        steps=tuple(path.absolute() for path in said.get("steps", ())),
        accelerator=said.get("accel", "auto"),
        display=said.get("display", "none"),
        force=said.get("force", False),
        first_made=said.get("first_made"),
        resumes=said.get("resumes", False),
        cold=said.get("cold", False),
        layers=not said.get("no_layers", False),
        strict=said["strict"],
        words=said.get("words", ()),
        on_error=OnError(said.get("on_error", "cleanup")),
        bundle=said.get("bundle", False),
        wait=not said.get("no_wait", False),
    )
    return apply_settings(asked, load_settings(Places.from_environment(os.environ)))


def run(work: Coroutine[Any, Any, Any], on_signal: Callable[[int], None] = lambda status: None) -> Any:
    """Run `work` to its end; SIGINT and SIGTERM cancel it, and it cleans up before this raises Interrupted.

    `on_signal` hears of the status to come first.
    """
    status = STATUS_SIGINT

    async def supervised_by_signals() -> Any:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def cancel(with_status: int) -> None:
            nonlocal status
            status = with_status
            on_signal(status)
            task.cancel()

        loop.add_signal_handler(signal.SIGINT, cancel, STATUS_SIGINT)
        loop.add_signal_handler(signal.SIGTERM, cancel, STATUS_SIGTERM)
        loop.add_signal_handler(signal.SIGHUP, cancel, STATUS_SIGTERM)
        return await task

    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a guest that dies while it is talked to is not our end
    try:
        return asyncio.run(supervised_by_signals())
    except asyncio.CancelledError:
        raise Interrupted(status) from None
    finally:
        signal.signal(signal.SIGPIPE, before)
