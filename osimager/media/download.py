"""Download one file over HTTP: resumed, from mirrors in turn, hashed while it streams.

What a server says is never trusted: an ISO counts only when its digest is the expected one. Parts of two contents are
told apart by If-Range, ETag and the total size (RFC 9110, 13.1.5 and 14), and at the latest by the digest, after which
the file is thrown away. The one import site of aiohttp's client; proxies come from the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit, urlunsplit

from osimager import kept
from osimager.aio import in_thread
from osimager.env import Env
from osimager.errors import MediaError, PrerequisiteError
from osimager.events import Progress
from osimager.units import format_size

if TYPE_CHECKING:
    import aiohttp

_BLOCK = 1 << 20
_PROGRESS_S = 0.5
_MOST_BYTES = 64 << 30
_MOST_SMALL_BYTES = 4 << 20  # of what is held in memory
_TOKEN_LENGTH = 16  # shorter queries are no secrets
_SPARE_BYTES = 64 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_AT_ONCE = 8
_BAD_STATUS = 400
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How much a server may try us. `tries`: attempts in a row that do not bring the file a mebibyte further."""

    connect_s: float = 20.0
    stall_s: float = 30.0
    tries: int = 4
    pause_s: float = 1.0
    redirects: int = 8
    slow_s: float = 60.0
    slowest_bytes_per_s: int = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be downloaded: from the first of `urls` that gives it. `sha256` None: whatever comes is taken."""

    name: str
    urls: tuple[str, ...]
    sha256: str | None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A whole download: its digest, its size, and the mirror it came from."""

    sha256: str
    size_bytes: int
    url: str


class ChecksumMismatch(MediaError):
    """Every mirror gave something whole that has another digest."""


class _Broken(Exception):
    """This attempt failed; the next one may go on where it ended."""


class _Refused(Exception):
    """This mirror will not give the file."""


@dataclass(slots=True)
class _Source:
    """What a partial file came from: kept beside it, so that another process can go on."""

    url: str = ""
    etag: str = ""
    modified: str = ""
    total: int | None = None

    @property
    def validator(self) -> str:
        """What If-Range may hold: a strong ETag, else the time."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class _Partial:
    """A partial file, its running digest and its source."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_suffix(".json")
        self.size = 0
        self.digest = hashlib.sha256()
        self.source = _Source()

    def load(self) -> None:
        """Take up what an earlier process left. Blocks while it is hashed."""
        try:
            self.source = _Source(**json.loads(self._note.read_text()))
            with self.path.open("rb") as file:
                while block := file.read(_BLOCK):
                    self.digest.update(block)
                    self.size += len(block)
        except (OSError, ValueError, TypeError):
            self.discard()

    def discard(self) -> None:
        """Throw it away: nothing of it may be in a later file."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.size, self.digest, self.source = 0, hashlib.sha256(), _Source()

    @contextlib.contextmanager
    def open(self, source: _Source) -> Iterator[BinaryIO]:
        """Open it for what `source` sends from here on."""
        kept.make_folder(self.path.parent)
        self.source = source
        kept.write_kept(self._note, json.dumps(asdict(source)))
        with self.path.open("ab") as file:
            yield file

    def write(self, file: BinaryIO, block: bytes) -> None:
        """Add a block. Blocks; raises PrerequisiteError for a full disk."""
        try:
            file.write(block)
            file.flush()
        except OSError as exc:
            raise kept.disk_error(self.path, exc) from exc
        self.digest.update(block)
        self.size += len(block)


async def download(wanted: Wanted, path: Path, env: Env, patience: Patience) -> Downloaded:
    """Download `wanted` to `path`, going on with what is there already; the caller holds its lock.

    Raises MediaError that says what each mirror did (ChecksumMismatch where that was all), PrerequisiteError for a full
    disk. What came by then stays in `path` for the next try, unless its digest was wrong.
    """
    partial = _Partial(path)
    await in_thread(partial.load)
    failures: list[str] = []
    mismatches = 0
    async with open_session(patience) as session:
        for url in wanted.urls:
            transfer = _Transfer(session, wanted, url, partial=partial, env=env, patience=patience)
            try:
                await transfer.run()
            except _Refused as exc:
                failures.append(f"{shown_url(url)}: {exc}")
                continue
            digest = partial.digest.hexdigest()
            if wanted.sha256 in (None, digest):
                return Downloaded(digest, partial.size, shown_url(url))
            mismatches += 1
            partial.discard()
            failures.append(f"{shown_url(url)}: sha256 {digest} instead of {wanted.sha256}")
    what = f"{wanted.name} could not be downloaded: {'; '.join(failures) or 'it has no URL'}"
    if mismatches and mismatches == len(failures):
        raise ChecksumMismatch(what, hint="the catalogue's checksum is out of date, or the mirror is not to be trusted")
    raise MediaError(what, hint="try again, which goes on where this ended; or get it yourself and say --iso PATH")


async def download_bytes(url: str, env: Env, patience: Patience) -> bytes:
    """Give a small file, such as a vendor's checksum list. Raises MediaError where it cannot be had."""
    _hide_password(url, env)
    async with open_session(patience) as session:
        for number in range(patience.tries):
            try:
                async with _request(session, url, {}, patience, downgrade=False) as response:
                    if response.status != 200:
                        _raise_for(response.status)
                    content = await response.content.read(_MOST_SMALL_BYTES + 1)
                    while len(content) <= _MOST_SMALL_BYTES and (more := await response.content.read(_BLOCK)):
                        content += more
                    if len(content) > _MOST_SMALL_BYTES:
                        raise _Refused(f"more than {format_size(_MOST_SMALL_BYTES)}")
                    return content
            except _Refused as exc:
                raise MediaError(f"{shown_url(url)} cannot be read: {exc}") from exc
            except _Broken as exc:
                failure = exc
            await asyncio.sleep(patience.pause_s * 2**number)
    raise MediaError(f"{shown_url(url)} cannot be read: {failure}", hint="is the network there?") from failure


async def find_dead_urls(urls: Sequence[str], env: Env, patience: Patience) -> dict[str, str]:
    """Ask each of `urls` whether it is there, a few at a time; give why not for each that is not."""
    found: dict[str, str] = {}
    free = asyncio.Semaphore(_AT_ONCE)

    async def ask(session: aiohttp.ClientSession, url: str) -> None:
        _hide_password(url, env)
        async with free:
            try:
                async with _request(session, url, {}, patience, downgrade=False, method="HEAD") as response:
                    if response.status >= _BAD_STATUS:
                        _raise_for(response.status)
            except (_Refused, _Broken) as exc:
                found[url] = str(exc)

    async with open_session(patience) as session, asyncio.TaskGroup() as group:
        for url in urls:
            group.create_task(ask(session, url))
    return {url: found[url] for url in urls if url in found}


class _Transfer:
    """One mirror's attempts at one file."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        wanted: Wanted,
        url: str,
        *,
        partial: _Partial,
        env: Env,
        patience: Patience,
    ) -> None:
        self._session = session
        self._wanted = wanted
        self._url = url
        self._partial = partial
        self._env = env
        self._patience = patience
        self._told_s = 0.0
        _hide_password(url, env)

    async def run(self) -> None:
        """Bring the partial file to its end. A wrong digest of mixed parts is tried again once, from the start.

        Raises _Refused.
        """
        restarts = 1
        furthest, failed = self._partial.size, 0
        while True:
            try:
                began_at = await self._attempt()
            except _Broken as exc:
                gained = self._partial.size - furthest
                furthest = max(furthest, self._partial.size)
                failed = 1 if gained >= _BLOCK else failed + 1
                if failed >= self._patience.tries:
                    raise _Refused(f"{exc} ({failed} attempts)") from exc
                await asyncio.sleep(self._patience.pause_s * 2 ** (failed - 1))
                continue
            is_right = self._wanted.sha256 in (None, self._partial.digest.hexdigest())
            if is_right or began_at == 0 or restarts == 0:
                return
            self._partial.discard()
            restarts, furthest, failed = restarts - 1, 0, 0

    async def _attempt(self) -> int:
        """Make one request and write what comes; give where in the file it began. Raises _Broken, _Refused."""
        partial, known = self._partial, self._wanted.sha256 is not None
        source = partial.source
        same = source.url == shown_url(self._url)
        if partial.size and source.total == partial.size and known:
            return partial.size  # whole already: an earlier process ended before it could say so
        if partial.size and not (known or (same and source.validator)):
            partial.discard()
        headers = {"Range": f"bytes={partial.size}-"} if partial.size else {}
        if headers and same and source.validator:
            headers["If-Range"] = source.validator
        async with _request(self._session, self._url, headers, self._patience, downgrade=known) as response:
            began_at = self._begin(response)
            await self._receive(response)
        if partial.source.total is not None and partial.size != partial.source.total:
            raise _Broken(f"it ended after {partial.size} of {partial.source.total} bytes")
        return began_at

    def _begin(self, response: aiohttp.ClientResponse) -> int:
        """Check the answer's head against the partial file, and make them fit."""
        partial, old = self._partial, self._partial.source
        new = _Source(shown_url(self._url), response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))
        if response.status == 206 and partial.size:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
            start, _last, new.total = (int(number) for number in match.groups()) if match else (-1, 0, 0)
            changed = old.url == new.url and (old.etag, old.modified) != (new.etag, new.modified)
            if start != partial.size or new.total != (old.total or new.total) or changed:
                partial.discard()
                raise _Broken("it changed between two ranges")
        elif response.status == 200:
            if partial.size:
                partial.discard()
            new.total = response.content_length
        else:
            if partial.size and response.status == 416:
                partial.discard()
                raise _Broken("it has no such range")
            _raise_for(response.status)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _Refused("it sends an encoded form")
        if (new.total or 0) > _MOST_BYTES:
            raise _Refused(f"it says that it has {format_size(new.total or 0)}")
        partial.source = new
        return partial.size

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        """Write the body as it comes. Raises _Broken where it is too slow."""
        import aiohttp

        partial, clock = self._partial, self._env.clock.monotonic
        total = partial.source.total
        self._check_space((total or self._wanted.size_bytes or 0) - partial.size)
        began_s, began_bytes = clock(), partial.size
        block = bytearray()
        with partial.open(partial.source) as file:
            try:
                async for chunk in response.content.iter_any():
                    block += chunk
                    got = partial.size + len(block)
                    if got > _MOST_BYTES or (total is not None and got > total):
                        raise _Refused("it sends more than it says")
                    if len(block) >= _BLOCK:
                        await self._write(file, block)
                    if clock() - began_s > self._patience.slow_s:
                        if got - began_bytes < self._patience.slowest_bytes_per_s * self._patience.slow_s:
                            raise _Broken("it is too slow")
                        began_s, began_bytes = clock(), got
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise _Broken(_reason(exc)) from exc
            finally:
                if block:
                    partial.write(file, bytes(block))
        self._tell(total, last=True)

    async def _write(self, file: BinaryIO, block: bytearray) -> None:
        content = bytes(block)
        block.clear()
        await in_thread(lambda: self._partial.write(file, content))
        self._tell(self._partial.source.total)

    def _tell(self, total: int | None, *, last: bool = False) -> None:
        now_s = self._env.clock.monotonic()
        if last or now_s - self._told_s >= _PROGRESS_S:
            self._told_s = now_s
            self._env.emit(Progress(self._wanted.name, self._partial.size, total or self._wanted.size_bytes or 0))

    def _check_space(self, needed_bytes: int) -> None:
        folder = kept.make_folder(self._partial.path.parent)
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < needed_bytes + _SPARE_BYTES:
            has = f"{folder} has {format_size(free_bytes)}"
            raise PrerequisiteError(
                f"{self._wanted.name} needs {format_size(needed_bytes)} of disk, and {has}",
                hint="free some space (`osimager iso gc`), or set OSIMAGER_HOME to a folder on a larger disk",
            )


@contextlib.asynccontextmanager
async def open_session(patience: Patience) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client that stalls and connects within bounds, takes proxies from the environment, and unpacks nothing."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=patience.connect_s, sock_read=patience.stall_s)
    headers = {"Accept-Encoding": "identity", "User-Agent": "osimager"}
    async with aiohttp.ClientSession(
        timeout=timeout, headers=headers, trust_env=True, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session


@contextlib.asynccontextmanager
async def _request(
    session: aiohttp.ClientSession,
    url: str,
    headers: dict[str, str],
    patience: Patience,
    *,
    downgrade: bool,
    method: str = "GET",
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Ask for `url` and follow its redirects; `downgrade` allows one from https to http (the digest decides then).

    Raises _Broken and _Refused for what aiohttp raises, in the block too.
    """
    import aiohttp

    try:
        async with session.request(method, url, headers=headers, max_redirects=patience.redirects) as response:
            hops = [hop.url.scheme for hop in response.history] + [response.url.scheme]
            if not downgrade and "https" in hops and hops[-1] != "https":
                raise _Refused("it redirects from https to http")
            yield response
    except aiohttp.TooManyRedirects as exc:
        raise _Refused(f"more than {patience.redirects} redirects") from exc
    except (aiohttp.InvalidURL, aiohttp.ClientSSLError) as exc:
        raise _Refused(_reason(exc)) from exc
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise _Broken(_reason(exc)) from exc


def _raise_for(status: int) -> None:
    """Raise for a status that is no answer."""
    if status in _TRANSIENT:
        raise _Broken(f"HTTP status {status}")
    raise _Refused(f"HTTP status {status}")


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "it sent nothing in time"
    return str(exc) or type(exc).__name__


def shown_url(url: str) -> str:
    """Give `url` without what may be secret: user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _hide_password(url: str, env: Env) -> None:
    parts = urlsplit(url)
    if parts.password:
        env.masker.register(parts.password)
    if len(parts.query) >= _TOKEN_LENGTH:
        env.masker.register(parts.query)
