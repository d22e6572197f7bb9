"""An HTTP server on loopback that does what servers do on bad days; each request takes the next act of a script."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from aiohttp import web


class Act(StrEnum):
    """What one request is answered with."""

    GOOD = "good"
    WRONG = "wrong content"
    TRUNCATED = "cut off by a reset"
    SHORT = "shorter, and says so"
    LONG = "longer, and says so"
    EMPTY = "nothing, and says so"
    STALL = "stalls in the middle"
    HELD = "held back until it is released, then good"
    LOOP = "redirects to itself"
    NO_RANGE = "ignores the range"
    ERROR = "500"
    ERROR_INSIDE = "an error page in the middle"
    CHANGED = "changed since, with another ETag"
    CHANGED_SILENTLY = "changed since, with the same ETag"
    WRONG_RANGE = "another range than asked for"
    NO_SUCH_RANGE = "416"
    MISSING = "404"
    GZIP = "says that it is gzip"
    GARBAGE = "no HTTP at all"
    CHUNKED_CUT = "no length, and cut off"


# What ends a mirror's chance at once: a refusal, or something whole that is wrong.
FINAL = frozenset(
    [
        *(Act.MISSING, Act.LOOP, Act.GZIP, Act.NO_SUCH_RANGE),
        *(Act.WRONG, Act.SHORT, Act.LONG, Act.EMPTY, Act.CHANGED, Act.CHANGED_SILENTLY),
    ]
)


@dataclass
class Hostile:
    """The server's script and what it has sent. When the script is over it acts `after`."""

    content: bytes
    script: list[Act] = field(default_factory=list)
    after: Act = Act.GOOD
    etag: bool = True
    cut_at: float = 0.5
    sent_bytes: int = 0
    requests: int = 0
    ranges: list[str] = field(default_factory=list)
    url: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def other(self) -> bytes:
        """Another content of the same size."""
        return bytes(byte ^ 0x5A for byte in self.content)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if (text := self.texts.get(request.path)) is not None:
            return web.Response(text=text)
        self.requests += 1
        self.ranges.append(request.headers.get("Range", ""))
        act = self.script.pop(0) if self.script else self.after
        if act is Act.HELD:
            await self.released.wait()
        match act:
            case Act.LOOP:
                return web.Response(status=302, headers={"Location": request.path})
            case Act.ERROR:
                return web.Response(status=500, text="<html>oops</html>")
            case Act.MISSING:
                return web.Response(status=404, text="<html>gone</html>")
            case Act.NO_SUCH_RANGE:
                return web.Response(status=416, text="no")
            case Act.GARBAGE:
                assert request.transport is not None
                request.transport.write(b"\x00\xff not http\r\n\r\n")
                request.transport.close()
                return web.Response()
            case _:
                return await self._send(request, act)

    async def _send(self, request: web.BaseRequest, act: Act) -> web.StreamResponse:
        changed = act in (Act.WRONG, Act.CHANGED, Act.CHANGED_SILENTLY)
        body = self.other if changed else self.content
        body = {Act.SHORT: body[: len(body) // 2], Act.LONG: body + b"more", Act.EMPTY: b""}.get(act, body)
        etag = '"other"' if act is Act.CHANGED else '"one"'
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        fits = request.headers.get("If-Range", etag) == etag or act is Act.CHANGED
        if asked and act is not Act.NO_RANGE and fits and int(asked[1]) < len(body):
            start, status = int(asked[1]), 206
        response = web.StreamResponse(status=status)
        if self.etag:
            response.headers["ETag"] = etag
        if act is Act.GZIP:
            response.headers["Content-Encoding"] = "gzip"
        shift = 7 if act is Act.WRONG_RANGE else 0
        if status == 206:
            response.headers["Content-Range"] = f"bytes {start + shift}-{len(body) - 1}/{len(body)}"
        if act is not Act.CHUNKED_CUT:
            response.content_length = len(body) - start
        await response.prepare(request)
        await self._stream(request, response, body[start:], act)
        return response

    async def _stream(self, request: web.BaseRequest, response: web.StreamResponse, body: bytes, act: Act) -> None:
        cut = int(len(body) * self.cut_at)
        if act in (Act.TRUNCATED, Act.STALL, Act.ERROR_INSIDE, Act.CHUNKED_CUT):
            await self._write(response, body[:cut])
            if act is Act.STALL:
                await self.released.wait()
            if act is Act.ERROR_INSIDE:
                await self._write(response, b"<html>500 Internal Server Error</html>"[: len(body) - cut])
            assert request.transport is not None
            request.transport.close() if act is not Act.CHUNKED_CUT else request.transport.abort()
        else:
            await self._write(response, body)
            await response.write_eof()

    async def _write(self, response: web.StreamResponse, body: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(body), 1 << 16):
                chunk = body[at : at + (1 << 16)]
                await response.write(chunk)
                self.sent_bytes += len(chunk)


@contextlib.asynccontextmanager
async def serving(content: bytes, script: Sequence[Act] = (), *, after: Act = Act.GOOD) -> AsyncIterator[Hostile]:
    """Serve `content` by `script` while the block runs."""
    hostile = Hostile(content, list(script), after)
    runner = web.ServerRunner(web.Server(hostile.handle, access_log=None), shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hostile.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield hostile
    finally:
        hostile.released.set()
        await runner.cleanup()


def iso_of(size_bytes: int, seed: int = 1) -> bytes:
    """Give random-looking bytes of which no two parts are alike."""
    return b"".join(
        struct.pack("<QQ", number * 0x9E3779B97F4A7C15 & (1 << 64) - 1, seed) for number in range(size_bytes // 16)
    )
