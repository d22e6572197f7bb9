"""What a guest's packets say of its address."""

from __future__ import annotations

import pytest

from osimager.machine.tap import make_mac, parse_source

ETHERNET = bytes.fromhex("ffffffffffff 525400000063")
GUEST = bytes((192, 168, 99, 50))


def arp(sender: bytes) -> bytes:
    return ETHERNET + bytes.fromhex("0806 0001 0800 06 04 0001 525400000063") + sender + bytes(10)


def ipv4(source: bytes) -> bytes:
    return (
        ETHERNET + bytes.fromhex("0800 4500 0054 0000 4000 4001 0000") + source + bytes((192, 168, 99, 1)) + bytes(64)
    )


@pytest.mark.parametrize("frame", [arp(GUEST), ipv4(GUEST)])
def test_address_of_the_sender_is_read(frame: bytes) -> None:
    assert parse_source(frame) == "192.168.99.50"


@pytest.mark.parametrize(
    "frame",
    [
        arp(bytes(4)),  # a probe: is this address anybody's?
        ipv4(bytes(4)),  # DHCP's first words
        ipv4(bytes((169, 254, 3, 4))),
        ETHERNET + bytes.fromhex("86dd") + bytes(60),  # IPv6
        arp(GUEST)[:30],
        b"",
    ],
)
def test_frame_without_an_address_gives_none(frame: bytes) -> None:
    assert parse_source(frame) is None


def test_each_card_of_each_build_has_an_address_of_its_own() -> None:
    macs = {make_mac(f"build-{build} nic{card}") for build in range(20) for card in range(2)}
    assert len(macs) == 40
    assert all(mac.startswith("52:54:00:") and len(mac) == 17 for mac in macs)
