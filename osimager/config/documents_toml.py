"""The TOML reader of `documents`: tomllib's values, and the line of each key found beside it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from osimager.config.documents import MOST_DEPTH, Items, SourceFloat, Table, checked_scalar
from osimager.config.values import MOST_DIGITS, Value
from osimager.errors import ConfigError, Place

_LONG_NUMBER = re.compile(r"[0-9][0-9_]{4000}")
_TOML_LINE = re.compile(r"\(at line (\d+)")
_TOML_STRING = r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
_TOML_TOKEN = re.compile(
    rf"(?P<comment>#[^\n]*)|(?P<text>{_TOML_STRING})|(?P<other>[\[\]{{}}=,\n.]|[^\s\[\]{{}}=,.#\"']+)", re.S
)


def load_toml(path: Path, text: str) -> Value:
    """Read a TOML text. Raises ConfigError with the line of what is wrong."""
    try:
        plain = tomllib.loads(text, parse_float=SourceFloat)
    except tomllib.TOMLDecodeError as exc:
        found = _TOML_LINE.search(str(exc))
        what = re.sub(r" \(at .*\)", "", str(exc))
        line = int(found[1]) if found else text.count("\n") + 1
        raise ConfigError(f"not TOML: {what}", where=Place(path, line), hint="check quotes and brackets") from exc
    except ValueError as exc:  # Python reads no number of more than 4,300 digits
        found = _LONG_NUMBER.search(text)
        where = Place(path, text.count("\n", 0, found.start()) + 1) if found else Place(path)
        raise ConfigError(f"a number has at most {MOST_DIGITS} digits", where=where, hint="quote it") from exc
    except RecursionError:
        raise ConfigError("not TOML: too deeply nested", where=Place(path), hint="split this file") from None
    return _TomlPlacer(path, _toml_lines(text)).place(plain, (), 1)


def _toml_lines(text: str) -> dict[tuple[str, ...], int]:
    """Find the line of each key path; an element of an array of tables has its number in the path."""
    lines: dict[tuple[str, ...], int] = {}
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for line, whole in enumerate(_blank_values(text).split("\n"), 1):
        stripped = whole.strip()
        if header := re.fullmatch(r"(\[\[?)\s*(.+?)\s*\]\]?", stripped):
            table = _numbered(_toml_key(header[2]), counts)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, str(counts[table]))
            lines.setdefault(table, line)
        elif key := re.match(r"((?:\"[^\"]*\"|'[^']*'|[\w-]+|\s*\.\s*)+?)\s*=", stripped):
            lines.setdefault((*table, *_toml_key(key[1])), line)
    return lines


def _blank_values(text: str) -> str:
    """Give `text` with comments, multi-line strings and what stands in a value's brackets blanked, its lines kept."""
    depth, in_value = 0, False

    def blank(match: re.Match[str]) -> str:
        nonlocal depth, in_value
        found, is_inner = match[0], depth > 0
        if match["comment"] is not None:
            return ""
        if match["text"] is None and not (found == "\n" and is_inner):
            in_value = found == "=" or (in_value and found != "\n")
            depth += in_value * ((found in ("[", "{")) - (found in ("]", "}")))
        is_blanked = is_inner or found.startswith(('"""', "'''"))
        return re.sub(r"[^\n]", " ", found) if is_blanked else found

    return _TOML_TOKEN.sub(blank, text)


def _toml_key(text: str) -> tuple[str, ...]:
    parts = re.findall(r"\"([^\"]*)\"|'([^']*)'|([\w-]+)", text)
    return tuple(double or single or bare for double, single, bare in parts)


def _numbered(key: Sequence[str], counts: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """Put the number of the current element behind each part of a header that names an array of tables."""
    path: tuple[str, ...] = ()
    for position, part in enumerate(key):
        path = (*path, part)
        if path in counts and position < len(key) - 1:
            path = (*path, str(counts[path]))
    return path


class _TomlPlacer:
    """Give the values that tomllib read their lines."""

    def __init__(self, path: Path, lines: dict[tuple[str, ...], int]) -> None:
        self.path, self.lines = path, lines

    def place(self, value: object, key: tuple[str, ...], outer_line: int) -> Value:
        line = self.lines.get(key, outer_line)
        if len(key) > MOST_DEPTH:
            raise ConfigError("too deeply nested", where=Place(self.path, line), hint="split this file")
        if isinstance(value, dict):
            table = Table(self.path, line)
            for name, inner in value.items():
                checked_scalar(name, self.path, self.lines.get((*key, name), line))
                table[name] = self.place(inner, (*key, name), line)
                table.lines[name] = self.lines.get((*key, name), line)
            return table
        if isinstance(value, list):
            items = Items(self.path, line)
            for index, inner in enumerate(value):
                items.append(self.place(inner, (*key, str(index)), line))
                items.lines.append(self.lines.get((*key, str(index)), line))
            return items
        # The last case: TOML's dates and times.
        scalar = value if isinstance(value, str | int | float | bool) else str(value)
        return checked_scalar(scalar, self.path, line)
