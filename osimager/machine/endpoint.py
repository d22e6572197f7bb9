"""Where a guest's SSH port can be reached: through the user network's forward, or at its own address on a bridge."""

from __future__ import annotations

import re

from osimager.machine.qmp import Qmp
from osimager.plan.model import BridgeNetwork, MachineShape
from osimager.ports import Endpoint

_USERNET_PORT = re.compile(r"^\s*TCP\[HOST_FORWARD\]\s+\d+\s+(\S+)\s+(\d+)\s", re.MULTILINE)
_USERNET_OUTGOING = re.compile(r"^\s*TCP\[ESTABLISHED\]\s+\d+\s+(?!127\.)\S+\s", re.MULTILINE)


async def ask_endpoint(qmp: Qmp, shape: MachineShape, ssh_port: int) -> Endpoint | None:
    """Give where the first card's SSH port is; None without a card, or where its packets will tell."""
    if not shape.nics:
        return None
    network = shape.nics[0].network
    if isinstance(network, BridgeNetwork):
        return Endpoint(network.guest, ssh_port) if network.guest else None
    match = _USERNET_PORT.search(await qmp.monitor("info usernet"))
    return Endpoint(match[1], int(match[2])) if match else None


def has_outgoing(usernet: str) -> bool:
    """Tell whether `info usernet` lists a connection of the guest's own; those that come in are from loopback."""
    return _USERNET_OUTGOING.search(usernet) is not None
