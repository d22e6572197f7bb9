"""Typed holes in texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.holes import CLOSE, OPEN, fill_holes, find_holes, hole, name_holes

NAMES = st.from_regex(r"[a-z][a-z0-9_.]{0,9}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_characters=OPEN + CLOSE))


@given(st.lists(st.tuples(TEXTS, NAMES)), TEXTS)
def test_holes_are_found_named_and_filled_once(parts: list[tuple[str, str]], end: str) -> None:
    text = "".join(before + hole(name) for before, name in parts) + end
    assert find_holes(text) == {name for _, name in parts}
    assert name_holes(text) == "".join(f"{before}{{{{{name}}}}}" for before, name in parts) + end
    # A value that looks like a hole is data: it is not read again.
    values = {name: hole("other") for _, name in parts}
    assert fill_holes(text, values) == "".join(before + hole("other") for before, _ in parts) + end


def test_a_hole_without_a_value_is_named() -> None:
    with pytest.raises(KeyError, match="answer_url"):
        fill_holes(hole("answer_url"), {})
