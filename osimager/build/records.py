"""What is kept of each build, `builds/BUILD_ID/`: written while it runs, listed and found again afterwards.

`record.json` is written before the build starts anything, and before each stage (docs/contracts.md). Whether a build
runs is told by its workspace's lock, never by its process id.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from osimager.arch import Arch, parse_arch
from osimager.build.workspace import EVIDENCE, find_workspace, is_held
from osimager.errors import STATUS_SIGINT, STATUS_SIGTERM, UsageError
from osimager.events import Stage, Stamped, State
from osimager.kept import make_folder, write_kept
from osimager.paths import Places
from osimager.units import format_time

_SCHEMA = 1
_RECORD = "record.json"
LAST = "last"
_MOST_LISTED = 5
_MOST_COMPARED = 200


class Ending(StrEnum):
    """What has become of a build. KILLED: it ended without a word."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    KILLED = "killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """One build. `pid_started` tells its process from a later one of the same id; `plan` is a digest, once known.
    `words` are what `osimager build` was told, in the folder `folder`.

    `status` is the exit status, None until the end; `stages` holds each stage's state and seconds.
    """

    build: str
    target: str
    pid: int
    pid_started: str
    started: datetime
    ended: datetime | None = None
    status: int | None = None
    error: str = ""
    image: str = ""
    plan: str = ""
    words: tuple[str, ...] = ()
    folder: str = ""
    stages: Mapping[Stage, tuple[State, float | None]] = field(default_factory=dict)

    @property
    def stage(self) -> Stage | None:
        """Give the stage that runs, or else the one that the build ended in."""
        begun = [stage for stage, (state, _) in self.stages.items() if state not in (State.PENDING, State.SKIPPED)]
        return begun[-1] if begun else None


class BuildFolder:
    """`builds/BUILD_ID/`: `record.json`, `events.jsonl` and, after a failure, `evidence/`."""

    def __init__(self, places: Places, record: BuildRecord) -> None:
        self.path = make_folder(places.builds / record.build, private=True)
        self.evidence = self.path / EVIDENCE
        self.events = self.path / "events.jsonl"
        self.record = record
        self.update()
        handle = os.open(self.events, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._log = os.fdopen(handle, "a", encoding="utf-8", buffering=1)

    def log(self, stamped: Stamped) -> None:
        """Append an event. A full disk must not end the build for the sake of its log."""
        with contextlib.suppress(OSError):
            self._log.write(json.dumps(stamped.to_json(), ensure_ascii=False) + "\n")

    def update(self, **changes: Any) -> None:
        """Change fields of the record, on the disk too."""
        self.record = dataclasses.replace(self.record, **changes)
        text = json.dumps(render_record(self.record), indent=1, ensure_ascii=False) + "\n"
        write_kept(self.path / _RECORD, text, mode=0o600)

    def close(self) -> None:
        """Close the log."""
        with contextlib.suppress(OSError):
            self._log.close()


def render_record(record: BuildRecord) -> dict[str, object]:
    """Give the form on disk."""
    stages = {
        stage: {"state": state, "seconds": None if seconds is None else round(seconds, 3)}
        for stage, (state, seconds) in record.stages.items()
    }
    fields = {item.name: getattr(record, item.name) for item in dataclasses.fields(record)}
    ended = None if record.ended is None else format_time(record.ended)
    times = {"started": format_time(record.started), "ended": ended}
    return {"v": _SCHEMA, **fields, **times, "words": list(record.words), "stages": stages}


def parse_record(data: Mapping[str, Any]) -> BuildRecord:
    """Read the form on disk. Raises ValueError, KeyError or TypeError for what is none."""
    stages = {Stage(name): (State(each["state"]), each["seconds"]) for name, each in data["stages"].items()}
    fields = {item.name: data[item.name] for item in dataclasses.fields(BuildRecord)}
    ended = fields["ended"] and datetime.fromisoformat(fields["ended"])
    started = datetime.fromisoformat(fields["started"])
    fields |= {"stages": stages, "started": started, "ended": ended, "words": tuple(fields["words"])}
    return BuildRecord(**fields)


def list_records(places: Places) -> list[BuildRecord]:
    """Give the record of every build, the newest last; one that cannot be read is left out."""
    return sorted(_read_all(_find_files(places)), key=lambda record: (record.started, record.build))


def _find_files(places: Places) -> list[Path]:
    """Give the place of every build's record. Raises PermissionError: what may not be read is not nothing."""
    try:
        return [folder / _RECORD for folder in sorted(places.builds.iterdir())]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_all(files: Iterable[Path]) -> Iterator[BuildRecord]:
    for file in files:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            yield parse_record(json.loads(file.read_text("utf-8")))


def forget_logs(places: Places, before: datetime) -> list[tuple[str, int]]:
    """Remove the log and evidence of each build that ended before that time; give its id and the bytes that it held.

    The record stays: by it the build is listed, said once more (`resume`), and the next one knows how long it takes.
    """
    gone = []
    for record in list_records(places):
        left = [path for path in (places.builds / record.build).iterdir() if path.name != _RECORD]
        if left and (record.ended or record.started) < before and find_ending(record, places) is not Ending.RUNNING:
            gone.append((record.build, _count_bytes(left)))
            for path in left:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return gone


def _count_bytes(paths: Iterable[Path]) -> int:
    """Count what files and all in folders take on this host's disk, one of two names once."""
    every = (file for path in paths for file in (path, *path.rglob("*")))
    return sum({(stat.st_dev, stat.st_ino): stat.st_blocks * 512 for stat in map(Path.lstat, every)}.values())


def find_ending(record: BuildRecord, places: Places) -> Ending:
    """Say what has become of a build."""
    if record.status is None:
        return Ending.RUNNING if is_held(find_workspace(places, record.build)) else Ending.KILLED
    if record.status in (STATUS_SIGINT, STATUS_SIGTERM):
        return Ending.INTERRUPTED
    return Ending.FAILED if record.status else Ending.SUCCEEDED


def find_record(text: str, places: Places, *, running: bool = False) -> BuildRecord:
    """Give the build meant by `text`: an id, the beginning of one, a target (its newest), `last`; `running`: only such.

    Raises UsageError, with the candidates, where none or several are meant.
    """
    records = list_records(places)
    meant = _find_meant(records, text)
    alive = [each for each in meant if find_ending(each, places) is Ending.RUNNING] if running else meant
    if running and meant and not alive:
        raise UsageError(f"the build {meant[-1].build} has ended", hint=f"see it with: osimager logs {meant[-1].build}")
    if len({each.build for each in alive}) > 1 and not _names_target(alive, text) and text != LAST:
        shown = ", ".join(each.build for each in alive[-_MOST_LISTED:])
        raise UsageError(f"{text!r} could be {len(alive)} builds", hint=f"give more of it: {shown}")
    if not alive:
        shown = ", ".join(each.build for each in records[-_MOST_LISTED:])
        hint = f"the latest are {shown}" if shown else "start one with `osimager build TARGET`"
        raise UsageError(f"there is no build {text!r}", hint=hint)
    return alive[-1]


def _find_meant(records: list[BuildRecord], text: str) -> list[BuildRecord]:
    """Give the candidates, the newest last: by id, else by target, else by the beginning of an id."""
    if text == LAST:
        return records
    for is_meant in (
        lambda record: record.build == text,
        lambda record: is_target(record.target, text),
        lambda record: record.build.startswith(text),
    ):
        if found := [record for record in records if is_meant(record)]:
            return found
    return []


def _names_target(records: list[BuildRecord], text: str) -> bool:
    return all(is_target(record.target, text) for record in records)


def is_target(target: str, text: str) -> bool:
    """Say whether `text`, `[PLATFORM/[LOCATION/]]DIST-VERSION[-ARCH]`, means `target`, in whichever of these forms."""
    *places, name = target.split("/")
    *said_places, said = text.split("/")
    if said_places and places[: len(said_places)] != said_places:
        return False
    (stem, arch), (said_stem, said_arch) = _cut_arch(name), _cut_arch(said)
    return bool(text) and said_stem == stem and said_arch in (arch, None)


def _cut_arch(name: str) -> tuple[str, Arch | None]:
    """Give a target's name without its architecture, and that, however it is called (`amd64`)."""
    stem, _, arch = name.rpartition("-")
    with contextlib.suppress(UsageError):
        return stem, parse_arch(arch)
    return name, None


def find_expected(places: Places, plan: str) -> dict[Stage, float]:
    """Give how long each stage took when it last succeeded in a good build of the same plan: the ETA's ground."""
    found: dict[Stage, float] = {}
    newest = _find_files(places)[: -_MOST_COMPARED - 1 : -1]  # their ids begin with the time
    for record in _read_all(newest):
        if plan and record.plan == plan and record.status == 0:
            for stage, (state, seconds) in record.stages.items():
                if state is State.SUCCEEDED and seconds is not None:
                    found.setdefault(stage, seconds)
    return found
