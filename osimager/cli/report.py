"""An error → what, where, what to do next, on stderr; and the exit status (design.md, "Exit status")."""

from __future__ import annotations

import asyncio
import errno
import sys
import traceback

import click

from osimager.aio import first_cause
from osimager.errors import STATUS_SIGINT, STATUS_SIGTERM, ConfigErrors, OsimagerError, Place, PrerequisiteError

_MOST_LINES = 5
_MOST_CHARACTERS = 160


class Interrupted(BaseException):
    """The user (SIGINT) or the system (SIGTERM) ended the command; everything is cleaned up by now."""

    def __init__(self, status: int = STATUS_SIGINT) -> None:
        super().__init__(status)
        self.status = status


class Reported(Exception):
    """The error was shown already (by a build's summary); only the status is left."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def report(error: BaseException) -> int:
    """Show `error` to a person and give the process's exit status."""
    error = first_cause(error)
    match error:
        case Reported():
            return error.status
        case Interrupted():
            _say("interrupted" if error.status != STATUS_SIGTERM else "terminated", "error")
            return error.status
        case KeyboardInterrupt() | asyncio.CancelledError() | click.Abort():
            _say("interrupted", "error")
            return STATUS_SIGINT
        case click.ClickException():
            error.show(sys.stderr)
            return error.exit_code
        case ConfigErrors():
            for each in error.errors:
                show(each)
            return error.status
        case OsimagerError():
            show(error)
            return error.status
        case PermissionError(filename=str(path)):
            hint = "look at its owner and mode, or set OSIMAGER_HOME to a folder of your own"
            denied = PrerequisiteError(str(error.strerror), where=Place(path), hint=hint)
            show(denied)
            return denied.status
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EIO, filename=None):  # our own files say which they are
            full = PrerequisiteError(f"cannot write what is to be shown: {error.strerror}")
            show(full)
            return full.status
        case _:
            traceback.print_exception(error, file=sys.stderr)
            _say(f"{type(error).__name__}: {error}", "error: this is a bug of osimager")
            return 1


def show(error: OsimagerError) -> None:
    """Write `error: WHAT`, `  at WHERE`, `  hint: WHAT TO DO`."""
    _say(error.what, "error")
    for place in error.where:
        click.echo(f"  at {place}", err=True)
    for line in last_words(getattr(error, "seen", "")):
        click.echo(f"  console: {line}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def last_words(seen: str) -> list[str]:
    """Give the last lines of what a guest that failed had said, for people: a few, and none too long."""
    return [line.strip()[:_MOST_CHARACTERS] for line in seen.splitlines() if line.strip()][-_MOST_LINES:]


def _say(text: str, label: str) -> None:
    click.echo(f"{click.style(label, fg='red', bold=True)}: {text}", err=True)
