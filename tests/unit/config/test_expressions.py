"""The expression language gives what Python gives, and nothing beyond its table."""

from __future__ import annotations

import os
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osimager.config.expressions import ExpressionError, evaluate
from osimager.config.values import Value
from osimager.holes import hole

DEFS: dict[str, Value] = {
    "arch": "x86_64",
    "minor": "5",
    "count": 3,
    "items": ["a", "b"],
    "table": {"k": 1},
    "no": False,
    "url": hole("answer_url"),
}


class DictScope:
    """Names from DEFS."""

    def value(self, name: str) -> Value:
        if name not in DEFS:
            raise ExpressionError(f"{name} is not defined")
        return DEFS[name]

    def is_defined(self, name: str) -> bool:
        return name in DEFS

    def fill(self, text: str) -> str:
        return text

    def is_writable(self, path: str) -> bool:
        return path == "/dev/kvm"


def run(source: str) -> Value:
    return evaluate(source, DictScope())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'a' if arch == 'x86_64' else 'b'", "a"),
        ("{0:6,5:7}[int(minor)]", 7),
        ("'8.1'.replace('.', '')", "81"),
        ("'\\n'.join(['a', 'b'])", "a\nb"),
        ("'win' in ('a', 'win')", True),
        ("arch.startswith('x86')", True),
        ("count * 2 + 1", 7),
        ("not no and count > 2", True),
        ("items[-1] + 'c'", "bc"),
        ("items[0:1]", ["a"]),
        ("(1, 2)", [1, 2]),
        ("table.get('z', 5)", 5),
        ("get('nothing', 'd')", "d"),
        ("defined('arch') and not defined('nothing')", True),
        ("'kvm' if os.access('/dev/kvm', os.W_OK) else 'none'", "kvm"),
        ("len(items)", 2),
        ("None", None),
        ("1 < 2 < 3", True),
        ("-count ** 2", -9),
        ("('a' if False else '') + 'b'", "b"),
        ("round(7 / 2, 1)", 3.5),
        ("basename('/a/b.iso')", "b.iso"),
        ("no or 'x'", "x"),
        ("False and nothing", False),
    ],
)
def test_expressions_mean_what_python_means(source: str, expected: Value) -> None:
    assert run(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os')", "os.system('x')", "os", "open('/etc/passwd')", "().__class__", "''.__class__.__mro__",
        "'{0.__class__}'.format('')", "[x for x in items]", "lambda: 1", "f'{arch}'", "(y := 1)", "eval('1')",
        "getattr('', 'x')", "b'x'", "1j", "...", "await x", "yield", "*items", "items.append(1)", "table.update(x=1)",
        "print('x')", "str.format('')", "os.access", "os.environ['X']", "min(items, key=len)", "type(1)", "vars()",
        "x.y", "import os", "a; b", "a\nb", "", "1 +", "'%s' % items", "len('a')()", "os.access('/etc', os.W_OK).real",
    ],
)  # fmt: skip
def test_whatever_is_not_in_the_table_is_refused(source: str) -> None:
    with pytest.raises(ExpressionError):
        run(source)


@pytest.mark.parametrize(
    "source",
    [
        "9**9**9", "2**100000", "'a' * 10**9", "['a'] * 10**9", "10**255 * 10**255", "'a'.zfill(10**9)",
        "('a' * 9999).replace('a', 'b' * 9999)", "'x'.join(['a' * 999] * 999)", "[[[[1] * 99] * 99] * 99] * 99",
        "-" * 3000 + "1", "(" * 3000 + "1" + ")" * 3000, "[" * 150 + "]" * 150, "1" + "+1" * 3000, "'a'" * 5000,
        "int('9' * 9999)", "round(1, -10**9)", "'" + "a" * 10000 + "'", "x" + ".x" * 3000, "not " * 2000 + "1",
        "range(10**9)", "str([[['a' * 999] * 99] * 99])", "'%999999999d' % 1",
    ],
)  # fmt: skip
def test_hungry_expressions_are_stopped_at_once(source: str) -> None:
    tracemalloc.start()
    try:
        result = run(source)
        assert isinstance(result, str | int)
    except ExpressionError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10_000_000


EVENTS: list[str] = []
FORBIDDEN = ("import", "open", "os.", "subprocess", "socket", "exec", "ctypes", "shutil", "pty", "code.", "marshal")
_watching = False


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _watching and event.startswith(FORBIDDEN):
        EVENTS.append(event)


sys.addaudithook(_watch)

NAMES = ["arch", "os", "items", "table", "count", "__import__", "__class__", "open", "eval", "str", "len", "get", "x"]
LITERALS = ["'a'", "1", "0", "10**9", "None", "[]", "{}", "()", "'%s'", "b''", "f'{x}'", "lambda: 0", "'\\x00'"]
words = st.sampled_from([*NAMES, *LITERALS])
operators = st.sampled_from(
    ["+", "*", "**", "/", "//", "%", "==", "<", " in ", " and ", " or ", " if ", " else ", ",", ":="]
)
attributes = st.sampled_from(
    [".x", ".format", ".__class__", ".join", ".replace", ".get", ".access", ".system", ".W_OK"]
)


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, operators, inner).map("".join),
        st.tuples(inner, attributes).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]}({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]}[{pair[1]}]"),
        st.tuples(inner, inner, inner).map(lambda parts: f"{parts[0]} if {parts[1]} else {parts[2]}"),
        inner.map(lambda text: f"[{text} for x in items]"),
    )


expressions = st.recursive(words, _grow, max_leaves=12) | st.text(max_size=40)


@settings(max_examples=1000)
@given(source=expressions)
def test_no_expression_reaches_the_outside(source: str) -> None:
    global _watching  # noqa: PLW0603  an audit hook cannot be taken out again
    EVENTS.clear()
    _watching = True
    try:
        run(source)
    except ExpressionError:
        pass
    finally:
        _watching = False
    assert not EVENTS


@given(left=st.integers(-99, 99), right=st.integers(1, 99), op=st.sampled_from("+-*"))
def test_arithmetic_is_pythons(left: int, right: int, op: str) -> None:
    assert run(f"({left}) {op} {right}") == {"+": left + right, "-": left - right, "*": left * right}[op]


def test_audit_hook_sees_what_it_is_there_for() -> None:
    global _watching  # noqa: PLW0603
    EVENTS.clear()
    _watching = True
    try:
        os.listdir(".")  # noqa: PTH208  the call that raises the event
    finally:
        _watching = False
    assert EVENTS


@pytest.mark.parametrize("source", ["url[:5]", "url.upper()", "[url[1:]]", "float('inf')", "{'a': float('nan')}"])
def test_what_cannot_be_written_down_is_refused(source: str) -> None:
    with pytest.raises(ExpressionError):
        run(source)


def test_a_value_that_only_a_build_knows_passes_whole() -> None:
    assert run("url + '/ks'") == hole("answer_url") + "/ks"
    assert run("'yes' if float('inf') > 1 else 'no'") == "yes"


@pytest.mark.parametrize("text", ["\\ud800", "\\U000f0000answer_url\\U000f0001"])
def test_a_literal_makes_no_text_that_no_file_can_hold(text: str) -> None:
    with pytest.raises(ExpressionError, match="is reserved"):
        run(f"'{text}'")
