"""A digest for each stage of a plan: what goes in, as canonical JSON, hashed. The keys of layers and of "unchanged".

Texts enter with their holes named, so that a new key, port or address changes nothing. `SCHEMA` numbers are raised when
the code that makes a layer changes what it makes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

from osimager.config.sections import Rung
from osimager.events import Stage
from osimager.holes import name_holes
from osimager.plan.facts import MediaFacts
from osimager.plan.model import BuildPlan, Step

INSTALL_SCHEMA = 1
STEP_SCHEMA = 1
IMAGE_SCHEMA = 1

# Gives a text as a digest or a listing may hold it: its secrets replaced.
Protect = Callable[[str], str]


def make_digest(value: object, protect: Protect | None = None) -> str:
    """Hash plain data: frozen dataclasses, tuples, mappings, enums, paths, bytes and scalars."""
    plain = to_plain(value, protect)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_plain(value: object, protect: Protect | None = None) -> object:
    """Give `value` as what JSON holds; holes named, bytes as their digest, paths as text, each text as `protect` gives
    it.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return name_holes(value if protect is None else protect(value))
    if isinstance(value, bytes):
        return f"sha256:{hashlib.sha256(_protected(value, protect)).hexdigest()}"
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name), protect) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, protect) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item, protect) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(item) for item in value)
    return value


def _protected(content: bytes, protect: Protect | None) -> bytes:
    if protect is None:
        return content
    return protect(content.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def install_inputs(plan: BuildPlan, media: MediaFacts) -> dict[str, object]:
    """Give, by name, all that decides what INSTALL leaves."""
    return _install_inputs(plan, media.sha256)


def _install_inputs(plan: BuildPlan, iso: str | None) -> dict[str, object]:
    return {
        "schema": INSTALL_SCHEMA,
        "iso": iso,
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
        "arguments": step.arguments,
        "program": step.program,
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


def make_digests(plan: BuildPlan, media: MediaFacts, protect: Protect | None = None) -> PlanDigests:
    """Digest every stage of a plan that `boot.complete_boot` has completed; secrets enter as `protect` gives them."""
    return _chain(plan, make_digest(install_inputs(plan, media), protect), protect)


def _chain(plan: BuildPlan, install: str, protect: Protect | None) -> PlanDigests:
    before = install
    steps = []
    for step in plan.steps:
        before = make_digest(step_inputs(step, before), protect)
        steps.append(before)
    return PlanDigests(install, tuple(steps), make_digest(image_inputs(plan, before), protect))


@dataclasses.dataclass(frozen=True, slots=True)
class KnownDigests:
    """The digests as far as they are known before FETCH: a digest of each input, None for those that FETCH brings.

    `plan` are the stages' own, None while an input is missing.
    """

    install: Mapping[str, str | None]
    steps: tuple[str, ...]
    image: str
    plan: PlanDigests | None


def make_known_digests(plan: BuildPlan, protect: Protect | None = None) -> KnownDigests:
    """Digest what a plan holds before FETCH: without the ISO's checksum and menu, no stage's own digest is known."""
    inputs = _install_inputs(plan, plan.media.sha256)
    unknown = set() if plan.media.sha256 else {"iso"}
    if plan.install.boot.rung is Rung.DIRECT and not plan.install.boot.kernel:
        unknown.add("boot")
    known = {name: None if name in unknown else make_digest(value, protect) for name, value in inputs.items()}
    whole = None if unknown else _chain(plan, make_digest(inputs, protect), protect)
    steps = tuple(make_digest(step_inputs(step, ""), protect) for step in plan.steps)
    return KnownDigests(known, steps, make_digest(image_inputs(plan, ""), protect), whole)
