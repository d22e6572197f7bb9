"""What Packer's `qemuargs` come to."""

from __future__ import annotations

import pytest

from osimager.config.qemuargs import Mapped, map_qemuargs
from osimager.config.values import Value


@pytest.mark.parametrize(
    ("words", "mapped"),
    [
        (["-m", "4096M"], Mapped(values={"memory": "4096M"})),
        (["-machine", "type=q35,accel=kvm"], Mapped(values={"machine": "q35"})),
        (["-cpu", "host"], Mapped()),
        (["-cpu", "Nehalem,+aes"], Mapped(overrides={"cpu": "-cpu Nehalem,+aes"})),
        (["-smp", "cpus=4,sockets=2"], Mapped(overrides={"smp": "-smp cpus=4,sockets=2"})),
        (["-device", "virtio-net,netdev=user.0"], Mapped(values={"nic": "virtio"})),
        (["-device", "e1000,netdev=user.0"], Mapped(values={"nic": "e1000"})),
        (["-device", "virtio-balloon,id=b"], Mapped(overrides={"b": "-device virtio-balloon,id=b"})),
        (["-global", "ICH9-LPC.disable_s3=1"], Mapped(overrides={"qemuargs0": "-global ICH9-LPC.disable_s3=1"})),
        (["-device", "scsi-hd,drive=drive0"], Mapped(left=["-device scsi-hd,drive=drive0"])),
        (["-drive", "file=x.qcow2"], Mapped(left=["-drive file=x.qcow2"])),
        (["-nographic"], Mapped()),
        (["-usb", ""], Mapped(left=["-usb"])),
    ],
)
def test_argument_is_mapped_added_or_left_out(words: list[Value], mapped: Mapped) -> None:
    assert map_qemuargs([words]) == mapped


@pytest.mark.parametrize("given", [None, "text", [], [[]], [""]])
def test_nothing_comes_of_nothing(given: Value) -> None:
    assert map_qemuargs(given) == Mapped()
