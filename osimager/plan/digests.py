"""A digest for each stage of a plan: the keys of layers and of "unchanged".

A stage's inputs are a flat table, a name for each thing that can change its result and a hash of it; the stage's digest
is taken over the table. The table is kept with the layer, so that a miss can say which input changed. Texts enter with
their holes named, so that a new key, port or address changes nothing. `SCHEMA` numbers are raised when the code that
makes a layer changes what it makes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path

from osimager.config.sections import Rung
from osimager.events import Stage
from osimager.holes import name_holes
from osimager.plan.argv import render_kind
from osimager.plan.facts import Accelerator, HostFacts, MediaFacts
from osimager.plan.model import BootPlan, BuildPlan, MachineShape, Step

INSTALL_SCHEMA = 1
STEP_SCHEMA = 1
IMAGE_SCHEMA = 1
MEMORY_SCHEMA = 1


class _Unknown(Enum):
    """The one value of what only FETCH will know; None is a value like others."""

    UNKNOWN = "unknown"


_UNKNOWN = _Unknown.UNKNOWN

# Gives a text as a digest or a listing may hold it: its secrets replaced.
Protect = Callable[[str], str]
# What can change a stage's result: a name for each thing, and a hash of it (empty: only FETCH will know).
Inputs = Mapping[str, str]


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StageKey:
    """What a stage's result is found by: `digest` over `inputs` and over `before`, the digest of the layer below.

    Empty while an input is unknown.
    """

    digest: str
    inputs: Inputs
    before: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanKeys:
    """The keys of a completed plan: the installed disk, the machine after each step, the image.

    `cached` is the number of steps whose result may be kept: one that says `cache: false` ends it.
    """

    install: StageKey
    steps: tuple[StageKey, ...]
    image: StageKey
    cached: int

    @property
    def layers(self) -> tuple[StageKey, ...]:
        """The keys of all layers that may be kept, the installed disk first."""
        return (self.install, *self.steps[: self.cached])

    def by_stage(self) -> dict[Stage, str]:
        """Give the digests as the registry keeps them."""
        last = self.steps[-1] if self.steps else self.install
        return {Stage.INSTALL: self.install.digest, Stage.PROVISION: last.digest, Stage.PUBLISH: self.image.digest}


@dataclasses.dataclass(frozen=True, slots=True)
class Outside:
    """What decides a result and is no part of the plan: digests of the firmware's files, of the seal's script, and of
    what this host's processor is.
    """

    firmware: str
    seal: str
    processor: str = ""


def make_keys(plan: BuildPlan, media: MediaFacts | None, outside: Outside, protect: Protect | None = None) -> PlanKeys:
    """Give the keys of a plan that `boot.complete_boot` has completed; secrets enter as `protect` gives them.

    Without `media` (before FETCH) what the ISO brings is unknown, and with it every digest that stands on it.
    """
    iso = (plan.media.sha256 or _UNKNOWN) if media is None else media.sha256
    install = _key(install_inputs(plan, iso, outside), protect)
    before, steps = install.digest, []
    for step in plan.steps:
        steps.append(_key(step_inputs(step), protect, before))
        before = steps[-1].digest
    cached = next((index for index, step in enumerate(plan.steps) if not step.cache), len(plan.steps))
    image = _key(image_inputs(plan, outside), protect, before)
    return PlanKeys(install=install, steps=tuple(steps), image=image, cached=cached)


def install_inputs(plan: BuildPlan, iso: str | _Unknown, outside: Outside) -> dict[str, object]:
    """Give, by name, all that decides what INSTALL leaves."""
    install = plan.install
    return {
        "schema": INSTALL_SCHEMA,
        "iso": iso,
        "firmware": outside.firmware,
        "restarts": install.restarts,
        **{f"answers.{answer.name}": answer.text for answer in install.answers},
        "answers by": ("serve" if install.serve else "", install.seed, "inject" if install.inject else ""),
        **{f"boot.{name}": value for name, value in _boot_inputs(install.boot).items()},
        **{f"machine.{name}": value for name, value in _shape_inputs(install.machine).items()},
    }


def _boot_inputs(boot: BootPlan) -> dict[str, object]:
    """Give what the installer sees of its boot: how the menu entry was found is not part of it."""
    match boot.rung:
        case Rung.DIRECT:
            menu = (boot.kernel, boot.initrds, boot.command_line) if boot.kernel else (_UNKNOWN,) * 3
            own: dict[str, object] = dict(zip(("kernel", "initrds", "command_line"), menu, strict=True))
        case Rung.TYPED:
            own = {"boot_command": boot.boot_command, "boot_wait_s": boot.boot_wait_s}
        case _:
            own = {}
    return {"rung": boot.rung, **own}


def _shape_inputs(shape: MachineShape) -> dict[str, object]:
    return {field.name: getattr(shape, field.name) for field in dataclasses.fields(shape)}


def step_inputs(step: Step) -> dict[str, object]:
    """Give, by name, all that decides what a step leaves on top of the layer before it."""
    return {
        "schema": STEP_SCHEMA,
        "kind": step.kind,
        "content": step.content,
        **{f"environment.{name}": value for name, value in step.environment},
        "arguments": step.arguments,
        "program": step.program,
        "destination": step.destination,
        "mode": step.mode,
        **{f"inputs.{name}": digests for name, digests in _by_name(step.inputs).items()},
    }


def _by_name(inputs: Sequence[str]) -> dict[str, list[str]]:
    """Give the digests of a step's `inputs` by name: two folders may each have a file of a name."""
    found: dict[str, list[str]] = {}
    for name, _, digest in (text.rpartition(":") for text in inputs):
        found.setdefault(name, []).append(digest)
    return found


def image_inputs(plan: BuildPlan, outside: Outside) -> dict[str, object]:
    """Give, by name, all that decides the finished image on top of the last layer."""
    return {"schema": IMAGE_SCHEMA, "seal": plan.seal, "seal script": outside.seal}


def make_memory_key(shape: MachineShape, host: HostFacts, outside: Outside) -> str:
    """Give the key of the machine that a saved memory loads into: QEMU's binary, its arguments, the firmware, and this
    host's processor where the guest sees it (TCG makes its own).
    """
    native = "" if host.accelerator.accelerator is Accelerator.TCG else outside.processor
    return make_digest((MEMORY_SCHEMA, host.qemu.digest, render_kind(shape, host), outside.firmware, native))


def list_changes(now: Inputs, then: Inputs) -> tuple[str, ...]:
    """Name the inputs that differ, those that came or went too."""
    return tuple(sorted(name for name in {*now, *then} if now.get(name) != then.get(name)))


def _key(inputs: Mapping[str, object], protect: Protect | None, before: str | None = None) -> StageKey:
    """Hash each of `inputs`, then all of them on top of `before` (None: nothing is below)."""
    hashed = {name: "" if value is _UNKNOWN else make_digest(value, protect) for name, value in inputs.items()}
    known = before != "" and all(hashed.values())
    digest = make_digest({"before": before, "inputs": hashed}) if known else ""
    return StageKey(digest=digest, inputs=hashed, before=before or "")
