"""The errors that users see: what happened, where, and what to do next.

One tree by stage family; the class decides the exit status (design.md, "Exit status"). Fields stay objects: only
`cli/report` turns them into text. Foreign exceptions are mapped in the file that imports the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in a file of the user's or ours; `line` counts from 1, and is None where only the file is known."""

    path: Path | str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else str(self.path)


class OsimagerError(Exception):
    """Say what happened (`what`), where, and what to do next (`hint`). The status is the process's exit status.

    `cause` is one word for programs (`kernel-panic`, `disk-full`), where what happened has a name.
    """

    status = 1
    cause = ""

    def __init__(
        self, what: str, *, where: Place | Sequence[Place] | None = None, hint: str | None = None, cause: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where: tuple[Place, ...] = () if where is None else (where,) if isinstance(where, Place) else tuple(where)
        self.hint = hint
        self.cause = cause or self.cause

    def __str__(self) -> str:
        places = "".join(f" ({place})" for place in self.where)
        return f"{self.what}{places}"


class UsageError(OsimagerError):
    """A command line that cannot be meant: unknown target, options that exclude each other."""

    status = 2


class ConfigError(OsimagerError):
    """A configuration file, marker, secret reference or answer file that cannot be used."""

    status = 3

    @property
    def errors(self) -> tuple[ConfigError, ...]:
        """Every error that this one stands for: itself, where it is not several."""
        return (self,)


class ConfigErrors(ConfigError):
    """Several configuration errors, found in one pass and shown all at once."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self._errors = tuple(each for error in errors for each in error.errors)
        count = len(self._errors)
        super().__init__(f"{count} configuration errors" if count != 1 else self._errors[0].what)

    @property
    def errors(self) -> tuple[ConfigError, ...]:
        """The errors, none of them several."""
        return self._errors


def raise_all(errors: Sequence[ConfigError]) -> None:
    """Raise the only one of `errors`, or all of them as one; nothing where there is none."""
    if errors:
        raise ConfigErrors(errors) if len(errors) > 1 else errors[0]


class PrerequisiteError(OsimagerError):
    """This host lacks something: a tool, disk space, memory, an accelerator."""

    status = 4


class MediaError(OsimagerError):
    """FETCH failed: no such ISO, a download that broke, a checksum that does not match."""

    status = 5


class MachineError(OsimagerError):
    """SEED to CONNECT failed: the guest did not start, install, restart or let us in."""

    status = 6


class GuestGone(MachineError):
    """QEMU ended when nobody had asked it to; `stderr` is what it said, `seen` the end of its guest's console."""

    cause = "guest-gone"

    def __init__(
        self, what: str, *, returncode: int | None = None, stderr: str = "", seen: str = "", hint: str | None = None
    ) -> None:
        super().__init__(what, hint=hint)
        self.returncode = returncode
        self.stderr = stderr
        self.seen = seen


class StageTimeout(MachineError):
    """A stage's deadline passed; `seen` is the last proof of life."""

    cause = "deadline"

    def __init__(self, what: str, *, seen: str = "", hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.seen = seen


class ProvisionError(OsimagerError):
    """PROVISION to STOP failed: a step's exit status, a connection lost, a seal that left something."""

    status = 7


class PublishError(OsimagerError):
    """CONVERT to PUBLISH failed: the image could not be written, verified or recorded."""

    status = 8


class LockedError(OsimagerError):
    """Somebody else holds the lock and `--no-wait` was given."""

    status = 75


STATUS_SIGINT = 130
STATUS_SIGTERM = 143
