"""What was typed into a guest secretly, covered on pictures of its screen for as long as it can be seen there.

A font need not be known for that: the cells that changed while it was typed are remembered, a few in a row at a time,
and found again where they were, or where the screen has scrolled them to. Knows no guest; `sight` looks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from osimager.machine.png import PPM_HEADER
from osimager.machine.screen import CELL_HEIGHT, CELL_WIDTH, Frame

_RUN = 6  # cells in a row: what is shorter tells no secret
_MOST_ALIKE = 2  # of them: blanks and rules are everywhere
_EDGE = re.compile(r"[\s\\│|]+$"), re.compile(r"^[\s│|]+")

_Run = tuple[int, ...]


class Curtain:
    """Fed with frames while a secret is typed; says of any later one which of its rows show it."""

    def __init__(self) -> None:
        self._before: Frame | None = None
        self._runs: set[_Run] = set()

    @property
    def is_drawn(self) -> bool:
        """Tell whether a secret is being typed."""
        return self._before is not None

    @property
    def hides(self) -> bool:
        """Tell whether one is being typed or was: whether there may be anything to cover."""
        return self.is_drawn or bool(self._runs)

    def draw(self, before: Frame) -> None:
        """Begin to hide what changes from now on."""
        self._before = before

    def open(self, after: Frame) -> None:
        """Go on hiding only what had changed by now."""
        for row in self._changed_rows(after):
            self._runs.update(_runs_of(_cut_row(after, row)))
        self._before = None

    def find_rows(self, frame: Frame) -> list[int]:
        """Give the rows that show anything of it: while it is typed, all that have changed."""
        known = {row for row in range(_count_rows(frame)) if not self._runs.isdisjoint(_runs_of(_cut_row(frame, row)))}
        return sorted(known | set(self._changed_rows(frame)))

    def _changed_rows(self, frame: Frame) -> list[int]:
        before = self._before
        if before is None:
            return []
        rows = range(_count_rows(frame))
        if (before.width, before.height) != (frame.width, frame.height):
            return list(rows)
        return [row for row in rows if _cut_row(before, row) != _cut_row(frame, row)]


def _count_rows(frame: Frame) -> int:
    return -(-frame.height // CELL_HEIGHT)


def _cut_row(frame: Frame, row: int) -> tuple[int, ...]:
    columns = -(-frame.width // CELL_WIDTH)
    return frame.cells[row * columns : (row + 1) * columns]


def _runs_of(cells: tuple[int, ...]) -> Iterator[_Run]:
    for at in range(len(cells) - _RUN + 1):
        run = cells[at : at + _RUN]
        if max(map(run.count, run)) <= _MOST_ALIKE:
            yield run


def cover_rows(ppm: bytes, rows: Sequence[int]) -> bytes:
    """Give a PPM picture with these rows of cells black."""
    header = PPM_HEADER.match(ppm)
    if header is None:
        raise ValueError("not a PPM picture (P6, 255)")
    row_bytes, covered = int(header[1]) * 3 * CELL_HEIGHT, bytearray(ppm)
    for row in rows:
        start = header.end() + row * row_bytes
        end = min(start + row_bytes, len(covered))
        covered[start:end] = bytes(end - start)
    return bytes(covered)


def mask_lines(lines: Sequence[str], mask: Callable[[str], str]) -> tuple[str, ...]:
    """Give the lines of a screen masked, also where it broke a secret in two: those lines become one."""
    masked: list[str] = []
    for line in lines:
        if masked:
            before, after = _EDGE[0].sub("", masked[-1]), _EDGE[1].sub("", line)
            joined = mask(before + after)
            if joined != mask(before) + mask(after):
                masked[-1] = joined
                continue
        masked.append(line)
    return tuple(mask(line) for line in masked)
