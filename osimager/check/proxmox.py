"""Proxmox VE's answer.toml: TOML, and the keys that its auto-installer knows.

Source: https://pve.proxmox.com/wiki/Automated_Installation, "Answer File Format Reference"; the installer refuses a
file with a key that it does not know. It still takes the older names with `_` (pve-installer, answer.rs); we do not.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from osimager.check.problem import Finding, suggest

_KEYS: Final = {
    "global": "keyboard country fqdn mailto timezone root-password root-password-hashed root-ssh-keys reboot-on-error "
    "reboot-mode",
    "network": "source cidr dns gateway filter interface-name-pinning",
    "disk-setup": "filesystem disk-list filter filter-match zfs lvm btrfs",
    "post-installation-webhook": "url cert-fingerprint",
    "first-boot": "source ordering url cert-fingerprint",
}
KEYS: Final[Mapping[str, Sequence[str]]] = {name: keys.split() for name, keys in _KEYS.items()}
VALUES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("network", "source"): ("from-dhcp", "from-answer"),
    ("disk-setup", "filesystem"): ("ext4", "xfs", "zfs", "btrfs"),
    ("global", "reboot-mode"): ("reboot", "power-off"),
}
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "global": ("keyboard", "country", "fqdn", "mailto", "timezone"),
    "network": ("source",),
    "disk-setup": ("filesystem",),
}
Said = tuple[str, str | None]


async def check(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check each answer file."""
    found: list[Finding] = []
    for index, (_, text) in enumerate(files):
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            found.append(Finding(index, None, f"it is not TOML: {exc}"))
            continue
        found += [Finding(index, None, what, hint) for what, hint in _problems(document)]
    return found


def _problems(document: Mapping[str, object]) -> Iterator[Said]:
    for name, section in document.items():
        if name not in KEYS or not isinstance(section, dict):
            yield f"there is no section [{name}]", suggest(name, KEYS)
            continue
        for key, value in section.items():
            if key not in KEYS[name]:
                yield f"[{name}] has no key {key!r}", suggest(key.replace("_", "-"), KEYS[name])
            elif value not in (allowed := VALUES.get((name, key), (value,))):
                yield f"{key} must be one of {', '.join(map(str, allowed))}", suggest(str(value), map(str, allowed))
    for name, keys in REQUIRED.items():
        section = document.get(name)
        own = section if isinstance(section, dict) else {}
        yield from ((f"[{name}] needs {key}", None) for key in keys if key not in own)
    yield from _missing_together(document)


def _missing_together(document: Mapping[str, object]) -> Iterator[Said]:
    """Say what other keys make necessary."""
    sections = {name: section for name, section in document.items() if isinstance(section, dict)}
    given = sections.get("global", {})
    if len({"root-password", "root-password-hashed"} & {*given}) != 1:
        yield "[global] needs one of root-password and root-password-hashed", None
    network = sections.get("network", {})
    if network.get("source") == "from-answer" and not {"cidr", "dns", "gateway", "filter"} <= {*network}:
        yield "a network from-answer needs cidr, dns, gateway and filter", None
    disks = sections.get("disk-setup", {})
    if len({"disk-list", "filter"} & {*disks}) != 1:
        yield "[disk-setup] needs one of disk-list and filter", None
