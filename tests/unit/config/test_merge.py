"""Files laid over one another: order, conditions, methods, and where every value came from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.config.documents import Items, Table
from osimager.config.merge import SPECIFICS, Merged, Merger, deep_merge
from osimager.config.values import Value
from osimager.errors import ConfigError, Place


def as_document(value: Value, line: int = 1) -> Value:
    """Give a plain value as a document's, every value in line one."""
    if isinstance(value, dict):
        table = Table(Path("spec.yml"), line)
        for key, inner in value.items():
            table[key] = as_document(inner, line)
            table.lines[key] = line
        return table
    if isinstance(value, list):
        items = Items(Path("spec.yml"), line)
        items.extend(as_document(inner, line) for inner in value)
        items.lines = [line] * len(value)
        return items
    return value


def table_of(value: dict[str, Value]) -> Table:
    document = as_document(value)
    assert isinstance(document, Table)
    return document


def merge(
    *documents: dict[str, Value],
    defs: dict[str, Value] | None = None,
    defines: dict[str, Value] | None = None,
    included: dict[str, dict[str, Value]] | None = None,
) -> Merged:
    merged = Merged()
    merged.tables["defs"].update(defs or {"dist": "debian", "version": "12.5", "arch": "x86_64", "platform": "qemu"})

    def include(name: str, where: Place) -> Table:
        return table_of((included or {})[name])

    merger = Merger(merged, defines or {}, include)
    for document in documents:
        merger.load(table_of(document))
    return merged


def lists(merged: Merged, section: str) -> list[Value]:
    return [value for value, _ in merged.lists[section]]


def test_later_documents_win_key_by_key() -> None:
    merged = merge({"defs": {"a": 1, "b": {"x": 1, "y": 2}}}, {"defs": {"b": {"x": 3}, "c": 4}})
    assert {key: merged.tables["defs"][key] for key in "abc"} == {"a": 1, "b": {"x": 3}, "c": 4}


@pytest.mark.parametrize(
    "document",
    [
        {"defs": {"b": {"x": 3}, "l": [3], "merge": ["b", "l"]}},
        {"merge": ["b", "l"], "defs": {"b": {"x": 3}, "l": [3]}},
    ],
)
def test_merge_keys_join_one_level(document: dict[str, Value]) -> None:
    merged = merge({"defs": {"b": {"x": 1, "y": {"z": 2}}, "l": [1, 2]}}, document)
    assert merged.tables["defs"]["b"] == {"x": 3, "y": {"z": 2}}
    assert merged.tables["defs"]["l"] == [1, 2, 3]
    assert "merge" not in merged.tables["defs"]


def test_lists_append_and_replace_where_the_method_says_so() -> None:
    merged = merge({"files": [1]}, {"files": [2]})
    assert lists(merged, "files") == [1, 2]
    merged = merge({"files": [1], "steps": [1]}, {"method": "replace", "files": [2]})
    assert (lists(merged, "files"), lists(merged, "steps")) == ([2], [1])


def test_specific_sections_match_whole_names_without_case_in_order() -> None:
    document: dict[str, Value] = {
        "defs": {"v": "base"},
        "arch_specific": [{"arch": "X86_64", "defs": {"v": "arch", "a": 1}}, {"arch": "x86", "defs": {"v": "wrong"}}],
        "version_specific": [
            {"version": "12.*", "defs": {"v": "version"}},
            {"version": "12", "defs": {"v": "wrong"}},
            {"version": "12\\.[0-9]", "defs": {"w": 1}, "dist_specific": [{"dist": "debian", "defs": {"w": 2}}]},
        ],
        "platform_specific": [{"platform": "qemu|kvm", "defs": {"v": "platform", "p": 1}}],
    }
    defs = merge(document).tables["defs"]
    assert (defs["v"], defs["w"], defs["a"], defs["p"]) == ("arch", 2, 1, 1)


@given(st.permutations(SPECIFICS))
def test_order_of_kinds_is_fixed_however_the_file_has_them(order: tuple[str, ...]) -> None:
    known: dict[str, Value] = dict.fromkeys(SPECIFICS, "x")
    document: dict[str, Value] = {
        f"{kind}_specific": [{kind: "x", "defs": {"last": kind}, "files": [kind]}] for kind in order
    }
    merged = merge(document, defs=known)
    assert merged.tables["defs"]["last"] == SPECIFICS[-1]
    assert lists(merged, "files") == list(SPECIFICS)


def test_nesting_goes_to_any_depth() -> None:
    entry: dict[str, Value] = {"arch": ".*", "defs": {"deep": 30}}
    for depth in range(29, 0, -1):
        entry = {"arch": ".*", "defs": {"deep": depth}, "arch_specific": [entry]}
    assert merge({"arch_specific": [entry]}).tables["defs"]["deep"] == 30


def test_conditions_see_what_was_set_before_and_what_the_user_defines() -> None:
    document: dict[str, Value] = {
        "version_specific": [{"version": "12.*", "defs": {"firmware": "uefi"}}],
        "firmware_specific": [{"firmware": "uefi", "defs": {"v": "uefi"}}, {"firmware": "bios", "defs": {"v": "bios"}}],
    }
    assert merge(document).tables["defs"]["v"] == "uefi"
    assert merge(document, defines={"firmware": "bios"}).tables["defs"]["v"] == "bios"
    efi: dict[str, Value] = {"firmware_specific": [{"firmware": "efi", "defs": {"v": 1}}]}
    assert merge(efi, defines={"firmware": "uefi"}).tables["defs"]["v"] == 1


def test_machine_firmware_is_what_firmware_specific_sees() -> None:
    document: dict[str, Value] = {
        "machine": {"firmware": "uefi"},
        "firmware_specific": [{"firmware": "uefi", "defs": {"v": 1}}],
    }
    assert merge(document).tables["defs"]["v"] == 1


def test_includes_come_first_and_once() -> None:
    included: dict[str, dict[str, Value]] = {
        "base": {"files": ["base"], "defs": {"v": "base"}},
        "one": {"include": "base", "files": ["one"], "defs": {"v": "one"}},
        "two": {"include": ["base"], "files": ["two"]},
    }
    merged = merge({"include": ["one", "two"], "files": ["own"]}, included=included)
    assert lists(merged, "files") == ["base", "one", "two", "own"]
    assert merged.tables["defs"]["v"] == "one"


def test_an_include_works_in_a_specific_section() -> None:
    merged = merge(
        {"files": ["own"], "version_specific": [{"version": "12.*", "include": "extra", "files": ["entry"]}]},
        included={"extra": {"files": ["extra"]}},
    )
    assert lists(merged, "files") == ["own", "extra", "entry"]


def test_cycles_of_includes_are_named() -> None:
    included: dict[str, dict[str, Value]] = {"a": {"include": "b"}, "b": {"include": "c"}, "c": {"include": "a"}}
    with pytest.raises(ConfigError, match="a → b → c → a"):
        merge({"include": "a"}, included=included)


def test_every_value_knows_where_it_came_from_and_what_it_overrode() -> None:
    merged = merge(
        {"defs": {"v": 1}},
        {
            "defs": {"v": 2},
            "version_specific": [{"version": "12.*", "arch_specific": [{"arch": "x86_64", "defs": {"v": 3}}]}],
        },
    )
    origins = merged.origins["defs"]["v"]
    assert [origin.value for origin in origins] == [1, 2, 3]
    assert origins[-1].section == "version_specific '12.*' > arch_specific 'x86_64' > defs"


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ({"defs": []}, "mapping"),
        ({"files": {}}, "list"),
        ({"method": "mix", "files": []}, "method"),
        ({"include": 5}, "include"),
        ({"include": [1]}, "include"),
        ({"defs": {"merge": 5}}, "merge"),
        ({"arch_specific": [{"arch": "("}]}, "regular expression"),
        ({"arch_specific": [{"arch": 5}]}, "text"),
        ({"arch_specific": [{"defs": {}}]}, "arch"),
        ({"arch_specific": ["x"]}, "mapping"),
        ({"arch_specific": {}}, "list"),
    ],
)
def test_wrong_kinds_are_errors_with_a_place(document: dict[str, Value], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        merge(document)
    assert caught.value.where
    assert caught.value.hint


keys = st.sampled_from("abc")
values = (
    st.integers()
    | st.text(max_size=3)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(keys, st.integers(), max_size=2)
)
documents = st.fixed_dictionaries({"defs": st.dictionaries(keys, values, max_size=3)})


@given(documents, documents)
def test_laying_twice_is_laying_once_for_tables(first: dict[str, Value], second: dict[str, Value]) -> None:
    assert merge(first, second, second).tables == merge(first, second).tables


@given(st.lists(documents, min_size=1, max_size=3))
def test_the_winner_is_the_last_that_speaks(given_documents: list[dict[str, Value]]) -> None:
    merged = merge(*given_documents)
    for key in "abc":
        said = [document["defs"][key] for document in given_documents if key in document["defs"]]  # type: ignore[index,call-overload,operator]
        if said:
            assert merged.tables["defs"][key] == said[-1]
            assert [origin.value for origin in merged.origins["defs"][key]] == said


nested = st.recursive(st.integers(), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=6)


@given(st.dictionaries(keys, nested), st.dictionaries(keys, nested))
def test_deep_merge_keeps_what_the_upper_does_not_say(below: dict[str, Value], above: dict[str, Value]) -> None:
    one, two = table_of(below), table_of(above)
    result = deep_merge(one, two)
    assert deep_merge(result, two) == result
    assert deep_merge(one, one) == one
    assert deep_merge(one, table_of({})) == one
    assert isinstance(result, dict)
    assert set(result) == {*below, *above}
    for key, value in above.items():
        assert isinstance(value, dict) or result[key] == value
