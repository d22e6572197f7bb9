"""A guest's serial console for others: fanned out on a unix socket that only its user can open.

Who connects gets the last lines, then every byte as it comes, and can type. The bytes are raw: nothing of them is kept.
A reader that does not read is let go of; it must not hold up the guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

from osimager.aio import serving
from osimager.errors import PrerequisiteError
from osimager.kept import make_folder

_TAIL_LINES = 50
_MOST_UNREAD_BYTES = 1 << 20
_SOCKET_PATH_BYTES = 103  # macOS: 104 with the NUL


class RawConsole(Protocol):
    """The console of a machine, as bytes."""

    def hearing(self, listener: Callable[[bytes], None]) -> contextlib.AbstractContextManager[None]:
        """Call `listener` with each piece while the block runs."""
        ...

    def write(self, data: bytes) -> None:
        """Type bytes into the guest's console."""
        ...

    def tail(self, lines: int) -> str:
        """Give the last lines."""
        ...


@contextlib.asynccontextmanager
async def serving_console(console: RawConsole, path: Path) -> AsyncIterator[Path]:
    """Serve `console` on the socket `path` while the block runs. Raises PrerequisiteError for a path too long."""
    if len(str(path).encode()) > _SOCKET_PATH_BYTES:
        raise PrerequisiteError(f"the socket's path is too long: {path}", hint="set OSIMAGER_HOME to a shorter folder")
    make_folder(path.parent, private=True).chmod(0o700)
    _remove(path)
    try:
        async with serving(
            lambda reader, writer: _serve_client(console, reader, writer),
            lambda serve: asyncio.start_unix_server(serve, path),
        ):
            os.chmod(path, 0o600)  # noqa: PTH101  one system call on a socket of our own
            yield path
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _serve_client(console: RawConsole, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    transport = writer.transport

    def pass_on(data: bytes) -> None:
        if transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
            transport.abort()
        else:
            transport.write(data)

    writer.write(console.tail(_TAIL_LINES).replace("\n", "\r\n").encode())
    with console.hearing(pass_on):
        while data := await reader.read(4096):
            console.write(data)
