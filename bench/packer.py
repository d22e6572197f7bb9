"""Packer's template for the bench: the machine, CPU, disk flags, seal and compression that the others have.

Its wait for the boot menu was found by trying (with its own ten seconds it misses the menu). It types with its default
pause after each key, or, tuned, with the shortest that this menu bears.

UEFI goes by `qemuargs`: flash for firmware and variables (so that Packer's machine keeps them as the others' does), the
disk before the CD in the boot order, and for aarch64 a screen and a keyboard, which `virt` has not got.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.floor import MACHINE
from bench.lab import Lab

# `boot_key_interval`: its default (Packer's documentation, "QEMU builder"), and tuned.
KEY_INTERVAL, TUNED_KEY_INTERVAL = "100ms", "20ms"
_DISK = "file={{ .OutputDir }}/{{ .Name }},if=none,id=disk0,format=qcow2,cache=unsafe,discard=unmap,detect-zeroes=unmap"


def write_template(lab: Lab, output: Path, *, tuned: bool) -> Path:
    """Write the template of a build into `output`; give its path."""
    builder = {
        "type": "qemu",
        "qemu_binary": f"qemu-system-{lab.arch}",
        "qemuargs": _qemu_arguments(lab),
        "headless": True,
        "iso_url": f"file://{lab.iso}",
        "iso_checksum": "none",
        "output_directory": str(output),
        "vm_name": "packer.qcow2",
        "memory": lab.memory_mib,
        "cpus": lab.cpus,
        "disk_size": f"{lab.disk_bytes // 1024**2}M",
        "disk_interface": "virtio",
        "disk_cache": "unsafe",
        "disk_discard": "unmap",
        "disk_detect_zeroes": "unmap",
        "disk_compression": True,
        "qemu_img_args": {"convert": ["-o", "compression_type=zstd", "-m", "16", "-W"]},
        "format": "qcow2",
        "net_device": "virtio-net-pci",
        "http_directory": str(lab.answers),
        "boot_wait": f"{lab.boot_wait_s}s",
        "boot_key_interval": TUNED_KEY_INTERVAL if tuned else KEY_INTERVAL,
        "boot_command": [lab.boot_command],
        "ssh_username": lab.user,
        "ssh_private_key_file": str(lab.key),
        "ssh_timeout": "10m",
        "shutdown_command": "true",  # the seal has switched it off
    }
    scripts = {
        "type": "shell",
        "expect_disconnect": True,
        "skip_clean": True,
        "execute_command": "chmod +x {{ .Path }}; {{ .Vars }} sudo -E sh {{ .Path }}",
        "scripts": [str(step) for step in (*lab.steps, lab.seal)],
    }
    path = lab.work / "packer.json"
    path.write_text(json.dumps({"builders": [builder], "provisioners": [scripts]}, indent=1))
    return path


def _qemu_arguments(lab: Lab) -> list[list[str]]:
    """Give what Packer has no setting for. One option given here replaces all of Packer's own of that name."""
    arguments = [
        ["-machine", f"{MACHINE[lab.arch]},accel=tcg"],
        ["-cpu", lab.cpu],
        ["-serial", f"file:{lab.work / 'packer-serial.log'}"],
    ]
    if lab.firmware_code is None or lab.firmware_variables is None:
        return arguments
    variables = lab.work / "packer-vars.fd"
    variables.write_bytes(lab.firmware_variables.read_bytes())
    drives = [
        f"if=pflash,format=raw,readonly=on,file={lab.firmware_code}",
        f"if=pflash,format=raw,file={variables}",
        _DISK,
        f"if=none,id=cd0,media=cdrom,readonly=on,file={lab.iso}",
    ]
    devices = [
        "virtio-blk-pci,drive=disk0,bootindex=0",
        "virtio-net-pci,netdev=user.0,romfile=",
        "virtio-scsi-pci,id=scsi0",
        "scsi-cd,bus=scsi0.0,drive=cd0,bootindex=1",
    ]
    if lab.arch == "aarch64":
        devices += ["virtio-gpu-pci", "qemu-xhci", "usb-kbd"]
    arguments.append(["-boot", "menu=off"])  # Packer's `once=d` ends QEMU on aarch64
    return [*arguments, *(["-drive", each] for each in drives), *(["-device", each] for each in devices)]
