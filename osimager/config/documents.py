"""Files to plain Python values that still know their lines: YAML (1.2 meaning), JSON and TOML.

A mapping comes out as `Table`, a sequence as `Items`: a dict and a list that remember the file and the line of every
value in them. Scalars are plain. What the values mean is not known here.
"""

from __future__ import annotations

import json
import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]  # the C scanner of the standard library
from pathlib import Path
from typing import Final, cast

import yaml

from osimager.config.sections import Scalar, Value
from osimager.errors import ConfigError, Place
from osimager.holes import CLOSE, OPEN

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
    loaders: dict[str, Callable[[Path, str], Value]] = {".json": _load_json, ".toml": _load_toml}
    value = loaders.get(path.suffix, _load_yaml)(path, read_text(path))
    if value is None:
        return Table(path, 1)
    if not isinstance(value, Table):
        raise ConfigError("this file must hold a mapping", where=Place(path, 1), hint="write KEY: VALUE lines")
    return value


# YAML -------------------------------------------------------------------------------------------------------------

_WORDS_1_2: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN, _QUOTED = "plain", "quoted"
_BASE: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_scalar(text: str) -> Scalar:
    """Give a plain scalar's value by YAML 1.2's core schema: `no` and `12:30` are strings, `0o17` is a number."""
    if text in _WORDS_1_2:
        return _WORDS_1_2[text]
    if text[0] in "-+.0123456789":
        if _INT.fullmatch(text) and len(text) < 400:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        if _SPECIAL_FLOAT.fullmatch(text):
            return float(text.replace(".", "", 1))
    return text


class _Loader(_BASE):  # type: ignore[misc]  # CSafeLoader or SafeLoader
    """PyYAML's composer with a resolver that only tells plain scalars from quoted ones."""

    def resolve(self, kind: type, value: str, implicit: object) -> str:
        if kind is not yaml.ScalarNode:
            return _QUOTED
        return _PLAIN if isinstance(implicit, tuple) and implicit[0] else _QUOTED


def _load_yaml(path: Path, text: str) -> Value:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else None
        what = " ".join(part for part in (exc.context, exc.problem) if part)
        raise ConfigError(f"not YAML: {what}", where=Place(path, line), hint="check indentation and quotes") from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise ConfigError(f"not YAML: {exc}", where=Place(path), hint="check indentation and quotes") from exc
    return None if node is None else _Composer(path).value_of(node, 0)


class _Composer:
    """Turn nodes into values, counting them: an alias costs as much as what it stands for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.path, node.start_mark.line + 1)

    def value_of(self, node: yaml.Node, depth: int) -> Value:
        self.count += 1
        if self.count > MOST_VALUES or depth > MOST_DEPTH:
            raise ConfigError("too many or too deeply nested values", where=self.place(node), hint="split this file")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar_of(node)
        if node.tag not in (_QUOTED, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise self.refused_tag(node)
        return self.table_of(node, depth) if isinstance(node, yaml.MappingNode) else self.items_of(node, depth)

    def scalar_of(self, node: yaml.ScalarNode) -> Scalar:
        match node.tag:
            case "plain":
                return parse_scalar(node.value)
            case "quoted" | "tag:yaml.org,2002:str" | "!":
                return cast("str", node.value)
        raise self.refused_tag(node)

    def refused_tag(self, node: yaml.Node) -> ConfigError:
        return ConfigError(f"the YAML tag {node.tag!r} is not allowed", where=self.place(node), hint="remove the tag")

    def table_of(self, node: yaml.MappingNode, depth: int) -> Table:
        table = Table(self.path, node.start_mark.line + 1)
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a scalar", where=Place(self.path, line), hint="write KEY: VALUE")
            key = key_node.value
            if key in table:
                raise _duplicate(key, Place(self.path, line), table.lines[key])
            table[key] = self.value_of(value_node, depth + 1)
            table.lines[key] = line
        return table

    def items_of(self, node: yaml.Node, depth: int) -> Items:
        items = Items(self.path, node.start_mark.line + 1)
        for child in node.value:
            items.append(self.value_of(child, depth + 1))
            items.lines.append(child.start_mark.line + 1)
        return items


def _duplicate(key: str, where: Place, first_line: int) -> ConfigError:
    return ConfigError(f"the key {key!r} stands twice (first in line {first_line})", where=where, hint="remove one")


# JSON -------------------------------------------------------------------------------------------------------------

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_WORD = re.compile("true|false|null")


def _load_json(path: Path, text: str) -> Value:
    return _JsonReader(path, text).read()


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
            if not is_float and len(number[0]) > 400:
                raise self.wrong("the number is too long", at)
            return (float(number[0]) if is_float else int(number[0])), number.end()
        if word := _WORD.match(self.text, at):
            return _WORDS[word[0]], word.end()
        raise self.wrong("a value is expected here", min(at, max(len(self.text) - 1, 0)))

    def string(self, at: int) -> tuple[str, int]:
        try:
            text, end = scanstring(self.text, at + 1, True)
        except json.JSONDecodeError as exc:
            raise self.wrong(exc.msg, at) from None
        return text, end

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
                raise _duplicate(key, Place(self.path, self.line(key_at)), table.lines[key])
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


# TOML -------------------------------------------------------------------------------------------------------------

_TOML_LINE = re.compile(r"\(at line (\d+)")
_TOML_STRING = r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
_TOML_TOKEN = re.compile(
    rf"(?P<comment>#[^\n]*)|(?P<text>{_TOML_STRING})|(?P<other>[\[\]{{}}=,\n.]|[^\s\[\]{{}}=,.#\"']+)", re.S
)


def _load_toml(path: Path, text: str) -> Value:
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = _TOML_LINE.search(str(exc))
        what = re.sub(r" \(at .*\)", "", str(exc))
        line = int(found[1]) if found else text.count("\n") + 1
        raise ConfigError(f"not TOML: {what}", where=Place(path, line), hint="check quotes and brackets") from exc
    except RecursionError:
        raise ConfigError("not TOML: too deeply nested", where=Place(path), hint="split this file") from None
    return _TomlPlacer(path, _toml_lines(text)).place(plain, (), 1)


def _toml_lines(text: str) -> dict[tuple[str, ...], int]:
    """Find the line of each key path; an element of an array of tables has its number in the path."""
    lines: dict[tuple[str, ...], int] = {}
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for match in re.finditer(r"[^\n]*", _blank_values(text)):
        stripped = match[0].strip()
        line = text.count("\n", 0, match.start()) + 1
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
    """Give `text` with comments and multi-line strings blanked, its lines kept."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        if match["comment"] is not None:
            return ""
        return re.sub(r"[^\n]", " ", found) if found.startswith(('"""', "'''")) else found

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
        return value if isinstance(value, str | int | float | bool) else str(value)
