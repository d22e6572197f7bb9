"""The monitor, with a peer that says what it likes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping

import pytest

from osimager.errors import GuestGone
from osimager.machine.qmp import Qmp

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}
SHUTDOWN = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}, "timestamp": {"seconds": 1}}


def say(peer: socket.socket, message: Mapping[str, object]) -> None:
    peer.sendall(json.dumps(message).encode() + b"\r\n")


async def connect(qmp: Qmp) -> socket.socket:
    """Connect `qmp` to a peer that greets it, and give the peer's end."""
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    say(peer, GREETING)
    connecting = asyncio.create_task(qmp.connect(ours))
    said = json.loads(await asyncio.get_running_loop().sock_recv(peer, 65536))
    assert said["execute"] == "qmp_capabilities"
    say(peer, {"return": {}})
    await connecting
    return peer


@pytest.mark.parametrize("steps", range(6))  # of the loop: not yet sent, just being sent, sent and never read
async def test_last_event_is_heard_though_a_command_was_on_its_way(steps: int) -> None:
    heard: list[tuple[str, Mapping[str, object]]] = []
    qmp = Qmp(lambda name, data: heard.append((name, data)))
    peer = await connect(qmp)
    asked = asyncio.create_task(qmp.execute("query-status"))
    for _ in range(steps):
        await asyncio.sleep(0)
    say(peer, SHUTDOWN)
    peer.close()
    with pytest.raises(GuestGone):
        await asked
    await qmp.wait_closed()
    await qmp.close()
    assert heard == [("SHUTDOWN", SHUTDOWN["data"])]


@pytest.mark.parametrize("steps", range(6))  # of the loop: not begun, connecting, greeted, asked for what it can
async def test_socket_is_closed_whenever_the_greeting_is_cancelled(steps: int) -> None:
    qmp = Qmp(lambda name, data: None)
    ours, peer = socket.socketpair()
    say(peer, GREETING)
    connecting = asyncio.create_task(qmp.connect(ours))
    for _ in range(steps):
        await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await qmp.close()
    ours.close()
    with peer, pytest.raises((BrokenPipeError, ConnectionResetError)):
        peer.send(b"?")
