"""Which accelerator is taken, and why: the real QEMU, behind programs that hang, dawdle or die as broken KVMs do."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from osimager.arch import host_arch
from osimager.errors import PrerequisiteError
from osimager.machine import accelerator
from osimager.machine.accelerator import choose_accelerator
from osimager.plan.facts import Accelerator, AcceleratorFacts, QemuFacts

REAL = f"qemu-system-{host_arch()}"
pytestmark = [
    pytest.mark.needs(REAL),
    pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no KVM"),
]
HANG = "exec sleep 60"
HANG_LATER = "printf R; exec sleep 60"
DAWDLE = "printf R; sleep 2; printf L"
DIE = "echo 'ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy' >&2; exit 1"
RUN = "printf R; printf L"


@pytest.fixture(autouse=True)
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a `/dev/kvm` that opens."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accelerator, "_KVM", device)
    return device


def make_qemu(folder: Path, under_kvm: str, *, under_tcg: str = "", accelerators: str = "kvm tcg") -> QemuFacts:
    """Make a program that is the real QEMU, but for what it does under KVM (and TCG)."""
    real = shutil.which(REAL)
    assert real is not None
    path = folder / REAL
    other = under_tcg or f'exec {real} "$@"'
    path.write_text(f'#!/bin/sh\ncase " $* " in *" -accel kvm "*) {under_kvm} ;; *) {other} ;; esac\n')
    path.chmod(0o755)
    return QemuFacts(
        arch=host_arch(),
        path=path,
        version=(9, 0),
        sandbox=True,
        cpu_models=frozenset(),
        devices=frozenset(),
        machines=frozenset(),
        digest="",
        accelerators=frozenset(accelerators.split()),
    )


async def choose(qemu: QemuFacts, folder: Path, wanted: str = "auto") -> AcceleratorFacts:
    async with asyncio.timeout(60):
        return await choose_accelerator(qemu, wanted=wanted, cache=folder / "cache")


async def test_kvm_that_runs_the_probe_is_taken(tmp_path: Path) -> None:
    facts = await choose(make_qemu(tmp_path, RUN), tmp_path)
    assert facts.accelerator is Accelerator.KVM
    assert "ran to its end" in facts.reason


@pytest.mark.parametrize(
    ("under_kvm", "reason"),
    [
        (HANG, "hung: no sign of its first instruction"),
        (HANG_LATER, "hung: no sign of l"),
        (DIE, "Device or resource busy"),
    ],
)
async def test_kvm_that_does_not_is_passed_over_and_why_is_kept(under_kvm: str, reason: str, tmp_path: Path) -> None:
    qemu = make_qemu(tmp_path, under_kvm)
    facts = await choose(qemu, tmp_path)
    assert facts.accelerator is Accelerator.TCG
    assert facts.reason.startswith("kvm passed over: ")
    assert reason in facts.reason
    qemu.path.unlink()
    assert await choose(qemu, tmp_path) == facts


async def test_kvm_that_is_slower_than_tcg_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "_SHORTEST_S", 30)
    facts = await choose(make_qemu(tmp_path, DAWDLE), tmp_path)
    assert facts.accelerator is Accelerator.TCG
    assert "slower than TCG" in facts.reason


async def test_host_on_which_nothing_works_says_so_with_each_reason(tmp_path: Path) -> None:
    broken = make_qemu(tmp_path, DIE, under_tcg="echo 'mprotect failed: Permission denied' >&2; exit 1")
    with pytest.raises(PrerequisiteError, match="no accelerator works here") as caught:
        await choose(broken, tmp_path)
    assert "Device or resource busy" in str(caught.value)
    assert "mprotect failed" in str(caught.value)


async def test_hang_without_tcg_to_fall_back_on_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"no accelerator works here.*hung.*tcg.*built without"):
        await choose(make_qemu(tmp_path, HANG, accelerators="kvm"), tmp_path)


async def test_device_that_changed_is_tried_again(tmp_path: Path, kvm: Path) -> None:
    assert (await choose(make_qemu(tmp_path, DIE), tmp_path)).accelerator is Accelerator.TCG
    kvm.chmod(0o666)
    assert (await choose(make_qemu(tmp_path, RUN), tmp_path)).accelerator is Accelerator.KVM


async def test_wanted_accelerator_is_not_replaced(tmp_path: Path) -> None:
    qemu = make_qemu(tmp_path, DIE)
    with pytest.raises(PrerequisiteError, match="kvm does not work here"):
        await choose(qemu, tmp_path, "kvm")
    with pytest.raises(PrerequisiteError, match="there is no hvf"):
        await choose(qemu, tmp_path, "hvf")
    assert (await choose(qemu, tmp_path, "tcg")).reason == "asked for"
    with pytest.raises(PrerequisiteError, match="built without"):
        await choose(make_qemu(tmp_path, DIE, accelerators="kvm"), tmp_path / "other", "tcg")


async def test_cpu_that_hvf_takes_stands_in_for_host_where_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an M4 under a QEMU that does not know SME: "Property 'host-arm-cpu.sme' not found"."""
    monkeypatch.setattr(accelerator, "_KVM", tmp_path / "none")
    qemu = make_qemu(tmp_path, DIE, under_tcg=f'case " $* " in *" -cpu host "*) {DIE} ;; *) {RUN} ;; esac')
    first, _ = await accelerator._race(qemu, Accelerator.HVF)
    assert not first.works
    second = await accelerator._race_fallback(qemu, first)
    assert (second.works, second.cpu) == (True, "cortex-a57")
    assert "Device or resource busy" in second.reason


async def test_missing_device_is_named(tmp_path: Path, kvm: Path) -> None:
    kvm.unlink()
    assert "there is no" in (await choose(make_qemu(tmp_path, RUN), tmp_path)).reason
