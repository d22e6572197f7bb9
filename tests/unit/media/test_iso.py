"""Installer ISOs as xorriso makes them: found menus, extracted kernels, command lines, damage."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.arch import Arch, Firmware
from osimager.errors import MediaError
from osimager.media.iso import check_volume_id, extract_boot_files, inspect_iso
from osimager.media.seed import make_seed
from osimager.plan.facts import MenuEntry

MENUS = Path(__file__).parent / "menus"
needs_xorriso = pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed")


def make_iso(path: Path, files: Mapping[str, bytes | str], *options: str, label: str = "TEST") -> Path:
    """Make an ISO with xorriso, as the distributions do."""
    tree = path.with_suffix(".tree")
    for name, content in files.items():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-V", label, *options, "-o", str(path), str(tree)]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def extract(path: Path, entry: MenuEntry, folder: Path) -> tuple[Path, Path | None]:
    return extract_boot_files(path, kernel=entry.kernel, initrds=entry.initrds, folder=folder)


def el9(tmp_path: Path, *options: str) -> Path:
    boot = ("-b", "isolinux/isolinux.bin", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")
    efi = ("-eltorito-alt-boot", "-e", "images/efiboot.img", "-no-emul-boot")
    files: dict[str, bytes | str] = {
        "isolinux/isolinux.bin": bytes(4096),
        "isolinux/isolinux.cfg": (MENUS / "el9-isolinux.cfg").read_text(),
        "isolinux/vmlinuz": b"kernel",
        "isolinux/initrd.img": b"initrd",
        "isolinux/memtest": b"memtest",
        "images/efiboot.img": bytes(4096),
        "images/pxeboot/vmlinuz": b"kernel",
        "images/pxeboot/initrd.img": b"initrd",
        "EFI/BOOT/grub.cfg": (MENUS / "el9-grub.cfg").read_text(),
    }
    return make_iso(tmp_path / "el9.iso", files, *boot, *efi, *options, label="AlmaLinux-9-5-x86_64-dvd")


@needs_xorriso
@pytest.mark.parametrize("names", [("-R", "-J"), ("-J",), ("-l",)], ids=["rock-ridge", "joliet", "plain"])
def test_menus_and_files_are_found_by_every_kind_of_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = el9(tmp_path, *names)
    facts = inspect_iso(path)
    assert facts.volume_id == "AlmaLinux-9-5-x86_64-dvd"
    for firmware in Firmware:
        (entry,) = (entry for entry in facts.entries if entry.firmware is firmware and entry.is_default)
        assert entry.title == "Test this media & install AlmaLinux 9.5"
        kernel, initrd = extract(path, entry, tmp_path / "boot")
        assert kernel.read_bytes() == b"kernel"
        assert initrd is not None
        assert initrd.read_bytes() == b"initrd"


@needs_xorriso
def test_initrds_are_joined_at_multiples_of_four(tmp_path: Path) -> None:
    menu = "label a\nkernel k\nappend initrd=one,two,three --- quiet"
    files: dict[str, bytes | str] = {
        "isolinux.cfg": menu,
        "k": b"kernel",
        "one": b"abcde",
        "two": b"1234",
        "three": b"x",
    }
    path = make_iso(tmp_path / "x.iso", files, "-R")
    _kernel, initrd = extract(path, inspect_iso(path).entries[0], tmp_path / "boot")
    assert initrd is not None
    assert initrd.read_bytes() == b"abcde\0\0\0" + b"1234" + b"x"


@needs_xorriso
def test_a_kernel_behind_a_symbolic_link_is_found_and_a_loop_is_told(tmp_path: Path) -> None:
    tree = tmp_path / "x.tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "casper").mkdir()
    (tree / "casper/real").write_bytes(b"kernel")
    (tree / "boot/vmlinuz").symlink_to("../casper/real")
    (tree / "boot/loop").symlink_to("loop")
    menu = "label a\nlinux vmlinuz\nlabel b\nlinux loop\n"
    path = make_iso(tmp_path / "x.iso", {"boot/syslinux.cfg": menu}, "-R")
    entries = inspect_iso(path).entries
    assert extract(path, entries[0], tmp_path / "boot")[0].read_bytes() == b"kernel"
    with pytest.raises(MediaError, match="loop of symbolic links"):
        extract(path, entries[1], tmp_path / "boot")


@needs_xorriso
def test_an_iso_without_a_linux_menu_is_no_error(tmp_path: Path) -> None:
    assert inspect_iso(make_iso(tmp_path / "x.iso", {"setup.exe": b"MZ"}, "-J")).entries == ()


def pe(machine: int) -> bytes:
    """The beginning of a PE file, as a kernel with an EFI stub has it: the offset of its header stands at 0x3C."""
    return (
        b"MZ".ljust(0x3C, b"\0")
        + (0x80).to_bytes(4, "little")
        + bytes(0x40)
        + b"PE\0\0"
        + machine.to_bytes(2, "little")
    )


@pytest.mark.parametrize(
    ("files", "arches"),
    [
        ({"k": pe(0xAA64)}, (Arch.AARCH64,)),
        ({"k": pe(0x8664), "EFI/BOOT/BOOTIA32.EFI": pe(0x14C)}, (Arch.X86_64,)),
        ({"k": b"\x1f\x8b", "EFI/boot/bootaa64.efi": pe(0xAA64), "EFI/boot/grubaa64.efi": pe(0xAA64)}, (Arch.AARCH64,)),
        ({"EFI/BOOT/BOOTX64.EFI": pe(0x8664), "EFI/BOOT/BOOTAA64.EFI": pe(0xAA64)}, (Arch.AARCH64, Arch.X86_64)),
        ({"k": pe(0x5064)}, ()),
        ({"k": b"MZ" + b"\xff" * 80}, ()),
        ({"k": b""}, ()),
    ],
    ids=["kernel", "kernel-before-loader", "packed-kernel", "loaders", "riscv", "no-pe", "empty"],
)
def test_what_an_iso_is_for_is_read_from_its_kernels_else_its_loaders(
    tmp_path: Path, files: dict[str, bytes], arches: tuple[Arch, ...]
) -> None:
    path = tmp_path / "x.iso"
    make_seed(path, "X", {"isolinux.cfg": b"label a\nkernel k", **files})
    assert inspect_iso(path).arches == arches


@needs_xorriso
def test_a_truncated_iso_says_so(tmp_path: Path) -> None:
    path = el9(tmp_path, "-R")
    size = path.stat().st_size
    os.truncate(path, size - 200_000)
    with pytest.raises(MediaError, match=f"truncated: it says that it has {size} bytes"):
        inspect_iso(path)


def test_an_iso_of_five_gigabytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.iso"
    make_seed(path, "BIG", {"isolinux.cfg": b"label a\nkernel k", "k": b"kernel"})
    os.truncate(path, 5 << 30)  # sparse
    assert inspect_iso(path).entries[0].kernel == "/k"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "only 0 bytes"),
        (b"<!DOCTYPE html>" + bytes(60_000), "a web page"),
        (b"QFI\xfb" + bytes(60_000), "a qcow2 image"),
        (bytes(0x8000) + b"\0BEA01".ljust(2048) + b"\0NSR03".ljust(2048) + bytes(30_000), "UDF only"),
        (bytes(60_000), "no CD001"),
    ],
)
def test_a_file_that_is_no_iso_says_what_it_looks_like(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "x.iso"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=what):
        inspect_iso(path)


def test_a_missing_iso_says_so(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such ISO"):
        inspect_iso(tmp_path / "absent.iso")


@given(st.lists(st.tuples(st.integers(0, 60_000), st.binary(min_size=1, max_size=40)), min_size=1, max_size=20))
def test_a_damaged_iso_gives_facts_or_media_error(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, bytes]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.iso"
    make_seed(path, "X", {"isolinux.cfg": b"label a\nkernel k", "k": b"kernel", "d/e/f": b"x"})
    image = bytearray(path.read_bytes())
    for at, content in damage:
        image[at : at + len(content)] = content
    path.write_bytes(image)
    try:
        for entry in inspect_iso(path).entries:
            extract(path, entry, path.parent / "boot")
    except MediaError as exc:
        assert exc.what  # noqa: PT017  any MediaError will do


def test_the_wrong_volume_is_refused_by_name(tmp_path: Path) -> None:
    check_volume_id("Debian 12.8.0 amd64 n", r"Debian 12\..* amd64 n", tmp_path)
    check_volume_id("anything", None, tmp_path)
    with pytest.raises(MediaError, match=r"wrong ISO: its volume id is 'Fedora'"):
        check_volume_id("Fedora", "AlmaLinux-9.*", tmp_path)
