"""Text is read from pictures of a graphical console, in the font that QEMU's binary has."""

from __future__ import annotations

from pathlib import Path

import pytest

from osimager.machine.glyphs import Font, GlyphReader, load_font, parse_font
from osimager.machine.screen import make_frame

LINES = (
    "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
    "",
    "(initramfs) _",
)


pytestmark = pytest.mark.needs("qemu-system-x86_64")
QEMU = Path("/usr/bin/qemu-system-x86_64")


@pytest.fixture(scope="module")
def font() -> Font:
    return load_font(QEMU)


def draw(
    font: Font, lines: tuple[str, ...], *, columns: int = 100, ink: bytes = b"\xaa\xaa\xaa", noise: int = 0
) -> bytes:
    """Give a PPM of `lines`; `noise` flips that many dots in each letter."""
    glyphs = {letter: bits ^ ((1 << noise) - 1) << 40 for bits, letter in font.items()}
    pixels = bytearray(columns * 8 * len(lines) * 16 * 3)
    for row, line in enumerate(lines):
        for column, letter in enumerate(line):
            for dot in range(128):
                if glyphs.get(letter, 0) >> (127 - dot) & 1:
                    at = ((row * 16 + dot // 8) * columns * 8 + column * 8 + dot % 8) * 3
                    pixels[at : at + 3] = ink
    return b"P6\n%d %d\n255\n" % (columns * 8, len(lines) * 16) + pixels


def read(ppm: bytes) -> tuple[str, ...]:
    return GlyphReader(QEMU).read(ppm, make_frame(ppm))


def test_console_is_read_whole(font: Font) -> None:
    assert read(draw(font, LINES)) == (LINES[0], LINES[2])


def test_letters_that_a_kernel_has_redrawn_are_read_too(font: Font) -> None:
    assert read(draw(font, LINES, ink=b"\xff\x55\x55", noise=2)) == (LINES[0], LINES[2])


def test_line_that_fills_its_row_goes_on_in_the_next(font: Font) -> None:
    assert read(draw(font, (LINES[0][:80], LINES[0][80:], LINES[2]), columns=80)) == (LINES[0], LINES[2])


def test_same_reader_reads_the_next_picture(font: Font) -> None:
    reader = GlyphReader(QEMU)
    for text in ("debian login:", "root@debian:~#"):
        ppm = draw(font, (text,))
        assert reader.read(ppm, make_frame(ppm)) == (text,)


def test_picture_is_no_text() -> None:
    noise = bytes((x * x * 7 + x) % 251 for x in range(640 * 480 * 3))
    assert read(b"P6\n640 480\n255\n" + noise) == ()


def test_binary_without_the_font_reads_nothing(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_bytes(bytes(5000))
    ppm = b"P6\n80 16\n255\n" + bytes(80 * 16 * 3)
    for qemu in (tmp_path / "qemu", tmp_path / "none"):
        assert GlyphReader(qemu).read(ppm, make_frame(ppm)) == ()


def test_font_has_every_printable_letter(font: Font) -> None:
    assert "".join(sorted(font.values())) == "".join(map(chr, range(33, 127)))
    assert parse_font(b"") == {}
