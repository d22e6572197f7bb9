"""The shared cache of ISOs, by digest, and what is remembered of files that were hashed before.

`isos/sha256/DIGEST.iso` with a `DIGEST.json` beside it that says where it came from; `isos/partial/` holds downloads
under way; `isos/locks/` their locks; `isos/hashed.json` digests by device, inode, size and times. It knows no network.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from osimager import kept
from osimager.aio import in_thread
from osimager.errors import MediaError, Place, PrerequisiteError
from osimager.paths import Places

_BLOCK = 1 << 20
_MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIso:
    """What is kept beside a cached ISO. Times are seconds since the epoch; at `checked_at` it
    was last found to be what its source has. `verified`: it matched a checksum."""

    sha256: str
    name: str
    filename: str
    size_bytes: int
    verified: bool
    fetched_at: float
    checked_at: float
    url: str = ""
    checksum_url: str = ""


class IsoStore:
    """The cache of ISOs under `places.isos`."""

    def __init__(self, places: Places) -> None:
        self.folder = places.isos
        self._content = self.folder / "sha256"

    def path_of(self, sha256: str) -> Path:
        """Give the place of the ISO with this digest, whether it is there or not."""
        return self._content / f"{sha256}.iso"

    def partial(self, key: str) -> Path:
        """Give the place of an unfinished download."""
        return self.folder / "partial" / f"{key}.part"

    def lock(self, key: str) -> Path:
        """Give the lock file of a download."""
        return self.folder / "locks" / f"{key}.lock"

    def records(self) -> Iterator[StoredIso]:
        """Give what is known of each ISO in the cache."""
        for path in sorted(self._content.glob("*.iso")):
            yield self.record(path.stem) or self._unknown(path)

    def record(self, sha256: str) -> StoredIso | None:
        """Give what is known of the ISO with this digest; None where it or its record is missing or damaged."""
        try:
            record = StoredIso(**json.loads(self.path_of(sha256).with_suffix(".json").read_text()))
            fits = record.sha256 == sha256 and self.path_of(sha256).stat().st_size == record.size_bytes
        except (OSError, ValueError, TypeError):
            return None
        return record if fits else None

    def find_source(self, *, checksum_url: str, filename: str) -> StoredIso | None:
        """Find the newest ISO that the vendor's checksum file `checksum_url` was once found to have as `filename`."""
        wanted = (True, checksum_url, filename)
        return self._newest(lambda record: (record.verified, record.checksum_url, record.filename) == wanted)

    def find_url(self, urls: Sequence[str]) -> StoredIso | None:
        """Find the newest ISO that came from one of `urls`."""
        return self._newest(lambda record: record.url in urls)

    def publish(self, partial: Path, record: StoredIso) -> Path:
        """Move a finished download into the cache, record first. Blocks for a flush to the disk."""
        target = self.path_of(record.sha256)
        self.write_record(record)
        kept.sync_path(partial, mode=0o644)
        partial.replace(target)
        kept.sync_path(target.parent)
        partial.with_suffix(".json").unlink(missing_ok=True)
        self._remember(target, record.sha256)
        return target

    def used_at(self, sha256: str) -> float:
        """Give when the ISO with this digest was last found for a build: the time of its record's file."""
        times = [path.stat().st_mtime for path in self._files(sha256) if path.exists()]
        return max(times, default=0.0)

    def mark_used(self, sha256: str) -> None:
        """Say that the ISO with this digest is used now."""
        with contextlib.suppress(OSError):
            os.utime(self.path_of(sha256).with_suffix(".json"))

    def write_record(self, record: StoredIso) -> None:
        """Write what is known of an ISO beside it."""
        path = self.path_of(record.sha256).with_suffix(".json")
        kept.write_kept(path, json.dumps(dataclasses.asdict(record), indent=1) + "\n")

    def remove(self, sha256: str) -> None:
        """Take an ISO out of the cache."""
        for path in self._files(sha256):
            path.unlink(missing_ok=True)

    async def digest_of(self, path: Path, on_progress: Callable[[int, int], None] | None = None) -> str:
        """Give the SHA-256 of `path`, hashed once and remembered by device, inode, size and times.

        Raises MediaError where it cannot be read, or changes meanwhile.
        """
        loop = asyncio.get_running_loop()

        def tell(done: int, total: int) -> None:
            if on_progress is not None:
                loop.call_soon_threadsafe(on_progress, done, total)

        try:
            key = _identity(path)
            if known := self._remembered().get(key):
                return known
            stopped = threading.Event()
            digest = await in_thread(lambda: _hash(path, stopped, tell), on_cancel=stopped.set)
            if _identity(path) != key:
                raise MediaError(
                    "the ISO changed while it was read", where=Place(path), hint="is it still being copied?"
                )
        except OSError as exc:
            raise MediaError(f"the ISO cannot be read: {exc.strerror}", where=Place(path)) from exc
        self._remember(path, digest)
        return digest

    def known_digest(self, path: Path) -> str | None:
        """Give the SHA-256 of `path` if it was hashed before and is as it was then."""
        with contextlib.suppress(OSError):
            return self._remembered().get(_identity(path))
        return None

    def _files(self, sha256: str) -> tuple[Path, Path]:
        return self.path_of(sha256), self.path_of(sha256).with_suffix(".json")

    def _newest(self, matches: Callable[[StoredIso], bool]) -> StoredIso | None:
        return max(filter(matches, self.records()), key=lambda record: record.checked_at, default=None)

    def _unknown(self, path: Path) -> StoredIso:
        stat = path.stat()
        return StoredIso(
            sha256=path.stem,
            name="",
            filename=path.name,
            size_bytes=stat.st_size,
            verified=False,
            fetched_at=stat.st_mtime,
            checked_at=0.0,
        )

    def _remembered(self) -> dict[str, str]:
        try:
            known = json.loads((self.folder / "hashed.json").read_text())
        except (OSError, ValueError):
            return {}
        return {str(key): str(digest) for key, digest in known.items()} if isinstance(known, dict) else {}

    def _remember(self, path: Path, digest: str) -> None:
        # What cannot be remembered costs time, nothing else.
        with contextlib.suppress(PrerequisiteError), kept.locked(self.folder / "locks" / "hashed.lock"):
            known = self._remembered()
            known.pop(_identity(path), None)
            known[_identity(path)] = digest
            newest = dict(list(known.items())[-_MOST_REMEMBERED:])
            kept.write_kept(self.folder / "hashed.json", json.dumps(newest, indent=0) + "\n")


def _identity(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def _hash(path: Path, stopped: threading.Event, on_progress: Callable[[int, int], None]) -> str:
    """Hash a whole file, a block at a time, until `stopped`."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        total = path.stat().st_size
        while not stopped.is_set() and (block := file.read(_BLOCK)):
            digest.update(block)
            done += len(block)
            if done % (64 * _BLOCK) == 0:
                on_progress(done, total)
    return digest.hexdigest()
