"""The store of layers, with real files, real qcow2s, and other processes that use it at the same time."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest

from osimager.build.credentials import make_credentials
from osimager.build.layering import Base, BuildLayers, _Owners, open_layers
from osimager.build.layers import ACCESS, Layer, LayerStore, find_nearest, is_held, name_below, read_access
from osimager.build.request import CacheUse
from osimager.env import Env
from osimager.errors import MachineError, PrerequisiteError
from osimager.events import Event, Notice
from osimager.finalize.precompress import list_chain
from osimager.machine.ram import CHANGES, MACHINE, MEMORY
from osimager.paths import Places
from osimager.plan.digests import PlanKeys, StageKey
from osimager.qemu_img import create_disk, create_overlay
from tests.unit.build.layer_lab import (
    DRIVE,
    WAY_IN,
    find,
    held_elsewhere,
    is_readable,
    make_content,
    make_digest,
    make_qcow2,
    publish_layer,
)

pytestmark = [pytest.mark.needs("qemu-img", "qemu-io")]
DISK = f"{DRIVE}.qcow2"
NONE: Any = None  # for the plan, and the machine: what is tried with it ends before either is looked at
KEY = StageKey(digest=make_digest(1), inputs={})


@pytest.fixture
def store(places: Places) -> LayerStore:
    return LayerStore(places)


@pytest.fixture
def home(places: Places) -> Path:
    return Path(os.environ["OSIMAGER_HOME"])


@pytest.fixture
def chain(store: LayerStore) -> tuple[Layer, Layer, Layer]:
    """The installed disk and two steps on it: 1, 2, 3, the last used latest."""
    disk = publish_layer(store, 1)
    first = publish_layer(store, 2, on=disk)
    return disk, first, publish_layer(store, 3, on=first)


def set_used(layer: Layer, at: float) -> None:
    os.utime(layer.folder / "layer.json", (at, at))


# Published and found --------------------------------------------------------------------------------------------------


def test_published_layer_is_found_as_it_was_described(store: LayerStore) -> None:
    layer = publish_layer(store, 1, memory="m", inputs={"iso": "a"})
    with ExitStack() as holds:
        assert store.find(make_digest(1), holds, memory="m") == layer
        assert is_held(layer)
    assert not is_held(layer)
    assert store.load() == [layer]
    assert layer.drives == {DRIVE: layer.folder / DISK}
    assert layer.size_bytes > 64 << 10


def test_chain_is_held_and_read_whole_and_gives_the_way_in(
    store: LayerStore, chain: tuple[Layer, Layer, Layer]
) -> None:
    with ExitStack() as holds:
        found = store.find(make_digest(3), holds, memory=None)
        assert found == chain[2]
        assert all(is_held(layer) for layer in chain)
        assert read_access(found, store) == WAY_IN
        assert is_readable(found)
    assert not any(is_held(layer) for layer in chain)


def test_published_files_are_nobodys_to_change_and_secrets_the_users_alone(store: LayerStore) -> None:
    layer = publish_layer(store, 1, memory="m")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in layer.folder.iterdir()}
    assert modes[DISK] == 0o400
    assert {modes[name] for name in (ACCESS, MACHINE, MEMORY, "layer.json")} == {0o600}
    assert stat.S_IMODE(layer.folder.stat().st_mode) == stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_unpublished_layer_is_never_found_and_goes(store: LayerStore) -> None:
    with store.open_new(StageKey(digest=make_digest(1), inputs={}), "") as new:
        make_qcow2(new.folder / DISK)
        assert find(store, 1) is None
        assert store.sweep() == []  # its maker is alive
    assert not new.folder.exists()


@pytest.mark.parametrize("digest", ["", make_digest(9), make_digest(1)[:-1]])
def test_another_digest_or_none_finds_nothing(store: LayerStore, digest: str) -> None:
    publish_layer(store, 1)
    with ExitStack() as holds:
        assert store.find(digest, holds, memory=None) is None


def test_memory_that_loads_goes_first_and_none_where_the_guest_is_booted(store: LayerStore) -> None:
    made = {memory: publish_layer(store, at, digest=1, memory=memory) for at, memory in enumerate(("", "a", "b", "b"))}
    assert len(list(store.folder.glob(f"{make_digest(1)}.*"))) == 4
    for wanted, expected in {None: "", "a": "a", "b": "b", "c": ""}.items():
        assert find(store, 1, memory=wanted) == made[expected].folder


# Damaged --------------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def replace_by_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)


DAMAGES: list[Callable[[Path], None]] = [cut, flip, Path.unlink, replace_by_another]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("damaged", "name"), [(1, DISK), (2, DISK), (3, DISK), (1, ACCESS)])
def test_damaged_layer_and_what_stands_on_it_are_never_found_again(
    store: LayerStore, damaged: int, name: str, damage: Callable[[Path], None]
) -> None:
    layers: list[Layer] = []
    for number in (1, 2, 3):
        layers.append(publish_layer(store, number, on=layers[-1] if layers else None, memory="m"))
    damage(layers[damaged - 1].folder / name)
    for number in (3, 2, 1):
        assert (find(store, number, memory="m") is None) == (number >= damaged)
    assert set(store.sweep()) == {layer.folder.name for layer in layers[damaged - 1 :]}
    assert store.load() == layers[: damaged - 1]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [MACHINE, MEMORY])
def test_damaged_memory_leaves_the_disk_which_is_booted(
    store: LayerStore, name: str, damage: Callable[[Path], None]
) -> None:
    below = publish_layer(store, 1, memory="m")
    above = publish_layer(store, 2, on=below, memory="m")
    damage(below.folder / name)
    with ExitStack() as holds:
        found = store.find(make_digest(1), holds, memory="m")
        assert found is not None
        assert (found.folder, found.memory) == (below.folder, "")
        assert store.find(make_digest(2), holds, memory="m") == above


@pytest.mark.parametrize("at", [0, 1])
async def test_build_that_boots_for_a_damaged_memory_says_so(
    store: LayerStore, env: Env, events: list[Event], at: int
) -> None:
    disk = publish_layer(store, 1, memory="m", way_in=make_credentials(env).to_json())
    step = publish_layer(store, 2, on=disk, memory="m", changes=True)
    key = StageKey(digest=make_digest(2), inputs={})
    keys = PlanKeys(install=KEY, steps=(key,), image=KEY, cached=1)

    async def find_base() -> Base | None:
        async with open_layers(NONE, keys, CacheUse(), env, memory_key="m") as layers:
            return await layers.find_base()

    base = await find_base()
    assert base is not None
    assert (base.saved is not None, events) == (True, [])
    (disk.folder / MEMORY if at == 0 else step.folder / CHANGES).unlink()
    base = await find_base()
    assert base is not None
    assert (base.folder, base.saved) == (step.folder, None)
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert "memory is damaged" in notice.text


def test_memory_that_is_changes_is_put_together_from_the_layers_below(store: LayerStore) -> None:
    disk = publish_layer(store, 1)
    booted = publish_layer(store, 2, on=disk, memory="m")
    first = publish_layer(store, 3, on=booted, memory="m", changes=True)
    second = publish_layer(store, 4, on=first, memory="m", changes=True)
    with ExitStack() as holds:
        assert store.find(make_digest(4), holds, memory="m") == second
        assert store.ram_of(second) == (booted.folder / MEMORY, first.folder / CHANGES, second.folder / CHANGES)
        assert store.ram_of(booted) == (booted.folder / MEMORY,)
        assert store.ram_of(disk) == ()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [MACHINE, CHANGES])
@pytest.mark.parametrize("at", [1, 2])
def test_changes_of_a_damaged_memory_are_of_no_use_either(
    store: LayerStore, name: str, damage: Callable[[Path], None], at: int
) -> None:
    layers = [publish_layer(store, 1, memory="m")]
    for number in (2, 3):
        layers.append(publish_layer(store, number, on=layers[-1], memory="m", changes=True))
    damage(layers[at].folder / name)
    for number, layer in enumerate(layers):
        with ExitStack() as holds:
            found = store.find(layer.digest, holds, memory="m")
            assert found is not None
            assert (found.folder, found.memory) == (layer.folder, "m" if number < at else "")


def test_changes_of_another_machines_memory_are_of_no_use(store: LayerStore) -> None:
    below = publish_layer(store, 1, memory="another")
    publish_layer(store, 2, on=below, memory="m", changes=True)
    with ExitStack() as holds:
        found = store.find(make_digest(2), holds, memory="m")
        assert found is not None
        assert found.memory == ""


def test_copied_layer_is_good_by_its_content(store: LayerStore, chain: tuple[Layer, Layer, Layer]) -> None:
    disk = chain[0].folder / DISK
    copy = disk.with_name("copy")
    shutil.copyfile(disk, copy)
    copy.replace(disk)
    assert find(store, 3) == chain[2].folder


def test_copy_is_read_once_and_then_known_by_its_times(store: LayerStore, chain: tuple[Layer, Layer, Layer]) -> None:
    for layer in chain:
        os.utime(layer.folder / DISK, (1, 1))
    assert find(store, 3) == chain[2].folder
    for layer in store.load():
        stat = (layer.folder / DISK).stat()
        assert (layer.files[DISK].mtime_ns, layer.files[DISK].ctime_ns) == (stat.st_mtime_ns, stat.st_ctime_ns)
    assert find(store, 3) == chain[2].folder


async def test_build_says_which_layer_is_damaged(store: LayerStore, env: Env, events: list[Event]) -> None:
    disk = publish_layer(store, 1, way_in=make_credentials(env).to_json())
    step = publish_layer(store, 2, on=disk)
    publish_layer(store, 3, on=step)
    cut(step.folder / DISK)
    steps = tuple(StageKey(digest=make_digest(number), inputs={}) for number in (2, 3))
    keys = PlanKeys(install=KEY, steps=steps, image=KEY, cached=2)
    async with open_layers(NONE, keys, CacheUse(), env, memory_key="") as layers:
        base = await layers.find_base()
    assert base is not None
    assert base.folder == disk.folder
    assert [event.text for event in events if isinstance(event, Notice)] == [
        "the layer of step-1 is damaged: it is not used any more"
    ]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"v": 2}', "\0", '{"v": 3}', "null", '"v"'])
def test_record_that_says_nothing_known_is_no_layer(store: LayerStore, text: str) -> None:
    record = publish_layer(store, 1).folder / "layer.json"
    record.write_text(text)
    assert (find(store, 1), store.load()) == (None, [])


def test_layer_of_another_version_is_made_anew(store: LayerStore) -> None:
    old = publish_layer(store, 1)
    record = old.folder / "layer.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "v": 99}))
    assert find(store, 1) is None
    new = publish_layer(store, 2, digest=1)
    assert find(store, 1) == new.folder


def test_layer_without_its_parent_is_swept(store: LayerStore, chain: tuple[Layer, Layer, Layer]) -> None:
    shutil.rmtree(chain[0].folder)
    assert set(store.sweep()) == {chain[1].folder.name, chain[2].folder.name}
    assert find(store, 3) is None


async def make_chain(store: LayerStore, count: int) -> list[Layer]:
    """Publish an installed disk and steps on it, named as builds name them; two are there twice, booted once more."""
    made: list[Layer] = []
    for index in sorted([*range(count), 0, 32]):
        parent = made[-1].folder if made else None
        with store.open_new(StageKey(digest=make_digest(index), inputs={}), parent.name if parent else "") as new:
            if parent is None:
                make_qcow2(new.folder / DISK)
            else:
                named = name_below(parent / DISK, index=index)
                await create_overlay(new.folder / DISK, named, size_bytes=1 << 20, is_open=True)
            made.append(new.publish(make_content(len(made), index=index)))
    return made


async def test_chain_of_very_many_steps_is_read_by_qemu_and_known_by_its_files(store: LayerStore) -> None:
    made = await make_chain(store, 80)
    assert is_readable(made[-1])
    assert find(store, 79) == made[-1].folder
    assert [disk for disk, _ in list_chain(made[-1].folder / DISK)] == [layer.folder / DISK for layer in made]


async def test_long_chain_that_was_moved_is_good_up_to_where_it_misses_what_is_below(store: LayerStore) -> None:
    made = await make_chain(store, 34)
    moved = store.folder.with_name("moved")
    shutil.copytree(store.folder, moved)
    store.folder = moved
    store._store_lock = moved / ".lock"
    assert find(store, 33) is None
    assert find(store, 32) is None
    below = moved / made[32].folder.name
    assert find(store, 31) == below
    assert is_readable(next(layer for layer in store.load() if layer.folder == below))


# Swept and collected --------------------------------------------------------------------------------------------------


def test_sweep_removes_what_killed_builds_left_and_nothing_whole(
    store: LayerStore, chain: tuple[Layer, Layer, Layer]
) -> None:
    unpublished = store.folder / f"{make_digest(7)}.00000000"
    half_removed = store.folder / f".gone-{make_digest(8)}.00000000"
    unpublished.mkdir()
    make_qcow2(unpublished / DISK)
    shutil.copytree(chain[0].folder, half_removed)  # its record was not gone yet
    assert store.load() == list(chain)
    assert set(store.sweep()) == {unpublished.name, half_removed.name}
    assert store.sweep() == []
    assert store.load() == list(chain)


def test_what_is_none_of_ours_is_let_alone(store: LayerStore) -> None:
    layer = publish_layer(store, 1)
    foreign = [store.folder / "lost+found", store.folder / f"{layer.folder.name}.bak", store.folder / "notes.txt"]
    for folder in foreign[:2]:
        (folder / "mine").mkdir(parents=True)
    foreign[2].touch()
    assert store.sweep() == []
    assert store.gc(0) == [layer]
    assert all(path.exists() for path in foreign)


def test_gc_removes_the_least_recently_used_first_and_no_more_than_it_must(store: LayerStore) -> None:
    layers = [publish_layer(store, number) for number in range(5)]
    order = random.Random(5).sample(layers, 5)
    for at, layer in enumerate(order):
        set_used(layer, 1_000_000 + at)
    sizes = [layer.size_bytes for layer in order]
    assert store.gc(sum(sizes)) == []
    assert store.gc(sum(sizes) - 1) == order[:1]
    assert store.gc(sum(sizes[3:])) == order[1:3]
    assert store.gc(0) == order[3:]
    assert store.load() == []


def test_a_find_is_a_use(store: LayerStore) -> None:
    older, newer = publish_layer(store, 1), publish_layer(store, 2)
    for layer in (older, newer):
        set_used(layer, 1_000_000)
    find(store, 1)
    assert store.gc(older.size_bytes) == [newer]


def test_gc_removes_a_chain_from_its_top(store: LayerStore, chain: tuple[Layer, Layer, Layer]) -> None:
    for at, layer in enumerate(chain):  # the lowest was not used for the longest time, yet two stand on it
        set_used(layer, 1_000_000 + at)
    assert store.gc(chain[0].size_bytes) == [chain[2], chain[1]]
    assert find(store, 1) == chain[0].folder


def test_gc_never_removes_what_another_process_uses_nor_what_that_stands_on(
    store: LayerStore, home: Path, chain: tuple[Layer, Layer, Layer]
) -> None:
    alone = publish_layer(store, 9)
    with held_elsewhere(home, 2) as user:
        assert {layer.digest for layer in store.gc(0)} == {chain[2].digest, alone.digest}
        assert store.load() == list(chain[:2])
        assert is_readable(chain[1])
        user.kill()
        user.wait()
        assert store.gc(0) == [chain[1], chain[0]]


def test_gc_keeps_what_is_being_made_and_its_base(store: LayerStore) -> None:
    base = publish_layer(store, 1)
    with ExitStack() as holds, store.open_new(StageKey(digest=make_digest(2), inputs={}), base.folder.name) as new:
        assert store.find(make_digest(1), holds, memory=None) == base
        assert store.gc(0) == []
        make_qcow2(new.folder / DISK, below=base.folder / DISK)
        assert is_readable(new.publish(make_content(2, index=1)))


def test_gc_by_itself_keeps_what_the_disk_has_room_for(store: LayerStore, chain: tuple[Layer, Layer, Layer]) -> None:
    assert store.gc() == []
    assert find(store, 3) == chain[2].folder


# At the same time -----------------------------------------------------------------------------------------------------

_USER = """
import random, subprocess, sys
from contextlib import ExitStack
from pathlib import Path
from tests.unit.build.layer_lab import find, is_readable, make_digest, open_store, publish_layer

store, seed = open_store(Path(sys.argv[1])), int(sys.argv[2])
chosen = random.Random(seed)
for turn in range(40):
    number = chosen.randrange(4)
    with ExitStack() as holds:
        found = store.find(make_digest(number), holds, memory=None)
        if found is None:
            found = None if number else publish_layer(store, 0)
        else:
            assert all((found.folder / name).is_file() for name in found.files), found.folder
            assert turn % 8 or is_readable(found), found.folder
            if number < 3:
                publish_layer(store, number + 1, on=found)
    store.sweep() if turn % 5 == 0 else None
    store.load()
print("done")
"""

_COLLECTOR = """
import sys
from pathlib import Path
from tests.unit.build.layer_lab import open_store

store = open_store(Path(sys.argv[1]))
gone = 0
print("up", flush=True)
while not Path(sys.argv[2]).exists():
    gone += len(store.gc(300 << 10))
print(gone)
"""


def start(code: str, *words: str | Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", code, *map(str, words)]
    root = Path(__file__).parents[3]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)


def test_gc_under_load_removes_no_layer_that_a_build_uses(home: Path, tmp_path: Path) -> None:
    """Three builds find, read and publish chains while two collectors keep the cache at next to nothing."""
    collectors = [start(_COLLECTOR, home, tmp_path / "stop") for _ in range(2)]
    users = [start(_USER, home, str(seed)) for seed in range(3)]
    said = [(child.communicate(timeout=300), child.returncode) for child in users]
    (tmp_path / "stop").touch()
    removed = [(child.communicate(timeout=60), child.returncode) for child in collectors]
    for (out, err), status in [*said, *removed]:
        assert status == 0, err
        assert out
    assert sum(int(out.split()[-1]) for (out, _), _ in removed) > 10


# A full disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(places: Places) -> Iterator[Path]:
    """Put the layers on a disk of 2 MiB."""
    places.layers.mkdir(parents=True)
    argv = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(places.layers)]
    if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a tmpfs on this host")
    yield places.layers
    subprocess.run(["umount", str(places.layers)], check=True)


def fill(folder: Path) -> None:
    """Fill the disk to its last byte."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


async def test_full_disk_under_a_new_drive_is_the_hosts_fault_and_named(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(PrerequisiteError, match="No space left") as caught:
        await create_disk(small_disk / DISK, 1 << 30)
    assert caught.value.cause == "host-disk-full"


async def test_full_disk_at_publishing_is_a_warning_and_leaves_nothing_torn(
    small_disk: Path, store: LayerStore, env: Env, events: list[Event]
) -> None:
    base = publish_layer(store, 1)
    with ExitStack() as held, ExitStack() as holds:
        assert store.find(make_digest(1), holds, memory=None) == base
        top, following = (
            held.enter_context(store.open_new(StageKey(digest=make_digest(number), inputs={}), below))
            for number, below in ((2, base.folder.name), (3, "made next"))
        )
        following.parent = top.folder.name
        make_qcow2(top.folder / DISK, below=base.folder / DISK)
        make_qcow2(following.folder / DISK, below=top.folder / DISK)
        fill(small_disk)
        async with AsyncExitStack() as locks, asyncio.TaskGroup() as publishing:
            layers = make_layers(env, _Owners(held, locks, publishing))
            await layers._publish_beside(top, make_content(2, index=1), None)
            (small_disk / "filler").unlink()
            await layers._publish_beside(following, make_content(3, index=2), None)
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert notice.level == "warning"
    assert "step-1 is not kept" in notice.text
    assert "No space left" in notice.text
    # The next one has room again, but nothing to stand on: it is not kept either, and not torn.
    assert store.load() == [base]
    assert store.sweep() == []
    assert find(store, 1) == base.folder


async def test_build_that_fails_keeps_every_layer_that_was_on_its_way(store: LayerStore, env: Env) -> None:
    folders = [publish_layer(store, 1).folder]
    keys = PlanKeys(install=KEY, steps=(), image=KEY, cached=0)

    async def fail() -> None:
        async with open_layers(NONE, keys, CacheUse(), env, memory_key="") as layers:
            owners = layers._owners
            for number in (2, 3, 4):
                key = StageKey(digest=make_digest(number), inputs={})
                new = owners.held.enter_context(store.open_new(key, folders[-1].name))
                make_qcow2(new.folder / DISK, below=folders[-1] / DISK)
                owners.publishing.create_task(layers._publish_beside(new, make_content(number, index=number - 1), None))
                folders.append(new.folder)
            raise MachineError("a step failed")

    with pytest.raises(MachineError, match="a step failed"):
        await fail()
    assert [layer.folder for layer in store.load()] == folders


async def test_cancel_while_the_next_drives_are_made_is_no_error(store: LayerStore, env: Env) -> None:
    publish_layer(store, 1, way_in=make_credentials(env).to_json())
    steps = tuple(StageKey(digest=make_digest(number), inputs={}) for number in (2, 3))
    keys = PlanKeys(install=KEY, steps=steps, image=KEY, cached=2)
    async with open_layers(NONE, keys, CacheUse(), env, memory_key="") as layers:
        base = await layers.find_base()
        assert base is not None
        await layers.open_drives(base)
        keeping = asyncio.create_task(layers._keep(NONE))
        await asyncio.sleep(0)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping


def make_layers(env: Env, owners: _Owners) -> BuildLayers:
    """Give a build's layers, of which only the publishing is used."""
    keys = PlanKeys(install=KEY, steps=(), image=KEY, cached=0)
    return BuildLayers(NONE, keys, CacheUse(), env, memory_key="", owners=owners)


# Why a miss is one ----------------------------------------------------------------------------------------------------


def test_nearest_layer_is_the_same_targets_with_the_fewest_other_inputs(store: LayerStore) -> None:
    near = publish_layer(store, 1, inputs={"iso": "a", "memory": "1", "cpus": "1"})
    publish_layer(store, 2, inputs={"iso": "b", "memory": "3", "cpus": "1"})
    on = publish_layer(store, 3, on=near, inputs={"iso": "a", "memory": "2", "cpus": "1"})
    key = StageKey(digest="", inputs={"iso": "a", "memory": "2", "cpus": "1"})

    def nearest(index: int, target: str = near.target) -> Layer | None:
        return find_nearest(store.load(), key, index=index, name="none", target=target)

    assert nearest(0) == near
    assert nearest(1) == nearest(2) == on  # the same step, wherever it stood
    assert nearest(0, "qemu/lab/tiny-1-x86_64") == near
    assert nearest(0, "qemu/local/tiny-2-x86_64") is None
