"""Screens as QEMU gives them: PPM (P6) read and PNG written, with nothing but zlib (PNG specification, 3rd edition)."""

from __future__ import annotations

import re
import struct
import zlib

PPM_HEADER = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s")


def parse_ppm(data: bytes) -> tuple[int, int, bytes]:
    """Give width, height and the RGB bytes of a PPM. Raises ValueError for anything else."""
    header = PPM_HEADER.match(data)
    if header is None:
        raise ValueError("not a PPM picture (P6, 255)")
    width, height = int(header[1]), int(header[2])
    pixels = data[header.end() :]
    if len(pixels) < width * height * 3:
        raise ValueError("a PPM picture that ends too early")
    return width, height, pixels[: width * height * 3]


def make_png(ppm: bytes) -> bytes:
    """Give a PPM picture as PNG."""
    width, height, pixels = parse_ppm(ppm)
    row = width * 3
    filtered = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(filtered, 6)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
