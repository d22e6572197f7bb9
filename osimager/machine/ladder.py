"""The proof-of-life ladder as data: what a guest has to show in which order, how long each rung may take, and what is
wrong where it does not come. How the rungs are noticed is `watch`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from osimager.plan.deadlines import slowness
from osimager.plan.facts import Accelerator


class Proof(StrEnum):
    """A sign of life."""

    FIRMWARE = "firmware"  # anything on the console or the screen
    KERNEL = "kernel"  # its words on the console or a text screen, or its addresses in the processor
    ANSWER = "answer"  # the answer file was fetched from the answer server
    DISK = "disk"  # the disk is being written
    END = "end"  # the installer has restarted or switched off
    BANNER = "banner"  # an SSH server has spoken
    LOGIN = "login"  # it took this build's key


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One step of a ladder: `within_s` after the step before it (None: as long as the stage may), on real hardware.

    `cause` names a guest that rests before it, and one that is busy for too long; `rests` says what that means, and
    `awaited` what was waited for.
    """

    proof: Proof
    awaited: str
    within_s: float | None
    cause: str
    rests: str
    hint: str


_SEE = "the screenshot and the serial log show where it stands"

_FIRMWARE = Rung(
    proof=Proof.FIRMWARE,
    awaited="its firmware's first sign",
    within_s=60,
    cause="firmware",
    rests="the machine never got beyond its firmware",
    hint="its firmware does not start: `osimager doctor` shows which one is used",
)
_KERNEL = Rung(
    proof=Proof.KERNEL,
    awaited="a kernel to start",
    within_s=300,
    cause="boot-menu",
    rests="no kernel was started: its firmware or a boot menu waits",
    hint=f"{_SEE}; name a menu entry in the spec, or type one with --boot typed",
)
_OWN_KERNEL = replace(
    _KERNEL,
    cause="boot-loader",
    rests="no kernel was started: the boot loader on the disk waits, most likely at an error",
    hint=f"{_SEE}; look at the boot loader's step of the installer",
)
_ANSWER = Rung(
    proof=Proof.ANSWER,
    awaited="the installer to fetch its answer file",
    within_s=300,
    cause="answer-not-fetched",
    rests="the installer did not fetch its answer file",
    hint=f"it has no network, or was not told the address: {_SEE}",
)
_DISK = Rung(
    proof=Proof.DISK,
    awaited="its disk to be written",
    within_s=1800,
    cause="question",
    rests="the installer waits before it has written to its disk, most likely at a question or an error",
    hint=f"the answer file may leave something open: {_SEE}",
)
_END = Rung(
    proof=Proof.END,
    awaited="the installer to end",
    within_s=None,
    cause="question",
    rests="the installer waits, most likely at a question or an error",
    hint=f"the answer file may leave something open, or not restart at its end: {_SEE}",
)
_BANNER = Rung(
    proof=Proof.BANNER,
    awaited="SSH to answer",
    within_s=None,
    cause="no-ssh",
    rests="the installed system runs, but its SSH port does not answer",
    hint=f"it has no network or no SSH server, or its start hangs: {_SEE}",
)
_LOGIN = Rung(
    proof=Proof.LOGIN,
    awaited="SSH to accept the key",
    within_s=None,
    cause="key-refused",
    rests="SSH answers, but lets nobody in",
    hint="another system or account answers, or the answer file did not plant the key",
)


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs of one machine, in their order. Beyond the last one it may rest as it likes."""

    rungs: tuple[Rung, ...]

    def next_after(self, seen: Sequence[Proof]) -> Rung | None:
        """Give the rung that is awaited: the one above the highest that was seen."""
        highest = max((at for at, rung in enumerate(self.rungs) if rung.proof in seen), default=-1)
        return self.rungs[highest + 1] if highest + 1 < len(self.rungs) else None

    def last_of(self, seen: Sequence[Proof]) -> Rung | None:
        """Give the highest rung that was seen."""
        return next((rung for rung in reversed(self.rungs) if rung.proof in seen), None)


def deadline_s(rung: Rung, accelerator: Accelerator) -> float | None:
    """Give how long after the step before it a rung may take on this host."""
    return None if rung.within_s is None else rung.within_s * slowness(accelerator)


def installer_ladder(*, serves_answers: bool) -> Ladder:
    """Give an installer's ladder; where the answers lie on a volume, nobody sees them fetched."""
    return Ladder((_FIRMWARE, _KERNEL, *((_ANSWER,) if serves_answers else ()), _DISK, _END))


# An installer that has restarted and goes on: from its disk, without asking for its answers.
CONTINUED = Ladder((_FIRMWARE, _OWN_KERNEL, _END))
# An installed system.
SYSTEM = Ladder((_FIRMWARE, _OWN_KERNEL, _BANNER, _LOGIN))
