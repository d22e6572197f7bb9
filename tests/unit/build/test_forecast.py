"""What a plan says of each layer: found, not found and why, or not known yet."""

from __future__ import annotations

import pytest

from osimager.build.forecast import Fate, Forecast, look
from osimager.build.layers import LayerStore
from osimager.build.request import CacheUse
from osimager.paths import Places
from osimager.plan.digests import PlanKeys, StageKey
from tests.unit.build.layer_lab import make_digest, publish_layer

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")
TARGET = "qemu/local/tiny-1-x86_64"
NAMES = ("installed disk", "one", "two")


def key(number: int, **inputs: str) -> StageKey:
    return StageKey(digest=make_digest(number) if number else "", inputs=inputs)


def forecast(store: LayerStore, *keys: StageKey, cached: int = 2, first_made: int | None = None) -> list[Forecast]:
    install, *steps = keys
    plan = PlanKeys(install=install, steps=tuple(steps), image=key(99), cached=cached)
    return look(store, plan, NAMES, CacheUse(first_made=first_made), TARGET)


@pytest.fixture
def store(places: Places) -> LayerStore:
    """A store with an installed disk and the two steps on it."""
    made = LayerStore(places)
    below = None
    for number, inputs in enumerate(({"iso": "i", "answers.ks": "k"}, {"content": "a"}, {"content": "b"}), start=1):
        below = publish_layer(made, number, on=below, inputs=inputs)
    return made


def test_what_is_there_is_a_hit_with_what_it_saves(store: LayerStore) -> None:
    found = forecast(store, key(1), key(2), key(3))
    assert [(each.name, each.fate, each.seconds) for each in found] == [(name, Fate.HIT, 1.0) for name in NAMES]


def test_miss_names_the_input_that_changed_and_what_stands_on_it_says_so(store: LayerStore) -> None:
    install = key(1, iso="i", **{"answers.ks": "k"})
    _, one, two = forecast(store, install, key(12, content="other"), key(13, content="b"))
    assert (one.fate, one.changed, one.below) == (Fate.MISS, ("content",), False)
    assert (two.fate, two.changed, two.below) == (Fate.MISS, (), True)


def test_what_only_fetch_knows_is_unknown_and_not_changed(store: LayerStore) -> None:
    known = {"answers.ks": "k"}
    found = forecast(store, key(0, iso="", **known), key(0, content="a"), key(0, content="other"))
    assert [each.fate for each in found] == [Fate.UNKNOWN, Fate.UNKNOWN, Fate.MISS]
    assert [(each.changed, each.below) for each in found] == [((), False), ((), False), (("content",), False)]


def test_what_is_known_to_have_changed_is_a_miss_whatever_fetch_brings(store: LayerStore) -> None:
    known = {"answers.ks": "other"}
    install, one, _ = forecast(store, key(0, iso="", **known), key(0, content="a"), key(0, content="b"))
    assert (install.fate, install.changed) == (Fate.MISS, ("answers.ks",))
    assert (one.fate, one.changed, one.below) == (Fate.MISS, (), True)


DIGESTS = {"": make_digest(1), "a": make_digest(2), "ab": make_digest(3)}  # of what the store has, by its steps


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("xab", {"x": ((), False, False), "a": ((), True, True), "b": ((), True, True)}),
        ("axb", {"x": ((), False, False), "b": ((), True, True)}),
        ("abx", {"x": ((), False, False)}),
        ("b", {"b": ((), True, True)}),
        ("ba", {"b": ((), True, True), "a": ((), True, True)}),
        ("ax", {"x": (("content",), False, True)}),  # in the place of another
    ],
)
def test_step_that_came_or_went_or_moved_is_not_another_that_changed(
    store: LayerStore, steps: str, said: dict[str, tuple[tuple[str, ...], bool, bool]]
) -> None:
    digests = [DIGESTS.get(steps[:count], make_digest(20 + count)) for count in range(len(steps) + 1)]
    keys = tuple(
        StageKey(digest=digest, inputs={"content": name}, before=before)
        for name, before, digest in zip(steps, digests, digests[1:], strict=False)
    )
    plan = PlanKeys(install=key(1), steps=keys, image=key(99), cached=len(keys))
    found = look(store, plan, ("installed disk", *steps), CacheUse(), TARGET)
    misses = {each.name: each for each in found if each.fate is Fate.MISS}
    assert {name: (each.changed, each.below, each.seconds is not None) for name, each in misses.items()} == said


def test_damaged_layer_is_told_and_left_as_it_is(store: LayerStore) -> None:
    layers = store.load()
    cut = layers[1].drives["disk0"]
    cut.chmod(0o600)
    cut.write_bytes(b"cut")
    times = [layer.used_at for layer in layers]
    install, one, two = forecast(store, key(1), key(2), key(3))
    assert (install.fate, one.fate, two.fate) == (Fate.HIT, Fate.MISS, Fate.MISS)
    assert (one.damaged, one.below, two.below) == (True, False, True)
    assert store.load() == layers  # to look is not to use, and removes nothing
    assert [layer.used_at for layer in store.load()] == times


def test_what_may_not_be_kept_and_what_is_to_be_made_anew_is_no_hit(store: LayerStore) -> None:
    assert [each.fate for each in forecast(store, key(1), key(2), key(3), cached=1)][2] is Fate.NEVER
    anew = forecast(store, key(1), key(2), key(3), first_made=1)
    assert [(each.fate, each.asked) for each in anew] == [(Fate.HIT, False), (Fate.MISS, True), (Fate.MISS, True)]


def test_first_build_of_all_has_nothing_to_compare_with(places: Places) -> None:
    [install, *_] = forecast(LayerStore(places), key(1, iso="i"), key(2), key(3))
    assert (install.fate, install.changed, install.seconds) == (Fate.MISS, (), None)
