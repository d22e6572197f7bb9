"""The user's terminal, lent to questions and shells while a build waits (`build.session.Terminal`)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager

import click

from osimager.cli.render import LiveDisplay


class UserTerminal:
    """The terminal that the command was started on, with the live display on it, if there is one."""

    def __init__(self, display: LiveDisplay | None) -> None:
        self._display = display

    def lent(self) -> AbstractContextManager[None]:
        """Keep the display still while something else has the terminal."""
        return contextlib.nullcontext() if self._display is None else self._display.hidden()

    async def ask(self, question: str, answers: Mapping[str, str]) -> str:
        """Ask until one of the keys is typed, and give it; the first one where the terminal is gone."""
        offer = ", ".join(f"[{key}] {text}" for key, text in answers.items())
        while True:
            click.echo(f"{question} {offer}: ", err=True, nl=False)
            line = await _read_line()
            if (key := line.strip().lower()[:1]) in answers:
                return key
            if not line:
                return next(iter(answers))


def open_terminal(display: LiveDisplay | None) -> UserTerminal | None:
    """Give the user's terminal, where there is one to be asked at."""
    return UserTerminal(display) if sys.stdin.isatty() and sys.stderr.isatty() else None


async def _read_line() -> str:
    """Read a line, without a thread that would outlive a Ctrl-C."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline()
