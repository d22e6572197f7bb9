"""What QEMU's help texts say, and which package is named where it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.errors import PrerequisiteError
from osimager.machine.host import (
    inspect_qemu,
    parse_cpu_help,
    parse_device_help,
    parse_machine_help,
    qemu_package,
)
from osimager.paths import Places


def test_cpu_help_gives_models_without_flags() -> None:
    text = (
        "Available CPUs:\nx86 Nehalem               (alias configured by machine type)\nx86 max  Enables all\n"
        "\nRecognized CPUID flags:\n  3dnow abm\n"
    )
    assert parse_cpu_help(text) == {"Nehalem", "max"}


def test_cpu_help_of_newer_qemu_and_arm() -> None:
    assert parse_cpu_help("Available CPUs:\n  Nehalem    (alias of Nehalem-v1)\n  max\n") == {"Nehalem", "max"}
    assert parse_cpu_help("Available CPUs:\n  cortex-a57\n  neoverse-n1\n") == {"cortex-a57", "neoverse-n1"}


def test_device_help_gives_names_and_aliases() -> None:
    text = 'Network devices:\nname "e1000", bus PCI, alias "e1000-82540em", desc "Intel"\nname "pvpanic", bus ISA\n'
    assert parse_device_help(text) == {"e1000", "e1000-82540em", "pvpanic"}


def test_machine_help_gives_names() -> None:
    text = "Supported machines are:\nq35     Standard PC (alias of pc-q35-7.2)\nvirt    QEMU\n"
    assert parse_machine_help(text) == {"q35", "virt"}


@pytest.mark.parametrize(
    ("os_release", "x86", "arm"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "qemu-system-x86", "qemu-system-arm"),
        ("ID=linuxmint\nID_LIKE=ubuntu\n", "qemu-system-x86", "qemu-system-arm"),
        ("ID=fedora\n", "qemu-system-x86-core", "qemu-system-aarch64-core"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "qemu-kvm", "qemu-kvm"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "qemu-x86", "qemu-arm"),
        ("ID=arch\n", "qemu-system-x86", "qemu-system-aarch64"),
    ],
)
def test_package_is_named_as_the_distribution_names_it(os_release: str, x86: str, arm: str, tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text(os_release)
    assert qemu_package(Arch.X86_64, file) == x86
    assert qemu_package(Arch.AARCH64, file) == arm


def test_unknown_distribution_gets_both_names(tmp_path: Path) -> None:
    assert "Debian" in qemu_package(Arch.X86_64, tmp_path / "none")


@pytest.mark.parametrize(
    ("script", "answer"),
    [("exit 0", "says nothing and exits with status 0"), ("echo; echo I am another >&2", "says 'I am another'")],
)
async def test_program_that_is_only_called_like_qemu_is_told_with_its_answer(
    script: str, answer: str, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    with pytest.raises(PrerequisiteError) as caught:
        await inspect_qemu(Arch.X86_64, places)
    assert caught.value.what == f"{program} is no QEMU: asked for its version it {answer}"
    assert "install qemu" in str(caught.value.hint)
