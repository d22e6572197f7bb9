"""The disk as the kickstart wants it: zerombr, clearpart, part, volgroup, logvol, autopart; then mounted.

What Anaconda refuses is refused: a disk that may not be cleared, a boot loader without its partition, no root.
Partitions are made in the order of their lines; the space that is left goes to those that grow.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .kickstart import TARGET
from .talk import Stopped, run, say

_MIB = 1 << 20
_TYPES = {  # Source: UEFI 2.10, and the Discoverable Partitions Specification
    "biosboot": "21686148-6449-6E6F-744E-656564454649",
    "efi": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
    "lvmpv": "E6D6D379-F507-44C2-A23C-238F2A3DF928",
}
_LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
_SETTLE_S = 30.0


@dataclass(frozen=True)
class Volume:
    """A partition or logical volume: where it is mounted (or pv.…, biosboot, swap), and how large it is to be."""

    mountpoint: str
    filesystem: str
    size_mib: int
    grow: bool = False
    most_mib: int = 0
    device: str = ""

    @property
    def is_mounted(self) -> bool:
        """Tell whether it has a place in the file system."""
        return self.mountpoint.startswith("/")


def is_uefi() -> bool:
    """Tell what this machine was started by."""
    return Path("/sys/firmware/efi").is_dir()


def set_up_disk(handler: Any) -> tuple[str, list[Volume]]:
    """Partition the disk, make the file systems and mount them on TARGET. Gives the disk and what is on it."""
    disk = _choose_disk(handler)
    if handler.clearpart.type in (None, -1) and not handler.zerombr.zerombr:
        raise Stopped("storage configuration failed: the kickstart allows nothing to be removed (clearpart, zerombr)")
    wanted = _wanted_partitions(handler)
    check_layout(
        wanted, [*wanted, *_wanted_volumes(handler)], label=handler.clearpart.disklabel or "gpt", uefi=is_uefi()
    )
    volumes = _make_partitions(disk, wanted, label=handler.clearpart.disklabel or "gpt")
    volumes += _make_logical_volumes(handler, volumes)
    for volume in volumes:
        _make_file_system(volume)
    for volume in sorted((volume for volume in volumes if volume.is_mounted), key=lambda each: each.mountpoint):
        folder = TARGET / volume.mountpoint.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        run("mount", volume.device, folder)
        say(f"storage: {volume.mountpoint} is {volume.filesystem} on {volume.device}")
    Path("/mnt/sysimage").symlink_to(TARGET)  # its name until EL 7
    return disk, volumes


def _choose_disk(handler: Any) -> str:
    """Give the disk that the kickstart names, or the first."""
    end = time.monotonic() + _SETTLE_S
    while True:
        disks = [
            path.name
            for path in sorted(Path("/sys/block").iterdir())
            if path.name.startswith(("vd", "sd", "hd", "nvme", "xvd")) and (path / "ro").read_text().strip() == "0"
        ]
        if disks:
            break
        if time.monotonic() > end:
            raise Stopped("storage configuration failed: no disks were detected")
        time.sleep(0.2)
    named = [
        *handler.ignoredisk.onlyuse,
        *handler.clearpart.drives,
        *(part.disk for part in handler.partition.partitions),
    ]
    for name in filter(None, named):
        if name.removeprefix("/dev/") not in disks:
            raise Stopped(f"Disk {name} given in the kickstart does not exist.")
    first = next(iter([name for name in named if name]), disks[0])
    return f"/dev/{first.removeprefix('/dev/')}"


def _wanted_partitions(handler: Any) -> list[Volume]:
    if handler.autopart.autopart:
        return _automatic_partitions()
    return [
        Volume(
            mountpoint=part.mountpoint,
            filesystem=_filesystem_of(part.mountpoint, part.fstype),
            size_mib=part.size or 1,
            grow=bool(part.grow),
            most_mib=part.maxSizeMB or 0,
        )
        for part in handler.partition.partitions
    ]


def _automatic_partitions() -> list[Volume]:
    """Give what autopart makes where it uses no LVM: enough for a test."""
    first = Volume("/boot/efi", "efi", 600) if is_uefi() else Volume("biosboot", "biosboot", 1)
    return [first, Volume("/boot", "xfs", 1024), Volume("/", "xfs", 1024, grow=True)]


def _wanted_volumes(handler: Any) -> list[Volume]:
    return [
        Volume(each.mountpoint, each.fstype or "xfs", each.size or 1, bool(each.grow), each.maxSizeMB or 0)
        for each in handler.logvol.lvList
    ]


def _filesystem_of(mountpoint: str, named: str) -> str:
    if mountpoint.startswith("pv."):
        return "lvmpv"
    return mountpoint if mountpoint in ("biosboot", "swap") else named or "xfs"


def check_layout(partitions: Sequence[Volume], volumes: Sequence[Volume], *, label: str, uefi: bool) -> None:
    """Refuse what could not boot, in Anaconda's words."""
    kinds = {part.filesystem for part in partitions}
    if not any(volume.mountpoint == "/" for volume in volumes):
        raise Stopped("storage configuration failed: You have not defined a root partition (/)")
    if uefi and not any(part.mountpoint == "/boot/efi" and part.filesystem == "efi" for part in partitions):
        raise Stopped("storage configuration failed: For a UEFI installation, you must include an EFI System Partition")
    if not uefi and label == "gpt" and "biosboot" not in kinds:
        raise Stopped(
            "storage configuration failed: Your BIOS-based system needs a special partition (biosboot) for GPT"
        )


def _make_partitions(disk: str, wanted: Sequence[Volume], *, label: str) -> list[Volume]:
    """Write the partition table; give the partitions with their devices."""
    size_mib = int((Path("/sys/block") / disk.removeprefix("/dev/") / "size").read_text()) // 2048
    sizes = share_space(wanted, size_mib - 2)
    lines, at = [f"label: {'dos' if label == 'msdos' else 'gpt'}"], 1
    for number, (part, size) in enumerate(zip(wanted, sizes, strict=True), start=1):
        kind = _TYPES.get(part.filesystem, _LINUX) if label != "msdos" else "L"
        lines.append(f"{number} : start={at}MiB, size={size}MiB, type={kind}")
        at += size
    subprocess.run(["vgchange", "--quiet", "-a", "n"], check=False, capture_output=True)
    run("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", disk, told="\n".join(lines) + "\n")
    prefix = f"{disk}p" if disk[-1].isdigit() else disk
    made = [replace(part, device=f"{prefix}{number}") for number, part in enumerate(wanted, start=1)]
    end = time.monotonic() + _SETTLE_S
    while not all(Path(part.device).is_block_device() for part in made) and time.monotonic() < end:
        time.sleep(0.1)
    return made


def share_space(wanted: Sequence[Volume], free_mib: int) -> list[int]:
    """Give each one's size: its own, and an equal share of what is left where it grows."""
    sizes = [part.size_mib for part in wanted]
    left = free_mib - sum(sizes)
    if left < 0:
        raise Stopped(f"storage configuration failed: not enough free space on disks: {-left} MiB are missing")
    growing = [index for index, part in enumerate(wanted) if part.grow]
    for count, index in enumerate(growing):
        share = left // (len(growing) - count)
        most = wanted[index].most_mib
        share = min(share, max(0, most - sizes[index])) if most else share
        sizes[index] += share
        left -= share
    return sizes


def _make_logical_volumes(handler: Any, partitions: Sequence[Volume]) -> list[Volume]:
    devices = {part.mountpoint: part.device for part in partitions}
    made = []
    for group in handler.volgroup.vgList:
        own = [devices[name] for name in group.physvols]
        run("pvcreate", "--quiet", "--yes", "-ff", *own)
        run("vgcreate", "--quiet", group.vgname, *own)
        free = run("vgs", "--noheadings", "--nosuffix", "--units", "m", "--options", "vg_free", group.vgname)
        volumes = [each for each in handler.logvol.lvList if each.vgname == group.vgname]
        wanted = _wanted_volumes(handler)
        chosen = [wanted[handler.logvol.lvList.index(each)] for each in volumes]
        for each, volume, size in zip(volumes, chosen, share_space(chosen, int(float(free)) // 4 * 4), strict=True):
            run("lvcreate", "--quiet", "--yes", "-W", "n", "-L", f"{size // 4 * 4}m", "-n", each.name, group.vgname)
            made.append(replace(volume, device=f"/dev/mapper/{group.vgname}-{each.name}"))
    return made


def _make_file_system(volume: Volume) -> None:
    match volume.filesystem:
        case "xfs":
            run("mkfs.xfs", "-q", "-f", volume.device)
        case "ext2" | "ext3" | "ext4":
            run(f"mkfs.{volume.filesystem}", "-q", "-F", volume.device)
        case "efi":
            run("mkfs.fat", "-F", "32", volume.device)
        case "swap":
            run("mkswap", volume.device)
        case "biosboot" | "lvmpv":
            pass
        case other:
            raise Stopped(f"storage configuration failed: this installer makes no file system {other}")
