"""Where the kickstart is: inst.ks of the kernel's command line, else ks.cfg on a volume labelled OEMDRV.

Source: Anaconda's documentation, "Anaconda Boot Options" (inst.ks, inst.stage2, ip=); dracut.cmdline(7).
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .talk import Stopped, run, say

NETWORK_S = 60.0
_MOUNT = Path("/run/installer/volume")


@dataclass(frozen=True)
class Arguments:
    """The kernel's command line: the last value of each name; a word alone has the value ''."""

    values: dict[str, str]

    def get(self, name: str) -> str | None:
        """Give the value of `name` or `inst.name`."""
        return self.values.get(f"inst.{name}", self.values.get(name))

    @property
    def for_target(self) -> str:
        """Give what the installed system is started with too: how its network cards are named."""
        names = ("net.ifnames", "biosdevname")
        return " ".join(f"{name}={self.values[name]}" for name in names if name in self.values)


def read_arguments() -> Arguments:
    """Read the kernel's command line."""
    words = shlex.split(Path("/proc/cmdline").read_text())
    return Arguments({name: value for name, _, value in (word.partition("=") for word in words)})


def find_kickstart(arguments: Arguments) -> str | None:
    """Give the kickstart's text, or None where nothing says where it is. Raises Stopped where it cannot be read."""
    place = arguments.values.get("inst.ks")
    if place is None:
        with _mounted("LABEL=OEMDRV") as folder:
            if folder is None or not (folder / "ks.cfg").is_file():
                return None
            say("anaconda: using the kickstart /ks.cfg of the volume OEMDRV")
            return (folder / "ks.cfg").read_text()
    say("anaconda: using the kickstart of inst.ks")
    kind, _, rest = place.partition(":")
    if kind in ("http", "https"):
        return _fetch(place, arguments)
    if kind == "cdrom":
        return _read_volume("LABEL=OEMDRV", rest)
    if kind == "hd":
        device, _, path = rest.partition(":")
        return _read_volume(device, path)
    raise Stopped(f"anaconda: inst.ks={place} is of a kind that is not known")


def _read_volume(device: str, path: str) -> str:
    with _mounted(device) as folder:
        file = None if folder is None else folder / path.lstrip("/")
        if file is None or not file.is_file():
            raise Stopped(f"Warning: anaconda: failed to fetch kickstart from hd:{device}:{path}")
        return file.read_text()


@contextmanager
def _mounted(device: str) -> Iterator[Path | None]:
    """Mount `device` (a name, /dev/…, LABEL=… or UUID=…) for the block; None where there is none such."""
    tag = device if "=" in device else f"/dev/{device.removeprefix('/dev/')}"
    found = subprocess.run(
        ["blkid", "--list-one", "--output", "device", "--match-token", tag], capture_output=True, text=True, check=False
    )
    real = found.stdout.strip() if "=" in device else tag
    if not real or not Path(real).exists():
        yield None
        return
    _MOUNT.mkdir(parents=True, exist_ok=True)
    run("mount", "-o", "ro", real, _MOUNT)
    try:
        yield _MOUNT
    finally:
        run("umount", _MOUNT)


def _fetch(url: str, arguments: Arguments) -> str:
    set_up_network(arguments)
    context = ssl.create_default_context()
    if arguments.get("noverifyssl") is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=30, context=context if url.startswith("https") else None) as answer:
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, OSError) as exc:
        shown = re.sub(r"(//[^/]*/).*", r"\1…", url)
        raise Stopped(f"Warning: anaconda: failed to fetch kickstart from {shown}: {exc}") from exc


def first_interface() -> str | None:
    """Give the first network card."""
    names = sorted(path.name for path in Path("/sys/class/net").iterdir() if path.name != "lo")
    return names[0] if names else None


def set_up_network(arguments: Arguments) -> None:
    """Wait for DHCP, or set the static address of ip=ADDRESS::GATEWAY:NETMASK:NAME:DEVICE:none."""
    end = time.monotonic() + NETWORK_S
    while not Path("/run/installer/network-tried").exists() and time.monotonic() < end:
        time.sleep(0.1)
    address, _, rest = (arguments.values.get("ip") or "").partition("::")
    if not address or not rest:
        return
    gateway, netmask, _name, device, *_ = [*rest.split(":"), "", "", "", ""]
    prefix = ipaddress.ip_network(f"0.0.0.0/{netmask}").prefixlen
    card = device or first_interface() or "eth0"
    run("ip", "address", "replace", f"{address}/{prefix}", "dev", card)
    run("ip", "route", "replace", "default", "via", gateway, "dev", card)
    if server := arguments.values.get("nameserver"):
        Path("/etc/resolv.conf").write_text(f"nameserver {server}\n")
