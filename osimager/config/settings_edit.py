"""One value of `config.yml` changed in place: comments, order and everything else stay as they were written."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from osimager.config.values import Value
from osimager.errors import ConfigError

_INDENT = "  "


def set_value(text: str, path: Sequence[str], value: Value) -> str:
    """Give the YAML `text` with the value at `path` (`("secrets", "source")`) replaced, or added.

    Raises ConfigError where a parent stands in braces: those are left to their author.
    """
    lines = text.splitlines()
    start, end = 0, len(lines)
    for depth, key in enumerate(path):
        at = _find(lines, key, start, end, indent=_indent_of(lines, start, end, depth))
        if at is None:
            added = [_INDENT * number + name + ":" for number, name in enumerate(path)][depth:]
            own_indent = _indent_of(lines, start, end, depth)
            added = [" " * own_indent + line.removeprefix(_INDENT * depth) for line in added]
            added[-1] += f" {_written(value)}"
            last = _last_content(lines, start, end)
            lines[last:last] = added
            break
        if depth == len(path) - 1:
            indent = len(lines[at]) - len(lines[at].lstrip())
            lines[at : _block_end(lines, at, end)] = [f"{' ' * indent}{key}: {_written(value)}"]
            break
        rest = lines[at].partition(":")[2].partition(" #")[0].strip()
        if rest:
            hint = f"write it on lines of its own under {key}:"
            raise ConfigError(f"{key} stands in one line, and is left alone", hint=hint)
        start, end = at + 1, _block_end(lines, at, end)
    return "\n".join(lines) + "\n"


def _written(value: Value) -> str:
    """Write a value in JSON, which YAML 1.2 reads too."""
    return json.dumps(value, ensure_ascii=False)


def _content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _indent_of(lines: Sequence[str], start: int, end: int, depth: int) -> int:
    """Give the indent of a block's keys: its first line's, or ours."""
    first = next((line for line in lines[start:end] if _content(line)), None)
    return len(first) - len(first.lstrip()) if first is not None else len(_INDENT) * depth


def _find(lines: Sequence[str], key: str, start: int, end: int, *, indent: int) -> int | None:
    pattern = re.compile(rf"{' ' * indent}(['\"]?){re.escape(key)}\1\s*:(\s|$)")
    return next((at for at in range(start, end) if pattern.match(lines[at])), None)


def _block_end(lines: Sequence[str], at: int, end: int) -> int:
    """Give the line after the block that begins at `at`; blank lines and comments at its end are not its own."""
    indent = len(lines[at]) - len(lines[at].lstrip())
    last = at + 1
    for number in range(at + 1, end):
        line = lines[number]
        if not _content(line):
            continue
        own = len(line) - len(line.lstrip())
        if own < indent or (own == indent and not line.lstrip().startswith("- ")):
            break
        last = number + 1
    return last


def _last_content(lines: Sequence[str], start: int, end: int) -> int:
    found = [number for number in range(start, end) if _content(lines[number])]
    return found[-1] + 1 if found else end
