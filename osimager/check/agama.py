"""Agama's profile, which is JSON: its keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from osimager.check.forms import read_json
from osimager.check.problem import Finding, suggest

# Source: Agama, rust/share/profile.schema.json (August 2026), which takes no other key on these levels.
_KEYS: Final = """
    $schema access bootloader dasd files hostname iscsi l10n legacyAutoyastStorage localization network ntp product
    proxy questions root scripts security software storage user zfcp
"""
KEYS: Final = frozenset(_KEYS.split())
_NOT_IN_16_0: Final = frozenset(["$schema", "access", "l10n", "ntp", "proxy"])  # the same file in its branch SLE-16
_USER: Final = ("password", "hashedPassword", "sshPublicKey", "sshPublicKeys")
INNER: Final[Mapping[str, tuple[str, ...]]] = {
    "bootloader": ("stopOnBootMenu", "timeout", "extraKernelParams", "updateNvram"),
    "hostname": ("static", "transient"),
    "localization": ("language", "keyboard", "timezone"),
    "network": ("state", "connections"),
    "product": ("id", "mode", "registrationCode", "registrationEmail", "registrationUrl", "addons"),
    "proxy": (
        "enabled", "httpProxy", "httpsProxy", "ftpProxy", "gopherProxy", "socksProxy", "socks5Server", "noProxy",
    ),
    "root": _USER,
    "scripts": ("pre", "postPartitioning", "post", "init"),
    "user": ("fullName", "userName", *_USER),
}  # fmt: skip


async def check_agama(version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check the top level's keys: those that the Agama of `version` takes."""
    found: list[Finding] = []
    keys = KEYS - _NOT_IN_16_0 if version == "16.0" else KEYS
    for index, (_, text) in enumerate(files):
        problem, value = read_json(index, text)
        if problem is not None:
            found.append(problem)
        elif not isinstance(value, dict):
            found.append(Finding(index, 1, "a profile is one JSON object"))
        else:
            found += [Finding(index, None, what, hint) for what, hint in _profile_problems(value, keys)]
    return found


def _profile_problems(profile: Mapping[object, object], keys: Collection[str]) -> Iterator[tuple[str, str | None]]:
    for key, value in profile.items():
        if key not in keys:
            yield f"Agama knows no key {key!r}", suggest(str(key), keys)
        elif isinstance(value, dict) and (known := INNER.get(str(key))):
            for inner in value:
                if inner not in known:
                    yield f"Agama knows no key {inner!r} in {key}", suggest(str(inner), known)
    bootloader = profile.get("bootloader")
    if isinstance(bootloader, dict) and {"timeout", "stopOnBootMenu"} <= {*bootloader}:
        yield "timeout and stopOnBootMenu exclude each other in bootloader", None
    if not isinstance(profile.get("product"), dict):
        yield "product is missing: Agama would ask for it", None
