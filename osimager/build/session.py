"""What the builds of one command share: the terminal, the host's memory, and how each of them may be ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from osimager.errors import STATUS_SIGINT, OsimagerError

# `osimager stop` puts this file into a workspace and sends this signal: a process may run several builds.
STOP = "stop"
STOP_SIGNAL = signal.SIGUSR1


class Terminal(Protocol):
    """The user's terminal, where there is one."""

    def lent(self) -> AbstractContextManager[None]:
        """Keep the display still while something else has the terminal."""
        ...

    async def ask(self, question: str, answers: Mapping[str, str]) -> str:
        """Ask until one of the keys of `answers` (each with what it means) is typed, and give it."""
        ...


class Stopped(OsimagerError):
    """`osimager stop` ended one of several builds, or the only one."""

    status = STATUS_SIGINT


class Memory:
    """Memory for guests, in MiB, handed out in the order of asking. None: nobody knows how much there is."""

    def __init__(self, total_mib: int | None) -> None:
        self._total_mib = total_mib
        self._taken_mib = 0
        self._waiting: deque[asyncio.Event] = deque()

    @contextlib.asynccontextmanager
    async def reserved(self, mib: int, *, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Hold `mib` while the block runs; whoever is alone gets what it asks for, however much that is."""
        turn = asyncio.Event()
        self._waiting.append(turn)
        try:
            if self._waiting[0] is not turn or not self._fits(mib):
                on_wait()
            while self._waiting[0] is not turn or not self._fits(mib):
                turn.clear()
                await turn.wait()
        finally:
            self._waiting.remove(turn)
            self._wake()
        self._taken_mib += mib
        try:
            yield
        finally:
            self._taken_mib -= mib
            self._wake()

    def _fits(self, mib: int) -> bool:
        return self._total_mib is None or not self._taken_mib or self._taken_mib + mib <= self._total_mib

    def _wake(self) -> None:
        if self._waiting:
            self._waiting[0].set()


@dataclass(slots=True, kw_only=True)
class Session:
    """One command. `interrupted` is the exit status of the signal that ends all of it, None before that comes."""

    memory: Memory
    terminal: Terminal | None = None
    interrupted: int | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # at the terminal
    _running: dict[Path, asyncio.Task[object]] = field(default_factory=dict)

    def interrupt(self, status: int) -> None:
        """Take note that the whole command is being ended."""
        self.interrupted = status

    @contextlib.contextmanager
    def running(self, workspace: Path) -> Iterator[None]:
        """Let `osimager stop` cancel this task, and no other, while the block runs."""
        task = asyncio.current_task()
        assert task is not None
        self._running[workspace] = task
        try:
            yield
        finally:
            del self._running[workspace]

    def is_ended(self, workspace: Path) -> bool:
        """Say whether a person ends this build, or the whole command."""
        return self.interrupted is not None or (workspace / STOP).exists()

    @contextlib.contextmanager
    def heeding_stop(self) -> Iterator[None]:
        """Obey `osimager stop` while the block runs."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(STOP_SIGNAL, self._stop_asked)
        try:
            yield
        finally:
            loop.remove_signal_handler(STOP_SIGNAL)

    def _stop_asked(self) -> None:
        for workspace, task in self._running.items():
            if (workspace / STOP).exists():
                task.cancel()
