"""A guest on a real bridge, in a network namespace of the test's own: dnsmasq gives it an address."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from osimager.arch import Arch, Firmware
from osimager.env import Env
from osimager.errors import MachineError, PrerequisiteError
from osimager.events import Event, MachineStarted
from osimager.machine.firmware import make_variables
from osimager.machine.host import inspect_host
from osimager.machine.qemu import MachineRun, QemuMachine, start_machine
from osimager.machine.tap import open_tap
from osimager.plan.model import BridgeNetwork, DeviceOverride, DiskShape, MachineShape, NicShape
from osimager.proc import open_child, run_tool
from tests.guest.lab import run

_NEW_NETWORK = 0x40000000
pytestmark = [
    pytest.mark.guest,
    pytest.mark.needs("qemu-system-x86_64", "qemu-img", "ip"),
    pytest.mark.skipif(sys.platform != "linux", reason="bridges are Linux's"),
    pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to make a network namespace"),
]


@pytest.fixture
def network(needs: Callable[[str], Path]) -> Iterator[Path]:
    """Move this thread, and so its children, into a network namespace that has a bridge; give the program `ip`."""
    ip = needs("ip")
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as own:
        if libc.unshare(_NEW_NETWORK) != 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            for words in ("link set lo up", "link add br0 type bridge", "addr add 192.168.99.1/24 dev br0"):
                subprocess.run([ip, *words.split()], check=True, timeout=30)
            subprocess.run([ip, "link", "set", "br0", "up"], check=True, timeout=30)
            yield ip
        finally:
            libc.setns(own.fileno(), _NEW_NETWORK)


@contextlib.asynccontextmanager
async def serving_dhcp(dnsmasq: Path, folder: Path) -> AsyncIterator[None]:
    leases = folder / "leases"
    argv: list[str | Path] = [dnsmasq, "--keep-in-foreground", "--port=0", "--interface=br0", "--bind-interfaces"]
    argv += ["--dhcp-range=192.168.99.50,192.168.99.59", f"--dhcp-leasefile={leases}", "--conf-file=/dev/null"]
    argv += ["--dhcp-boot=none.efi", "--enable-tftp", f"--tftp-root={folder}", "--user=root"]
    async with open_child([*argv, f"--pid-file={folder / 'dnsmasq.pid'}"]):
        yield


@contextlib.asynccontextmanager
async def start_bridged(env: Env, network: BridgeNetwork) -> AsyncIterator[QemuMachine]:
    """Start a guest that asks for an address as soon as it is on: UEFI, told to boot from its card first."""
    try:
        host = await inspect_host(Arch.X86_64, Firmware.UEFI, places=env.places, accel="tcg")
    except PrerequisiteError as exc:
        pytest.skip(str(exc))
    assert host.firmware is not None
    variables = await make_variables(host.firmware, env.workspace / "variables.qcow2")
    disk = env.workspace / "disk.qcow2"
    await run_tool(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], deadline_s=60)
    card = "virtio-net-pci,id=nic0,netdev=nic0-net,mac=52:54:00:00:00:63,bootindex=0,romfile="
    shape = MachineShape(
        arch=Arch.X86_64,
        firmware=Firmware.UEFI,
        machine="q35",
        cpu="max",
        cpus=1,
        memory_mib=256,
        disks=(DiskShape("disk0", 1 << 20),),
        nics=(NicShape("nic0", network),),
        overrides=(DeviceOverride("nic0", "device", card),),
    )
    log = env.workspace / "serial.log"
    run = MachineRun(role="target", shape=shape, host=host, disks=(disk,), variables=variables, serial_log=log)
    async with asyncio.timeout(120), start_machine(run, env) as machine:
        yield machine


async def list_interfaces(ip: Path) -> str:
    return (await run_tool([ip, "link", "show", "master", "br0"], deadline_s=30)).text


@pytest.mark.full
async def test_guest_gets_an_address_on_the_bridge_and_is_found_by_it(
    network: Path, needs: Callable[[str], Path], env: Env, events: list[Event], tmp_path: Path
) -> None:
    async with serving_dhcp(needs("dnsmasq"), tmp_path), start_bridged(env, BridgeNetwork("br0")) as machine:
        with pytest.raises(MachineError, match="no forward"):
            _ = machine.endpoint
        endpoint = await machine.find_endpoint()
        assert endpoint.host.startswith("192.168.99.5")
        assert endpoint.port == 22
        assert "osimager0" in await list_interfaces(network)
    started = next(event for event in events if isinstance(event, MachineStarted))
    if "-sandbox" in started.argv:
        assert "spawn=deny" in started.argv[started.argv.index("-sandbox") + 1]
    assert "osimager0" not in await list_interfaces(network)


async def test_guest_with_a_static_address_is_there(network: Path, env: Env) -> None:
    async with start_bridged(env, BridgeNetwork("br0", "192.168.99.7")) as machine:
        assert (await machine.find_endpoint()).host == "192.168.99.7"


async def test_two_cards_on_one_bridge_have_their_own_taps(network: Path) -> None:
    with contextlib.ExitStack() as stack:
        assert await open_tap("br0", stack) != await open_tap("br0", stack)
        assert {"osimager0", "osimager1"} <= {word.strip(":") for word in (await list_interfaces(network)).split()}


@pytest.mark.parametrize("name", ["br9", "lo"])
async def test_bridge_that_is_none_is_refused_by_name(name: str, network: Path) -> None:
    with contextlib.ExitStack() as stack, pytest.raises(PrerequisiteError, match=name):
        await open_tap(name, stack)


@pytest.mark.full
@pytest.mark.needs("mmdebstrap", "xorriso")
async def test_whole_image_is_built_on_a_bridge(network: Path, needs: Callable[[str], Path], tmp_path: Path) -> None:
    """Nothing here forwards to the guest: it is installed from a seed, and found where dnsmasq's lease puts it."""
    profiles = tmp_path / "specs/profiles"
    profiles.mkdir(parents=True)
    (profiles / "bridged.yml").write_text("machine: {bridge: br0}\n")
    look = tmp_path / "look.sh"
    look.write_text("#!/bin/sh\nip -4 -o addr show scope global\n")
    words = ("--arch", "x86_64", "--accel", "tcg", "--iso", "debian-12-made", "--profile", "bridged", "--step", look)
    async with serving_dhcp(needs("dnsmasq"), tmp_path):
        ran = run("build", "debian-12", *words, "--force", "--no-verify", "--json", cwd=tmp_path, deadline_s=1800)
    assert ran.status == 0, ran.err
    assert ran.of_kind("answer_fetched") == []
    assert any("192.168.99.5" in event["text"] for event in ran.of_kind("output_line") if event["source"] == "look")
    assert ran.of_kind("image_published")
    assert "osimager" not in await list_interfaces(network)
