"""A build's folders: the workspace (big, gone at the end) and the record (small, kept), and the sweep of dead ones.

A workspace is held by an `flock` on a file in it: the kernel drops that with the process, so what can be locked is
dead and may be swept. No process ids are guessed at.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from osimager.events import Stamped
from osimager.kept import make_folder, write_kept
from osimager.paths import Places

_LOCK = "held"
KEPT = "kept"


def make_build_id(target: str, now: datetime, entropy: bytes) -> str:
    """Give a build's id: when, what, and two bytes that tell apart those started in the same second."""
    return f"{now:%Y%m%dT%H%M%SZ}-{target}-{entropy[:2].hex()}"


@contextlib.contextmanager
def open_workspace(places: Places, build_id: str) -> Iterator[Path]:
    """Make the build's workspace (0700), hold it while the block runs, and remove it unless a file `KEPT` is in it."""
    folder = make_folder(places.cache / "work", private=True) / build_id
    make_folder(folder, private=True)
    handle = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        if not (folder / KEPT).exists():
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sweep_workspaces(places: Places, *, kept: bool = False) -> list[str]:
    """Remove the workspaces of dead builds and give their ids; those that `--on-error keep` left only if `kept`."""
    swept = []
    for folder in sorted((places.cache / "work").glob("*/")):
        if (folder / KEPT).exists() and not kept:
            continue
        with _dead(folder) as dead:
            if dead:
                shutil.rmtree(folder, ignore_errors=True)
                swept.append(folder.name)
    return swept


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


class BuildFolder:
    """`builds/BUILD_ID/`: `record.json`, `events.jsonl` and, after a failure, `evidence/`."""

    def __init__(self, places: Places, build_id: str) -> None:
        self.path = make_folder(places.builds / build_id, private=True)
        self.evidence = self.path / "evidence"
        handle = os.open(self.path / "events.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._log = os.fdopen(handle, "a", encoding="utf-8", buffering=1)

    def log(self, stamped: Stamped) -> None:
        """Append an event. A full disk must not end the build for the sake of its log."""
        with contextlib.suppress(OSError):
            self._log.write(json.dumps(stamped.to_json(), ensure_ascii=False) + "\n")

    def write_record(self, record: dict[str, object]) -> None:
        """Replace `record.json`."""
        write_kept(self.path / "record.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n", mode=0o600)

    def close(self) -> None:
        """Close the log."""
        with contextlib.suppress(OSError):
            self._log.close()
