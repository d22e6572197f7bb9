"""Ranges expand as written, sort as numbers, and bad ones are refused with a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.config.versions import expand_range, latest_version, version_key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", ["12"]),
        ("6.[9,10]", ["6.9", "6.10"]),
        ("9.[0-3]", ["9.0", "9.1", "9.2", "9.3"]),
        ("[08-11]", ["08", "09", "10", "11"]),
        ("[1,2].[0-1]", ["1.0", "1.1", "2.0", "2.1"]),
        ("[0-2,5-6]", ["0", "1", "2", "5", "6"]),
        ("1.[0-1, 5]", ["1.0", "1.1", "1.5"]),
        ("[1-1]", ["1"]),
        ("[20,22].04", ["20.04", "22.04"]),
        ("[1,1]", ["1"]),
    ],
)
def test_ranges_expand_in_the_order_written(text: str, expected: list[str]) -> None:
    assert list(expand_range(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "]",
        "[]",
        "[1-",
        "[3-1]",
        "[a-b]",
        "[1,,2]",
        "[[1]]",
        "",
        " ",
        "[1-2-3]",
        "[0-99999]",
        "a/b",
        "[1-99][1-999]",
    ],
)
def test_bad_ranges_are_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z ]{10}"):
        expand_range(text)


@given(low=st.integers(0, 300), size=st.integers(0, 50), prefix=st.sampled_from(["", "9.", "v"]))
def test_a_range_has_every_number_once(low: int, size: int, prefix: str) -> None:
    assert list(expand_range(f"{prefix}[{low}-{low + size}]")) == [f"{prefix}{n}" for n in range(low, low + size + 1)]


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), min_size=2, max_size=8))
def test_versions_sort_as_numbers(versions: list[list[int]]) -> None:
    texts = [".".join(map(str, numbers)) for numbers in versions]
    assert [version_key(text) for text in sorted(texts, key=version_key)] == sorted(map(version_key, texts))
    assert max(versions) == [int(part) for part in (latest_version(texts) or "").split(".")]


def test_latest_of_a_line_stays_in_that_line() -> None:
    versions = ["9", "9.2", "9.10", "90", "8.10"]
    assert latest_version(versions) == "90"
    assert latest_version(versions, "9") == "9.10"
    assert latest_version(versions, "8") == "8.10"
    assert latest_version(versions, "7") is None
    assert version_key("10rc1") < version_key("10.1")


@pytest.mark.parametrize("text", ["1" * 5000, "[1-" + "9" * 5000 + "]", "9.[" + "0" * 101 + "]", "v" * 101])
def test_a_version_longer_than_a_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="100"):
        expand_range(text)
