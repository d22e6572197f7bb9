"""Notice at once that a guest's SSH port answers: the first socket on which a banner has come.

Under QEMU's user network a forward accepts before the guest listens. A guest that is up but does not listen resets the
connection at once; one whose network is not up yet lets it hang, and its SYN is lost; a slow one takes its time to say
a banner. So attempts overlap: the oldest one that hangs is kept for long (a slow sshd must win in the end), and fresh
ones are started beside it (a lost SYN must not be waited for).

QEMU's user network keeps the SYN of a hanging attempt for a minute, though the attempt is given up, and delivers it
in the end: 75 of them made a guest's sshd refuse everybody for half a minute under TCG. So attempts are few until
something (the network card coming up, a login prompt) says that the guest is close. Knows nothing of SSH but its first
four bytes.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass

from osimager.events import ConnectionTried
from osimager.ports import Endpoint

FIRST_PAUSE_S = 0.1
MOST_PAUSE_S = 0.5
STAGGER_S = 0.7
LIVELY_S = 12.0
SLOW_STAGGER_S = 5.0
PATIENCE_S = 30.0
MOST_PENDING = 4
_SSH = b"SSH-"


@dataclass(frozen=True, slots=True)
class _Missed:
    """An attempt that gave no banner, as its event."""

    tried: ConnectionTried


class Nudge:
    """Says that the guest is close to listening: attempts are then quick for some seconds."""

    def __init__(self, *, always: bool = False) -> None:
        self._event = asyncio.Event()
        self._lively_until = math.inf if always else 0.0

    def give(self) -> None:
        """Quicken the attempts, now."""
        self._lively_until = asyncio.get_running_loop().time() + LIVELY_S
        self._event.set()

    def pace_s(self) -> float:
        """Give how long to wait for a hanging attempt before the next one is started."""
        return STAGGER_S if asyncio.get_running_loop().time() < self._lively_until else SLOW_STAGGER_S

    async def wait(self) -> None:
        """Wait for the next nudge."""
        self._event.clear()
        await self._event.wait()


async def wait_banner(
    endpoint: Endpoint, emit: Callable[[ConnectionTried], None], nudge: Nudge | None = None
) -> socket.socket:
    """Give a connected, non-blocking socket whose peer has said `SSH-`; nothing has been read from it.

    Each attempt but that one is told to `emit`. Without a `nudge` attempts are quick all the time: for a guest that is
    known to be up. The deadline is the caller's.
    """
    if nudge is None:
        nudge = Nudge(always=True)
    family, kind, protocol, _, address = (
        await asyncio.get_running_loop().getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    )[0]
    pending: list[asyncio.Task[socket.socket | _Missed]] = []
    pause_s = FIRST_PAUSE_S
    async with asyncio.TaskGroup() as group:
        try:
            while True:
                pending.append(group.create_task(_attempt(socket.socket(family, kind, protocol), address)))
                nudged = group.create_task(nudge.wait())
                ended, _ = await asyncio.wait(
                    {*pending, nudged}, timeout=nudge.pace_s(), return_when=asyncio.FIRST_COMPLETED
                )
                nudged.cancel()
                done = [task for task in pending if task in ended]
                for task in done:
                    pending.remove(task)
                    outcome = task.result()
                    if isinstance(outcome, socket.socket):
                        return outcome
                    emit(outcome.tried)
                if done:
                    await asyncio.sleep(pause_s)
                    pause_s = min(MOST_PAUSE_S, pause_s * 1.5)
                elif len(pending) >= MOST_PENDING:
                    pending.pop(1).cancel()  # the oldest stays: it is the patient one
                    emit(ConnectionTried("no-banner", "connected, but nothing was said"))
        finally:
            for task in pending:
                _abandon(task)


def _abandon(task: asyncio.Task[socket.socket | _Missed]) -> None:
    """Cancel `task`; close what it has won meanwhile."""
    if not task.cancel() and not task.cancelled():
        outcome = task.result()
        if isinstance(outcome, socket.socket):
            outcome.close()


async def _attempt(sock: socket.socket, address: tuple[str | int, ...] | tuple[int, bytes]) -> socket.socket | _Missed:
    """Connect and wait for the first bytes, which stay in the socket. Closes `sock` unless it is given back."""
    sock.setblocking(False)
    keep = False
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_connect(sock, address)
            await _wait_readable(sock)
        first = sock.recv(64, socket.MSG_PEEK)
        keep = bool(first) and (first.startswith(_SSH) or _SSH.startswith(first))
        if keep:
            return sock
        if not first:
            return _Missed(ConnectionTried("refused", "closed before a banner"))
        return _Missed(ConnectionTried("broken-off", f"it said {first.decode(errors='replace').strip()!r}"))
    except TimeoutError:
        return _Missed(ConnectionTried("no-banner", "connected, but nothing was said"))
    except OSError as exc:
        return _Missed(ConnectionTried("refused", exc.strerror or str(exc)))
    finally:
        if not keep:
            sock.close()


async def _wait_readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(sock, tell)
    try:
        await readable
    finally:
        loop.remove_reader(sock)
