"""QMP over an inherited socketpair: commands, and QEMU's events as they come (docs/interop/qmp-spec in QEMU's tree).

The one import site of qemu.qmp. Every form of "the peer is gone" becomes GuestGone; whoever supervises the process
knows why. No listener is awaited here: one stays silent after a `kill -9` of QEMU.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate
from qemu.qmp.message import Message

from osimager.errors import GuestGone, MachineError

# The library logs each lost peer as an error: here that is an event among others.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

OnEvent = Callable[[str, Mapping[str, object]], None]


class QmpFailed(MachineError):
    """QEMU refused a command."""


class _Forwarder(EventListener):
    """Hand each event over at once, instead of keeping a history of all of them."""

    def __init__(self, on_event: OnEvent) -> None:
        super().__init__()
        self._on_event = on_event

    async def put(self, event: Message) -> None:
        data = event.get("data")
        self._on_event(str(event["event"]), data if isinstance(data, dict) else {})


class _HeardOut(socket.socket):
    """A socket whose peer is heard to its end, though it listens no more: only the end of what it says ends it.

    asyncio drops what is unread when a write fails, and QEMU's last event (why it ends) is just that: it closes its end
    while a command may be on its way.
    """

    def send(self, data: Any, flags: int = 0, /) -> int:
        try:
            return super().send(data, flags)
        except (BrokenPipeError, ConnectionResetError):
            return memoryview(data).nbytes

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        try:
            return super().recv(size, flags)
        except ConnectionResetError:  # it closed its end with something unread: that comes behind all that it said
            return b""


class Qmp:
    """One connection. `on_event` gets each event's name and data; it must not block or raise."""

    def __init__(self, on_event: OnEvent) -> None:
        self._client = QMPClient("osimager")
        self._heard: _HeardOut | None = None
        self._client.events.accept = lambda event: False  # type: ignore[method-assign]  # it would keep them all
        self._client.register_listener(_Forwarder(on_event))

    async def connect(self, ours: socket.socket) -> None:
        """Greet QEMU at the other end of the socketpair; the socket is the connection's from now on, until `close`."""
        self._heard = _HeardOut(fileno=ours.detach())
        try:
            await self._client.connect(self._heard)
        except (QMPError, EOFError, OSError, AssertionError) as exc:
            # The assertion is the library's own, where QEMU ends right after its greeting.
            raise GuestGone(f"QEMU did not answer on its monitor: {exc}") from exc

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Run a command and give its `return` (shape: QEMU's QAPI reference). Raises QmpFailed, GuestGone."""
        try:
            return await self._client.execute(command, arguments)
        except ExecuteError as exc:
            raise QmpFailed(f"QEMU refused {command}: {exc}") from exc
        except (QMPError, EOFError, OSError) as exc:
            raise GuestGone(f"QEMU went away during {command}") from exc

    async def pass_descriptor(self, handle: int, name: str) -> None:
        """Give QEMU a descriptor under `name` (QMP `getfd`); ours stays open. Raises QmpFailed, GuestGone."""
        try:
            self._client.send_fd_scm(handle)
        except (QMPError, OSError) as exc:
            raise GuestGone("QEMU went away while it was given a descriptor") from exc
        await self.execute("getfd", {"fdname": name})

    async def monitor(self, line: str) -> str:
        """Run a line of the human monitor, for the little that QMP has no command for."""
        return str(await self.execute("human-monitor-command", {"command-line": line}))

    async def screendump(self, path: Path) -> None:
        """Write the screen as PNG where this QEMU can (7.1 with libpng), else as PPM."""
        arguments = {"filename": str(path)}
        try:
            await self.execute("screendump", {**arguments, "format": "png"})
        except QmpFailed:
            await self.execute("screendump", arguments)

    async def wait_closed(self) -> None:
        """Wait until QEMU has closed its end, every event before that having been handed over."""
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    async def close(self) -> None:
        """Let go of the connection; never raises."""
        with contextlib.suppress(Exception):
            await self._client.disconnect()
        if self._heard is not None:  # the library lets it fall where it is cancelled before it has begun
            self._heard.close()


def render_detail(data: Mapping[str, object]) -> str:
    """Give an event's data as one short line."""
    return json.dumps(data, separators=(",", ":"), default=str)[:500] if data else ""
