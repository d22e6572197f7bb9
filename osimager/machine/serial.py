"""The guest's serial console: bytes from QEMU become a log with times, lines on the bus, and a bounded tail.

Everything passes the masker line by line; a line that stays open (a prompt) is given after a moment of silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from osimager.env import Env
from osimager.events import OutputLine
from osimager.redact import MASK

_TAIL_LINES = 400
_PROMPT_S = 1.0
_MOST_LINE = 4096
# ECMA-48: CUP, HVP and VPA name the cursor's row, CUU and CUD go up and down, CUF goes right.
# VT100: an escape chooses the set of letters.
_ROW = re.compile(rb"\n|\x1b\[(\d*)(?:;\d*)?([HfdAB])|(\x1b\([A-Z0-9])")
_ELSEWHERE = 0  # rows count from 1
_RIGHT = re.compile(rb"\x1b\[(\d{0,3})C")
_SEQUENCE = re.compile(rb"\x1b\[[0-9;?=]*[ -/]*[@-~]")
# VT100's line drawing characters, between the escapes that choose the set.
_DRAWN = re.compile(rb"\x1b\(0([^\x1b]*)")
_DRAWING = dict(zip("jklmnqtuvwx", "┘┐┌└┼─├┤┴┬│", strict=True))
# The two-byte escapes that firmware and installers send beside the sequences, and control characters.
_CONTROL = re.compile(rb"\x1b[()][A-Z0-9]|\x1b[@-_a-z0-9=>]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class SerialLog:
    """One machine's console. `path` is made 0600."""

    def __init__(self, path: Path, env: Env, *, source: str = "serial") -> None:
        self._env = env
        self._source = source
        self._started = env.clock.monotonic()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "wb", 0)
        self._open_line = b""
        self._cut = b""  # what was given out of a line before its end
        self._rows = _Rows()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._sought: deque[str] = deque(maxlen=_TAIL_LINES)  # the same, each with what was cut off before it
        self._printed = 0
        self._found = 0
        self._listeners: list[Callable[[bytes], None]] = []
        self._writer: asyncio.StreamWriter | None = None

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Read the console to its end."""
        try:
            while data := await self._next(stream):
                self.feed(data)
        except ConnectionResetError:
            pass  # QEMU was killed
        finally:
            self._end()

    async def _next(self, stream: asyncio.StreamReader) -> bytes:
        """Give the next bytes; a line that was left open is given out when nothing follows it."""
        if self._open_line:
            try:
                async with asyncio.timeout(_PROMPT_S):
                    return await stream.read(65536)
            except TimeoutError:
                self.flush()
        return await stream.read(65536)

    def feed(self, data: bytes) -> None:
        """Take bytes as the guest wrote them."""
        for listener in tuple(self._listeners):
            listener(data)
        *lines, self._open_line = self._rows.end_lines(self._open_line + data).split(b"\n")
        for line in lines:
            self._write(line)
            self._cut = b""
        if len(self._open_line) > _MOST_LINE:
            self.flush()

    def find(self, text: str) -> bool:
        """Say whether `text` was printed since the place of the last find, and go on behind it.

        A line that stood still is one with what followed, unless something was found in what had come by then.
        """
        lines = [*self._sought, self._seek(self._open_line)]
        first = self._printed - len(self._sought)
        for at, line in enumerate(lines, first):
            if at >= self._found and text in line:
                self._found = at + 1
                if at >= self._printed - 1:
                    self._cut = b""
                return True
        return False

    def flush(self) -> None:
        """Give out the line that is still open, unless it may stand in the middle of a secret."""
        text = _plain(self._open_line)
        if self._open_line and self._env.masker.find_begun(text) == len(text):
            line, self._open_line = self._open_line, b""
            was_found = self._found > self._printed
            self._write(line)
            self._cut = b"" if was_found else (self._cut + line)[-_MOST_LINE:]

    def _end(self) -> None:
        """Give out the line that is still open: nothing follows it."""
        self._open_line = self._show_open().encode()
        self.flush()

    def _show_open(self) -> str:
        """Give the line that is still open, and nothing of a secret that it stands in."""
        text = _plain(self._open_line)
        begun = self._env.masker.find_begun(text)
        return text if begun == len(text) else text[:begun] + MASK

    def tail(self, lines: int) -> str:
        """Give the last lines, the open one included, masked."""
        kept = list(self._tail)
        if open_line := self._show_open():
            kept.append(self._env.masker.mask(open_line))
        return "\n".join(kept[-lines:]) if lines > 0 else ""

    @contextlib.contextmanager
    def hearing(self, listener: Callable[[bytes], None]) -> Iterator[None]:
        """Call `listener` with each piece of raw bytes while the block runs; it must not block or raise."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def connect(self, writer: asyncio.StreamWriter) -> None:
        """Take the way back to the guest."""
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Type bytes into the guest's console; lost where there is no guest any more."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(data)

    def close(self) -> None:
        """Close the log."""
        self._end()
        self._file.close()

    def _seek(self, raw: bytes) -> str:
        return self._env.masker.mask(_plain(self._cut + raw))

    def _write(self, raw: bytes) -> None:
        text = self._env.masker.mask(_plain(raw))
        seconds = self._env.clock.monotonic() - self._started
        self._file.write(f"[{seconds:9.3f}] {text}\n".encode())
        if text.strip():
            self._tail.append(text)
            self._sought.append(self._seek(raw))
            self._printed += 1
            self._env.emit(OutputLine(self._source, text))


class _Rows:
    """Ends a line where the cursor is sent to another row: full-screen installers draw their dialogs so, and send no
    line feed. Who only edits a line (GRUB's shell) is sent to its own row."""

    def __init__(self) -> None:
        self._row: int | None = None  # of the cursor, where it was named since the last line feed
        self._letters = b""  # the escape of the set that is in use: a new line goes on with it

    def end_lines(self, data: bytes) -> bytes:
        """Give `data` with line feeds for moves to other rows, and no other move up or down."""
        return _ROW.sub(self._move, data)

    def _move(self, found: re.Match[bytes]) -> bytes:
        if found[3]:
            self._letters = found[3]
            return self._letters
        before, count, kind = self._row, int(found[1] or 1), found[2]
        if kind in (b"H", b"f", b"d"):
            self._row = count
            return b"" if before in (None, count) else b"\n" + self._letters
        self._row = _ELSEWHERE if kind else None
        return b"\n" + self._letters


def _plain(raw: bytes) -> str:
    """Give a line as it reads: no control sequences, and of overwritten parts (carriage returns) the last."""
    spaced = _RIGHT.sub(lambda found: b" " * int(found[1] or 1), raw)
    drawn = _DRAWN.sub(lambda found: _draw(found[1]), _SEQUENCE.sub(b"", spaced))
    clean = _CONTROL.sub(b"", drawn)
    parts = [part for part in clean.split(b"\r") if part.strip()]
    return parts[-1].decode("utf-8", errors="replace").rstrip() if parts else ""


def _draw(letters: bytes) -> bytes:
    """Give what VT100's line drawing set shows for `letters`."""
    return "".join(_DRAWING.get(letter, letter) for letter in letters.decode("latin-1")).encode()
