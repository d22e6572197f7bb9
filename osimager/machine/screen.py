"""What the guest's screen shows, as cells: has it changed, and has it come to rest but for what blinks or counts."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from osimager.aio import poll
from osimager.machine.png import parse_ppm

CELL_WIDTH, CELL_HEIGHT = 8, 16
# A blinking cursor is one cell, a counting-down clock some; more than this moving is work being done.
_MOST_RESTLESS = 24
_RESTLESS_CHANGES = 2
_CURSOR_CELLS = 2  # a cursor of VGA's 9-pixel font may lie across two
_RHYTHM_S = 0.25
# "Guest has not initialized the display (yet).": one line in the middle (ui/console.c in QEMU).
_NO_DISPLAY, _NO_DISPLAY_ROW = (640, 480), 14
_BLANK_FRAMES = 120  # what is blank for so long is all there is to see


@dataclass(frozen=True, slots=True)
class Frame:
    """One look at the screen: a checksum for each cell of 8 by 16 pixels."""

    width: int
    height: int
    cells: tuple[int, ...]

    @property
    def digest(self) -> str:
        """Give a short name of what is shown."""
        return f"{self.width}x{self.height}-{zlib.crc32(repr(self.cells).encode()):08x}"


Look = Callable[[], Awaitable[Frame]]


def is_blank(frame: Frame) -> bool:
    """Say whether nothing is shown: one colour, or QEMU's own words that the guest has no display yet."""
    if len(set(frame.cells)) <= 1:
        return True
    if (frame.width, frame.height) != _NO_DISPLAY:
        return False
    columns = frame.width // CELL_WIDTH
    ground = frame.cells[0]
    return {at // columns for at, cell in enumerate(frame.cells) if cell != ground} == {_NO_DISPLAY_ROW}


def count_changed(before: Frame, after: Frame) -> int:
    """Count the cells that differ: all of them where the resolution does."""
    if (before.width, before.height) != (after.width, after.height):
        return max(len(before.cells), len(after.cells))
    return sum(old != new for old, new in zip(before.cells, after.cells, strict=True))


def has_changed(before: Frame, after: Frame) -> bool:
    """Say whether more than a cursor differs."""
    return count_changed(before, after) > _CURSOR_CELLS


async def wait_change(look: Look, before: Frame) -> None:
    """Wait until the screen shows something else than `before`. The deadline is the caller's."""

    async def attempt() -> bool | None:
        return has_changed(before, await look()) or None

    await poll(attempt, first_s=_RHYTHM_S, most_s=_RHYTHM_S)


async def wait_still(look: Look) -> None:
    """Wait until the screen has come to rest. The deadline is the caller's."""
    stillness = Stillness()

    async def attempt() -> bool | None:
        return stillness.look(await look()) or None

    await poll(attempt, first_s=_RHYTHM_S, most_s=_RHYTHM_S)


def make_frame(ppm: bytes) -> Frame:
    """Give the frame of a PPM picture. Raises ValueError for anything else."""
    width, height, pixels = parse_ppm(ppm)
    row, step = width * 3, CELL_WIDTH * 3
    cells: list[int] = []
    for top in range(0, height, CELL_HEIGHT):
        rows = [pixels[y * row : (y + 1) * row] for y in range(top, min(top + CELL_HEIGHT, height))]
        if len(set(rows)) == 1 and rows[0] == rows[0][:3] * width:  # one colour all over: most of a text screen
            cells += [zlib.crc32(rows[0][:step] * len(rows))] * (row // step)
            cells += [zlib.crc32(rows[0][: row % step] * len(rows))] * (row % step != 0)
            continue
        for left in range(0, row, step):
            cells.append(zlib.crc32(b"".join(line[left : left + step] for line in rows)))
    return Frame(width, height, tuple(cells))


class Stillness:
    """Fed with frames at a rhythm, says when the screen has been still for `frames` of them.

    Cells that keep changing (a cursor, a countdown) are left out, as long as they are few. A blank screen is one on
    which something is still to come.
    """

    def __init__(self, frames: int = 4) -> None:
        self._wanted = frames
        self._last: Frame | None = None
        self._changes: Counter[int] = Counter()
        self._quiet = 0

    def look(self, frame: Frame) -> bool:
        """Take the next frame; True when the screen is at rest."""
        last, self._last = self._last, frame
        if last is None or (last.width, last.height) != (frame.width, frame.height):
            self._changes.clear()
            self._quiet = 0
            return False
        changed = [at for at, (old, new) in enumerate(zip(last.cells, frame.cells, strict=True)) if old != new]
        if len(changed) > _MOST_RESTLESS:
            self._changes.clear()
            self._quiet = 0
            return False
        self._changes.update(changed)
        restless = {at for at, count in self._changes.items() if count >= _RESTLESS_CHANGES}
        if len(restless) > _MOST_RESTLESS or not set(changed) <= restless:
            self._quiet = 0
        else:
            self._quiet += 1
        return self._quiet >= (_BLANK_FRAMES if is_blank(frame) else self._wanted)


class Movement:
    """Fed with frames at a gentle rhythm, counts what is new on the screen.

    A cell that shows what it has shown before (a cursor, a spinner) is not new; a countdown and a progress bar are.
    """

    def __init__(self) -> None:
        self._last: Frame | None = None
        self._shown: list[set[int]] = []

    def look(self, frame: Frame) -> int:
        """Take the next frame and give the number of cells that are new in it; a blank screen has none."""
        last, self._last = self._last, frame
        if last is None or (last.width, last.height) != (frame.width, frame.height):
            self._shown = [{cell} for cell in frame.cells]
            return 0 if is_blank(frame) else len(frame.cells)
        if last.cells == frame.cells:
            return 0
        new = 0
        for shown, cell in zip(self._shown, frame.cells, strict=True):
            if cell not in shown:
                shown.add(cell)
                new += 1
        return new


# The resolutions of VGA's text modes, as QEMU draws them: 9 or 8 pixels a character.
TEXT_SIZES = frozenset({(720, 400), (640, 400), (720, 350)})
# VGA's text memory: rows of 80 characters of code page 437, each followed by its attribute. A screen is 25 of them, and
# not the first: a kernel scrolls by moving it down through all of the memory (drivers/video/console/vgacon.c in Linux).
TEXT_ADDRESS, TEXT_BYTES = 0xB8000, 32 << 10
_TEXT_COLUMNS = 80
# A console breaks a line where its row is full, in the middle of a word; a frame or a rule ends there. What stands in
# the next row may be a line of its own: a kernel begins its with the time.
_MOST_BROKEN = 5
_FULL_ROW = re.compile(r"[^\s|+=*_#-]\s?$", re.ASCII)
_OWN_LINE = re.compile(r"\[ *\d+\.\d{6}\]|[|+]|[^\x00-\x7f]|$")


def parse_text_screen(memory: bytes) -> tuple[str, ...]:
    """Give the lines of a text screen, and those above it that the memory still has; none where it holds no text (a
    graphics mode reads as 0xFF or noise).
    """
    characters = memory[0:TEXT_BYTES:2]
    rows = [characters[at : at + _TEXT_COLUMNS] for at in range(0, len(characters), _TEXT_COLUMNS)]
    printable = sum(32 <= code < 127 or code == 0 or code >= 0xB0 for code in characters)
    if characters.count(0xFF) > len(characters) // 2 or printable < len(characters) * 9 // 10:
        return ()
    texts = [row.replace(b"\0", b" ").decode("cp437").rstrip() for row in rows]
    return tuple(join_rows(texts, _TEXT_COLUMNS))


def join_rows(rows: Iterable[str], columns: int) -> Iterator[str]:
    """Give the lines of a console that shows them in `rows`: one that fills its row goes on in the next."""
    line, broken = "", 0
    for row in rows:
        if broken and _OWN_LINE.match(row):
            yield line
            line, broken = "", 0
        line += row
        is_full = len(row) >= columns - 1 and row.isascii() and _FULL_ROW.search(row)
        if is_full and broken < _MOST_BROKEN:
            line, broken = line + " " * (columns - len(row)), broken + 1
        else:
            yield line
            line, broken = "", 0
    if broken:
        yield line


class TextScreen:
    """The lines that were on the screen before, to tell the new ones."""

    def __init__(self) -> None:
        self._shown: frozenset[str] = frozenset()

    def take(self, screen: Sequence[str]) -> tuple[str, ...]:
        """Give the lines that are new since the last look; the rest of a broken line, its beginning gone, is not."""
        lines = [line for line in screen if line.strip()]
        broken = [line for line in self._shown if len(line) > _TEXT_COLUMNS]
        new = tuple(
            line for line in lines if line not in self._shown and not any(whole.endswith(line) for whole in broken)
        )
        self._shown = frozenset(lines)
        return new
