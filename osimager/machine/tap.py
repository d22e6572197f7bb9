"""A tap device on a bridge of this host's, and the guest's address as its packets say it. Linux only.

The tap is opened here, so that QEMU needs no right to do so and its sandbox stays whole: by root through the kernel's
own calls (netdevice(7); drivers/net/tun.c, net/bridge/br_ioctl.c), by others through QEMU's `qemu-bridge-helper`, for
the bridges that /etc/qemu/bridge.conf allows. It goes with its last descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import ipaddress
import os
import socket
import struct
from dataclasses import replace
from pathlib import Path

from osimager.errors import PrerequisiteError
from osimager.plan.model import BridgeNetwork, MachineShape
from osimager.proc import ToolFailed, run_tool

_TUN = Path("/dev/net/tun")
_HELPERS = (Path("/usr/lib/qemu/qemu-bridge-helper"), Path("/usr/libexec/qemu-bridge-helper"))
_TUNSETIFF, _TUNGETIFF = 0x400454CA, 0x800454D2
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_SIOCSIFFLAGS, _SIOCBRADDIF, _IFF_UP = 0x8914, 0x89A2, 0x1
_ETH_P_ALL, _PACKET_OUTGOING = 0x0003, 4
_IPV4, _ARP = b"\x08\x00", b"\x08\x06"


def with_macs(shape: MachineShape, build: str) -> MachineShape:
    """Give each card on a bridge an address of this build's own: QEMU's default is the same for every machine."""
    nics = (
        replace(nic, mac=nic.mac or make_mac(f"{build} {nic.id}")) if isinstance(nic.network, BridgeNetwork) else nic
        for nic in shape.nics
    )
    return replace(shape, nics=tuple(nics))


async def open_taps(shape: MachineShape, owner: contextlib.ExitStack) -> tuple[tuple[int, ...], Neighbour | None]:
    """Give the taps of the cards on bridges, and who listens where the first card's address is not known."""
    networks = [nic.network for nic in shape.nics if isinstance(nic.network, BridgeNetwork)]
    taps = tuple([await open_tap(network.bridge, owner) for network in networks])
    first = shape.nics[0].network if shape.nics else None
    is_unknown = isinstance(first, BridgeNetwork) and first.guest is None
    return taps, Neighbour(taps[0], owner) if is_unknown else None


async def open_tap(bridge: str, owner: contextlib.ExitStack) -> int:
    """Give the descriptor of a new tap on `bridge`, which `owner` closes.

    Raises PrerequisiteError where there is no such bridge, or no right to it.
    """
    with contextlib.suppress(PermissionError):
        return _open_as_root(bridge, owner)
    return await _open_by_helper(bridge, owner)


def _open_as_root(bridge: str, owner: contextlib.ExitStack) -> int:
    if not _TUN.exists():
        raise PrerequisiteError(f"there is no {_TUN} for the bridge {bridge}", hint="load the module: modprobe tun")
    try:
        socket.if_nametoindex(bridge)
    except OSError as exc:
        hint = f"make it: ip link add {bridge} type bridge && ip link set {bridge} up"
        raise PrerequisiteError(f"there is no bridge {bridge} on this host", hint=hint) from exc
    tap = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    owner.callback(os.close, tap)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"osimager%d", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    name = read_name(tap)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            ours = socket.if_nametoindex(name)
            fcntl.ioctl(control, _SIOCBRADDIF, struct.pack("16si20x", bridge.encode(), ours))
        except PermissionError:
            raise
        except OSError as exc:
            what = f"{bridge} takes no tap: {exc.strerror}"
            raise PrerequisiteError(what, hint="name a bridge of the kernel's: ip link show type bridge") from exc
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), _IFF_UP))
    return tap


async def _open_by_helper(bridge: str, owner: contextlib.ExitStack) -> int:
    hint = f"run osimager as root, or allow the bridge: echo 'allow {bridge}' | sudo tee -a /etc/qemu/bridge.conf"
    helper = next((path for path in _HELPERS if path.is_file()), None)
    if helper is None:
        raise PrerequisiteError(f"only root can put a guest on the bridge {bridge} here", hint=hint)
    near, far = socket.socketpair()
    with near, far:
        try:
            words: list[str | Path] = [helper, "--use-vnet", f"--br={bridge}", f"--fd={far.fileno()}"]
            await run_tool(words, deadline_s=10, pass_fds=[far.fileno()])
        except ToolFailed as exc:
            raise PrerequisiteError(f"no guest may be on the bridge {bridge}: {exc.what}", hint=hint) from exc
        _, handles, _, _ = socket.recv_fds(near, 1, 1)
    owner.callback(os.close, handles[0])
    return handles[0]


def read_name(tap: int) -> str:
    """Give the name of a tap's interface."""
    answer: bytes = fcntl.ioctl(tap, _TUNGETIFF, bytes(40))
    return answer[:16].rstrip(b"\0").decode()


def make_mac(name: str) -> str:
    """Give an address of QEMU's range that belongs to `name`: two builds on one bridge must not have the same."""
    return ":".join(["52:54:00", *(f"{byte:02x}" for byte in hashlib.sha256(name.encode()).digest()[:3])])


def parse_source(frame: bytes) -> str | None:
    """Give the IPv4 address that the sender of an Ethernet frame has, as ARP and IP say it; None where it has none."""
    kind, address = frame[12:14], b""
    if kind == _ARP:
        address = frame[28:32]
    elif kind == _IPV4:
        address = frame[26:30]
    if len(address) != 4:
        return None
    source = ipaddress.IPv4Address(address)
    return None if source.is_unspecified or source.is_link_local or source.is_multicast else str(source)


class Neighbour:
    """The guest behind a tap: `address` is the last that its packets had, empty before the first."""

    def __init__(self, tap: int, owner: contextlib.ExitStack) -> None:
        self.address = ""
        self._seen = asyncio.Event()
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        except PermissionError as exc:
            hint = "give the guest a static address with --ip, or run osimager as root"
            raise PrerequisiteError("only root can see which address a guest on a bridge gets", hint=hint) from exc
        owner.enter_context(self._socket)
        self._socket.bind((read_name(tap), 0))
        self._socket.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._read)
        owner.callback(loop.remove_reader, self._socket)

    async def wait_address(self) -> str:
        """Wait until the guest has one. The deadline is the caller's."""
        await self._seen.wait()
        return self.address

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the tap went: its QEMU's supervisor tells of that
            frame, sender = self._socket.recvfrom(2048)
            source = parse_source(frame) if sender[2] != _PACKET_OUTGOING else None
            if source is not None:
                self.address = source
                self._seen.set()
