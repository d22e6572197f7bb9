"""The secrets file of OSImager: a line `PATH KEY=VALUE …` for each path.

A value with blanks is quoted: `'…'` as it stands, `"…"` with `\\n`, `\\t`, `\\"` and `\\\\`. Quotes inside an unquoted
value are its own, as in OSImager. A word that begins with `#` begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from osimager.errors import ConfigError, Place
from osimager.secrets.provider import NoSuchSecret, pick, read_private_text

_KEY = re.compile(r"([^\s=\"'#][^\s=]*)=")
_VALUE = re.compile(r"'(?P<single>[^']*)'(?!\S)|\"(?P<double>(?:[^\"\\]|\\.)*)\"(?!\S)|(?P<plain>(?![\"'])\S*)")
_ESCAPE = re.compile(r"\\([nt\"\\])")
_ESCAPED = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """What one line of the file says."""

    place: Place
    values: Mapping[str, str]


def parse_secrets(text: str, path: Path) -> dict[str, Entry]:
    """Read the lines of a secrets file, by path. Raises ConfigError with the line, and never with its text."""
    entries: dict[str, Entry] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        where = Place(path, number)
        name, *rest = line.split(None, 1) or [""]
        if not name or name.startswith("#"):
            continue
        if name in entries:
            what = f"the path {name!r} stands twice (first in line {entries[name].place.line})"
            raise ConfigError(what, where=where, hint="make one line of the two")
        entries[name] = Entry(where, _parse_pairs("".join(rest).strip(), where))
    return entries


def _parse_pairs(text: str, where: Place) -> dict[str, str]:
    values: dict[str, str] = {}
    at = 0
    while at < len(text) and text[at] != "#":
        key = _KEY.match(text, at)
        if key is None:
            hint = 'write PATH KEY=VALUE …; a value with blanks in quotes: password="two words"'
            raise ConfigError(f"word {len(values) + 2} of this line is not KEY=VALUE", where=where, hint=hint)
        value = _VALUE.match(text, key.end())
        if value is None:
            hint = "close the quote, and put a blank behind it"
            raise ConfigError(f"the value of {key[1]!r} is quoted wrongly", where=where, hint=hint)
        if key[1] in values:
            raise ConfigError(f"the key {key[1]!r} stands twice in this line", where=where, hint="remove one")
        values[key[1]] = _unquoted(value)
        at = value.end()
        while at < len(text) and text[at].isspace():
            at += 1
    if not values:
        raise ConfigError("this line has no KEY=VALUE", where=where, hint="write PATH KEY=VALUE …")
    return values


def _unquoted(value: re.Match[str]) -> str:
    if value["single"] is not None:
        return value["single"]
    if value["double"] is not None:
        return _ESCAPE.sub(lambda escape: _ESCAPED[escape[1]], value["double"])
    return value["plain"]


class SecretsFile:
    """Secrets from a file of lines, read when the first is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"the secrets file {self.path}"

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        if not self.path.exists():
            hint = f"write lines PATH KEY=VALUE … into it, and chmod 600 {self.path}"
            raise NoSuchSecret("there is no secrets file", where=Place(self.path), hint=hint)
        return parse_secrets(read_private_text(self.path), self.path)

    def read(self, path: str, key: str | None) -> str:
        """Give the value at `path` and `key`. Raises ConfigError, NoSuchSecret where there is none."""
        entry = self._entries.get(path)
        hint = f"add it to {self.path}: {path} {key or 'password'}=VALUE"
        if entry is None:
            raise NoSuchSecret(f"the path {path!r} is not in the secrets file", where=Place(self.path), hint=hint)
        return pick(entry.values, key, what=f"the secret {path!r}", hint=hint, where=entry.place)
