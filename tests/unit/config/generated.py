"""Expressions and markers made at random, and what they are resolved with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from osimager.config.expressions import parse_expression
from osimager.config.markers import Names, Renderer, parse_template
from osimager.config.values import Value
from osimager.errors import ConfigError, Place

ATOMS = tuple(
    word
    for line in (
        "arch items table count os x __import__ __builtins__ __class__ 'a' \"b\" 1 0 -1 10**9 9**9**9 2.5 1e308 None",
        "True [] {} () '' '%s' b'x' f'{arch}' ... 1j '\\n' >>arch<< '>>arch<<' >>items<< |>a/b:c<| '|>a/b:c<|'",
        "$>HOME<$ os.W_OK",
    )
    for word in line.split()
)
CALLS = tuple(
    word
    for line in (
        "str int len float list sorted sum min max round abs get defined open eval exec __import__ getattr type range",
        "print input vars globals compile os.system os.access os.popen shell yaml xml preseed breakpoint",
        "memoryview bytes",
    )
    for word in line.split()
)
METHODS = (
    "format", "format_map", "join", "replace", "split", "zfill", "center", "ljust", "encode", "__class__", "__init__",
    "__globals__", "mro", "upper", "get", "items", "append", "pop", "translate", "startswith", "expandtabs", "count",
)  # fmt: skip
BINARY = (
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "**",
    "<<",
    "|",
    "@",
    "==",
    "<",
    "in",
    "is",
    "and",
    "or",
    "not in",
    ",",
    ":=",
    ";",
)
KINDS = ((">>", "<<"), ("%>", "<%"), ("+>", "<+"), ("*>", "<*"), ("|>", "<|"), ("$>", "<$"), ("1>", "<1"), ("[>", "<]"))


def grow(dice: random.Random, depth: int) -> str:
    """Give a random expression, most of them wrong in some way."""
    if depth <= 0 or dice.random() < 0.15:
        return dice.choice(ATOMS)
    inner = grow(dice, depth - 1)
    match dice.randrange(10):
        case 0 | 1:
            return f"{inner} {dice.choice(BINARY)} {grow(dice, depth - 1)}"
        case 2:
            return f"{dice.choice(CALLS)}({inner})"
        case 3:
            return f"{inner}.{dice.choice(METHODS)}({grow(dice, depth - 1)})"
        case 4:
            return f"{inner} if {grow(dice, depth - 1)} else {grow(dice, depth - 1)}"
        case 5:
            return f"{inner}[{grow(dice, depth - 1)}]"
        case 6:
            return f"({inner})"
        case 7:
            return f"[{inner}, {grow(dice, depth - 1)}]"
        case 8:
            return dice.choice(
                (f"lambda: {inner}", f"[x for x in {inner}]", f"{{{inner}: 1}}", f"not {inner}", f"-{inner}")
            )
    return f"{inner}.{dice.choice(METHODS)}"


def make_text(dice: random.Random) -> str:
    """Give a text with an expression or markers in it."""
    if dice.random() < 0.003:
        return make_long(dice)
    match dice.randrange(4):
        case 0 | 1:
            return f"E>{grow(dice, dice.randrange(5))}<E"
        case 2:
            opener, closer = dice.choice(KINDS)
            return f"a{opener}{grow(dice, 1)}{closer}b"
    pieces = [*ATOMS, *(part for kind in KINDS for part in kind), "E>", "<E", "#>", "<#"]
    return "".join(dice.choice(pieces) for _ in range(dice.randrange(12)))


def make_long(dice: random.Random) -> str:
    """Give up to 4,000 characters: what is short is never slow."""
    pieces = [*ATOMS, *(part for kind in KINDS for part in kind), "E>", "<E", "#>", "<#", "E>(", "5>a/", "'"]
    repeated = "".join(dice.choice(pieces) for _ in range(dice.randrange(1, 4)))
    return f"{dice.choice(('', 'E>', 'E>(', '|>'))}{repeated * 4000}"[:4000] + dice.choice(("", "<E", "<|"))


class Some(Names):
    """A few values."""

    values: ClassVar[dict[str, Value]] = {"arch": "x86_64", "items": ["a", "b"], "table": {"k": 1}, "count": 3}

    def value(self, name: str, where: Place | None) -> Value:
        if name not in self.values:
            raise ConfigError(f"{name} is not defined")
        return self.values[name]

    def is_defined(self, name: str) -> bool:
        return name in self.values


class Answers:
    """Hostile answers."""

    def secret(self, path: str, key: str | None) -> str:
        return "E>__import__('os').system('id')<E >>arch<< '; x"

    def dns(self, host: str, servers: Sequence[str], search: Sequence[str]) -> str | None:
        return ">>arch<<"

    def environment(self, name: str) -> str | None:
        return "E>1<E"

    def salt(self, purpose: str) -> str:
        return "saltsaltsaltsalt"

    def is_writable(self, path: str) -> bool:
        return False


def make_renderer() -> Renderer:
    """Give what resolves the texts: a few values, hostile answers."""
    return Renderer(Some(), Answers(), lambda: ((), ()))


def resolve(renderer: Renderer, text: str) -> bool:
    """Resolve a text as if for the first time; tell whether it had a value."""
    parse_template.cache_clear()
    parse_expression.cache_clear()
    try:
        renderer.resolve_value(text)
    except ConfigError:
        return False
    return True
