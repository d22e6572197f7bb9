"""The one way to write a file that is kept: whole or not at all, whatever happens meanwhile.

A temporary file beside the target, fsync, rename, fsync of the folder (design.md, "Files"). Locks are advisory
`flock`s in files of their own, so that a lock's death with its process needs no cleaning up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from osimager.errors import LockedError, PrerequisiteError

if TYPE_CHECKING:
    from filelock import BaseFileLock

PARTIAL_PREFIX = ".partial-"
_FULL_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_DISK_ERRORS = _FULL_ERRORS | {errno.EIO, errno.EROFS}


def make_folder(path: Path, *, private: bool = False) -> Path:
    """Make `path` and its parents; a `private` one is 0700 and this user's, though it was there before.

    Raises PrerequisiteError where that cannot be done.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
        if private:
            _check_private(path)
    except OSError as exc:
        raise disk_error(path, exc) from exc
    return path


def check_writable(folder: Path) -> None:
    """Raise PrerequisiteError where `folder` could not be made or written to; nothing is made."""
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
    except OSError as exc:
        raise disk_error(folder, exc) from exc
    if not there.is_dir():
        raise disk_error(folder, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise disk_error(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _check_private(path: Path) -> None:
    """In a folder like /tmp anybody could have made `path` before us, as a link too."""
    anybodys = path.parent.stat().st_mode & stat.S_IWOTH
    if anybodys and {path.lstat().st_uid, path.stat().st_uid} != {os.getuid()}:
        raise PrerequisiteError(f"{path} belongs to another user", hint="remove it, or set OSIMAGER_HOME")
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def write_kept(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Write `content` to `path` atomically. Raises PrerequisiteError, the old file untouched, where that fails."""
    data = content.encode() if isinstance(content, str) else content
    with publishing(path, mode=mode) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def publishing(path: Path, *, mode: int = 0o644) -> Iterator[Path]:
    """Give a temporary file's name beside `path`; when the block succeeds it becomes `path`, else it is removed.

    The block's own errors pass, a deadline's and a connection's too (both are OSErrors); those of a disk that is full
    or broken come out as PrerequisiteError.
    """
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(prefix=PARTIAL_PREFIX, suffix=path.suffix, dir=path.parent)
    except OSError as exc:
        raise disk_error(path, exc) from exc
    os.close(handle)
    partial = Path(name)
    try:
        try:
            yield partial
        except OSError as exc:
            if exc.errno in _DISK_ERRORS:
                raise disk_error(path, exc) from exc
            raise
        try:
            sync_path(partial, mode=mode)
            partial.replace(path)
            sync_path(path.parent)
        except OSError as exc:
            raise disk_error(path, exc) from exc
    finally:
        partial.unlink(missing_ok=True)


def sync_path(path: Path, *, mode: int | None = None) -> None:
    """Flush a file or a folder to the disk, and set its permissions first where `mode` is given."""
    handle = os.open(path, os.O_RDONLY)
    try:
        if mode is not None:
            os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for a short piece of synchronous work; waits for it."""
    lock = _open_lock(path)
    try:
        lock.acquire()
    except OSError as exc:
        raise disk_error(path, exc) from exc
    try:
        yield
    finally:
        lock.release()


@contextlib.asynccontextmanager
async def holding(path: Path, *, wait: bool = True, on_wait: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """Hold the lock file `path` for a long piece of work. Raises LockedError where it is held and `wait` is false.

    `on_wait` is called once, when it turns out that somebody else holds it.
    """
    lock = _open_lock(path)
    told = False
    pause_s = 0.05
    while not _try_lock(lock):
        if not wait:
            raise LockedError(f"another osimager holds {path}", hint="wait for it, or run without --no-wait")
        if on_wait is not None and not told:
            on_wait()
            told = True
        await asyncio.sleep(pause_s)
        pause_s = min(1.0, pause_s * 1.5)
    try:
        yield
    finally:
        lock.release()


def _open_lock(path: Path) -> BaseFileLock:
    import filelock  # costs 20 ms; most commands lock nothing

    make_folder(path.parent)
    return filelock.FileLock(path, thread_local=False)


def _try_lock(lock: BaseFileLock) -> bool:
    import filelock

    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    except OSError as exc:
        raise disk_error(Path(lock.lock_file), exc) from exc
    return True


def disk_error(path: Path, exc: OSError) -> PrerequisiteError:
    """Say what a user can do about the error that writing `path` gave."""
    reason = os.strerror(exc.errno) if exc.errno else str(exc)
    if exc.errno in _FULL_ERRORS:
        hint = "free some space there, or set OSIMAGER_HOME to a folder on a larger disk"
    else:
        hint = "make it writable, or set OSIMAGER_HOME to a folder that is"
    return PrerequisiteError(f"cannot write {path}: {reason}", hint=hint, cause=cause_of(exc))


def cause_of(exc: OSError) -> str:
    """Name the cause of an operating system's error, where it is this host's full disk."""
    return "host-disk-full" if exc.errno in _FULL_ERRORS else ""
