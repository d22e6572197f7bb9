"""Ubuntu's autoinstall: cloud-init's own schema for the user-data, and a strict layer over what is under `autoinstall`.

Subiquity ignores an unknown key in version 1 ("Autoinstall configuration reference manual", "Top-level keys"), so a
slip of the pen installs something else: here it is an error with the likeliest key.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from osimager.check.forms import read_yaml
from osimager.check.problem import Finding, suggest, write_texts
from osimager.config.documents import Items, Table
from osimager.config.values import Value
from osimager.proc import find_tool, run_tool

Kinds = tuple[type, ...]
_TEXT: Final[Kinds] = (str,)
_FLAG: Final[Kinds] = (bool,)
_LIST: Final[Kinds] = (list,)
_MAP: Final[Kinds] = (dict,)

# What may stand under `autoinstall`. Source: Subiquity's "Autoinstall configuration reference manual".
KEYS: Final[Mapping[str, Kinds]] = {
    "version": (int,),
    "interactive-sections": _LIST,
    "early-commands": _LIST,
    "late-commands": _LIST,
    "error-commands": _LIST,
    "locale": _TEXT,
    "refresh-installer": _MAP,
    "keyboard": _MAP,
    "source": _MAP,
    "network": _MAP,
    "proxy": (str, type(None)),
    "apt": _MAP,
    "storage": _MAP,
    "identity": _MAP,
    "active-directory": _MAP,
    "ubuntu-pro": _MAP,
    "ssh": _MAP,
    "codecs": _MAP,
    "drivers": _MAP,
    "oem": _MAP,
    "snaps": _LIST,
    "debconf-selections": _TEXT,
    "packages": _LIST,
    "kernel": _MAP,
    "kernel-crash-dumps": _MAP,
    "timezone": _TEXT,
    "updates": _TEXT,
    "shutdown": _TEXT,
    "reporting": _MAP,
    "user-data": _MAP,
    "zdevs": _LIST,
}
INNER: Final[Mapping[str, Mapping[str, Kinds]]] = {
    "refresh-installer": {"update": _FLAG, "channel": _TEXT},
    "keyboard": {"layout": _TEXT, "variant": _TEXT, "toggle": (str, type(None))},
    "source": {"id": _TEXT, "search_drivers": _FLAG},
    "network": {
        "version": (int,), "renderer": _TEXT, "ethernets": _MAP, "wifis": _MAP, "bonds": _MAP, "bridges": _MAP,
        "vlans": _MAP, "tunnels": _MAP, "dummy-devices": _MAP,
    },
    "apt": {
        "preserve_sources_list": _FLAG, "mirror-selection": _MAP, "primary": _LIST, "fallback": _TEXT, "geoip": _FLAG,
        "sources": _MAP, "disable_components": _LIST, "disable_suites": _LIST, "preferences": _LIST, "conf": _TEXT,
        "security": _LIST, "sources_list": _TEXT, "http_proxy": _TEXT, "https_proxy": _TEXT,
    },
    "storage": {"layout": _MAP, "config": _LIST, "swap": _MAP, "grub": _MAP, "version": (int,)},
    "identity": {"realname": _TEXT, "username": _TEXT, "hostname": _TEXT, "password": _TEXT, "groups": (list, dict)},
    "ssh": {"install-server": _FLAG, "authorized-keys": _LIST, "allow-pw": _FLAG},
    "kernel": {"package": _TEXT, "flavor": _TEXT},
    "kernel-crash-dumps": {"enabled": (bool, type(None))},
    "codecs": {"install": _FLAG},
    "drivers": {"install": _FLAG},
    "oem": {"install": (bool, str)},
    "ubuntu-pro": {"token": _TEXT},
    "active-directory": {"admin-name": _TEXT, "domain-name": _TEXT},
}  # fmt: skip
LAYOUT: Final[Mapping[str, Kinds]] = {
    "name": _TEXT, "match": _MAP, "sizing-policy": _TEXT, "password": _TEXT, "keyfile": _TEXT,
    "reset-partition": (bool, int, str), "mode": _TEXT, "ptable": _TEXT, "encrypted": _FLAG,
}  # fmt: skip
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "updates": ("security", "all"),
    "shutdown": ("reboot", "poweroff"),
    "storage.layout.name": ("lvm", "direct", "zfs", "hybrid"),
    "storage.layout.sizing-policy": ("scaled", "all"),
    "apt.fallback": ("abort", "continue-anyway", "offline-install"),
}
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("version",),
    "identity": ("username", "hostname", "password"),
    "keyboard": ("layout",),
    "storage.layout": ("name",),
}
# The head of a document that cloud-init takes for cloud-config. Source: cloud-init, "User-data formats".
HEADER: Final = "#cloud-config"


async def check_cloud_config(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Run `cloud-init schema` on each distinct user-data (it takes one file a process). Raises PrerequisiteError."""
    tool = find_tool("cloud-init", package="cloud-init")
    found: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="osimager-check-") as folder:
        for index, path in enumerate(write_texts(Path(folder), files)):
            done = await run_tool([tool, "schema", "--config-file", path], deadline_s=60.0, check=False)
            said = f"{done.text}\n{done.stderr}"
            if done.status != 0:
                what = re.sub(r"\s+", " ", said).strip().removeprefix("Error: ")
                found.append(Finding(index, None, what or f"cloud-init schema exited with {done.status}"))
    return found


async def check_keys(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check every key under `autoinstall` by name and kind."""
    found = []
    for index, (name, text) in enumerate(files):
        first = text.partition("\n")[0].rstrip()
        if first != HEADER:
            found.append(Finding(index, 1, f"cloud-init takes only a text that begins with {HEADER}"))
        problem, document = read_yaml(index, name, text)
        if problem is not None:
            found.append(problem)
            continue
        found += [Finding(index, line, what, hint) for line, what, hint in _document_problems(document)]
    return found


Said = tuple[int | None, str, str | None]


def _document_problems(document: Value) -> Iterator[Said]:
    if not isinstance(document, Table):
        yield None, "a mapping with the key autoinstall is expected", None
        return
    inner = document.get("autoinstall")
    if not isinstance(inner, Table):
        yield document.line, "there is no mapping called autoinstall", suggest("autoinstall", document)
        return
    yield from _check_table(inner, "", KEYS)
    for name, keys in INNER.items():
        if isinstance(found := inner.get(name), Table):
            yield from _check_table(found, name, keys)
    storage = inner.get("storage")
    if isinstance(storage, Table) and isinstance(layout := storage.get("layout"), Table):
        yield from _check_table(layout, "storage.layout", LAYOUT)
    for name in ("early-commands", "late-commands", "error-commands"):
        yield from _check_commands(name, inner.get(name))
    if inner.get("identity") is None and inner.get("user-data") is None:
        yield inner.line, "identity is missing, and so is user-data: nobody could log in", None
    if inner.get("version") not in (1, None):
        yield inner.place("version").line, "version must be 1", None


def _check_table(table: Table, name: str, keys: Mapping[str, Kinds]) -> Iterator[Said]:
    inside = f"autoinstall.{name}" if name else "autoinstall"
    for key, value in table.items():
        line = table.place(key).line
        path = f"{name}.{key}" if name else key
        if key not in keys:
            yield line, f"the key {key!r} is unknown in {inside}", suggest(key, keys)
        elif type(value) not in keys[key] and not isinstance(
            value, tuple(kind for kind in keys[key] if kind in (dict, list))
        ):
            kinds = " or ".join(_KIND_NAMES.get(kind, kind.__name__) for kind in keys[key])
            yield line, f"{path} must be {kinds}", None
        elif path in VALUES and value not in VALUES[path]:
            yield line, f"{path} must be one of {', '.join(VALUES[path])}", suggest(str(value), VALUES[path])
    for key in REQUIRED.get(name, ()):
        if key not in table:
            yield table.line, f"{inside} needs {key}", None


def _check_commands(name: str, value: Value) -> Iterator[Said]:
    for index, command in enumerate(value if isinstance(value, list) else ()):
        if not isinstance(command, str | list) or (
            isinstance(command, list) and not all(isinstance(word, str) for word in command)
        ):
            line = value.place(index).line if isinstance(value, Items) else None
            yield line, f"an item of {name} must be a text, or a list of words", "quote what has a colon in it"


_KIND_NAMES: Final = {
    str: "a text", bool: "true or false", list: "a list", dict: "a mapping", int: "a number", type(None): "null",
}  # fmt: skip
