"""What becomes of a build that failed, as `--on-error` says: decided once, while its guest still runs if one does."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import first_cause
from osimager.build.request import OnError
from osimager.build.session import Session
from osimager.env import Env
from osimager.errors import UsageError
from osimager.events import Notice
from osimager.proc import run_foreground

_QUESTION = {
    OnError.CLEANUP: "clean up",
    OnError.ABORT: "abort without cleaning up",
    OnError.KEEP: "look around for evidence, then keep the disk",
    OnError.SHELL: "a shell in the guest first",
}
_CHOOSERS = frozenset({OnError.ASK, OnError.SHELL})


def check_on_error(mode: OnError, session: Session) -> None:
    """Raise UsageError where `mode` needs a person and there is none."""
    if mode in _CHOOSERS and session.terminal is None:
        raise UsageError(f"--on-error {mode} needs a terminal", hint="without one, use cleanup, keep or abort")


@dataclass(slots=True)
class Failing:
    """One build's. `choice` is what was said on the command line until a failure has been attended to."""

    choice: OnError
    session: Session
    env: Env
    _is_decided: bool = False

    @property
    def keeps_workspace(self) -> bool:
        """Say whether the workspace of the failed build stays."""
        return self.choice in (OnError.KEEP, OnError.ABORT)

    @property
    def leaves_at_once(self) -> bool:
        """Say whether nothing more is to be done in the guest."""
        return self.choice is OnError.ABORT

    async def attend(self, error: BaseException, shell: Callable[[], Awaitable[object]] | None = None) -> None:
        """Ask, or open a `shell`, as said; the first call of a build decides. A person's own Ctrl-C is no failure."""
        if self._is_decided or self.choice not in _CHOOSERS or self.session.is_ended(self.env.workspace):
            return
        self._is_decided = True
        terminal = self.session.terminal
        assert terminal is not None
        async with self.session.turn:
            self.env.emit(Notice(f"failed: {first_cause(error) if str(error) else 'its deadline passed'}", "warning"))
            with terminal.lent():
                if self.choice is OnError.ASK:
                    offered = {mode: text for mode, text in _QUESTION.items() if shell or mode is not OnError.SHELL}
                    answers = {str(mode)[0]: text for mode, text in offered.items()}
                    answer = await terminal.ask(f"{self.env.bus.build} failed. What now?", answers)
                    self.choice = next(mode for mode in offered if str(mode)[0] == answer)
                if self.choice is OnError.SHELL and shell is not None:
                    await shell()

    async def console_shell(self) -> None:
        """Attach this terminal to the failing guest's serial console."""
        self.env.emit(Notice("this is the guest's serial console; the build ends when you leave it"))
        await run_foreground([Path(sys.executable), "-m", "osimager", "console", self.env.bus.build])
