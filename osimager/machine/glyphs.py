"""Text on a graphical console, read from its picture: kernels draw there with the VGA's own font.

The font is not ours: QEMU has it for its own consoles, and it is taken out of its binary (ui/vgafont.h in its tree; the
VGA BIOS redraws some letters). A kernel that panics on a framebuffer, where no serial line was asked for, says so
nowhere else. Firmware, GRUB and desktops have fonts of their own, and stay pictures.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Mapping
from pathlib import Path

from osimager.machine.png import parse_ppm
from osimager.machine.screen import CELL_HEIGHT, CELL_WIDTH, Frame, join_rows

# The second glyph of code page 437, a face: where that is, the font of 8 by 16 pixels begins one glyph before.
_FACE = bytes.fromhex("00007e81a58181bd9981817e00000000")
_GLYPHS = 256
_PRINTABLE = range(33, 127)
_MOST_WRONG_BITS = 2
_READABLE = 0.8  # of a line's characters; else it is a picture
_FEWEST = 4
_MOST_NEW_CELLS = 1500  # at once: more is a photograph, and costs too much
_MOST_KNOWN_CELLS = 20000
_UNREADABLE = "\ufffd"

Font = Mapping[int, str]


@functools.cache
def load_font(qemu: Path) -> Font:
    """Give the letters by their bits, from QEMU's binary; none where it has no such font."""
    try:
        with qemu.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
            start = binary.find(_FACE) - CELL_HEIGHT
            font = binary[start : start + _GLYPHS * CELL_HEIGHT] if start >= 0 else b""
    except (OSError, ValueError):
        return {}
    return parse_font(font)


def parse_font(font: bytes) -> Font:
    """Give the letters of a font, 16 bytes a glyph, by their bits."""
    glyphs = ((code, font[code * CELL_HEIGHT : (code + 1) * CELL_HEIGHT]) for code in _PRINTABLE)
    return {int.from_bytes(glyph): chr(code) for code, glyph in glyphs if any(glyph)}


class GlyphReader:
    """Reads pictures; what a cell means is remembered by its checksum, so that a screen is mostly known by then."""

    def __init__(self, qemu: Path) -> None:
        self._qemu = qemu
        self._known: dict[int, str] = {}

    def read(self, ppm: bytes, frame: Frame) -> tuple[str, ...]:
        """Give the lines of text in a picture, whose cells `frame` has."""
        font = load_font(self._qemu)
        if not font:
            return ()
        width, height, pixels = parse_ppm(ppm)
        columns = -(-width // CELL_WIDTH)
        if len(set(frame.cells) - self._known.keys()) > _MOST_NEW_CELLS:
            return ()
        lines = []
        for row in range(height // CELL_HEIGHT):
            cells = frame.cells[row * columns : row * columns + width // CELL_WIDTH]
            for column, cell in enumerate(cells):
                if cell not in self._known:
                    self._known[cell] = _find_letter(_cut(pixels, width, column, row), font)
            lines.append("".join(self._known[cell] for cell in cells).rstrip())
        if len(self._known) > _MOST_KNOWN_CELLS:
            self._known.clear()
        rows = (line if _is_text(line) else "" for line in lines)
        return tuple(line for line in join_rows(rows, width // CELL_WIDTH) if line)


def _find_letter(dots: list[bytes], font: Font) -> str:
    """Give the letter of one cell: a space, or U+FFFD for what is none."""
    colours = set(dots)
    if len(colours) == 1:
        return " "
    if len(colours) > 2:
        return _UNREADABLE
    bits = int("".join("0" if dot == dots[0] else "1" for dot in dots), 2)
    if found := font.get(bits):
        return found
    wrong, letter = min(((bits ^ glyph).bit_count(), letter) for glyph, letter in font.items())
    return letter if wrong <= _MOST_WRONG_BITS else _UNREADABLE


def _cut(pixels: bytes, width: int, column: int, row: int) -> list[bytes]:
    """Give the dots of one cell."""
    first = (row * CELL_HEIGHT * width + column * CELL_WIDTH) * 3
    starts = (first + y * width * 3 + x * 3 for y in range(CELL_HEIGHT) for x in range(CELL_WIDTH))
    return [pixels[start : start + 3] for start in starts]


def _is_text(line: str) -> bool:
    letters = line.replace(" ", "")
    return len(letters) >= _FEWEST and 1 - letters.count(_UNREADABLE) / len(letters) >= _READABLE
