"""Files come out as plain values with their lines, and what is wrong in them is said with its line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from osimager.config.documents import Items, Table, as_written, load_document
from osimager.errors import ConfigError

Write = Callable[[str, str], Path]


def test_yaml_scalars_have_their_1_2_meaning(write: Write) -> None:
    document = load_document(
        write(
            "a.yml", 'a: no\nb: 12:30\nc: 9.10\nd: "9.10"\ne: 0o17\nf: 012\ng: ~\nh: yes\ni: true\nj: 1e3\nk: 1_000\n'
        )
    )
    assert document == {
        "a": "no", "b": "12:30", "c": 9.1, "d": "9.10", "e": 15, "f": 12, "g": None, "h": "yes", "i": True,
        "j": 1000.0, "k": "1_000",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yml", "one: 1\ntwo:\n  - x\n  - inner: y\nthree: 3\n"),
        ("a.json", '{\n "one": 1,\n "two": [\n  "x",\n  {"inner": "y"}],\n "three": 3}\n'),
        ("a.toml", 'one = 1\ntwo = [\n  "x",\n  {inner = "y"}]\nthree = 3\n'),
    ],
)
def test_every_format_gives_the_same_values_with_their_lines(write: Write, name: str, text: str) -> None:
    document = load_document(write(name, text))
    assert document == {"one": 1, "two": ["x", {"inner": "y"}], "three": 3}
    lines = text.splitlines()
    for key in document:
        assert f"{key}" in lines[(document.place(key).line or 0) - 1]


@pytest.mark.parametrize(
    ("name", "text"), [("a.yml", "a: 9.10\n"), ("a.json", '{"a": 9.10}'), ("a.toml", "a = 9.10\n")]
)
def test_a_number_remembers_how_it_was_written(write: Write, name: str, text: str) -> None:
    value = load_document(write(name, text))["a"]
    assert (value, as_written(value)) == (9.1, "9.10")


def test_lists_know_the_line_of_each_item(write: Write) -> None:
    items = load_document(write("a.yml", "list:\n  - x\n\n  - key: y\n    other: z\n"))["list"]
    assert isinstance(items, Items)
    assert [items.place(0).line, items.place(1).line] == [2, 4]
    assert isinstance(items[1], Table)
    assert items[1].place("other").line == 5


def test_toml_keys_are_found_in_tables_arrays_and_beside_multi_line_text(write: Write) -> None:
    text = 'a = """\n[no]\nb = 1\n"""\n[t]\n# b = 2\nb = 3\n[[s]]\nk = 1\n[[s]]\n[s.deep]\n"x.y" = 2\n'
    document = load_document(write("a.toml", text))
    table, array = document["t"], document["s"]
    assert isinstance(table, Table)
    assert isinstance(array, Items)
    assert table.place("b").line == 7
    assert [array.place(0).line, array.place(1).line] == [8, 10]
    second = array[1]
    assert isinstance(second, Table)
    deep = second["deep"]
    assert isinstance(deep, Table)
    assert deep.place("x.y").line == 12


@pytest.mark.parametrize(
    ("name", "text", "line", "what"),
    [
        ("a.yml", "a: 1\nb: 2\na: 3\n", 3, "twice"),
        ("a.json", '{"a": 1,\n"a": 2}', 2, "twice"),
        ("a.toml", "a = 1\na = 2\n", 2, "not TOML"),
        ("a.yml", "a: [1,\nb: }\n", 2, "not YAML"),
        ("a.yml", "a:\n\t- b\n", 2, "not YAML"),
        ("a.json", '{"a": 1,\n}', 2, "key in double quotes"),
        ("a.json", '{"a": 1}\nx', 2, "after the end"),
        ("a.json", '{"a": nope}', 1, "value is expected"),
        ("a.json", '{"a": "x', 1, "Unterminated"),
        ("a.yml", "- a\n- b\n", 1, "mapping"),
        ("a.yml", "a: !!python/object:os.system x\n", 1, "tag"),
        ("a.yml", "a: !local x\n", 1, "tag"),
        ("a.yml", "a: 1\n---\nb: 2\n", 2, "YAML"),
        ("a.yml", "? [a, b]\n: c\n", 1, "scalar"),
        ("a.yml", "a: 1\nb: x\U000f0000y\n", 2, "reserved"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(write: Write, name: str, text: str, line: int, what: str) -> None:
    path = write(name, text)
    with pytest.raises(ConfigError, match=what) as caught:
        load_document(path)
    assert caught.value.where[0].path == path
    assert caught.value.where[0].line == line
    assert caught.value.hint


def test_missing_unreadable_and_foreign_encodings_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_document(tmp_path / "none.yml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_document(tmp_path)
    latin = tmp_path / "latin.yml"
    latin.write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        load_document(latin)
    assert caught.value.where[0].line == 2
    if os.geteuid() != 0:
        latin.chmod(0)
        with pytest.raises(ConfigError, match="cannot be read"):
            load_document(latin)


def test_aliases_work_and_bombs_do_not(write: Write) -> None:
    assert load_document(write("a.yml", "a: &x [1]\nb: *x\n")) == {"a": [1], "b": [1]}
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    for text in (bomb, "a: &a [*a]\n", "a: " + "[" * 200 + "]" * 200):
        with pytest.raises(ConfigError):
            load_document(write("bomb.yml", text))
    with pytest.raises(ConfigError, match="nested"):
        load_document(write("deep.json", '{"a": ' + "[" * 200 + "]" * 200 + "}"))


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
).filter(lambda value: not {"\U000f0000", "\U000f0001"} & set(json.dumps(value, ensure_ascii=False)))


@given(
    value=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\U000f0000\U000f0001")),
        plain_values,
        max_size=5,
    )
)
def test_json_reads_what_json_writes(tmp_path_factory: pytest.TempPathFactory, value: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(value))
    assert load_document(path) == json.loads(path.read_text())


# YAML 1.1's other line breaks are PyYAML's, and lost in its own round trip.
printable = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Co"], exclude_characters="\x85\u2028\u2029")
)


@given(value=st.dictionaries(st.text("abc_", min_size=1), printable))
def test_yaml_reads_what_yaml_writes(tmp_path_factory: pytest.TempPathFactory, value: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("yaml") / "a.yml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True, default_style='"'))
    assert load_document(path) == value


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.json", '{\n"x": "\\ud800"}', "U+D800"),
        ("a.json", '{\n"\\udb80\\udc00": 1}', "U+F0000"),
        ("a.yml", 'a: 1\n"x\\U000F0000": 1', "U+F0000"),
        ("a.yml", 'a: 1\nx: "\\U000F0001"', "U+F0001"),
        ("a.toml", 'a = 1\nx = "\\U000F0000answer_url\\U000F0001"', "U+F0000"),
        ("a.json", '{\n"x": 1e999}', "inf"),
        ("a.yml", "a: 1\nx: .nan", "nan"),
        ("a.yml", "a: 1\nx: -1e999", "inf"),
        ("a.toml", "a = 1\nx = inf", "inf"),
        ("a.toml", f"a = 1\nx = {'1' * 5000}", "400 digits"),
        ("a.toml", f"a = 1\nx = 0x{'f' * 5000}", "400 digits"),
        ("a.yml", f"a: 1\nx: 0x{'f' * 390}", ""),
    ],
)
def test_what_no_text_and_no_number_can_be_is_refused_with_its_line(
    write: Write, name: str, text: str, what: str
) -> None:
    path = write(name, text)
    if not what:
        assert load_document(path)["x"] == int("f" * 390, 16)
        return
    with pytest.raises(ConfigError) as caught:
        load_document(path)
    assert what in caught.value.what
    [place] = caught.value.where
    assert place.line == 2
    assert caught.value.hint


def test_toml_keys_after_lists_of_lists_have_their_own_lines(write: Write) -> None:
    text = 'a = [\n  [1, 2],\n  [3]\n]\nb = [ # [x]\n  "c = 1",\n  {d = "]"}\n]\n[e]\nf = """\ng = 1\n"""\nh = 2\n'
    document = load_document(write("a.toml", text))
    assert {key: document.place(key).line for key in document} == {"a": 1, "b": 5, "e": 9}
    inner = document["e"]
    assert isinstance(inner, Table)
    assert [inner.place(key).line for key in ("f", "h")] == [10, 13]


@pytest.mark.parametrize(("text", "code"), [("a: 1\nb: ä\0", "U+0000"), ("ä: 1\nb: \x1b", "U+001B")])
def test_control_characters_in_yaml_are_named_with_their_line(write: Write, text: str, code: str) -> None:
    path = write("a.yml", text)
    with pytest.raises(ConfigError, match=re.escape(f"{code} is not a character of text")) as caught:
        load_document(path)
    assert caught.value.where[0].line == 2
