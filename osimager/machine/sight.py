"""The guest's screen as QEMU shows it: pictures, what is new on them, and the text that can be read there."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from osimager.env import Env
from osimager.errors import MachineError
from osimager.events import OutputLine, ScreenChanged
from osimager.kept import write_kept
from osimager.machine.curtain import Curtain, cover_rows, mask_lines
from osimager.machine.glyphs import GlyphReader
from osimager.machine.png import make_png
from osimager.machine.qmp import Qmp, QmpFailed
from osimager.machine.screen import (
    TEXT_ADDRESS,
    TEXT_BYTES,
    TEXT_SIZES,
    Frame,
    Movement,
    TextScreen,
    make_frame,
    parse_text_screen,
)

_TAIL_LINES = 100
_ECHO_S = 1.0  # until what was typed last is seen


class Sight:
    """One guest's. `has_vga` tells whether it has VGA's text memory; `qemu` is the binary that runs it."""

    def __init__(self, qmp: Qmp, env: Env, *, name: str, has_vga: bool, qemu: Path) -> None:
        self._qmp = qmp
        self._env = env
        self._name = name
        self._has_vga = has_vga
        self._seen: tuple[bytes, Frame] | None = None
        self._movement = Movement()
        self._lines = TextScreen()
        self._said: deque[str] = deque(maxlen=_TAIL_LINES)
        self._glyphs = GlyphReader(qemu)
        self._looking = asyncio.Lock()
        self._curtain = Curtain()

    async def look(self) -> Frame:
        """Look at the screen. Who types and who watches may do so at once, and there is one file for the picture."""
        picture = self._env.workspace / f".screen-{self._name}.ppm"
        async with self._looking:
            try:
                await self._qmp.execute("screendump", {"filename": str(picture)})
                data = _read(picture)
            finally:
                picture.unlink(missing_ok=True)
        if self._seen is None or self._seen[0] != data:
            self._seen = (data, make_frame(data))  # 40 ms for a large screen: only where something moved
        return self._seen[1]

    async def observe(self) -> None:
        """Put what is new on the screen on the bus, as cells and as lines.

        A host without room for a picture is left to what QEMU says of its disk.
        """
        with contextlib.suppress(QmpFailed, OSError, ValueError):
            frame = await self.look()
            if new := self._movement.look(frame):
                is_text = self._is_text(frame) and not self._curtain.is_drawn
                self._env.emit(ScreenChanged(frame.digest, cells=new, is_text=is_text))
                if self._curtain.is_drawn:
                    return  # half a secret is no secret to the masker
                for line in self._lines.take(mask_lines(await self._read_text(frame), self._env.masker.mask)):
                    self._said.append(line)
                    self._env.emit(OutputLine("screen", line))

    @contextlib.asynccontextmanager
    async def covered(self) -> AsyncIterator[None]:
        """Let nobody see what the screen shows of what is typed in the block: no text of it, no picture, ever."""
        self._curtain.draw(await self.look())
        yield
        await asyncio.sleep(_ECHO_S)
        self._curtain.open(await self.look())

    def tail(self, lines: int) -> str:
        """Give the last lines that were read, masked."""
        return "\n".join(tuple(self._said)[-lines:])

    async def screenshot(self, path: Path) -> None:
        """Write what the screen shows to `path` as PNG."""
        if self._curtain.hides:
            await self.look()
            self.keep_last(path)
            return
        partial = path.with_name(f".partial-{path.name}")
        try:
            await self._qmp.screendump(partial)
            _publish_picture(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def keep_last(self, path: Path) -> None:
        """Write what was seen last to `path` as PNG. Raises MachineError where nothing was."""
        if self._seen is None:
            raise MachineError("the guest was gone before its screen was seen")
        data, frame = self._seen
        write_kept(path, make_png(cover_rows(data, self._curtain.find_rows(frame))), mode=0o600)

    async def _read_text(self, frame: Frame) -> tuple[str, ...]:
        """Give the lines on the screen: of a text mode from its memory, else what can be read of the picture."""
        if self._is_text(frame):
            return parse_text_screen(await self._read_text_memory())
        assert self._seen is not None
        return self._glyphs.read(self._seen[0], frame)

    def _is_text(self, frame: Frame) -> bool:
        return self._has_vga and (frame.width, frame.height) in TEXT_SIZES

    async def _read_text_memory(self) -> bytes:
        """Give VGA's text memory: 80 by 25 characters, each with its attribute."""
        memory = self._env.workspace / f".text-{self._name}"
        try:
            await self._qmp.execute("pmemsave", {"val": TEXT_ADDRESS, "size": TEXT_BYTES, "filename": str(memory)})
            return _read(memory)
        finally:
            memory.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _publish_picture(partial: Path, path: Path) -> None:
    """Move a screendump to `path`, as PNG."""
    data = partial.read_bytes()
    if not data.startswith(b"\x89PNG"):
        partial.write_bytes(make_png(data))
    partial.replace(path)
