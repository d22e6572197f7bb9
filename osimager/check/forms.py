"""Answer files of which the form alone is checked: JSON, YAML, TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from osimager.check.problem import Finding
from osimager.config.documents_yaml import load_yaml
from osimager.config.values import Value
from osimager.errors import ConfigError


async def check_json(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check that each text is JSON."""
    return [problem for index, (_, text) in enumerate(files) if (problem := read_json(index, text)[0]) is not None]


async def check_yaml(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check that each text is YAML with no key twice."""
    return [problem for index, file in enumerate(files) if (problem := read_yaml(index, *file)[0]) is not None]


async def check_toml(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check that each text is TOML."""
    found = []
    for index, (_, text) in enumerate(files):
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            found.append(Finding(index, None, f"it is not TOML: {exc}"))
    return found


def read_json(index: int, text: str) -> tuple[Finding | None, object]:
    """Give what is wrong with the text of file `index`, or what it says."""
    try:
        return None, json.loads(text)
    except ValueError as exc:
        line = exc.lineno if isinstance(exc, json.JSONDecodeError) else None
        return Finding(index, line, f"it is not JSON: {exc}"), None


def read_yaml(index: int, name: str, text: str) -> tuple[Finding | None, Value]:
    """Give what is wrong with the text of file `index`, or what it says."""
    try:
        return None, load_yaml(Path(name), text)
    except ConfigError as exc:
        return Finding(index, exc.where[0].line if exc.where else None, exc.what, exc.hint), None
