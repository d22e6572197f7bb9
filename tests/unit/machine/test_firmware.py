"""Firmware found in the file trees of distributions."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.machine.firmware import find_firmware, pad_code

MIB = 1 << 20
CASES = {
    "debian": (Arch.X86_64, "usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd", "raw"),
    "old-debian": (Arch.X86_64, "usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd", "raw"),
    "fedora": (
        Arch.X86_64,
        "usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2",
        "usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2",
        "qcow2",
    ),
    "el": (Arch.X86_64, "usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd", "raw"),
    "arch": (Arch.X86_64, "usr/share/edk2/x64/OVMF_CODE.4m.fd", "usr/share/edk2/x64/OVMF_VARS.4m.fd", "raw"),
    "suse": (Arch.X86_64, "usr/share/qemu/ovmf-x86_64-4m-code.bin", "usr/share/qemu/ovmf-x86_64-4m-vars.bin", "raw"),
    "nixos": (Arch.X86_64, "run/libvirt/nix-ovmf/OVMF_CODE.fd", "run/libvirt/nix-ovmf/OVMF_VARS.fd", "raw"),
    "homebrew-x86": (
        Arch.X86_64,
        "opt/homebrew/share/qemu/edk2-x86_64-code.fd",
        "opt/homebrew/share/qemu/edk2-i386-vars.fd",
        "raw",
    ),
    "homebrew-arm": (
        Arch.AARCH64,
        "opt/homebrew/share/qemu/edk2-aarch64-code.fd",
        "opt/homebrew/share/qemu/edk2-arm-vars.fd",
        "raw",
    ),
    "macports": (
        Arch.AARCH64,
        "opt/local/share/qemu/edk2-aarch64-code.fd",
        "opt/local/share/qemu/edk2-arm-vars.fd",
        "raw",
    ),
    "debian-arm": (Arch.AARCH64, "usr/share/AAVMF/AAVMF_CODE.fd", "usr/share/AAVMF/AAVMF_VARS.fd", "raw"),
    "fedora-arm": (
        Arch.AARCH64,
        "usr/share/edk2/aarch64/QEMU_EFI-pflash.qcow2",
        "usr/share/edk2/aarch64/vars-template-pflash.qcow2",
        "qcow2",
    ),
    "arch-arm": (
        Arch.AARCH64,
        "usr/share/edk2/aarch64/QEMU_CODE.fd",
        "usr/share/edk2/aarch64/QEMU_VARS.fd",
        "raw",
    ),
    "suse-arm": (
        Arch.AARCH64,
        "usr/share/qemu/aavmf-aarch64-code.bin",
        "usr/share/qemu/aavmf-aarch64-vars.bin",
        "raw",
    ),
}


def put(root: Path, name: str, size: int = 64 * MIB) -> Path:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        if name.endswith("qcow2"):
            file.write(b"QFI\xfb" + struct.pack(">IQIIQ", 3, 0, 0, 16, size))
        else:
            file.truncate(size)
    return path


def put_descriptor(root: Path, name: str, code: str, *features: str, arch: str = "x86_64", **mapping: str) -> None:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": code, "format": "raw"},
            "nvram-template": {"filename": "/fw/VARS.fd", "format": "raw"},
            **mapping,
        },
        "targets": [{"architecture": arch, "machines": ["pc-q35-*"]}],
        "features": list(features),
    }
    path.write_text(json.dumps(data))
    put(root, code)
    put(root, "/fw/VARS.fd")


@pytest.mark.parametrize("name", CASES)
def test_firmware_is_found_where_it_lies(name: str, tmp_path: Path) -> None:
    arch, code, variables, image_format = CASES[name]
    put(tmp_path, code)
    put(tmp_path, variables)
    found = find_firmware(arch, root=tmp_path)
    assert found is not None
    assert (found.code, found.variables) == (tmp_path / code, tmp_path / variables)
    assert found.code_format == found.variables_format == image_format
    assert found.pad_bytes == 0


def test_empty_tree_has_none(tmp_path: Path) -> None:
    assert find_firmware(Arch.X86_64, root=tmp_path) is None
    assert find_firmware(Arch.AARCH64, root=tmp_path) is None


def test_code_without_variables_is_none(tmp_path: Path) -> None:
    put(tmp_path, "usr/share/OVMF/OVMF_CODE_4M.fd")
    assert find_firmware(Arch.X86_64, root=tmp_path) is None


def test_descriptor_goes_before_known_places(tmp_path: Path) -> None:
    put(tmp_path, "usr/share/OVMF/OVMF_CODE_4M.fd")
    put(tmp_path, "usr/share/OVMF/OVMF_VARS_4M.fd")
    put_descriptor(tmp_path, "/usr/share/qemu/firmware/60-a.json", "/fw/CODE.fd")
    found = find_firmware(Arch.X86_64, root=tmp_path)
    assert found is not None
    assert found.code == tmp_path / "fw/CODE.fd"


@pytest.mark.parametrize("feature", ["secure-boot", "requires-smm", "enrolled-keys"])
def test_variant_without_secure_boot_goes_first(feature: str, tmp_path: Path) -> None:
    put_descriptor(tmp_path, "/usr/share/qemu/firmware/30-secure.json", "/fw/SECURE.fd", feature)
    put_descriptor(tmp_path, "/usr/share/qemu/firmware/60-plain.json", "/fw/CODE.fd")
    found = find_firmware(Arch.X86_64, root=tmp_path)
    assert found is not None
    assert found.code.name == "CODE.fd"


def test_users_descriptor_hides_the_packages(tmp_path: Path) -> None:
    put_descriptor(tmp_path, "/usr/share/qemu/firmware/60-a.json", "/fw/PACKAGE.fd")
    put_descriptor(tmp_path, "/etc/qemu/firmware/60-a.json", "/fw/HOST.fd")
    found = find_firmware(Arch.X86_64, root=tmp_path)
    assert found is not None
    assert found.code.name == "HOST.fd"
    put_descriptor(tmp_path, "/home/.config/qemu/firmware/60-a.json", "/fw/USER.fd")
    found = find_firmware(Arch.X86_64, root=tmp_path, home=tmp_path / "home")
    assert found is not None
    assert found.code.name == "USER.fd"
    (tmp_path / "home/.config/qemu/firmware/60-a.json").write_text("")
    assert find_firmware(Arch.X86_64, root=tmp_path, home=tmp_path / "home") is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"interface-types": ["bios"]}', '{"mapping": 1}', "null"])
def test_broken_descriptor_is_passed_over(text: str, tmp_path: Path) -> None:
    put_descriptor(tmp_path, "/usr/share/qemu/firmware/60-good.json", "/fw/CODE.fd")
    (tmp_path / "usr/share/qemu/firmware/10-bad.json").write_text(text)
    assert find_firmware(Arch.X86_64, root=tmp_path) is not None


def test_memory_mapped_and_foreign_descriptors_are_passed_over(tmp_path: Path) -> None:
    put_descriptor(tmp_path, "/usr/share/qemu/firmware/10-a.json", "/fw/A.fd", device="memory")
    put_descriptor(tmp_path, "/usr/share/qemu/firmware/20-b.json", "/fw/B.fd", arch="aarch64")
    assert find_firmware(Arch.X86_64, root=tmp_path) is None


def test_firmware_of_qemus_own_prefix_is_found(tmp_path: Path) -> None:
    put(tmp_path, "nix/store/q/share/qemu/edk2-x86_64-code.fd")
    put(tmp_path, "nix/store/q/share/qemu/edk2-i386-vars.fd")
    qemu = Path("/nix/store/q/bin/qemu-system-x86_64")
    assert find_firmware(Arch.X86_64, root=tmp_path, qemu=qemu) is not None


def test_short_arm_firmware_is_padded_to_the_flash(tmp_path: Path) -> None:
    put(tmp_path, "usr/share/AAVMF/AAVMF_CODE.fd", 2 * MIB)
    put(tmp_path, "usr/share/AAVMF/AAVMF_VARS.fd", 2 * MIB)
    found = find_firmware(Arch.AARCH64, root=tmp_path)
    assert found is not None
    assert found.pad_bytes == 64 * MIB
    padded = pad_code(found, tmp_path / "cache")
    assert padded.code.stat().st_size == 64 * MIB
    assert pad_code(found, tmp_path / "cache") == padded


def test_qcow2_size_is_read_from_its_header(tmp_path: Path) -> None:
    put(tmp_path, "usr/share/edk2/aarch64/QEMU_EFI-pflash.qcow2", 64 * MIB)
    put(tmp_path, "usr/share/edk2/aarch64/vars-template-pflash.qcow2", 768 << 10)
    found = find_firmware(Arch.AARCH64, root=tmp_path)
    assert found is not None
    assert found.pad_bytes == 64 * MIB
