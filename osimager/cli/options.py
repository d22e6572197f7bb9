"""Options that several verbs share, and the types that read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from osimager.units import parse_duration, parse_size

if TYPE_CHECKING:
    from osimager.plan.model import Deadline

F = TypeVar("F", bound=Callable[..., Any])


_MOST_BYTES = 1 << 60


class Size(click.ParamType[int]):
    """A size in bytes: `20G`; a bare number is in `unit`s."""

    name = "size"

    def __init__(self, unit: str, *, least: int = 0) -> None:
        self._unit = unit
        self._least = least

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a size, or say what one looks like."""
        if isinstance(value, int):
            return value
        try:
            size = parse_size(str(value), unit=self._unit)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self._least <= size < _MOST_BYTES:
            self.fail(f"{value!r} is too {'small' if size < self._least else 'large'}", param, ctx)
        return size


class StageDeadline(click.ParamType["tuple[Deadline, ...]"]):
    """`[STAGE=]DURATION`; without a stage it is meant for each."""

    name = "[stage=]duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Deadline, ...]:
        """Read a deadline, or say which stages there are."""
        from osimager.events import Stage
        from osimager.plan.model import Deadline

        if isinstance(value, tuple):
            return value
        stage, _, duration = str(value).rpartition("=")
        if stage and stage.upper() not in Stage.__members__:
            self.fail(f"no stage {stage!r}: they are {', '.join(each.lower() for each in Stage)}", param, ctx)
        try:
            seconds = parse_duration(duration)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        stages = (Stage[stage.upper()],) if stage else tuple(Stage)
        if seconds <= 0:
            self.fail("a deadline is longer than 0 seconds", param, ctx)
        return tuple(Deadline(each, seconds) for each in stages)


class FirstMade(click.ParamType[int]):
    """`install` or `step:N`: the index of the first layer to be made anew."""

    name = "install|step:N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a stage, or say which there are."""
        if isinstance(value, int):
            return value
        kind, _, number = str(value).partition(":")
        if value == "install":
            return 0
        if kind != "step" or not number.isdecimal() or int(number) < 1:
            self.fail(f"{value!r} is neither install nor step:N, N from 1 on", param, ctx)
        return int(number)


def target_options(function: F) -> F:
    """Add what says how a target is resolved: arch, profile, values, place of the configuration."""
    for option in reversed(
        (
            click.option(
                "--arch", metavar="ARCH", help="x86_64 or aarch64 (amd64 and arm64 too); this host's by default."
            ),
            click.option(
                "--profile", default="default", metavar="NAME", help="What differs between images of a target."
            ),
            click.option("--iso", metavar="NAME|PATH|URL", help="The installer ISO; the spec's by default."),
            click.option(
                "-D", "--define", "defines", multiple=True, metavar="KEY=VALUE", help="Set a def. Repeatable."
            ),
            click.option("--fqdn", metavar="FQDN", help="The guest's full name."),
            click.option("--firmware", type=click.Choice(["bios", "uefi"]), help="What the machine starts with."),
            click.option("--name", metavar="NAME", help="The guest's host name; the image is then this machine's."),
            click.option("--ip", metavar="ADDR|dhcp", help="The guest's address, in its location's network."),
            click.option("--strict", is_flag=True, help="Let the configuration's warnings stop it."),
            project_option,
        )
    ):
        function = option(function)
    return function


def plan_options(function: F) -> F:
    """Add what says how a target is built: boot, steps, machine, deadlines, output, layers."""
    for option in reversed(
        (
            click.option("--iso-checksum", metavar="sha256:…|none", help="What the ISO must have."),
            click.option(
                "--accel", type=click.Choice(["auto", "kvm", "hvf", "tcg"]), default="auto", help="What runs the guest."
            ),
            click.option(
                "--boot",
                type=click.Choice(["auto", "direct", "menu", "typed"]),
                default="auto",
                help="How the installer is booted.",
            ),
            click.option(
                "--boot-command", metavar="TEXT", help="What is typed, in Packer's language, instead of the spec's."
            ),
            click.option(
                "--step",
                "steps",
                multiple=True,
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="A further script. Repeatable.",
            ),
            click.option("--memory", type=Size("m", least=1 << 20), metavar="SIZE", help="Memory, such as 2G."),
            click.option("--cpus", type=click.IntRange(1, 256), help="Processors."),
            click.option("--disk", type=Size("g", least=1 << 20), metavar="SIZE", help="The disk's size, such as 20G."),
            click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="Where the image goes."),
            click.option("--replace", is_flag=True, help="Let the image replace one of the same name in --output."),
            click.option(
                "--seal",
                type=click.Choice(["template", "machine"]),
                help="template: for clones; machine: keeps its identity.",
            ),
            click.option(
                "--timeout",
                "timeouts",
                multiple=True,
                type=StageDeadline(),
                metavar="[STAGE=]DURATION",
                help="A stage's deadline.",
            ),
            click.option(
                "--offline", "--local-only", is_flag=True, help="No download, no DNS, no network outside for the guest."
            ),
            click.option("--no-verify", is_flag=True, help="Do not boot the finished image."),
            click.option("--force", is_flag=True, help="Make every layer anew."),
            click.option(
                "--from",
                "first_made",
                type=FirstMade(),
                metavar="install|step:N",
                help="Make this layer anew, and those after it.",
            ),
            click.option("--cold", is_flag=True, help="Boot the guest; neither load nor save its memory."),
        )
    ):
        function = option(function)
    return function


def project_option(function: F) -> F:
    """Add `--project` and `--data-dir`."""
    function = click.option(
        "--data-dir", type=click.Path(path_type=Path, file_okay=False, exists=True), help="An OSImager 1.x data tree."
    )(function)
    return click.option(
        "--project",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        default=".",
        help="The folder whose specs, files and scripts go first; the current one by default.",
    )(function)


def build_argument(function: F) -> F:
    """Add `BUILD`: an id or the beginning of one, a target, or `last`."""
    return click.argument("build", metavar="BUILD|TARGET|last")(function)


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
