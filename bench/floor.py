"""The floor: what a hand-written script over bare QEMU takes for the same image. No checks, no comfort, no cleaning up.

Direct kernel boot of the installer, its end seen by QEMU's exit (`-action reboot=shutdown`), the disk booted, SSH
polled every 0.3 s, the scripts run over OpenSSH (the last one switches the guest off), the disk converted with zstd.
The flags below are the fastest that were found on this host for a TCG guest.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

MACHINE = {"x86_64": "q35,hpet=off,vmport=off", "aarch64": "virt"}
DISK = "if=none,id=disk0,file={},format=qcow2,cache=unsafe,discard=unmap,detect-zeroes=unmap"


def main() -> int:
    """Build one image; print `{"stage": seconds, …}`."""
    options = _parse()
    times: dict[str, float] = {}
    disk, port = options.work / "floor.qcow2", _free_port()
    common = [
        f"qemu-system-{options.arch}", "-machine", MACHINE[options.arch], "-cpu", options.cpu,
        "-accel", "tcg,thread=multi", "-m", str(options.memory), "-smp", str(options.cpus),
        "-nodefaults", "-display", "none", "-serial", f"file:{options.work / 'floor-serial.log'}",
        "-drive", DISK.format(disk), "-device", "virtio-blk-pci,drive=disk0,addr=0x10",
        "-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net-pci,netdev=net0,addr=0x3",
        "-device", "virtio-rng-pci,addr=0x8",
    ]  # fmt: skip
    if options.firmware:
        code, variables = options.firmware.split(",")
        copy = options.work / "floor-vars.fd"
        copy.write_bytes(Path(variables).read_bytes())
        common += [
            "-drive",
            f"if=pflash,format=raw,readonly=on,file={code}",
            "-drive",
            f"if=pflash,format=raw,file={copy}",
        ]
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", str(options.answers), str(options.http_port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), str(options.disk)], check=True)
        started = time.monotonic()
        subprocess.run(
            [*common, "-drive", f"if=none,id=cd0,media=cdrom,readonly=on,file={options.iso}",
             "-device", _cd(options.arch), "-kernel", str(options.kernel), "-initrd", str(options.initrd),
             "-append", options.append, "-action", "reboot=shutdown"],
            check=True, timeout=1800,
        )  # fmt: skip
        times["install"] = time.monotonic() - started
        started = time.monotonic()
        with subprocess.Popen([*common, "-qmp", f"unix:{options.work / 'floor.qmp'},server=on,wait=off"]) as guest:
            ssh = _ssh(options, port)
            while subprocess.run([*ssh, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
                time.sleep(0.3)  # what a hand-written script does: it has no event to wait for
            times["boot"] = time.monotonic() - started
            started = time.monotonic()
            for script in options.steps:
                with script.open("rb") as text:
                    subprocess.run([*ssh, "sudo sh -s"], stdin=text, stdout=subprocess.DEVNULL, check=True)
            times["steps"] = time.monotonic() - started
            started = time.monotonic()
            guest.wait(timeout=600)
            times["stop"] = time.monotonic() - started
        started = time.monotonic()
        subprocess.run(
            ["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", "-c", "-o", "compression_type=zstd", "-m", "16", "-W",
             str(disk), str(options.out)],
            check=True,
        )  # fmt: skip
        times["convert"] = time.monotonic() - started
    finally:
        server.kill()
        server.wait()
    print(json.dumps(times))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("iso", "kernel", "initrd", "answers", "key", "work", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("append", "user", "arch", "cpu"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("memory", "cpus", "disk", "http-port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--firmware", default="", help="CODE,VARS")
    parser.add_argument("--steps", type=Path, nargs="*", default=[])
    return parser.parse_args()


def _cd(arch: str) -> str:
    return "ide-cd,drive=cd0,bus=ide.0" if arch == "x86_64" else "virtio-blk-pci,drive=cd0"


def _ssh(options: argparse.Namespace, port: int) -> list[str]:
    return [
        "ssh", "-q", "-i", str(options.key), "-p", str(port), "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=10", "-o", "BatchMode=yes",
        f"{options.user}@127.0.0.1",
    ]  # fmt: skip


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
