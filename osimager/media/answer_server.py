"""The answer server: named in-memory answers for the installer, over HTTP on loopback, under a random path.

It knows when each answer was fetched and says so as events. The random path is a secret of the build: it is told to
the masker and appears in no event. The guest reaches loopback through QEMU's user network (`10.0.2.2`). It knows no
installer. GET and HEAD of HTTP/1.1 (RFC 9110, RFC 9112), one request a connection: aiohttp's server does that too, for
14 MB that stay while a build watches its guest, and 150 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import re
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from osimager.aio import ServeClient, serving
from osimager.env import Env
from osimager.errors import ConfigError, PrerequisiteError
from osimager.events import AnswerFetched, AnswerRefused

_SECRET_BYTES = 20  # 160 bits
_NAME = re.compile(r"[A-Za-z0-9_.~-]+(/[A-Za-z0-9_.~-]+)*")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CHUNK = 64 << 10
_REQUEST_S = 60.0
_MOST_REQUEST_BYTES = 16 << 10
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for: the path decoded, its query left out; `range` is the header of that name."""

    method: str
    path: str
    range: str


class AnswerServer:
    """A running answer server. Made by `open_answer_server`."""

    def __init__(self, answers: Mapping[str, bytes], env: Env) -> None:
        self._answers = dict(answers)
        self._env = env
        self._secret = env.entropy(_SECRET_BYTES).hex()
        env.masker.register(self._secret)
        self.port = 0

    def url_for_guest(self, host: str = "10.0.2.2") -> str:
        """Give the URL of the folder of answers, without a slash at its end, as the guest reaches it through `host`."""
        return f"http://{host}:{self.port}/{self._secret}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection: an answer, whole or in part, or why not."""
        try:
            async with asyncio.timeout(_REQUEST_S):
                request = await _read_request(reader)
        except (ValueError, EOFError, TimeoutError):
            await _write_head(writer, 400, 0)
            return
        folder, _slash, name = request.path.lstrip("/").partition("/")
        name = name.lstrip("/")  # a URL put together with one slash too many
        content = self._answers.get(name) if folder == self._secret else None
        if content is None or request.method not in ("GET", "HEAD"):
            self._env.emit(AnswerRefused(request.path.replace(self._secret, "…")[:_SHOWN]))
            await _write_head(writer, 404 if content is None else 405, 0)
            return
        start, end, status = _range_of(request.range, len(content))
        extra = {"Content-Type": "text/plain", "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
        if status == 416:
            extra["Content-Range"] = f"bytes */{len(content)}"
        elif status == 206:
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        if request.method == "HEAD":
            await _write_head(writer, status, end - start, extra)
            return
        sent = False
        try:
            await _write_head(writer, status, end - start, extra)
            for at in range(start, end, _CHUNK):
                writer.write(content[at : min(end, at + _CHUNK)])
                await writer.drain()
            sent = end - start == len(content)
        finally:
            self._env.emit(AnswerFetched(name, whole=sent))


async def _read_request(reader: asyncio.StreamReader) -> _Request:
    """Read a request's line and headers. Raises ValueError for what is none, EOFError where it ends before its end."""
    lines: list[str] = []
    size = 0
    while line := (await reader.readline()).decode("latin-1"):
        size += len(line)
        if size > _MOST_REQUEST_BYTES:
            raise ValueError("a request too long")
        if line.strip():
            lines.append(line.strip())
        elif lines:  # RFC 9112, 2.2: an empty line before the first is passed over
            break
    else:
        raise EOFError
    method, target, version = lines[0].split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("not HTTP/1")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    path = urllib.parse.urlsplit(target).path if "://" in target else target.partition("?")[0].partition("#")[0]
    return _Request(method, urllib.parse.unquote(path, errors="replace"), headers.get("range", ""))


async def _write_head(
    writer: asyncio.StreamWriter, status: int, length: int, extra: Mapping[str, str] | None = None
) -> None:
    headers = {"Content-Length": str(length), "Connection": "close", **(extra or {})}
    lines = (f"{name}: {value}" for name, value in headers.items())
    writer.write("\r\n".join([f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", *lines, "", ""]).encode())
    await writer.drain()


def _range_of(header: str, size: int) -> tuple[int, int, int]:
    """Give start, end and status for a Range header (RFC 9110, 14.2): one range; anything else gives the whole."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or not any(match.groups()) or len(header) > _SHOWN:
        return 0, size, 200
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < start:
        return 0, size, 200
    return (start, end, 206) if start < end else (0, 0, 416)


@contextlib.asynccontextmanager
async def open_answer_server(answers: Mapping[str, bytes], env: Env) -> AsyncIterator[AnswerServer]:
    """Serve `answers` on 127.0.0.1, at a port of the kernel's choice, while the block runs.

    Raises ConfigError for a name that no URL can hold plainly.
    """
    for name in answers:
        if not _NAME.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
            raise ConfigError(f"{name!r} cannot be an answer's name", hint="letters, digits and ._~-")
    answering = AnswerServer(answers, env)
    async with serving(answering.serve, _listen) as listening:
        answering.port = int(listening.sockets[0].getsockname()[1])
        yield answering


async def _listen(serve: ServeClient) -> asyncio.Server:
    try:
        return await asyncio.start_server(serve, "127.0.0.1", 0)
    except OSError as exc:
        raise PrerequisiteError(f"no port on 127.0.0.1 for the answers: {exc.strerror}") from exc
