"""Stillness, change, text screens and pictures."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.machine.png import make_png, parse_ppm
from osimager.machine.screen import (
    Frame,
    Movement,
    Stillness,
    TextScreen,
    has_changed,
    is_blank,
    make_frame,
    parse_text_screen,
)


def make_ppm(width: int, height: int, lit: set[tuple[int, int]] = frozenset()) -> bytes:  # type: ignore[assignment]
    pixels = bytearray(width * height * 3)
    for x, y in lit:
        pixels[(y * width + x) * 3] = 255
    return b"P6\n%d %d\n255\n" % (width, height) + bytes(pixels)


def frame(*cells: int, total: int = 200) -> Frame:
    return Frame(80, total, tuple(cells) + (0,) * (total - len(cells)))


def test_one_lit_pixel_changes_one_cell() -> None:
    dark, lit = make_frame(make_ppm(720, 400)), make_frame(make_ppm(720, 400, {(100, 100)}))
    changed = [at for at, (old, new) in enumerate(zip(dark.cells, lit.cells, strict=True)) if old != new]
    assert changed == [100 // 16 * 90 + 100 // 8]
    assert not has_changed(dark, lit)
    assert dark.digest != lit.digest


@given(st.integers(1, 70), st.integers(1, 70))
def test_every_size_of_screen_gives_its_cells(width: int, height: int) -> None:
    cells = make_frame(make_ppm(width, height, {(0, 0)})).cells
    assert len(cells) == ((width + 7) // 8) * ((height + 15) // 16)


def is_still_after(*frames: Frame) -> bool:
    stillness = Stillness(frames=3)
    return [stillness.look(one) for one in frames][-1]


def test_screen_that_does_not_move_is_still() -> None:
    assert is_still_after(*[frame(1)] * 4)


def test_screen_that_scrolls_is_not_still() -> None:
    assert not is_still_after(*(frame(*range(n, n + 100)) for n in range(10)))


def test_blinking_cursor_and_countdown_are_left_out() -> None:
    assert is_still_after(*(frame(n % 2, 7, 10 - n) for n in range(8)))


def test_blank_screen_is_not_still_yet() -> None:
    assert not is_still_after(*[frame()] * 10)
    no_display = make_frame(make_ppm(640, 480, {(x, 230) for x in range(150, 490)}))
    assert is_blank(no_display)
    assert not is_still_after(*[no_display] * 10)
    assert not is_blank(make_frame(make_ppm(640, 480, {(x, y) for x in range(150, 490) for y in (30, 230)})))


def test_new_text_ends_stillness() -> None:
    frames = [frame(n % 2) for n in range(8)]
    assert not is_still_after(*frames, frame(0, 5, 6, 7))


def test_other_resolution_is_a_change() -> None:
    assert has_changed(frame(1), frame(1, total=300))
    assert not is_still_after(frame(1), frame(1), frame(1), frame(1, total=300))


def text_memory(*lines: str) -> bytes:
    characters = "".join(line.ljust(80) for line in lines).ljust(2000).encode("cp437")
    return b"".join(bytes((code, 7)) for code in characters)


def test_cursor_and_spinner_are_no_movement_but_progress_is() -> None:
    movement = Movement()
    assert movement.look(frame()) == 0  # blank
    assert movement.look(frame(1, 2, 3)) == 3
    assert [movement.look(each) for each in (frame(1, 2), frame(1, 2, 3), frame(1, 2), frame(1, 2, 3))] == [0] * 4
    assert [movement.look(frame(1, 2, 3, *(9,) * length)) for length in range(1, 4)] == [1, 1, 1]


def test_first_screen_and_another_resolution_are_all_new() -> None:
    movement = Movement()
    assert movement.look(frame(1, 2)) == 200
    assert movement.look(frame(1, 2, total=100)) == 100
    assert movement.look(frame(1, 2, total=100)) == 0


def test_text_screen_gives_its_new_lines() -> None:
    screen = TextScreen()
    assert screen.take(parse_text_screen(text_memory("Booting…"[:7], "No bootable device."))) == (
        "Booting",
        "No bootable device.",
    )
    assert screen.take(parse_text_screen(text_memory("Booting", "No bootable device.", "", "boot:"))) == ("boot:",)


PANIC = "[    1.234567] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"


def test_screen_that_a_kernel_has_scrolled_on_is_read_where_it_is_now() -> None:
    memory = text_memory(*(f"line {number}" for number in range(130)), "No init found.").ljust(32 << 10, b"\0")
    screen = TextScreen()
    assert screen.take(parse_text_screen(memory))[-2:] == ("line 129", "No init found.")
    assert screen.take(parse_text_screen(memory)) == ()


def test_what_is_left_of_a_line_that_was_written_over_is_not_new() -> None:
    screen = TextScreen()
    assert screen.take(parse_text_screen(text_memory(PANIC[:80], PANIC[80:]))) == (PANIC,)
    assert screen.take(parse_text_screen(text_memory("over it", PANIC[80:]))) == ("over it",)


def test_line_that_fills_its_row_goes_on_in_the_next() -> None:
    after = "[    1.234568] CPU: 0 PID: 1 Comm: swapper/0"
    full = "[    1.234569] ".ljust(80, "x")
    rows = (PANIC[:80], PANIC[80:], after, full, after)
    assert parse_text_screen(text_memory(*rows))[:4] == (PANIC, after, full, after)


def test_line_that_is_broken_at_a_space_keeps_it() -> None:
    line = f"{PANIC[:79]} {PANIC[79:]}"
    assert parse_text_screen(text_memory(line[:80], line[80:]))[0] == line


@pytest.mark.parametrize("frame", ["│" + " " * 78 + "│", "-" * 80, "|" + "text".ljust(78) + "|"])
def test_frame_that_is_as_wide_as_the_screen_is_many_lines(frame: str) -> None:
    assert parse_text_screen(text_memory(frame, "text", frame))[:3] == (frame, "text", frame)


@pytest.mark.parametrize("memory", [b"\xff" * 4000, bytes(range(1, 26)) * 160, b""])
def test_graphics_memory_is_no_text(memory: bytes) -> None:
    assert not [line for line in parse_text_screen(memory) if line.strip()]


def test_png_holds_the_pixels_of_the_ppm() -> None:
    ppm = make_ppm(5, 3, {(2, 1)})
    png = make_png(ppm)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (5, 3)
    length = struct.unpack(">I", png[33:37])[0]
    rows = zlib.decompress(png[41 : 41 + length])
    assert rows == b"".join(b"\0" + parse_ppm(ppm)[2][at : at + 15] for at in range(0, 45, 15))


@pytest.mark.parametrize("data", [b"", b"P5\n1 1\n255\n0", b"P6\n4 4\n255\nshort"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="PPM"):
        parse_ppm(data)
