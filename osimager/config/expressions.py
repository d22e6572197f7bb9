"""The small language of `E>…<E` and `#>…<#`: Python's expression syntax, none of its powers.

Only the nodes, functions and methods named here exist; attributes, imports, calls of anything else, comprehensions and
f-strings do not. Every expression is bounded: length of the source, number of nodes, size of what it makes.
"""

from __future__ import annotations

import ast
import operator
import posixpath
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, Protocol

from osimager.config.escapes import FUNCTIONS
from osimager.config.values import Value, scalar_problem
from osimager.holes import is_whole

MOST_SOURCE: Final = 4096
MOST_NODES: Final = 1000
MOST_NESTING: Final = 60
MOST_SIZE: Final = 100_000
MOST_INT: Final = 2**256


class ExpressionError(Exception):
    """An expression that cannot be read or evaluated; the message is a sentence for people."""


class Scope(Protocol):
    """Where names and placeholders get their values from; asked only when they are needed."""

    def value(self, name: str) -> Value:
        """Give the value of `name`."""
        ...

    def is_defined(self, name: str) -> bool:
        """Tell whether `name` has a value."""
        ...

    def fill(self, text: str) -> str:
        """Give a string literal's value, with the placeholders in it filled."""
        ...

    def is_writable(self, path: str) -> bool:
        """Answer `os.access(path, os.W_OK)`."""
        ...


@lru_cache(maxsize=4096)
def parse_expression(source: str) -> ast.expr:
    """Read an expression. Raises ExpressionError for bad syntax, or what the language does not have."""
    if len(source) > MOST_SOURCE:
        raise ExpressionError(f"it is longer than {MOST_SOURCE} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source.strip(), mode="eval").body
    except SyntaxError as exc:
        raise ExpressionError(f"it cannot be read: {exc.msg}") from None
    except (ValueError, RecursionError, MemoryError) as exc:
        raise ExpressionError(f"it cannot be read: {type(exc).__name__}") from None
    _check(tree)
    return tree


def evaluate(source: str, scope: Scope) -> Value:
    """Evaluate an expression. Raises ExpressionError; errors of `scope` pass through."""
    return _Evaluation(scope).run(parse_expression(source))


_BINARY: Final[dict[type[ast.operator], Callable[[object, object], object]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: Final[dict[type[ast.cmpop], Callable[..., object]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
    ast.Is: lambda left, right: left is right or (type(left) is type(right) and left == right),
    ast.IsNot: lambda left, right: not (left is right or (type(left) is type(right) and left == right)),
}
_FUNCTIONS: Final[Mapping[str, Callable[..., object]]] = {
    **{function.__name__: function for function in (abs, all, any, bool, float, int, len, list, max, min)},
    **{function.__name__: function for function in (sorted, str, sum, tuple)},
    "round": lambda number, digits=0: round(number, max(-30, min(30, int(digits)))) if digits else round(number),
    **FUNCTIONS,
    "basename": posixpath.basename,
    "dirname": posixpath.dirname,
}
_SCOPE_FUNCTIONS: Final = frozenset(("get", "defined"))
_METHODS: Final[Mapping[type, frozenset[str]]] = {
    str: frozenset(
        {"capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower", "isupper"}
        | {"join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rpartition"}
        | {"rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper", "zfill"}
    ),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}
_ALL_METHODS: Final = frozenset().union(*_METHODS.values())
_NODES: Final = (
    ast.Constant, ast.Name, ast.Load, ast.Compare, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub,
    ast.UAdd, ast.IfExp, ast.BinOp, ast.Subscript, ast.Slice, ast.List, ast.Tuple, ast.Dict, ast.Call, ast.Attribute,
    *_BINARY, *_COMPARE,
)  # fmt: skip
_ACCESS_MODES: Final = frozenset(("F_OK", "R_OK", "W_OK", "X_OK"))


def _check(tree: ast.expr) -> None:
    """Refuse every node that the language does not have."""
    count = 0
    level: list[ast.AST] = [tree]
    depth = 0
    while level:
        count += len(level)
        depth += 1
        if count > MOST_NODES or depth > MOST_NESTING:
            raise ExpressionError("it is too long or too deeply nested")
        for node in level:
            _check_node(node)
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def _check_node(node: ast.AST) -> None:
    match node:
        case ast.Constant(value=value):
            _check_literal(value)
        case ast.Call(func=function, keywords=keywords):
            if keywords:
                raise ExpressionError("named arguments are not allowed")
            if isinstance(function, ast.Name) and function.id not in {*_FUNCTIONS, *_SCOPE_FUNCTIONS}:
                known = ", ".join(sorted({*_FUNCTIONS, *_SCOPE_FUNCTIONS}))
                raise ExpressionError(f"there is no function {function.id!r}; there are {known}")
            if not isinstance(function, ast.Name | ast.Attribute):
                raise ExpressionError("only a function's or a method's name can be called")
            if isinstance(function, ast.Attribute) and not _is_known_method(function):
                raise ExpressionError(f"there is no method {function.attr!r}")
        case ast.Attribute(attr=name, value=ast.Name(id="os")):
            if name not in _ACCESS_MODES and name != "access":
                raise ExpressionError(f"os.{name} is not allowed")
        case ast.Attribute(attr=name):
            if name not in _ALL_METHODS:
                raise ExpressionError(f"the attribute {name!r} is not allowed")
        case _ if not isinstance(node, _NODES):
            raise ExpressionError(f"{type(node).__name__} is not part of this language")


def _check_literal(value: object) -> None:
    if not isinstance(value, str | int | float | None) or (isinstance(value, int) and abs(value) > MOST_INT):
        raise ExpressionError("a literal of this kind is not allowed")
    if isinstance(value, str) and (problem := scalar_problem(value)):
        raise ExpressionError(problem)


def _is_known_method(function: ast.Attribute) -> bool:
    if isinstance(function.value, ast.Name) and function.value.id == "os":
        return function.attr == "access"
    return function.attr in _ALL_METHODS


def size_of(value: object) -> int:
    """Give how much a value weighs, all levels counted; a shared part counts as often as it is seen."""
    if isinstance(value, str):
        return len(value) + 1
    if isinstance(value, dict):
        return 1 + sum(size_of(key) + size_of(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return 1 + sum(map(size_of, value))
    return 1


class _Evaluation:
    """One walk over one expression, with its budget."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.spent = 0

    def run(self, tree: ast.expr) -> Value:
        try:
            return _plain(self.of(tree))
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as exc:
            raise ExpressionError(_sentence(exc)) from None

    def charge(self, size: int) -> None:
        self.spent += size
        if self.spent > MOST_SIZE:
            raise ExpressionError("it makes values that are too large")

    def made(self, value: object) -> object:
        """Give `value`, paid for."""
        if isinstance(value, int) and abs(value) > MOST_INT:
            raise ExpressionError("it makes numbers that are too large")
        self.charge(size_of(value))
        return value

    def of(self, node: ast.expr | None) -> object:  # noqa: PLR0912  one case a node
        match node:
            case None:
                return None
            case ast.Constant(value=value):
                return self.made(self.scope.fill(value)) if isinstance(value, str) else value
            case ast.Name(id=name):
                return self.made(self.scope.value(name))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.of(body) if self.of(test) else self.of(orelse)
            case ast.BoolOp(op=op, values=values):
                return self.boolean(isinstance(op, ast.Or), values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.of(operand)
            case ast.UnaryOp(op=op, operand=operand):
                value = self.number(self.of(operand))
                return -value if isinstance(op, ast.USub) else value
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self.compare(left, ops, comparators)
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(op, self.of(left), self.of(right))
            case ast.List(elts=elements):
                return self.made([self.of(element) for element in elements])
            case ast.Tuple(elts=elements):
                return self.made(tuple(self.of(element) for element in elements))
            case ast.Dict(keys=keys, values=values):
                return self.made({self.of(key): self.of(value) for key, value in zip(keys, values, strict=True)})
            case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=step)):
                bounds = slice(self.of(lower), self.of(upper), self.of(step))
                return self.made(self.of(value)[bounds])  # type: ignore[index]
            case ast.Subscript(value=value, slice=index):
                return self.made(self.of(value)[self.of(index)])  # type: ignore[index]
            case ast.Call(func=function, args=args):
                return self.call(function, args)
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in _ACCESS_MODES:
                return name
        raise ExpressionError(f"{type(node).__name__} is not part of this language")

    def boolean(self, is_or: bool, nodes: list[ast.expr]) -> object:
        value: object = None
        for node in nodes:
            value = self.of(node)
            if bool(value) is is_or:
                break
        return value

    def compare(self, left: ast.expr, ops: list[ast.cmpop], nodes: list[ast.expr]) -> bool:
        value = self.of(left)
        for op, node in zip(ops, nodes, strict=True):
            right = self.of(node)
            if not _COMPARE[type(op)](value, right):
                return False
            value = right
        return True

    def number(self, value: object) -> int | float:
        if not isinstance(value, int | float):
            raise ExpressionError(f"a number is needed here, not {_kind(value)}")
        return value

    def binary(self, op: ast.operator, left: object, right: object) -> object:
        if isinstance(op, ast.Mult) and not (isinstance(left, int | float) and isinstance(right, int | float)):
            times = next((side for side in (left, right) if isinstance(side, int)), 0)
            self.charge(max(times, 0) * (size_of(left) + size_of(right)))
        elif isinstance(op, ast.Add):
            self.charge(size_of(left) + size_of(right))
        else:
            self.number(left)
            self.number(right)
        if isinstance(op, ast.Pow):
            base, exponent = self.number(left), self.number(right)
            if abs(exponent) > 256 or (base < 0 and not isinstance(exponent, int)):
                raise ExpressionError("an exponent is at most 256")
        return self.made(_BINARY[type(op)](left, right))

    def call(self, function: ast.expr, nodes: list[ast.expr]) -> object:
        match function:
            case ast.Name(id="defined" | "get" as name):
                return self.call_scope(name, nodes)
            case ast.Name(id=name):
                return self.made(_FUNCTIONS[name](*(self.of(node) for node in nodes)))
            case ast.Attribute(value=ast.Name(id="os"), attr="access"):
                path = str(self.of(nodes[0])) if nodes else ""
                return self.scope.is_writable(path)
            case ast.Attribute(value=owner, attr=name):
                return self.call_method(self.of(owner), name, [self.of(node) for node in nodes])
        raise ExpressionError("only a function's or a method's name can be called")

    def call_scope(self, name: str, nodes: list[ast.expr]) -> object:
        arguments = [self.of(node) for node in nodes]
        if not arguments or not isinstance(arguments[0], str) or len(arguments) > (1 if name == "defined" else 2):
            raise ExpressionError(f"{name}() takes a name as text" + (", and a default" if name == "get" else ""))
        is_defined = self.scope.is_defined(arguments[0])
        if name == "defined":
            return is_defined
        if is_defined or len(arguments) == 1:
            return self.made(self.scope.value(arguments[0]))
        return arguments[1]

    def call_method(self, owner: object, name: str, arguments: list[object]) -> object:
        if name not in _METHODS.get(type(owner), frozenset()):
            raise ExpressionError(f"{_kind(owner)} has no method {name!r}")
        if isinstance(owner, str):
            self.charge_text_method(owner, name, arguments)
        result = getattr(owner, name)(*arguments)
        return self.made(list(result) if name in ("items", "keys", "values") else result)

    def charge_text_method(self, owner: str, name: str, arguments: list[object]) -> None:
        """Pay in advance for the methods whose result can be much longer than what goes in."""
        if name == "zfill":
            self.charge(int(self.number(arguments[0])) if arguments else 0)
        elif name == "replace" and len(arguments) > 1:
            self.charge((len(owner) + 1) * size_of(arguments[1]) if owner.count(str(arguments[0])) else len(owner))
        elif name == "join" and arguments and isinstance(arguments[0], list | tuple | str | dict):
            self.charge(len(arguments[0]) * (len(owner) + 1) + size_of(arguments[0]))


def _plain(value: object) -> Value:
    """Give a value that YAML knows: tuples become lists. (Type checks of a closed set.)"""
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, str) and not is_whole(value):
        raise ExpressionError("it takes apart what only a build knows")
    if isinstance(value, float) and (problem := scalar_problem(value)):
        raise ExpressionError(problem)
    if value is None or isinstance(value, str | int | float):
        return value
    raise ExpressionError(f"{_kind(value)} is not a configuration value")


def _kind(value: object) -> str:
    names = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list", tuple: "a list"}
    return "nothing" if value is None else names.get(type(value), "a mapping")


def _sentence(exc: Exception) -> str:
    match exc:
        case KeyError():
            return f"there is no key {exc.args[0]!r}"
        case IndexError():
            return "the index is out of range"
        case ZeroDivisionError():
            return "it divides by zero"
    return str(exc)
