"""The registry's form on disk: a strict model of it, and the images that a document holds.

`registry/schema.json` is made from the models here. What a newer osimager adds to an image is not known here, and
kept by the store. Imported when a registry is read: pydantic takes 12 MB, which no build needs while it watches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from osimager.arch import Arch, Firmware
from osimager.errors import ConfigError
from osimager.events import Stage
from osimager.registry.entry import Deployment, Entry, IsoRecord, StageRecord, Status


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
