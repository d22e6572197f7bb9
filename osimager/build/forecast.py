"""What a build would find of its layers, and for one that it would not find, which input is another one now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from osimager.aio import in_thread
from osimager.build.layers import Layer, LayerStore, find_nearest
from osimager.build.prepare import Prepared
from osimager.build.request import CacheUse
from osimager.build.unchanged import find_unchanged, is_sealed_otherwise
from osimager.env import Env
from osimager.events import Stage
from osimager.media.fetch import peek
from osimager.plan.boot import complete_boot
from osimager.plan.digests import Inputs, PlanKeys, StageKey, list_changes, make_keys
from osimager.plan.facts import MediaFacts
from osimager.plan.model import BuildPlan


class Fate(StrEnum):
    """What becomes of a stage. UNKNOWN: only FETCH will tell. NEVER: its result may not be kept."""

    HIT = "hit"
    MISS = "miss"
    UNKNOWN = "unknown"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """One stage's. `changed` names the inputs that differ from the nearest layer (none: there is no such layer, or the
    layer below changed); `below`: that one did; `asked`: the user wants it made anew; `damaged`: the layer is there,
    and not whole. `seconds` is what the layer took to make, and is saved by a hit.
    """

    stage: Stage
    name: str
    digest: str
    fate: Fate
    changed: tuple[str, ...] = ()
    below: bool = False
    asked: bool = False
    damaged: bool = False
    seconds: float | None = None


async def forecast(prepared: Prepared, use: CacheUse, env: Env) -> tuple[Forecast, ...]:
    """Look for every layer of the plan, the installed disk first, and for the image, which comes last; what is found is
    not held, and may go meanwhile.

    An ISO that is here and was never read is read where it decides.
    """
    media = await peek(prepared.plan.media, env, arch=prepared.plan.machine.arch)
    found = await _look_with(media, prepared, use, env)
    if media is None and any(each.fate is Fate.UNKNOWN for each in found):
        media = await peek(prepared.plan.media, env, arch=prepared.plan.machine.arch, read=True)
        found = found if media is None else await _look_with(media, prepared, use, env)
    return tuple(found)


async def _look_with(media: MediaFacts | None, prepared: Prepared, use: CacheUse, env: Env) -> list[Forecast]:
    plan = prepared.plan if media is None else complete_boot(prepared.plan, media)
    keys = make_keys(plan, media, prepared.outside, prepared.protect)
    names = ("installed disk", *(step.name for step in plan.steps))
    layers = await in_thread(lambda: look(LayerStore(env.places), keys, names, use, str(plan.target)))
    return [*layers, await _look_for_image(plan, keys, use, env, last=layers[-1].fate)]


async def _look_for_image(plan: BuildPlan, keys: PlanKeys, use: CacheUse, env: Env, *, last: Fate) -> Forecast:
    """Say what becomes of the image, `last` being the fate of what it stands on."""
    asked = use.first_made is not None
    same = None if asked else await find_unchanged(plan, keys, env, hashed=False)
    fate = last if last in (Fate.NEVER, Fate.UNKNOWN) else Fate.MISS if same is None else Fate.HIT
    is_miss = fate is Fate.MISS
    sealed = is_miss and await in_thread(lambda: is_sealed_otherwise(keys, env))
    return Forecast(
        stage=Stage.PUBLISH,
        name="image",
        digest=keys.image.digest,
        fate=fate,
        changed=("seal",) if sealed else (),
        below=is_miss and not sealed and last is Fate.MISS,
        asked=is_miss and asked,
    )


def look(store: LayerStore, keys: PlanKeys, names: Sequence[str], use: CacheUse, target: str) -> list[Forecast]:
    """Look for the layers of `keys`, each by itself: one that is found may stand on another than the plan's."""
    layers, known = store.load(), dict[str, bool]()
    by_name = {layer.folder.name: layer for layer in layers}
    planned = [key.inputs for key in keys.steps]
    found: list[Forecast] = []
    for index, (key, name) in enumerate(zip((keys.install, *keys.steps), names, strict=True)):
        ignored = use.first_made is not None and index >= use.first_made
        missed = index > 0 and found[-1].fate is Fate.MISS
        if index >= len(keys.layers):
            fate = Fate.NEVER
        elif ignored:
            fate = Fate.MISS
        elif key.digest:
            fate = Fate.HIT if store.is_there(key.digest, known) else Fate.MISS
        else:
            fate = Fate.MISS if missed or _is_missing(layers, key, is_step=index > 0) else Fate.UNKNOWN
        nearest = find_nearest(layers, key, index=index, name=name, target=target, planned=planned)
        is_miss = fate is Fate.MISS
        found.append(
            Forecast(
                stage=Stage.PROVISION if index else Stage.INSTALL,
                name=name,
                digest=key.digest,
                fate=fate,
                changed=() if fate is Fate.HIT or nearest is None else _changes(key, nearest.inputs),
                below=is_miss and (missed or _is_moved(key, nearest, by_name)),
                asked=is_miss and ignored,
                damaged=is_miss and not ignored and nearest is not None and nearest.digest == key.digest,
                seconds=None if nearest is None else nearest.seconds,
            )
        )
    return found


def _is_missing(layers: Sequence[Layer], key: StageKey, *, is_step: bool) -> bool:
    """Tell whether no layer at all has the inputs of `key` that are known already: FETCH cannot make it a hit then."""
    return not any((layer.index > 0) == is_step and not _changes(key, layer.inputs) for layer in layers)


def _is_moved(key: StageKey, nearest: Layer | None, by_name: dict[str, Layer]) -> bool:
    """Tell whether the nearest layer stands on another one than `key` does: steps came, went, or changed places."""
    at = nearest
    while at is not None and at.parent.partition(".")[0] == at.digest:  # a disk that was booted, once more
        at = by_name.get(at.parent)
    return at is not None and bool(key.before) and at.parent.partition(".")[0] != key.before


def _changes(key: StageKey, then: Inputs) -> tuple[str, ...]:
    """Name what is known to differ: an input that only FETCH knows may be the same."""
    return tuple(name for name in list_changes(key.inputs, then) if key.inputs.get(name) != "")
