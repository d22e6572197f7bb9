"""The answer server: named in-memory answers for the installer, over HTTP on loopback, under a random path.

It knows when each answer was fetched and says so as events. The random path is a secret of the build: it is told to
the masker and appears in no event. The guest reaches loopback through QEMU's user network (`10.0.2.2`). The one import
site of aiohttp's server; it knows no installer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from osimager.aio import finish
from osimager.env import Env
from osimager.errors import ConfigError, PrerequisiteError
from osimager.events import AnswerFetched, AnswerRefused

if TYPE_CHECKING:
    from aiohttp import web

_SECRET_BYTES = 20  # 160 bits
_NAME = re.compile(r"[A-Za-z0-9_.~-]+(/[A-Za-z0-9_.~-]+)*")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CHUNK = 64 << 10
_GRACE_S = 2.0
_SHOWN = 200


class AnswerServer:
    """A running answer server. Made by `open_answer_server`."""

    def __init__(self, answers: Mapping[str, bytes], env: Env) -> None:
        self._answers = dict(answers)
        self._env = env
        self._secret = env.entropy(_SECRET_BYTES).hex()
        env.masker.register(self._secret)
        self._fetched: set[str] = set()
        self._is_open = True
        self.port = 0

    @property
    def fetched(self) -> frozenset[str]:
        """The names of the answers that were fetched whole."""
        return frozenset(self._fetched)

    def url_for_guest(self, host: str = "10.0.2.2") -> str:
        """Give the URL of the folder of answers, without a slash at its end, as the guest reaches it through `host`."""
        return f"http://{host}:{self.port}/{self._secret}"

    def close_answers(self) -> None:
        """Serve nothing any more: the installer has what it needs."""
        self._is_open = False

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request: an answer, whole or in part, or 404."""
        from aiohttp import web

        folder, _slash, name = request.path.lstrip("/").partition("/")
        name = name.lstrip("/")  # a URL put together with one slash too many
        content = self._answers.get(name) if folder == self._secret and self._is_open else None
        if content is None or request.method not in ("GET", "HEAD"):
            shown = request.path.replace(self._secret, "…")
            self._env.emit(AnswerRefused(shown[:_SHOWN]))
            return web.Response(status=404 if content is None else 405, text="no such answer\n")
        start, end, status = _range_of(request.headers.get("Range", ""), len(content))
        response = web.StreamResponse(status=status)
        response.content_type = "text/plain"
        response.headers["Accept-Ranges"] = "bytes"
        response.headers["Cache-Control"] = "no-store"
        if status == 416:
            response.headers["Content-Range"] = f"bytes */{len(content)}"
        elif status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        response.content_length = end - start
        await self._send(request, response, name, content[start:end], whole=end - start == len(content))
        return response

    async def _send(
        self, request: web.BaseRequest, response: web.StreamResponse, name: str, body: bytes, *, whole: bool
    ) -> None:
        """Send `body` and emit what became of it."""
        if request.method == "HEAD":
            await response.prepare(request)
            return
        sent = False
        try:
            await response.prepare(request)
            for at in range(0, len(body), _CHUNK):
                await response.write(body[at : at + _CHUNK])
            await response.write_eof()
            sent = True
        except ConnectionError:
            pass  # the guest went away: the event below says so
        finally:
            if sent and whole:
                self._fetched.add(name)
            self._env.emit(AnswerFetched(name, whole=sent and whole))


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
    from aiohttp import web  # 150 ms; most commands serve nothing

    for name in answers:
        if not _NAME.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
            raise ConfigError(f"{name!r} cannot be an answer's name", hint="letters, digits and ._~-")
    server = AnswerServer(answers, env)
    runner = web.ServerRunner(web.Server(server.answer, access_log=None), shutdown_timeout=_GRACE_S)
    try:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        try:
            await site.start()
        except OSError as exc:
            raise PrerequisiteError(f"no port on 127.0.0.1 for the answers: {exc.strerror}") from exc
        server.port = int(runner.addresses[0][1])
        yield server
    finally:
        server.close_answers()
        await finish(runner.cleanup(), _GRACE_S + 1)
