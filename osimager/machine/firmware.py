"""UEFI firmware on this host: QEMU's descriptor files first, then the places where distributions put it.

Finding is a pure function over a file tree (`root`). Source: docs/interop/firmware.json in QEMU's tree. Variants
without Secure Boot go first: an installer's own kernel need not be signed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from osimager.arch import Arch
from osimager.errors import PrerequisiteError
from osimager.kept import publishing
from osimager.plan.facts import FirmwareFiles
from osimager.proc import ToolFailed, run_tool
from osimager.qemu_img import QUICK_S, find_qemu_img

# `virt` maps each flash as 64 MiB and refuses an image of another size.
_VIRT_FLASH_BYTES = 64 << 20

# Where the firmware lies without a descriptor: (code, variables, format). `{prefix}` is the QEMU binary's.
_PLACES: dict[Arch, tuple[tuple[str, str, str], ...]] = {
    Arch.X86_64: (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd", "raw"),  # Debian, Ubuntu
        ("/usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2", "/usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2", "qcow2"),  # Fedora
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd", "raw"),  # EL, older Fedora
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd", "raw"),  # Arch
        ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd", "raw"),  # older Arch
        ("/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin", "raw"),  # SUSE
        ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin", "raw"),
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd", "raw"),  # older Debian
        ("/run/libvirt/nix-ovmf/OVMF_CODE.fd", "/run/libvirt/nix-ovmf/OVMF_VARS.fd", "raw"),  # NixOS
        ("/run/libvirt/nix-ovmf/edk2-x86_64-code.fd", "/run/libvirt/nix-ovmf/edk2-i386-vars.fd", "raw"),
        # QEMU's own, as Homebrew, MacPorts and Nix install it.
        ("{prefix}/share/qemu/edk2-x86_64-code.fd", "{prefix}/share/qemu/edk2-i386-vars.fd", "raw"),
    ),
    Arch.AARCH64: (
        ("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", "raw"),  # Debian 13, Ubuntu
        ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd", "raw"),
        (
            "/usr/share/edk2/aarch64/QEMU_EFI-pflash.qcow2",
            "/usr/share/edk2/aarch64/vars-template-pflash.qcow2",
            "qcow2",
        ),  # Fedora
        ("/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw", "raw"),
        ("/usr/share/edk2/aarch64/QEMU_CODE.fd", "/usr/share/edk2/aarch64/QEMU_VARS.fd", "raw"),  # Arch
        ("/usr/share/edk2-armvirt/aarch64/QEMU_CODE.fd", "/usr/share/edk2-armvirt/aarch64/QEMU_VARS.fd", "raw"),
        ("/usr/share/qemu/aavmf-aarch64-code.bin", "/usr/share/qemu/aavmf-aarch64-vars.bin", "raw"),  # SUSE
        ("/run/libvirt/nix-ovmf/AAVMF_CODE.fd", "/run/libvirt/nix-ovmf/AAVMF_VARS.fd", "raw"),  # NixOS
        ("/run/libvirt/nix-ovmf/edk2-aarch64-code.fd", "/run/libvirt/nix-ovmf/edk2-arm-vars.fd", "raw"),
        ("{prefix}/share/qemu/edk2-aarch64-code.fd", "{prefix}/share/qemu/edk2-arm-vars.fd", "raw"),
    ),
}
_PREFIXES = ("/usr", "/usr/local", "/opt/homebrew", "/opt/local", "/run/current-system/sw")


@dataclass(frozen=True, slots=True)
class _Descriptor:
    """One descriptor file, as far as we read it."""

    code: Path
    variables: Path
    code_format: str
    variables_format: str
    architectures: frozenset[str]
    features: frozenset[str]


def find_firmware(
    arch: Arch, *, root: Path = Path("/"), home: Path | None = None, qemu: Path | None = None
) -> FirmwareFiles | None:
    """Find UEFI firmware for `arch` in the file tree under `root`; `qemu` tells the prefix of its own data."""
    prefixes = _prefixes(qemu)
    found = _from_descriptors(arch, root, home, prefixes) or _from_places(arch, root, prefixes)
    if found is None or arch is not Arch.AARCH64:
        return found
    short = min(image_bytes(found.code, found.code_format), image_bytes(found.variables, found.variables_format))
    return replace(found, pad_bytes=_VIRT_FLASH_BYTES) if short < _VIRT_FLASH_BYTES else found


def image_bytes(path: Path, image_format: str) -> int:
    """Give the size that a guest sees of a raw or qcow2 file (qcow2: bytes 24 to 32 of its header)."""
    if image_format != "qcow2":
        return path.stat().st_size
    with path.open("rb") as file:
        header = file.read(32)
    return int(struct.unpack(">Q", header[24:32])[0]) if header[:4] == b"QFI\xfb" and len(header) == 32 else 0


def pad_code(firmware: FirmwareFiles, folder: Path) -> FirmwareFiles:
    """Give `firmware` with its code padded, in `folder`, where `virt` needs that."""
    if not firmware.pad_bytes or firmware.code_format != "raw":
        return firmware
    stat = firmware.code.stat()
    padded = folder / f"{firmware.code.stem}-{stat.st_size}-{stat.st_mtime_ns}.fd"
    if not padded.is_file():
        with publishing(padded) as partial:
            partial.write_bytes(firmware.code.read_bytes())
            with partial.open("r+b") as file:
                file.truncate(firmware.pad_bytes)
    return replace(firmware, code=padded)


async def make_variables(firmware: FirmwareFiles, path: Path) -> Path:
    """Make a clean set of variables at `path`: a qcow2, since raw ones forbid snapshots of the machine."""
    qemu_img = find_qemu_img()
    try:
        source: list[str | Path] = ["-f", firmware.variables_format, firmware.variables]
        await run_tool([qemu_img, "convert", "-O", "qcow2", *source, path], deadline_s=QUICK_S)
        if firmware.pad_bytes:
            await run_tool([qemu_img, "resize", "-q", "-f", "qcow2", path, str(firmware.pad_bytes)], deadline_s=QUICK_S)
    except ToolFailed as exc:
        raise PrerequisiteError(f"cannot copy the firmware's variables: {exc}") from exc
    return path


def _prefixes(qemu: Path | None) -> tuple[str, ...]:
    if qemu is None:
        return _PREFIXES
    own = [str(path.parent.parent) for path in (qemu, qemu.resolve())]
    return tuple(dict.fromkeys([*own, *_PREFIXES]))


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _from_places(arch: Arch, root: Path, prefixes: tuple[str, ...]) -> FirmwareFiles | None:
    for code, variables, image_format in _PLACES.get(arch, ()):
        for prefix in prefixes if "{prefix}" in code else ("",):
            files = [_under(root, text.replace("{prefix}", prefix)) for text in (code, variables)]
            if all(file.is_file() for file in files):
                return FirmwareFiles(arch, files[0], files[1], image_format, image_format)
    return None


def _from_descriptors(arch: Arch, root: Path, home: Path | None, prefixes: tuple[str, ...]) -> FirmwareFiles | None:
    """Take the first descriptor that fits, one without Secure Boot before one with it."""
    fitting = [
        descriptor
        for file in _descriptor_files(root, home, prefixes)
        for descriptor in _parse_descriptor(file, root)
        if arch in descriptor.architectures and not descriptor.features & {"enrolled-keys", "requires-smm"}
    ]
    fitting.sort(key=lambda descriptor: "secure-boot" in descriptor.features)
    for one in fitting:
        if one.code.is_file() and one.variables.is_file():
            return FirmwareFiles(arch, one.code, one.variables, one.code_format, one.variables_format)
    return None


def _descriptor_files(root: Path, home: Path | None, prefixes: tuple[str, ...]) -> Iterator[Path]:
    """Give the descriptors by name; of one name the user's hides the host's, which hides the package's."""
    folders = [_under(root, f"{prefix}/share/qemu/firmware") for prefix in reversed(prefixes)]
    folders.append(_under(root, "/etc/qemu/firmware"))
    if home is not None:
        folders.append(home / ".config/qemu/firmware")
    by_name: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            by_name.update({file.name: file for file in folder.glob("*.json")})
    for name in sorted(by_name):
        yield by_name[name]


def _parse_descriptor(file: Path, root: Path) -> Iterator[_Descriptor]:
    """Give the descriptor in `file` if it is one for UEFI in flash; an empty file is how a user hides one."""
    try:
        data = json.loads(file.read_text("utf-8"))
        mapping = data["mapping"]
        if "uefi" not in data["interface-types"] or mapping["device"] != "flash":
            return
        if mapping.get("mode", "split") != "split":
            return
        code, variables = mapping["executable"], mapping["nvram-template"]
        yield _Descriptor(
            code=_under(root, code["filename"]),
            variables=_under(root, variables["filename"]),
            code_format=str(code.get("format", "raw")),
            variables_format=str(variables.get("format", "raw")),
            architectures=frozenset(str(target["architecture"]) for target in data["targets"]),
            features=frozenset(str(feature) for feature in data.get("features", ())),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
