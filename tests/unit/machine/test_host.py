"""What QEMU's help texts say, and which package is named where it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.machine.host import parse_cpu_help, parse_device_help, parse_machine_help, qemu_package


def test_cpu_help_of_x86() -> None:
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


def test_machine_help() -> None:
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
