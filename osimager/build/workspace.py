"""A build's workspace: big, held by its process, gone at its end; and the sweep of those that the dead left.

A workspace is held by an `flock` on a file in it: the kernel drops that with the process, so what can be locked is
dead and may be swept. No process ids are guessed at.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from osimager.aio import in_thread
from osimager.finalize.convert import sweep_partials
from osimager.kept import PARTIAL_PREFIX, make_folder
from osimager.paths import Places
from osimager.processes import is_running

_LOCK = "held"
KEPT = "kept"
EVIDENCE = "evidence"  # what is in that folder is masked
_LONG_WRITTEN_S = 600.0


def make_build_id(target: str, now: datetime, entropy: bytes) -> str:
    """Give a build's id: when, what, and two bytes that tell apart those started in the same second."""
    return f"{now:%Y%m%dT%H%M%SZ}-{target}-{entropy[:2].hex()}"


def find_workspace(places: Places, build_id: str) -> Path:
    """Give the place of a build's workspace, which need not be there."""
    return places.cache / "work" / build_id


def find_socket(places: Places, build_id: str, kind: str) -> Path:
    """Give the place of a build's socket, `console` or `vnc`: short, since macOS allows 104 bytes."""
    return places.runtime / f"{hashlib.sha256(build_id.encode()).hexdigest()[:12]}.{kind}"


@contextlib.contextmanager
def open_workspace(places: Places, target: str, now: datetime) -> Iterator[Path]:
    """Make a workspace (0700) whose name is a new build id, and hold it while the block runs.

    Then it is removed, unless a file `KEPT` is in it.
    """
    make_folder(places.cache / "work", private=True)
    while True:
        folder = find_workspace(places, make_build_id(target.replace("/", "_"), now, os.urandom(2)))
        if (handle := _claim(folder, places)) is not None:
            break
    try:
        yield folder
    finally:
        _remove_sockets(places, folder.name)
        if not (folder / KEPT).exists():
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _claim(folder: Path, places: Places) -> int | None:
    """Make `folder`, lock it and give the lock's descriptor; None where its name is taken, or a sweep came between."""
    try:
        folder.mkdir(mode=0o700)
        handle = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (FileExistsError, FileNotFoundError):
        return None
    fcntl.flock(handle, fcntl.LOCK_EX)
    with contextlib.suppress(FileNotFoundError):
        if (folder / _LOCK).stat().st_ino == os.fstat(handle).st_ino:
            if not (places.builds / folder.name).exists():
                return handle
            shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)
    return None


def is_held(workspace: Path) -> bool:
    """Say whether a living process holds the workspace: the truth of "this build runs"."""
    try:
        handle = os.open(workspace / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


async def sweep(places: Places, *, kept: bool = False) -> list[str]:
    """Remove what dead builds left and give their ids: workspaces, sockets, half files, and a QEMU that lives on.

    The workspaces that `--on-error keep` left are spared, unless `kept`.
    """
    swept = []
    for folder in sorted((places.cache / "work").glob("*/")):
        if (folder / KEPT).exists() and not kept:
            continue
        with _dead(folder) as dead:
            if dead:
                await _sweep_one(folder, places)
                swept.append(folder.name)
    await in_thread(functools.partial(sweep_partials, places.images))
    for folder in (places.data, places.cache / "host"):
        _remove_partials(folder, older_than_s=_LONG_WRITTEN_S)
    return swept


async def _sweep_one(folder: Path, places: Places) -> None:
    """Remove what one dead build left, but its evidence.

    A QEMU may have outlived it where its watcher was killed too (macOS).
    """
    for pid, argv in _read_machines(places.builds / folder.name / "events.jsonl"):
        if await is_running(pid, argv):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await in_thread(lambda: _keep_evidence(folder, places.builds / folder.name))
    await in_thread(lambda: shutil.rmtree(folder, ignore_errors=True))
    _remove_sockets(places, folder.name)
    _remove_partials(places.builds / folder.name, older_than_s=0)


def _keep_evidence(workspace: Path, build: Path) -> None:
    """Copy what tells of a dead build's guests into its folder, where it has one (`image run` has none)."""
    found, half = workspace / EVIDENCE, shutil.ignore_patterns(f"{PARTIAL_PREFIX}*")
    if found.is_dir() and build.is_dir():
        with contextlib.suppress(OSError):  # a disk that is full, say, must not keep what comes next from its work
            shutil.copytree(found, build / EVIDENCE, dirs_exist_ok=True, ignore=half)


def _read_machines(events: Path) -> list[tuple[int, list[str]]]:
    """Give the process id and command line of each QEMU that a build started, by its events."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = [line for line in events.read_text("utf-8").splitlines() if '"machine_started"' in line]
        return [(int(event["pid"]), list(event["argv"])) for event in map(json.loads, lines)]
    return []


def _remove_partials(folder: Path, *, older_than_s: float) -> None:
    """Remove the half-written files (`kept.write_kept`) in `folder` that nobody can be writing any more."""
    for path in folder.glob(f"{PARTIAL_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= older_than_s:
                path.unlink()


def _remove_sockets(places: Places, build_id: str) -> None:
    for kind in ("console", "vnc"):
        find_socket(places, build_id, kind).unlink(missing_ok=True)


@contextlib.contextmanager
def _dead(folder: Path) -> Iterator[bool]:
    """Hold the workspace's lock if nobody else does, and say whether that is so."""
    try:
        handle = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)
