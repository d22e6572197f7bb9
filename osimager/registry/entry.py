"""One image as the registry records it: the frozen `Entry`, and the strict model of its form on disk.

`registry/schema.json` is made from the models here. What a newer osimager adds to an image is not known here, and
kept by the store.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from osimager.arch import Arch, Firmware
from osimager.errors import ConfigError
from osimager.events import Stage

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


# The form on disk -----------------------------------------------------------------------------------------------------


def _check_absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    """Strict about what is known; what is not is neither refused nor lost: the store keeps the document itself."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class IsoModel(_Model):
    """`iso:` of an image."""

    name: str
    sha256: Sha256
    verified: bool


class StageModel(_Model):
    """One stage under `stages:` of an image."""

    digest: str = ""
    seconds: float = Field(ge=0)


class DeploymentModel(_Model):
    """One of an image's `deployments:`."""

    place: str
    created: AwareDatetime


class ImageModel(_Model):
    """An image under its id in `images:`."""

    target: str = Field(pattern=r"^[^/+]+/[^/+]+/[^/+]+$")
    profile: str = ""
    arch: Arch
    firmware: Firmware
    path: Annotated[Path, AfterValidator(_check_absolute)]
    size: int = Field(ge=0)
    sha256: Sha256
    format: str = "qcow2"
    iso: IsoModel
    # A stage that this version does not know is kept on disk and left out of the Entry.
    stages: dict[str, StageModel] = {}
    created: AwareDatetime
    status: Status
    parent: str = ""
    label: str = ""
    build: str = ""
    deployments: tuple[DeploymentModel, ...] = ()


class RegistryModel(_Model):
    """The whole of `registry.yml`. `latest` maps a target, and `TARGET+PROFILE`, to an image's id."""

    version: Literal[1]
    images: dict[str, ImageModel] = {}
    latest: dict[str, str] = {}
    channels: dict[str, object] = {}


def parse_registry(document: Mapping[str, object]) -> tuple[Entry, ...]:
    """Give the images of a registry's document, in its order.

    Raises ConfigError that names the first value that is not as the schema says.
    """
    try:
        # JSON mode is strict about types and still reads a StrEnum, a Path and a time from their texts.
        model = RegistryModel.model_validate_json(json.dumps(document, default=str))
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        spot = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ConfigError(f"{spot}: {first['msg']}") from exc
    return tuple(_to_entry(image_id, image) for image_id, image in model.images.items())


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
        "created": _render_time(entry.created),
        "status": str(entry.status),
        "parent": entry.parent,
        "label": entry.label,
        "build": entry.build,
        "deployments": [{"place": item.place, "created": _render_time(item.created)} for item in entry.deployments],
    }


def _to_entry(image_id: str, image: ImageModel) -> Entry:
    return Entry(
        id=image_id,
        target=image.target,
        profile=image.profile,
        arch=image.arch,
        firmware=image.firmware,
        path=image.path,
        size_bytes=image.size,
        sha256=image.sha256,
        format=image.format,
        iso=IsoRecord(image.iso.name, image.iso.sha256, image.iso.verified),
        stages=tuple(
            StageRecord(Stage(name), stage.digest, stage.seconds)
            for name, stage in image.stages.items()
            if name in Stage.__members__
        ),
        created=image.created.astimezone(UTC),
        status=image.status,
        parent=image.parent,
        label=image.label,
        build=image.build,
        deployments=tuple(Deployment(item.place, item.created.astimezone(UTC)) for item in image.deployments),
    )


def _render_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
