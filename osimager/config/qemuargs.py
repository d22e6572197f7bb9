"""Packer's `qemuargs` as what they ask of the machine: values of ours, options to add, and what has no counterpart.

In Packer they replace its own arguments of the same name; here every argument has an id of ours, and what decides how
the runner talks to the guest (drives, monitors, consoles, the user network) stays ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from osimager.config.markers import as_text
from osimager.config.values import Value

# What is decided here, silently: by the host, by --accel and --display.
_DECIDED: Final = frozenset(("-accel", "-enable-kvm", "-display", "-nographic", "-vnc", "-name"))
_ADDED: Final = frozenset(("-device", "-fw_cfg", "-global", "-object", "-smbios", "-audiodev", "-rtc", "-smp"))
_OWN_IDS: Final = {"-rtc": "rtc", "-smp": "smp"}
_NETWORK_CARDS: Final = ("virtio-net", "e1000", "rtl8139", "vmxnet3", "pcnet", "ne2k", "usb-net")


@dataclass(slots=True)
class Mapped:
    """What the arguments come to: values of the machine section, overrides by id, and the arguments left out."""

    values: dict[str, Value] = field(default_factory=dict)
    overrides: dict[str, Value] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def map_qemuargs(given: Value) -> Mapped:
    """Read a list of `[option, argument…]` lists."""
    mapped = Mapped()
    for number, words in enumerate(given if isinstance(given, list) else ()):
        option, *rest = map(as_text, (words or [""]) if isinstance(words, list) else [words])
        _map_one(mapped, option, rest, f"qemuargs{number}")
    return mapped


def _map_one(mapped: Mapped, option: str, rest: Sequence[str], name: str) -> None:
    argument = " ".join(filter(None, rest))
    driver, _, options = argument.partition(",")
    if option in _DECIDED or not option:
        return
    if option == "-cpu":
        if driver not in ("host", "max"):
            mapped.overrides["cpu"] = f"-cpu {argument}"
    elif option == "-m":
        mapped.values["memory"] = driver.removeprefix("size=")
    elif option in ("-machine", "-M"):
        mapped.values["machine"] = driver.removeprefix("type=")
    elif option == "-device" and driver.startswith(_NETWORK_CARDS):
        mapped.values["nic"] = "virtio" if driver.startswith("virtio-net") else driver
    elif option in _ADDED and not any(word in options for word in ("netdev=", "drive=", "chardev=")):
        mapped.overrides[_OWN_IDS.get(option, _id_of(options) or name)] = f"{option} {argument}"
    else:
        mapped.left.append(f"{option} {argument}".strip())


def _id_of(options: str) -> str:
    return next((part.removeprefix("id=") for part in options.split(",") if part.startswith("id=")), "")
