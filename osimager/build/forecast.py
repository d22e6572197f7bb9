"""What a build would find of its layers, and for one that it would not find, which input is another one now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from osimager.aio import in_thread
from osimager.build.layers import Layer, LayerStore, find_nearest
from osimager.build.prepare import Prepared
from osimager.build.request import CacheUse
from osimager.env import Env
from osimager.events import Stage
from osimager.media.fetch import peek
from osimager.plan.boot import complete_boot
from osimager.plan.digests import PlanKeys, StageKey, list_changes, make_keys


class Fate(StrEnum):
    """What becomes of a stage. UNKNOWN: only FETCH will tell. NEVER: its result may not be kept."""

    HIT = "hit"
    MISS = "miss"
    UNKNOWN = "unknown"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """One stage's. `changed` names the inputs that differ from the nearest layer (none: there is no such layer, or the
    layer below changed); `below`: that one did; `asked`: the user wants it made anew. `seconds` is what the layer took
    to make, and is saved by a hit.
    """

    stage: Stage
    name: str
    digest: str
    fate: Fate
    changed: tuple[str, ...] = ()
    below: bool = False
    asked: bool = False
    seconds: float | None = None


async def forecast(prepared: Prepared, use: CacheUse, env: Env) -> tuple[Forecast, ...]:
    """Look for every layer of the plan, the installed disk first; what is found is not held, and may go meanwhile."""
    plan = prepared.plan
    media = await peek(plan.media, env, arch=plan.machine.arch)
    if media is not None:
        plan = complete_boot(plan, media)
    keys = make_keys(plan, media, prepared.outside, prepared.protect)
    names = ("installed disk", *(step.name for step in plan.steps))
    return await in_thread(lambda: tuple(look(LayerStore(env.places), keys, names, use, str(plan.target))))


def look(store: LayerStore, keys: PlanKeys, names: Sequence[str], use: CacheUse, target: str) -> list[Forecast]:
    """Look for the layers of `keys`, each by itself: one that is found may stand on another than the plan's."""
    layers = store.load()
    found: list[Forecast] = []
    for index, (key, name) in enumerate(zip((keys.install, *keys.steps), names, strict=True)):
        ignored = use.first_made is not None and index >= use.first_made
        fate = _fate(store, key, kept=index < len(keys.layers), ignored=ignored)
        nearest = find_nearest(layers, key, index=index, target=target)
        found.append(
            Forecast(
                stage=Stage.PROVISION if index else Stage.INSTALL,
                name=name,
                digest=key.digest,
                fate=fate,
                changed=() if fate is Fate.HIT or nearest is None else _changes(key, nearest),
                below=fate is Fate.MISS and index > 0 and found[-1].fate is Fate.MISS,
                asked=fate is Fate.MISS and ignored,
                seconds=None if nearest is None else nearest.seconds,
            )
        )
    return found


def _fate(store: LayerStore, key: StageKey, *, kept: bool, ignored: bool) -> Fate:
    if not kept:
        return Fate.NEVER
    if ignored:
        return Fate.MISS
    if not key.digest:
        return Fate.UNKNOWN
    return Fate.HIT if store.is_there(key.digest) else Fate.MISS


def _changes(key: StageKey, nearest: Layer) -> tuple[str, ...]:
    """Name what is known to differ: an input that only FETCH knows may be the same."""
    return tuple(name for name in list_changes(key.inputs, nearest.inputs) if key.inputs.get(name) != "")
