"""Files to plain Python values that still know their lines: YAML (1.2 meaning), JSON and TOML.

A mapping comes out as `Table`, a sequence as `Items`: a dict and a list that remember the file and the line of every
value in them. Scalars are plain. What the values mean is not known here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]  # the C scanner
from pathlib import Path
from typing import Final, Self, TypeVar, cast

from osimager.config.values import MOST_DIGITS, Scalar, Value, scalar_problem
from osimager.errors import ConfigError, Place
from osimager.holes import CLOSE, OPEN

T = TypeVar("T", bound=Scalar)
SUFFIXES: Final = (".yml", ".yaml", ".json", ".toml")
MOST_BYTES: Final = 4 << 20
MOST_VALUES: Final = 200_000
MOST_DEPTH: Final = 64


class Table(dict[str, Value]):
    """A mapping of a document. `line` is where it begins, `lines` where each key stands."""

    __slots__ = ("line", "lines", "path")

    def __init__(self, path: Path, line: int) -> None:
        super().__init__()
        self.path, self.line = path, line
        self.lines: dict[str, int] = {}

    def place(self, key: str | None = None) -> Place:
        """Give the place of `key`, or of the whole table."""
        return Place(self.path, self.line if key is None else self.lines.get(key, self.line))


class Items(list[Value]):
    """A sequence of a document. `line` is where it begins, `lines` where each item stands."""

    __slots__ = ("line", "lines", "path")

    def __init__(self, path: Path, line: int) -> None:
        super().__init__()
        self.path, self.line = path, line
        self.lines: list[int] = []

    def place(self, index: int | None = None) -> Place:
        """Give the place of the item at `index`, or of the whole sequence."""
        known = index is not None and index < len(self.lines)
        return Place(self.path, self.lines[cast("int", index)] if known else self.line)


def read_text(path: Path) -> str:
    """Read a text file of ours. Raises ConfigError when it is missing, unreadable, too big or not UTF-8."""
    where = Place(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("this file does not exist", where=where, hint="check the name, or write the file") from None
    except OSError as exc:
        hint = "check its permissions" if isinstance(exc, PermissionError) else "name a readable file"
        raise ConfigError(f"this file cannot be read: {exc.strerror}", where=where, hint=hint) from exc
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"this file is larger than {MOST_BYTES >> 20} MiB", where=where, hint="split it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise ConfigError("this file is not UTF-8", where=Place(path, line), hint="save it as UTF-8") from exc
    for character in (OPEN, CLOSE):
        if character in text:
            line = text.count("\n", 0, text.index(character)) + 1
            hint = "remove this private-use character: osimager uses it for values that are not known yet"
            raise ConfigError(f"the character U+{ord(character):06X} is reserved", where=Place(path, line), hint=hint)
    return text


def load_document(path: Path) -> Table:
    """Read `path` by its suffix. Raises ConfigError with the line of what cannot be read, or is not a mapping."""
    value = _load(path, read_text(path))
    if value is None:
        return Table(path, 1)
    if not isinstance(value, Table):
        raise ConfigError("this file must hold a mapping", where=Place(path, 1), hint="write KEY: VALUE lines")
    return value


def checked_scalar(value: T, path: Path, line: int) -> T:
    """Give `value`. Raises ConfigError for what no document may hold, however it is written."""
    if problem := scalar_problem(value):
        hint = "take it out" if isinstance(value, str) else "quote it, if it is meant as text"
        raise ConfigError(problem, where=Place(path, line), hint=hint)
    return value


def _load(path: Path, text: str) -> Value:
    """Read a text by its suffix; a reader is imported when it is needed."""
    match path.suffix:
        case ".json":
            return _JsonReader(path, text).read()
        case ".toml":
            from osimager.config.documents_toml import load_toml

            return load_toml(path, text)
    from osimager.config.documents_yaml import load_yaml

    return load_yaml(path, text)


def duplicate_key(key: str, where: Place, first_line: int) -> ConfigError:
    """Make the error for a key that stands twice in one mapping."""
    return ConfigError(f"the key {key!r} stands twice (first in line {first_line})", where=where, hint="remove one")


_WORDS_1_2: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class SourceFloat(float):
    """A number that remembers how it was written: 9.10 may have been meant as a version."""

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str


def as_written(value: Value) -> str:
    """Give a scalar as its file has it: 9.10, where the number is 9.1."""
    return value.text if isinstance(value, SourceFloat) else str(value)


def parse_scalar(text: str) -> Scalar:
    """Give a plain scalar's value by YAML 1.2's core schema: `no` and `12:30` are strings, `0o17` is a number."""
    if text in _WORDS_1_2:
        return _WORDS_1_2[text]
    if text[0] in "-+.0123456789":
        if _INT.fullmatch(text) and len(text) < MOST_DIGITS:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text):
            return SourceFloat(text)
        if _SPECIAL_FLOAT.fullmatch(text):
            return float(text.replace(".", "", 1))
    return text


# JSON -------------------------------------------------------------------------------------------------------------

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_WORD = re.compile("true|false|null")


class _JsonReader:
    """A JSON reader (RFC 8259) that keeps lines; the standard library's does not."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.starts = [match.end() for match in re.finditer("\n", text)]

    def line(self, at: int) -> int:
        return bisect_right(self.starts, at) + 1

    def wrong(self, what: str, at: int) -> ConfigError:
        hint = "check commas, quotes and brackets"
        return ConfigError(f"not JSON: {what}", where=Place(self.path, self.line(at)), hint=hint)

    def skip(self, at: int) -> int:
        return cast("re.Match[str]", _SPACE.match(self.text, at)).end()

    def read(self) -> Value:
        value, at = self.value(self.skip(0), 0)
        if self.skip(at) != len(self.text):
            raise self.wrong("text after the end of the value", self.skip(at))
        return value

    def value(self, at: int, depth: int) -> tuple[Value, int]:
        if depth > MOST_DEPTH:
            raise self.wrong("too deeply nested", at)
        match self.text[at : at + 1]:
            case '"':
                return self.string(at)
            case "{":
                return self.table(at, depth)
            case "[":
                return self.items(at, depth)
        if number := _NUMBER.match(self.text, at):
            is_float = number[1] or number[2]
            if not is_float and len(number[0]) > MOST_DIGITS:
                raise self.wrong("the number is too long", at)
            value = SourceFloat(number[0]) if is_float else int(number[0])
            return checked_scalar(value, self.path, self.line(at)), number.end()
        if word := _WORD.match(self.text, at):
            return _WORDS[word[0]], word.end()
        raise self.wrong("a value is expected here", min(at, max(len(self.text) - 1, 0)))

    def string(self, at: int) -> tuple[str, int]:
        try:
            text, end = scanstring(self.text, at + 1, True)
        except JSONDecodeError as exc:
            raise self.wrong(exc.msg, at) from None
        return checked_scalar(text, self.path, self.line(at)), end

    def table(self, at: int, depth: int) -> tuple[Table, int]:
        table = Table(self.path, self.line(at))
        at = self.skip(at + 1)
        if self.text[at : at + 1] == "}":
            return table, at + 1
        while True:
            if self.text[at : at + 1] != '"':
                raise self.wrong("a key in double quotes is expected here", at)
            key_at = at
            key, at = self.string(at)
            if key in table:
                raise duplicate_key(key, Place(self.path, self.line(key_at)), table.lines[key])
            at = self.skip(at)
            if self.text[at : at + 1] != ":":
                raise self.wrong("':' is expected here", at)
            table[key], at = self.value(self.skip(at + 1), depth + 1)
            table.lines[key] = self.line(key_at)
            at, more = self.after(at, "}")
            if not more:
                return table, at

    def items(self, at: int, depth: int) -> tuple[Items, int]:
        items = Items(self.path, self.line(at))
        at = self.skip(at + 1)
        if self.text[at : at + 1] == "]":
            return items, at + 1
        while True:
            items.lines.append(self.line(at))
            value, at = self.value(at, depth + 1)
            items.append(value)
            at, more = self.after(at, "]")
            if not more:
                return items, at

    def after(self, at: int, closer: str) -> tuple[int, bool]:
        """Step over what follows an element: a comma (and there is more) or `closer`."""
        at = self.skip(at)
        match self.text[at : at + 1]:
            case ",":
                return self.skip(at + 1), True
            case found if found == closer:
                return at + 1, False
        raise self.wrong(f"',' or {closer!r} is expected here", min(at, len(self.text) - 1))
