"""What macOS' tools say of Hypervisor.framework, in the formats that they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.machine.hvf import explain_obstacle, has_entitlement
from osimager.plan.facts import QemuFacts

# `codesign -d --entitlements - --xml`, one line and a NUL; without `--xml`; and of a binary that has no entitlement.
XML = (
    '<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" '
    '"https://www.apple.com/DTDs/PropertyList-1.0.dtd"><plist version="1.0"><dict>'
    "<key>com.apple.security.hypervisor</key><{}/></dict></plist>"
)
INDENTED = "[Dict]\n\t[Key] com.apple.security.hypervisor\n\t[Value]\n\t\t[Bool] true\n"
OTHER = XML.format("true").replace("security.hypervisor", "security.cs.disable-library-validation")


def make_qemu(arch: Arch, *version: int) -> QemuFacts:
    path = Path(f"/opt/homebrew/bin/qemu-system-{arch}")
    nothing: frozenset[str] = frozenset()
    return QemuFacts(
        arch, path, version, sandbox=False, cpu_models=nothing, devices=nothing, machines=nothing, digest=""
    )


@pytest.mark.parametrize("text", [XML.format("true"), XML.format("true") + "\0", INDENTED])
def test_entitlement_is_read_in_each_form(text: str) -> None:
    assert has_entitlement(text)


@pytest.mark.parametrize("text", ["", XML.format("false"), OTHER, "<?xml broken", "code object is not signed at all"])
def test_missing_entitlement_is_missing(text: str) -> None:
    assert not has_entitlement(text)


@pytest.mark.parametrize(
    ("qemu", "support", "entitlements", "said"),
    [
        (make_qemu(Arch.AARCH64, 9, 2, 0), "1\n", XML.format("true"), ""),
        (make_qemu(Arch.X86_64, 7, 2, 0), "1\n", INDENTED, ""),
        (make_qemu(Arch.AARCH64, 8, 1, 3), "1\n", XML.format("true"), "QEMU 8.1.3 is too old"),
        (make_qemu(Arch.AARCH64, 9, 2, 0), "0\n", XML.format("true"), "no Hypervisor.framework"),
        (make_qemu(Arch.AARCH64, 9, 2, 0), "", XML.format("true"), "no Hypervisor.framework"),
        (make_qemu(Arch.AARCH64, 9, 2, 0), "1\n", OTHER, "codesign -s - -f --entitlements"),
    ],
)
def test_obstacle_is_named_with_what_mends_it(qemu: QemuFacts, support: str, entitlements: str, said: str) -> None:
    obstacle = explain_obstacle(qemu, hv_support=support, entitlements=entitlements)
    assert said in obstacle
    assert bool(obstacle) == bool(said)
