"""One image as the registry records it: the frozen `Entry`, and how it is written. `form` reads it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from osimager.arch import Arch, Firmware
from osimager.events import Stage
from osimager.units import format_time

SCHEMA_VERSION = 1


class Status(StrEnum):
    """How far an image has come: written, booted and proved, or also handed to an outside."""

    BUILT = "built"
    VERIFIED = "verified"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class IsoRecord:
    """The installer ISO an image came from. `verified`: it matched a checksum that was known before."""

    name: str
    sha256: str
    verified: bool


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage of the build: the digest of what went in (empty where it has none) and how long it took."""

    stage: Stage
    digest: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Deployment:
    """A place that the image was handed to, as its publisher names it."""

    place: str
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A registered image.

    `target` is the long form, `PLATFORM/LOCATION/DIST-VERSION-ARCH`; `path` is absolute; `created` is in UTC, whole
    seconds; `parent` is the id of the image this one was made from; `build` is the id of its build.
    """

    id: str
    target: str
    profile: str
    arch: Arch
    firmware: Firmware
    path: Path
    size_bytes: int
    sha256: str
    iso: IsoRecord
    created: datetime
    format: str = "qcow2"
    status: Status = Status.BUILT
    stages: tuple[StageRecord, ...] = ()
    parent: str = ""
    label: str = ""
    build: str = ""
    deployments: tuple[Deployment, ...] = ()

    @property
    def short(self) -> str:
        """`DIST-VERSION-ARCH`: the target without platform and location."""
        return self.target.rpartition("/")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of `latest` that this image competes for: the short and the long form, with its profile."""
        suffix = f"+{self.profile}" if self.profile else ""
        return (self.short + suffix, self.target + suffix)


def render_entry(entry: Entry) -> dict[str, object]:
    """Give an image's form on disk, its id left out: that is its key."""
    iso = dataclasses.asdict(entry.iso)
    return {
        "target": entry.target,
        "profile": entry.profile,
        "arch": str(entry.arch),
        "firmware": str(entry.firmware),
        "path": str(entry.path),
        "size": entry.size_bytes,
        "sha256": entry.sha256,
        "format": entry.format,
        "iso": iso,
        "stages": {
            str(record.stage): {"digest": record.digest, "seconds": round(record.seconds, 3)} for record in entry.stages
        },
        "created": format_time(entry.created, timespec="seconds"),
        "status": str(entry.status),
        "parent": entry.parent,
        "label": entry.label,
        "build": entry.build,
        "deployments": [
            {"place": item.place, "created": format_time(item.created, timespec="seconds")}
            for item in entry.deployments
        ],
    }
