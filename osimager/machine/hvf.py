"""What keeps macOS' Hypervisor.framework from running a guest, and the line that mends it.

Unverified: no macOS host was at hand. What the system's tools say is read by pure functions, tested with their formats.
"""

from __future__ import annotations

import contextlib
import plistlib
import re
from pathlib import Path
from xml.parsers.expat import ExpatError

from osimager.arch import Arch
from osimager.plan.facts import QemuFacts
from osimager.proc import run_tool

_ENTITLEMENT = "com.apple.security.hypervisor"
_OLDEST_FOR_ARM = (8, 2)
_ASK_S = 5.0


async def find_obstacle(qemu: QemuFacts) -> str:
    """Say what keeps HVF from working with this QEMU, else nothing."""
    support = await run_tool(["/usr/sbin/sysctl", "-n", "kern.hv_support"], deadline_s=_ASK_S, check=False)
    codesign: list[str | Path] = ["/usr/bin/codesign", "-d", "--entitlements", "-", "--xml", qemu.path.resolve()]
    signed = await run_tool(codesign, deadline_s=_ASK_S, check=False)
    return explain_obstacle(qemu, hv_support=support.text, entitlements=signed.text)


def explain_obstacle(qemu: QemuFacts, *, hv_support: str, entitlements: str) -> str:
    """Say what keeps HVF from working, given `sysctl -n kern.hv_support` and what codesign(1) printed of the binary."""
    if hv_support.strip() != "1":
        return "this Mac has no Hypervisor.framework (sysctl kern.hv_support is not 1)"
    if qemu.arch is Arch.AARCH64 and qemu.version < _OLDEST_FOR_ARM:
        have = ".".join(map(str, qemu.version))
        return f"QEMU {have} is too old for guests under HVF, which need 8.2: brew upgrade qemu"
    if not has_entitlement(entitlements):
        return f"{qemu.path} is not signed with the entitlement {_ENTITLEMENT}: {mending_line(qemu.path.resolve())}"
    return ""


def has_entitlement(text: str) -> bool:
    """Read codesign's listing: a property list (macOS 12 and later), or its own indented form where `--xml` is new."""
    with contextlib.suppress(ValueError, ExpatError, plistlib.InvalidFileException):
        entitlements = plistlib.loads(text[text.index("<?xml") :].rstrip("\0\n").encode())
        return isinstance(entitlements, dict) and entitlements.get(_ENTITLEMENT) is True
    return re.search(rf"\[Key\] {re.escape(_ENTITLEMENT)}\s+\[Value\]\s+\[Bool\] true", text) is not None


def mending_line(binary: Path) -> str:
    """Give the shell line that signs `binary` as Homebrew's and QEMU's own builds do."""
    plist = f'<plist version="1.0"><dict><key>{_ENTITLEMENT}</key><true/></dict></plist>'
    return f"echo '{plist}' >/tmp/hvf.plist && codesign -s - -f --entitlements /tmp/hvf.plist {binary}"
