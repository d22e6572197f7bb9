"""GRUB on the installed system, with the arguments of the kickstart's bootloader command."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .kickstart import TARGET
from .source import read_arguments
from .storage import Volume, is_uefi
from .system import in_target
from .talk import run


def install_bootloader(handler: Any, disk: str, volumes: Sequence[Volume]) -> None:
    """Install GRUB and write its menu (Debian's update-grub takes ten seconds under emulation, and writes the same)."""
    if handler.bootloader.location == "none" and handler.bootloader.disabled:
        return
    if is_uefi():
        target, name, removable = {
            "x86_64": ("x86_64-efi", "grubx64.efi", "BOOTX64.EFI"),
            "aarch64": ("arm64-efi", "grubaa64.efi", "BOOTAA64.EFI"),
        }[platform.machine()]
        in_target("grub-install", f"--target={target}", "--efi-directory=/boot/efi", "--bootloader-id=debian")
        fallback = TARGET / "boot/efi/EFI/BOOT"
        fallback.mkdir(parents=True, exist_ok=True)
        shutil.copy(TARGET / "boot/efi/EFI/debian" / name, fallback / removable)
    else:
        in_target("grub-install", "--target=i386-pc", disk)
    arguments = f"{handler.bootloader.appendLine} {read_arguments().for_target}".strip()
    timeout_s = 5 if handler.bootloader.timeout is None else handler.bootloader.timeout
    _write_menu({volume.mountpoint: volume for volume in volumes}, arguments, timeout_s)


def _write_menu(volumes: dict[str, Volume], own: str, timeout_s: int) -> None:
    kernel = next(Path(TARGET / "boot").glob("vmlinuz-*")).name
    boot = volumes.get("/boot", volumes["/"])
    folder = "" if "/boot" in volumes else "/boot"
    root = volumes["/"]
    arguments = f"root=UUID={_uuid(root)} rootfstype={root.filesystem} ro {own}".strip()
    lines = [
        "# Written by the installer in the place of update-grub, which replaces it. Settings: /etc/default/grub",
        "set default=0",
        f"set timeout={timeout_s}",
        "insmod part_gpt",
        "insmod lvm",
        f"insmod {'xfs' if boot.filesystem == 'xfs' else 'ext2'}",
        f"search --no-floppy --fs-uuid --set=root {_uuid(boot)}",
        "menuentry 'Debian GNU/Linux' --class debian --class gnu-linux --class gnu --class os {",
        f"    linux {folder}/{kernel} {arguments}",
        f"    initrd {folder}/initrd.img-{kernel.removeprefix('vmlinuz-')}",
        "}",
    ]
    (TARGET / "boot/grub/grub.cfg").write_text("\n".join(lines) + "\n")
    settings = TARGET / "etc/default/grub"
    text = settings.read_text().replace('GRUB_CMDLINE_LINUX=""', f'GRUB_CMDLINE_LINUX="{own}"')
    settings.write_text(text)


def _uuid(volume: Volume) -> str:
    return run("blkid", "-o", "value", "-s", "UUID", volume.device).strip()
