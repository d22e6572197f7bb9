"""A secret that was typed is on no picture, and in no line of a screen that broke it in two."""

from __future__ import annotations

import pytest

from osimager.machine.curtain import Curtain, cover_rows, mask_lines
from osimager.machine.png import parse_ppm
from osimager.machine.screen import Frame
from osimager.redact import MASK, Masker

SECRET = "hunter2-and-more"


def screen(*lines: str, height: int = 12) -> Frame:
    cells = [ord(letter) for line in [*lines, *[""] * (height - len(lines))] for letter in line.ljust(80)]
    return Frame(640, 16 * height, tuple(cells))


MENU = screen("a menu", "of two lines")


@pytest.fixture
def curtain() -> Curtain:
    curtain = Curtain()
    curtain.draw(MENU)
    return curtain


def test_nothing_is_covered_where_no_secret_was_typed() -> None:
    curtain = Curtain()
    assert (curtain.hides, curtain.find_rows(MENU)) == (False, [])


def test_while_a_secret_is_typed_all_that_changed_is_covered(curtain: Curtain) -> None:
    assert curtain.find_rows(screen("a menu", "of two lines", "hu")) == [2]
    assert curtain.find_rows(Frame(8, 32, (1, 2))) == [0, 1]


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        (("a menu", "of two lines", f"ks={SECRET}_"), [2]),  # a cursor
        (("a menu", "of two lines", f"ks={SECRET} ro quiet", "that"), [2]),
        (("of two lines", f"ks={SECRET}", "error: file not found"), [1]),  # scrolled
        (("of two lines", "ks=hunter2", "error: file not found"), [1]),  # a part of it
        (("Loading a kernel ...",), []),
        (("a menu", "of two lines"), []),
    ],
)
def test_it_is_covered_for_as_long_as_it_can_be_seen(curtain: Curtain, lines: tuple[str, ...], rows: list[int]) -> None:
    curtain.open(screen("a menu", "of two lines", f"ks={SECRET}"))
    assert curtain.find_rows(screen(*lines)) == rows
    assert curtain.hides


def test_rows_are_covered_whole_and_the_others_stay() -> None:
    ppm = b"P6\n16 40\n255\n" + b"\x07" * (16 * 40 * 3)
    _, _, pixels = parse_ppm(cover_rows(ppm, [0, 2]))
    assert pixels == bytes(16 * 16 * 3) + b"\x07" * (16 * 16 * 3) + bytes(16 * 8 * 3)


@pytest.mark.parametrize(
    ("lines", "masked"),
    [
        (("x" * 60 + "hunter2-", "and-more rest"), ("x" * 60 + MASK + " rest",)),
        ((" │ linux ks=hunter\\ │", " │2-and-more ro      │"), (f" │ linux ks={MASK} ro      │",)),
        (("one", f"two {SECRET}", "three"), ("one", f"two {MASK}", "three")),
        (("│ a │", "│ b │"), ("│ a │", "│ b │")),
    ],
)
def test_secret_that_the_screen_breaks_is_masked(lines: tuple[str, ...], masked: tuple[str, ...]) -> None:
    masker = Masker()
    masker.register(SECRET)
    assert mask_lines(lines, masker.mask) == masked
