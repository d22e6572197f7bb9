"""`osimager doctor`: what this host can do, and what it lacks."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from osimager.cli.options import json_option
from osimager.errors import PrerequisiteError
from osimager.units import format_size

if TYPE_CHECKING:
    from osimager.build.self_test import Check
    from osimager.machine.host import GuestReport, HostReport
    from osimager.paths import Places


@click.command()
@json_option
@click.option("--self-test", is_flag=True, help="Make a small install too, and print a report to paste.")
def command(*, as_json: bool, self_test: bool) -> None:
    """Show what this host can do, and what it lacks. The exit status is 4 where it can build nothing."""
    from osimager.machine.host import doctor_report
    from osimager.paths import Places
    from osimager.plan.digests import to_plain
    from osimager.qemu_img import PACKAGES

    places = Places.from_environment(os.environ)
    host = asyncio.run(doctor_report(places))
    buildable = [guest.arch for guest in host.guests if host.qemu_img and can_build(guest)]
    if as_json:
        fields = to_plain(host)
        assert isinstance(fields, dict)
        checks = _run_self_test(host, places) if self_test else []
        tried = {"self_test": to_plain(checks)} if self_test else {}
        click.echo(json.dumps({"v": 1, **fields, "builds": buildable, **tried}, indent=1, ensure_ascii=False))
    else:
        for line in _lines(host):
            click.echo(line)
        checks = _run_self_test(host, places) if self_test else []
        for line in _test_lines(host, checks):
            click.echo(line)
    if failed := [check for check in checks if check.problem]:
        raise PrerequisiteError(f"the self-test failed: {failed[0].what}: {failed[0].problem}", hint="osimager doctor")
    if not buildable:
        lacking = [guest.hint for guest in host.guests if guest.hint]
        hint = lacking[0] if host.qemu_img else f"install {PACKAGES}"
        raise PrerequisiteError("this host can build nothing", hint=hint)


def _run_self_test(host: HostReport, places: Places) -> list[Check]:
    """Try every kind of guest that this host has a QEMU for."""
    from osimager.build.self_test import run_self_test

    archs = [guest.arch for guest in host.guests if can_build(guest)]
    return [check for arch in archs for check in asyncio.run(run_self_test(arch, places))]


def _test_lines(host: HostReport, checks: Sequence[Check]) -> Iterator[str]:
    """Give the self-test's part of the report."""
    for check in checks:
        said = f"failed: {check.problem}" if check.problem else f"ok in {check.seconds:.1f} s under {check.accelerator}"
        yield f"self-test {check.arch}: {check.what}: {said}"
    if checks and host.system == "Darwin":
        yield "self-test unverified on HVF so far: please paste this report into an issue"


def can_build(guest: GuestReport) -> bool:
    """Tell whether guests of this kind can be built: arm has no other firmware than UEFI."""
    from osimager.arch import Arch

    return guest.qemu is not None and (guest.firmware is not None or guest.arch is not Arch.AARCH64)


def _lines(host: HostReport) -> Iterator[str]:
    """Give the report as lines for people."""
    free = f", {host.free_memory_mib} MiB free" if host.free_memory_mib is not None else ""
    yield f"host      {host.system} {host.release} {host.arch}, {host.cores} CPUs, {host.memory_mib} MiB{free}"
    yield f"cache     {host.cache}, {format_size(host.free_disk_bytes)} free"
    yield f"qemu-img  {host.qemu_img or 'missing'}"
    for guest in host.guests:
        yield f"{guest.arch:<9} " + (f"QEMU {guest.version}  {guest.qemu}" if guest.qemu else "cannot be built")
        if guest.accelerator:
            yield f"          {guest.accelerator.accelerator}: {guest.accelerator.reason}"
        if guest.firmware:
            yield f"          UEFI {guest.firmware.code}"
        if guest.problem:
            yield "          " + ": ".join(filter(None, (guest.problem, guest.hint)))
