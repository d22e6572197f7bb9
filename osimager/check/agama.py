"""JSON and TOML answer files: Agama's profile by its keys, the others by their form."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from typing import Final

from osimager.check.problem import Finding, suggest

# Source: Agama, "Profile JSON schema" (rust/agama-lib/share/profile.schema.json), the keys of its top level.
_KEYS: Final = """
    product software localization network root user users storage legacyAutoyastStorage scripts questions hostname
    bootloader iscsi dasd zfcp files security proxy ntp $schema
"""
KEYS: Final = frozenset(_KEYS.split())


async def check_agama(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check the top level's keys."""
    found: list[Finding] = []
    for index, (_, text) in enumerate(files):
        problem, value = _read(index, text)
        if problem is not None:
            found.append(problem)
        elif not isinstance(value, dict):
            found.append(Finding(index, 1, "a profile is one JSON object"))
        else:
            found += [
                Finding(index, None, f"Agama knows no key {key!r}", suggest(key, KEYS))
                for key in value
                if key not in KEYS
            ]
    return found


async def check_json(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check that each text is JSON."""
    return [problem for index, (_, text) in enumerate(files) if (problem := _read(index, text)[0]) is not None]


async def check_toml(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check that each text is TOML."""
    found = []
    for index, (_, text) in enumerate(files):
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            found.append(Finding(index, None, f"it is not TOML: {exc}"))
    return found


def _read(index: int, text: str) -> tuple[Finding | None, object]:
    try:
        return None, json.loads(text)
    except ValueError as exc:
        line = exc.lineno if isinstance(exc, json.JSONDecodeError) else None
        return Finding(index, line, f"it is not JSON: {exc}"), None
