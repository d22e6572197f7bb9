"""The 12 markers of OSImager in one tokenizer, and what each is replaced by.

| marker | stands for | marker | stands for |
|---|---|---|---|
| `>>name<<` | a def | `$>NAME<$` | an environment variable |
| `%>name<%` | a def, never escaped | `1>ref<1` `5>ref<5` `6>ref<6` | a secret (or def), hashed with crypt |
| `+>name<+` | the base name of a def | `E>expression<E` | an expression's value |
| `*>host<*` | a host's address | `#>a*b<#` | an expression's value as a whole number |
| `|>path:key<|` | a secret | `[>name<]` | the items of a list |

A marker lies in one line. Markers nest (`|>images/>>dist<<:password<|`). What looks like one but has no legal body
(`<b>>>name<<</b>`, `cat >>/tmp/x <<EOF`) is text. What a marker gives is data: it is never read again.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from osimager.config.documents import Items, Table
from osimager.config.escapes import Escape
from osimager.config.expressions import ExpressionError, evaluate, parse_expression
from osimager.config.lookups import Lookups
from osimager.config.values import MOST_SIZE, Value, scalar_problem
from osimager.crypt import Method, crypt
from osimager.errors import ConfigError, Place, raise_all
from osimager.holes import OPEN

MOST_BODY: Final = 4096
MOST_NESTING: Final = 8
MOST_ENDS: Final = 100
_CLOSERS: Final = {
    ">>": "<<", "%>": "<%", "+>": "<+", "*>": "<*", "|>": "<|", "#>": "<#", "$>": "<$", "[>": "<]",
    "1>": "<1", "5>": "<5", "6>": "<6", "E>": "<E",
}  # fmt: skip
_OPENER: Final = re.compile(r"[>%+*|#$\[156E]>")
_BODY_TEXT: Final = {
    ">>": re.compile(r"[\w.-]+"),
    **dict.fromkeys(("%>", "+>", "[>"), re.compile(r"[\w.-]+|[\"']")),
    "*>": re.compile(r"[\w.:-]+|[\"']"),
    "$>": re.compile(r"\w+"),
    "#>": re.compile(r"[\w .,()+*/%-]+"),
    **dict.fromkeys(("|>", "1>", "5>", "6>"), re.compile(r"[^\s<>|\"'`]+|[\"']")),
}
_NAME: Final = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")
# What counts inside `E>…<E`: a possible end (but `<<E` outside a marker is a here-document's) and markers.
_IN_EXPRESSION: Final = re.compile(r"<E|[>%+*|#$\[156]>")
_XML_TAG: Final = re.compile(r"</?[\w:.-]*\Z")
# Stands for the marker number N inside an expression's source: a letter of no alphabet that people write specs in.
_STAND_IN: Final = "\ua66e"
_STAND_INS: Final = re.compile(f"{_STAND_IN}(\\d+){_STAND_IN}")
_LITERAL: Final = re.compile(r"-?\d{1,30}|-?\d{1,30}\.\d{1,30}|True|False|None")
# What these give is data, though it reads like a number.
_FROM_OUTSIDE: Final = frozenset(("|>", "$>", "*>", "1>", "5>", "6>"))
_LITERALS: Final[dict[str, Value]] = {"True": True, "False": False, "None": None}


@dataclass(frozen=True, slots=True)
class Marker:
    """One marker: its opener, the parts of its body (text and markers), and where it begins in its text."""

    kind: str
    body: tuple[str | Marker, ...]
    at: int


@lru_cache(maxsize=16384)
def parse_template(text: str) -> tuple[str | Marker, ...]:
    """Split `text` into plain text and markers. Raises ConfigError for `E>` without a readable expression."""
    if ">" not in text:
        return (text,) if text else ()
    parts: list[str | Marker] = []
    start = at = barren = 0
    while opener := _OPENER.search(text, at):
        is_expression = opener[0] == "E>"
        is_text = (opener[0][0] in "156E" and _XML_TAG.search(text, start, opener.start())) or (
            is_expression and opener.start() < barren
        )
        found = None if is_text else _marker_at(text, opener.start(), 0)
        if found is None:
            at = opener.start() + 1
            if is_expression and not is_text:  # no `E>` finds an end where an earlier one of its line did not
                barren = min(_line_end(text, at), opener.start() + MOST_BODY)
            continue
        marker, end = found
        if opener.start() > start:
            parts.append(text[start : opener.start()])
        parts.append(marker)
        start = at = end
    if start < len(text):
        parts.append(text[start:])
    return tuple(parts)


def _marker_at(text: str, at: int, depth: int) -> tuple[Marker, int] | None:
    """Read the marker that begins at `at`; give it and the index behind it, or None where there is none."""
    kind = text[at : at + 2]
    if kind not in _CLOSERS or depth > MOST_NESTING:
        return None
    if kind == "E>":
        return _expression_at(text, at) if depth == 0 else None
    closer, allowed = _CLOSERS[kind], _BODY_TEXT[kind]
    reach = at + MOST_BODY + 2
    # Whatever this one stands in needs an end of its own behind it, and every end has a `<`.
    if text.find(closer, at + 2, reach) < 0 or (depth and text.count("<", at + 2, reach) <= depth):
        return None
    body: list[str | Marker] = []
    position = at + 2
    while position - at < MOST_BODY:
        if body and text.startswith(closer, position):
            return Marker(kind, tuple(body), at), position + 2
        nested = _marker_at(text, position, depth + 1)
        if nested is not None:
            body.append(nested[0])
            position = nested[1]
            continue
        match = allowed.match(text, position)
        if match is None:
            return None
        stop = match.end()
        # A nested marker may begin with a character that the body's own text may hold, too: 6>a/5>b<5<6.
        inner = _OPENER.search(text, position + 1, stop + 1)
        if inner is not None:
            stop = min(stop, inner.start())
        if stop == position:
            stop = position + 1
        body.append(text[position:stop])
        position = stop
    return None


def _expression_at(text: str, at: int) -> tuple[Marker, int] | None:
    """Read `E>…<E`: it ends at the first `<E` at which its body can be read (`'<E'` may stand in a string)."""
    line_end = _line_end(text, at)
    if text.find("<E", at + 2, min(line_end, at + MOST_BODY)) < 0:
        return None
    body: list[str | Marker] = []
    start = position = at + 2
    problem: ExpressionError | None = None
    ends = 0
    while found := _IN_EXPRESSION.search(text, position, min(line_end, at + MOST_BODY)):
        is_free = found[0] == "<E" and (found.start() == start or text[found.start() - 1] != "<")
        ends += is_free
        if ends > MOST_ENDS:
            break
        if is_free:
            whole = (*body, text[start : found.start()]) if start < found.start() else tuple(body)
            try:
                parse_expression(_source(whole))
            except ExpressionError as exc:
                problem = problem or exc
            else:
                return Marker("E>", whole, at), found.end()
        nested = None if found[0] == "<E" else _marker_at(text, found.start(), 1)
        position = found.start() + 1
        if nested is not None:
            if start < found.start():
                body.append(text[start : found.start()])
            body.append(nested[0])
            start = position = nested[1]
    if problem is None:
        return None
    hint = "correct the expression; if it is not meant as one, put a space before the '>'"
    raise ConfigError(f"the expression in {text[at:line_end][:60]!r} is wrong: {problem}", hint=hint)


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _source(body: Sequence[str | Marker]) -> str:
    """Give an expression's source with a stand-in for each marker in it."""
    for part in body:
        if isinstance(part, str) and _STAND_IN in part:
            raise ExpressionError(f"the character {_STAND_IN!r} is reserved")
    return "".join(
        part if isinstance(part, str) else f"{_STAND_IN}{index}{_STAND_IN}" for index, part in enumerate(body)
    )


class Names:
    """Where the names in markers get their values. A subclass knows defs; this is the seam."""

    def value(self, name: str, where: Place | None) -> Value:
        """Give the resolved value of the def `name`. Raises ConfigError where it is not defined."""
        raise NotImplementedError

    def is_defined(self, name: str) -> bool:
        """Tell whether the def `name` exists."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Renderer:
    """Replace markers by values. `dns` are the servers and search domains that `*>` asks."""

    names: Names
    lookups: Lookups
    dns: Callable[[], tuple[tuple[str, ...], tuple[str, ...]]]

    def render(self, text: str, where: Place | None = None, escape: Escape | None = None) -> str:
        """Give `text` with every marker replaced. `where` is the place of the text's first line.

        `escape` is applied to what markers give, except for `%>` and `E>`: those are written by the author.
        Raises ConfigError, ConfigErrors for several wrong markers.
        """
        out: list[str] = []
        errors: list[ConfigError] = []
        size = 0
        for part in self._parse(text, where):
            if isinstance(part, str):
                out.append(part)
                continue
            place = _line_of(text, part.at, where)
            try:
                out.append(self._render(part, place, escape))
            except ConfigError as exc:
                errors += exc.errors
                continue
            size += len(out[-1])
            if size > MOST_SIZE:
                raise too_large(place)
        raise_all(list(dict.fromkeys(errors)))
        return "".join(out)

    def _render(self, marker: Marker, where: Place | None, escape: Escape | None) -> str:
        value = as_text(self.resolve(marker, where))
        return value if escape is None or marker.kind in ("%>", "E>") else _escaped(value, escape, where)

    def resolve_value(self, value: Value, where: Place | None = None) -> Value:
        """Give `value` with every marker in it replaced, all levels down; a marker that is the whole text keeps its
        value's type, and `[>list<]` as an item gives its items.
        """
        if isinstance(value, str):
            return self._resolve_text(value, where)
        if isinstance(value, dict):
            return self._resolve_table(value, where)
        if isinstance(value, list):
            return self._resolve_items(value, where)
        return value

    def _resolve_text(self, text: str, where: Place | None) -> Value:
        parts = self._parse(text, where)
        if not any(isinstance(part, Marker) for part in parts):
            return text
        found = [part for part in parts if isinstance(part, Marker) or part.strip()]
        if len(found) == 1 and isinstance(found[0], Marker):
            return self.resolve(found[0], where)
        return self.render(text, where)

    def _resolve_table(self, table: dict[str, Value], where: Place | None) -> dict[str, Value]:
        result: dict[str, Value] = {}
        for key, value in table.items():
            place = _inner_place(table, key, where)
            result[self.render(key, place) if ">" in key else key] = self.resolve_value(value, place)
        return result

    def _resolve_items(self, items: list[Value], where: Place | None) -> list[Value]:
        result: list[Value] = []
        for index, value in enumerate(items):
            place = _inner_place(items, index, where)
            resolved = self.resolve_value(value, place)
            if isinstance(resolved, list) and isinstance(value, str) and value.strip().startswith("[>"):
                result += resolved
            else:
                result.append(resolved)
        return result

    def _parse(self, text: str, where: Place | None) -> tuple[str | Marker, ...]:
        try:
            return parse_template(text)
        except ConfigError as exc:
            raise ConfigError(exc.what, where=where or exc.where, hint=exc.hint) from None

    def resolve(self, marker: Marker, where: Place | None) -> Value:
        """Give the value of one marker, typed."""
        if marker.kind in ("E>", "#>"):
            return self._evaluate(marker, where)
        body = "".join(
            part if isinstance(part, str) else as_text(self.resolve(part, where)) for part in marker.body
        ).strip("\"'")
        match marker.kind:
            case ">>" | "%>":
                return self.names.value(_checked_name(body, where), where)
            case "+>":
                return posixpath.basename(as_text(self.names.value(_checked_name(body, where), where)))
            case "[>":
                return as_list(self.names.value(_checked_name(body, where), where))
            case "$>":
                return self._environment(body, where)
            case "*>":
                return self._address(body, where)
            case "|>":
                return self._secret(body, where)
        return self._hash(body, Method(marker.kind[0]), where)

    def _environment(self, name: str, where: Place | None) -> str:
        value = self.lookups.environment(name)
        if value is None:
            hint = f"export {name}=VALUE before you start osimager"
            raise ConfigError(f"the environment variable {name!r} is not set", where=where, hint=hint)
        return _without_holes(value, f"the environment variable {name!r}", where)

    def _address(self, body: str, where: Place | None) -> str:
        host = as_text(self.names.value(body, where)) if self.names.is_defined(body) else body
        servers, search = self.dns()
        address = self.lookups.dns(host, servers, search)
        if address is None:
            raise ConfigError(f"no address was found for the host {host!r}", where=where, hint="check the name and dns")
        return address

    def _secret(self, reference: str, where: Place | None) -> str:
        path, _, key = reference.partition(":")
        try:
            secret = self.lookups.secret(path, key or None)
        except ConfigError as exc:
            raise ConfigError(exc.what, where=[*exc.where, *([where] if where else [])], hint=exc.hint) from exc
        return _without_holes(secret, f"the secret {reference!r}", where)

    def _hash(self, reference: str, method: Method, where: Place | None) -> str:
        is_secret = ":" in reference or "/" in reference
        password = self._secret(reference, where) if is_secret else as_text(self.names.value(reference, where))
        if OPEN in password:
            hint = "use the def that holds the hash, such as build_password_crypt"
            raise ConfigError(f"{reference!r} is not known yet, so it cannot be hashed", where=where, hint=hint)
        return crypt(password, self.lookups.salt(f"{method}:{reference}"), method)

    def _evaluate(self, marker: Marker, where: Place | None) -> Value:
        scope = _MarkerScope(self, marker, where)
        try:
            value = evaluate(_source(marker.body), scope)
            if marker.kind == "E>":
                return value
            return int(float(value) if isinstance(value, str) else value)  # type: ignore[arg-type]
        except ExpressionError as exc:
            problem = str(exc)
        except (TypeError, ValueError, OverflowError):
            problem = "it does not give a number"
        body = "".join(part if isinstance(part, str) else f"{part.kind}…" for part in marker.body)
        hint = "correct the expression, or the values in it"
        raise ConfigError(f"the expression {body[:80]!r} is wrong: {problem}", where=where, hint=hint)


class _MarkerScope:
    """The names of one expression: defs by their bare names, and the markers inside it."""

    def __init__(self, renderer: Renderer, marker: Marker, where: Place | None) -> None:
        self.renderer, self.marker, self.where = renderer, marker, where

    def value(self, name: str) -> Value:
        if stand_in := _STAND_INS.fullmatch(name):
            value = self._inner(stand_in)
            inner = self.marker.body[int(stand_in[1])]
            return _as_literal(value) if isinstance(inner, Marker) and inner.kind not in _FROM_OUTSIDE else value
        value = self.renderer.names.value(name, self.where)
        return _as_literal(value) if self.marker.kind == "#>" else value

    def _inner(self, stand_in: re.Match[str]) -> Value:
        inner = self.marker.body[int(stand_in[1])]
        assert isinstance(inner, Marker)
        return self.renderer.resolve(inner, self.where)

    def is_defined(self, name: str) -> bool:
        return self.renderer.names.is_defined(name)

    def fill(self, text: str) -> str:
        return _STAND_INS.sub(lambda found: as_text(self._inner(found)), text) if _STAND_IN in text else text

    def is_writable(self, path: str) -> bool:
        return self.renderer.lookups.is_writable(path)


def too_large(where: Place | None) -> ConfigError:
    """Make the error for markers that give more than a file may hold."""
    hint = "put fewer markers into it, or less into what they name"
    return ConfigError(f"its markers give more than {MOST_SIZE >> 20} MiB", where=where, hint=hint)


def _escaped(value: str, escape: Escape, where: Place | None) -> str:
    try:
        return escape(value)
    except ValueError as exc:
        raise ConfigError(str(exc), where=where, hint="change the value, or write it with E>…<E") from None


def _without_holes(text: str, what: str, where: Place | None) -> str:
    """Give text from outside. Raises ConfigError where it is none, or could be taken for what only the build knows."""
    if problem := scalar_problem(text):
        raise ConfigError(f"{what}: {problem}", where=where, hint="take it out")
    return text


def _as_literal(value: Value) -> Value:
    """Give what a marker outside quotes stands for: OSImager pastes its text, so `8` is a number and `True` is true."""
    if not isinstance(value, str) or not _LITERAL.fullmatch(value):
        return value
    if value in _LITERALS:
        return _LITERALS[value]
    if "." in value:
        return float(value)
    return int(value) if str(int(value)) == value else value  # `00` and `007` are no numbers of anybody's


def as_text(value: Value) -> str:
    """Give a value as it stands in a text: nothing for None, `True`, items with spaces between."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(as_text, value))
    return str(value)


def as_list(value: Value) -> list[Value]:
    """Give a list's items, or a text's words, which spaces or commas part."""
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [*value.replace(",", " ").split()]
    return [] if value is None else [value]


def _checked_name(name: str, where: Place | None) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a name", where=where, hint="a name has letters, digits, _ and -")
    return name


def _inner_place(container: object, key: str | int, where: Place | None) -> Place | None:
    if isinstance(container, Table) and isinstance(key, str):
        return container.place(key)
    if isinstance(container, Items) and isinstance(key, int):
        return container.place(key)
    return where


def _line_of(text: str, at: int, where: Place | None) -> Place | None:
    if where is None or where.line is None:
        return where
    return Place(where.path, where.line + text.count("\n", 0, at))
