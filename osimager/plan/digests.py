"""A digest for each stage of a plan: what goes in, as canonical JSON, hashed. The keys of layers and of "unchanged".

Texts enter with their holes named, so that a new key, port or address changes nothing. `SCHEMA` numbers are raised when
the code that makes a layer changes what it makes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from osimager.events import Stage
from osimager.holes import name_holes
from osimager.plan.facts import MediaFacts
from osimager.plan.model import BuildPlan, Step

INSTALL_SCHEMA = 1
STEP_SCHEMA = 1
IMAGE_SCHEMA = 1


def make_digest(value: object) -> str:
    """Hash plain data: frozen dataclasses, tuples, mappings, enums, paths, bytes and scalars."""
    return hashlib.sha256(json.dumps(to_plain(value), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_plain(value: object) -> object:
    """Give `value` as what JSON holds; holes named, bytes as their digest, paths as text."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return name_holes(value)
    if isinstance(value, bytes):
        return f"sha256:{hashlib.sha256(value).hexdigest()}"
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(item) for item in value)
    return value


def install_inputs(plan: BuildPlan, media: MediaFacts) -> dict[str, object]:
    """Give, by name, all that decides what INSTALL leaves."""
    return {
        "schema": INSTALL_SCHEMA,
        "iso": media.sha256,
        "answers": {answer.name: answer.text for answer in plan.install.answers},
        "boot": dataclasses.replace(plan.install.boot, reason=""),
        "ways": (plan.install.seed, plan.install.serve, plan.install.inject),
        "machine": plan.install.machine,
        "restarts": plan.install.restarts,
    }


def step_inputs(step: Step, before: str) -> dict[str, object]:
    """Give, by name, all that decides what a step leaves on top of the layer `before`."""
    return {
        "schema": STEP_SCHEMA,
        "before": before,
        "kind": step.kind,
        "content": step.content,
        "environment": step.environment,
        "destination": step.destination,
        "mode": step.mode,
        "inputs": step.inputs,
    }


def image_inputs(plan: BuildPlan, before: str) -> dict[str, object]:
    """Give, by name, all that decides the finished image on top of the last layer."""
    return {"schema": IMAGE_SCHEMA, "before": before, "seal": plan.seal}


@dataclasses.dataclass(frozen=True, slots=True)
class PlanDigests:
    """The digests of a completed plan: the installed disk, the machine after each step, the image."""

    install: str
    steps: tuple[str, ...]
    image: str

    def by_stage(self) -> dict[Stage, str]:
        """Give the digests as the registry keeps them."""
        last = self.steps[-1] if self.steps else self.install
        return {Stage.INSTALL: self.install, Stage.PROVISION: last, Stage.PUBLISH: self.image}


def make_digests(plan: BuildPlan, media: MediaFacts) -> PlanDigests:
    """Digest every stage of a plan that `boot.complete_boot` has completed."""
    install = before = make_digest(install_inputs(plan, media))
    steps = []
    for step in plan.steps:
        before = make_digest(step_inputs(step, before))
        steps.append(before)
    return PlanDigests(install, tuple(steps), make_digest(image_inputs(plan, before)))
