"""`osimager image`: finished images."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from osimager.cli.options import json_option
from osimager.errors import UsageError
from osimager.paths import Places
from osimager.units import format_size

if TYPE_CHECKING:
    from osimager.registry.entry import Entry
    from osimager.registry.store import Registry

arch_option = click.option("--arch", metavar="ARCH", help="Of this architecture.")
firmware_option = click.option("--firmware", type=click.Choice(["bios", "uefi"]), help="For this firmware.")


@click.group()
def command() -> None:
    """List, show, run and remove finished images."""


@command.command("list")
@json_option
def list_images(as_json: bool) -> None:
    """List the registered images, the newest last."""
    from osimager.registry.entry import render_entry

    entries = _registry().load()
    if as_json:
        click.echo(json.dumps([{"id": entry.id, **render_entry(entry)} for entry in entries], indent=1))
        return
    for entry in entries:
        click.echo(f"{entry.id}  {entry.firmware}  {entry.status:<9}  {format_size(entry.size_bytes):>9}  {entry.path}")


@command.command()
@click.argument("image", metavar="TARGET|ID")
@arch_option
@firmware_option
@json_option
def show(image: str, arch: str | None, firmware: str | None, as_json: bool) -> None:
    """Show all that the registry holds of one image."""
    from osimager.registry.entry import render_entry

    entry = _find(image, arch, firmware)
    fields = {"id": entry.id, **render_entry(entry)}
    if as_json:
        click.echo(json.dumps(fields, indent=1))
        return
    for name, value in fields.items():
        click.echo(f"{name + ':':<13} {value if isinstance(value, str) else json.dumps(value)}")


@command.command()
@click.argument("image", metavar="TARGET|ID")
@arch_option
@firmware_option
def path(image: str, arch: str | None, firmware: str | None) -> None:
    """Print one absolute path: the newest image of TARGET, or the one with this ID."""
    click.echo(str(_find_whole(image, arch, firmware).path))


@command.command()
@click.argument("image", metavar="TARGET|ID")
@arch_option
@firmware_option
@click.option("--keep-file", is_flag=True, help="Only forget it; leave the file.")
def rm(image: str, arch: str | None, firmware: str | None, keep_file: bool) -> None:
    """Remove an image: its record and its file."""
    entry = _find(image, arch, firmware)
    _registry().remove(entry.id)
    if not keep_file:
        entry.path.unlink(missing_ok=True)
    click.echo(f"removed {entry.id}", err=True)


@command.command()
@click.argument("image", metavar="TARGET|ID")
@arch_option
@firmware_option
@click.option("--ssh", is_flag=True, help="Log in as soon as it is up; switch it off when the shell ends.")
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False), help="Your public key; ~/.ssh/id_*.pub by default."
)
@click.option(
    "--display", type=click.Choice(["none", "window", "vnc"]), default="none", help="Show the guest's screen."
)
def run(image: str, arch: str | None, firmware: str | None, ssh: bool, key: str | None, display: str) -> None:
    """Boot a throw-away overlay of an image, with a NoCloud seed that holds your own key."""
    from pathlib import Path

    from osimager.build.running import run_image
    from osimager.cli.build import run as run_to_end
    from osimager.cli.render import PlainLines
    from osimager.cli.report import Reported
    from osimager.plan.argv import Display

    work = run_image(
        _find_whole(image, arch, firmware),
        _places(),
        public_key=Path(key) if key else None,
        log_in=ssh,
        display=Display(display),
        sinks=[PlainLines()],
        say=_say,
    )
    if status := run_to_end(work):
        raise Reported(status)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _places() -> Places:
    return Places.from_environment(os.environ)


def _registry() -> Registry:
    from osimager.registry.store import Registry

    return Registry.open(_places().registry)


def _find(image: str, arch: str | None, firmware: str | None) -> Entry:
    from osimager.arch import Firmware, parse_arch

    return _registry().find(
        image, arch=parse_arch(arch) if arch else None, firmware=Firmware(firmware) if firmware else None
    )


def _find_whole(image: str, arch: str | None, firmware: str | None) -> Entry:
    """Find an image whose file is still there. Raises UsageError."""
    entry = _find(image, arch, firmware)
    if not entry.path.is_file():
        raise UsageError(
            f"{entry.id} is registered, but its file {entry.path} is gone",
            hint=f"build it again, or forget it: osimager image rm {entry.id}",
        )
    return entry
