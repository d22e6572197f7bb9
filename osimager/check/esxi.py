"""VMware's installation scripts: the commands and options of ESXi 5.5 to 8, and those of ESX 4.

Source: Broadcom, "VMware ESXi Installation and Setup", "Installation and upgrade script commands"; VMware, "ESX and
vCenter Server Installation Guide" 4.1, "Commands used in a script". pykickstart does not know this dialect.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from osimager.check.problem import Finding, suggest

# The options of each command, without their `--`.
_NETWORK: Final = "bootproto device ip gateway nameserver netmask hostname vlanid addvmportgroup"
_INSTALL: Final = (
    "disk drive firstdisk ignoressd overwritevsan overwritevmfs preservevmfs novmfsondisk forceunsupportedinstall "
    "ignoreprereqwarnings ignoreprereqerrors systemdisksize dpupcislots"
)
_PARTITION: Final = "ondisk onfirstdisk onvmdk size grow maxsize fstype asprimary"
_AUTH: Final = "enablemd5 enableshadow disableshadow enableldap enablenis enablekrb5"
_COMMON: Final[Mapping[str, str]] = {
    "accepteula": "",
    "vmaccepteula": "",
    "clearpart": "drives alldrives ignoredrives overwritevmfs firstdisk",
    "dryrun": "",
    "include": "",
    "%include": "",
    "keyboard": "",
    "network": _NETWORK,
    "paranoid": "",
    "part": _PARTITION,
    "partition": _PARTITION,
    "reboot": "noeject",
    "rootpw": "iscrypted",
    "serialnum": "esx",
    "vmserialnum": "esx",
}
COMMANDS: Final[Mapping[str, Mapping[str, str]]] = {
    "esxi": {**_COMMON, "install": _INSTALL, "upgrade": f"{_INSTALL} deletecosvmdk", "installorupgrade": _INSTALL},
    "esx": {
        **_COMMON,
        "auth": _AUTH,
        "authconfig": _AUTH,
        "autopart": "disk drive firstdisk overwritevmfs onvmdk",
        "bootloader": "append driveorder location md5pass upgrade useLilo",
        "esxlocation": "disk drive firstdisk uuid",
        "firewall": "allowIncoming allowOutgoing blockIncoming blockOutgoing",
        "firewallport": "open port proto dir name close",
        "install": "",
        "timezone": "utc",
        "virtualdisk": "size onfirstdisk onvmfs ondisk path",
    },
}
_SCRIPT: Final = "interpreter timeout ignorefailure"
SECTIONS: Final[Mapping[str, str]] = {"%pre": _SCRIPT, "%post": _SCRIPT, "%firstboot": "interpreter", "%end": ""}
_TARGETS: Final = {"esxi": ("install", "upgrade", "installorupgrade"), "esx": ("autopart", "part", "partition")}


async def check_esxi(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check each script by the commands of ESXi."""
    return _check("esxi", files)


async def check_esx(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check each script by the commands of ESX 4."""
    return _check("esx", files)


def _check(dialect: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    return [
        Finding(index, number, what, hint)
        for index, (_, text) in enumerate(files)
        for number, what, hint in _problems(dialect, text)
    ]


def _problems(dialect: str, text: str) -> Iterator[tuple[int | None, str, str | None]]:
    commands, given = COMMANDS[dialect], set()
    in_script = False
    for number, line in enumerate(text.splitlines(), 1):
        name = line.split(None, 1)[0] if line.split() else ""
        if name.startswith("%") and name != "%include":
            in_script = name != "%end"
            yield from _word_problems(number, line, SECTIONS, "section")
        elif not in_script and name and not name.startswith("#"):
            given.add(name)
            yield from _word_problems(number, line, commands, "command")
    if not given & {"accepteula", "vmaccepteula"}:
        yield None, "vmaccepteula is missing: the installer would ask", None
    if "rootpw" not in given:
        yield None, "rootpw is missing: the installer would ask", None
    if not given & {*_TARGETS[dialect]}:
        yield None, f"nothing says where to: one of {', '.join(_TARGETS[dialect])} is needed", None


def _word_problems(
    number: int, line: str, known: Mapping[str, str], kind: str
) -> Iterator[tuple[int, str, str | None]]:
    try:
        name, *words = shlex.split(line)
    except ValueError as exc:
        yield number, f"it cannot be split into words: {exc}", None
        return
    if name not in known:
        yield number, f"there is no {kind} {name!r}", suggest(name, known)
        return
    options = [f"--{option}" for option in known[name].split()]
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        if option not in options:
            yield number, f"{name} has no option {option}", suggest(option, options)
