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


class Size(click.ParamType[int]):
    """A size in bytes: `20G`; a bare number is in `unit`s."""

    name = "size"

    def __init__(self, unit: str) -> None:
        self._unit = unit

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a size, or say what one looks like."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value), unit=self._unit)
        except ValueError as error:
            self.fail(str(error), param, ctx)


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
