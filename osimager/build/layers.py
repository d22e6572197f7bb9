"""The cache of layers: a folder each, found by its digest, never changed once it is published (design.md, "Layers").

`layers/DIGEST.NONCE/` holds `DRIVE.qcow2` for each of the machine's drives; `tpm`, what its TPM remembers; where the
guest's memory was saved too, `machine` and `memory`, or `memory-changes` on that of the layer below; `access.json`
(0600, the installed disk's only: the build's own way in); and `layer.json`, which is written last: a folder without it
was never published. A qcow2 names the one below it relative to itself (`name_below` says why not always). Compressed
copies of drives (`build/copies`) come and go in the folder, and are no part of the layer. Who uses a layer holds a
shared `flock` on its file `held`, which dies with the process; what can be locked alone is nobody's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from osimager.errors import PrerequisiteError
from osimager.events import Stage
from osimager.finalize.qcow2 import Unreadable, read_backing
from osimager.kept import PARTIAL_PREFIX, locked, make_folder, sync_path, write_kept
from osimager.machine.ram import CHANGES, MACHINE, MEMORY
from osimager.paths import Places
from osimager.plan.digests import Inputs, StageKey

ACCESS = "access.json"
COPY = ".compressed"  # in the name of what is no part of the layer, and may be missing
_RECORD, _HELD, _GONE, _LOCKS = "layer.json", "held", ".gone-", "locks"
_SAVED = (MACHINE, MEMORY, CHANGES)
# What a folder of ours is called. Others' (a disk of its own has lost+found) are let alone.
_NAME = re.compile(rf"({re.escape(_GONE)})?[0-9a-f]{{64}}\.[0-9a-f]{{8}}")
_VERSION = 2
# A qcow2 names the one below it relative to itself, and QEMU puts these names one behind the other: 50 of them are
# longer than a path may be (4096 bytes). So each layer of this index, and of its multiples, has the whole path.
_WHOLE_PATH_EACH = 32
_MOST_LIMIT_BYTES = 50 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """A file as it was when its layer was published. `sha256` is empty where only an untouched file is good enough."""

    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: str = ""

    @classmethod
    def of(cls, path: Path, *, hashed: bool) -> KeptFile:
        """Describe `path`; `hashed`: its content too."""
        stat = path.stat()
        return cls(
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            ctime_ns=stat.st_ctime_ns,
            sha256=_hash(path) if hashed else "",
        )

    def is_still(self, path: Path) -> bool:
        """Tell whether `path` is what it was."""
        return self.look(path) is not None

    def look(self, path: Path) -> KeptFile | None:
        """Give what `path` is now where it is what it was: by its times, else (it was copied, say) by its content.

        None: it is another file now, or gone.
        """
        with contextlib.suppress(OSError):
            now = KeptFile.of(path, hashed=False)
            if (now.size, now.mtime_ns, now.ctime_ns) == (self.size, self.mtime_ns, self.ctime_ns):
                return self
            if self.sha256 and now.size == self.size and _hash(path) == self.sha256:
                return dataclasses.replace(now, sha256=self.sha256)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A published layer. `index` is 0 for the installed disk and N after step N; `parent` the folder's name below.

    `drive_bytes` are the machine's drives by name, with the bytes that the guest sees of each.
    `memory` is the key of the machine that the saved memory loads into, empty where none was saved.
    """

    folder: Path
    digest: str
    stage: Stage
    name: str
    index: int
    target: str
    parent: str
    build: str
    created: datetime
    seconds: float
    memory: str
    drive_bytes: Mapping[str, int]
    inputs: Inputs
    files: Mapping[str, KeptFile]

    @property
    def drives(self) -> dict[str, Path]:
        """Give the machine's drives by name."""
        return {name: self.folder / f"{name}.qcow2" for name in self.drive_bytes}

    @property
    def size_bytes(self) -> int:
        """Give what the layer takes on this host's disk; 0 for one that has gone meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            return _disk_usage(self.folder)
        return 0

    @property
    def used_at(self) -> float:
        """Give when a build last used it, in seconds since the epoch; 0 for one that has gone meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / _RECORD).stat().st_mtime
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a new layer says of itself."""

    stage: Stage
    name: str
    index: int
    target: str
    build: str
    created: datetime
    seconds: float
    drive_bytes: Mapping[str, int]
    memory: str = ""


class NewLayer:
    """A layer in the making: a folder that is this process's until it is published or dropped."""

    def __init__(self, folder: Path, key: StageKey, parent: str) -> None:
        self.folder = folder
        self.key = key
        self.parent = parent

    def write_access(self, access: Mapping[str, str]) -> None:
        """Keep the build's way in with the disk that it was planted in."""
        write_kept(self.folder / ACCESS, json.dumps(access), mode=0o600)

    def publish(self, content: Content) -> Layer:
        """Make the layer one that builds find. Blocks until all of it is on the disk; raises PrerequisiteError."""
        files = {}
        for path in sorted(self.folder.iterdir()):
            if path.name in (_HELD, _RECORD) or COPY in path.name or path.name.startswith(PARTIAL_PREFIX):
                continue
            sync_path(path, mode=0o600 if path.name in (ACCESS, *_SAVED) else 0o400)
            files[path.name] = KeptFile.of(path, hashed=path.name not in _SAVED)
        layer = Layer(
            folder=self.folder,
            digest=self.key.digest,
            parent=self.parent,
            inputs=self.key.inputs,
            files=files,
            **{field.name: getattr(content, field.name) for field in dataclasses.fields(content)},
        )
        _write_record(layer)
        return layer


class LayerStore:
    """The layers under `places.layers`."""

    def __init__(self, places: Places) -> None:
        self.folder = places.layers
        self._store_lock = self.folder / ".lock"

    def load(self) -> list[Layer]:
        """Give every published layer, damaged ones too, the oldest first."""
        records = [record for record in self.folder.glob(f"*/{_RECORD}") if not record.parent.name.startswith(_GONE)]
        found = [layer for record in records if (layer := _load(record)) is not None]
        return sorted(found, key=lambda layer: (layer.created, layer.index))

    def find(
        self, digest: str, holds: ExitStack, *, memory: str | None, damaged: list[Layer] | None = None
    ) -> Layer | None:
        """Find a whole layer and hold it, and those below it, in `holds`; one whose memory loads goes first.

        Where the guest will be booted, one that was shut down goes before one that was running. A damaged one is passed
        over, and added to `damaged`: nobody finds it again.
        """
        if not digest or not self.folder.is_dir():
            return None
        with locked(self._store_lock):
            found = self._load_all(digest)
            found.sort(key=lambda layer: layer.created, reverse=True)
            found.sort(key=lambda layer: 0 if memory and layer.memory == memory else 1 if not layer.memory else 2)
            for layer in found:
                with ExitStack() as held:
                    if self._hold_chain(layer, held, [] if damaged is None else damaged):
                        holds.enter_context(held.pop_all())
                        return layer if self.is_memory_whole(layer) else dataclasses.replace(layer, memory="")
        return None

    def _load_all(self, digest: str) -> list[Layer]:
        return [layer for path in self.folder.glob(f"{digest}.*") if (layer := _load(path / _RECORD)) is not None]

    def below(self, layer: Layer) -> Layer | None:
        """Give the layer that `layer` stands on; None: it stands on none, or that has gone."""
        return _load(self.folder / layer.parent / _RECORD) if layer.parent else None

    def ram_of(self, layer: Layer) -> tuple[Path, ...]:
        """Give the files that a held layer's saved RAM is put together from, the whole one first."""
        if CHANGES not in layer.files:
            return (layer.folder / MEMORY,) if MEMORY in layer.files else ()
        below = self.below(layer)
        assert below is not None, "held layers have what they stand on"
        return (*self.ram_of(below), layer.folder / CHANGES)

    def is_published(self, parent: str) -> bool:
        """Tell whether a layer in the making may be published on `parent`: that is there, or there is to be none."""
        return not parent or (self.folder / parent / _RECORD).exists()

    def is_there(self, digest: str, known: dict[str, bool]) -> bool:
        """Tell whether a build would find a whole layer of this digest; nothing is held, written or removed.

        `known` keeps, by folder, which layers were found whole: those that stand on them are not looked through again.
        """
        return any(self._is_whole(layer, known) for layer in self._load_all(digest)) if digest else False

    def _is_whole(self, layer: Layer, known: dict[str, bool]) -> bool:
        """Tell whether the disks of `layer` and of all below it are whole."""
        if layer.folder.name not in known:
            below = self.below(layer)
            stands = not layer.parent or (below is not None and self._is_whole(below, known))
            known[layer.folder.name] = stands and _look_at_disks(layer) is not None
        return known[layer.folder.name]

    @contextlib.contextmanager
    def open_new(self, key: StageKey, parent: str) -> Iterator[NewLayer]:
        """Make the folder of a new layer on that of `parent`; unless it is published when the block ends, it goes."""
        make_folder(self.folder, private=True)
        with locked(self._store_lock):
            folder = make_folder(self.folder / f"{key.digest}.{os.urandom(4).hex()}", private=True)
            handle = _lock(folder / _HELD, fcntl.LOCK_SH)
        try:
            yield NewLayer(folder, key, parent)
        finally:
            if not (folder / _RECORD).exists():
                shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)

    def making(self, digest: str) -> Path:
        """Give the lock file of who makes the layer of this digest."""
        return make_folder(self.folder, private=True) / _LOCKS / f"{digest}.lock"

    def sweep(self) -> list[str]:
        """Remove what killed builds left unpublished, and what nobody will find again; give the folders' names."""
        if not self.folder.is_dir():
            return []
        with locked(self._store_lock):
            return self._sweep()

    def _sweep(self) -> list[str]:
        """Sweep. The caller has the store's lock."""
        found = {path: _load(path / _RECORD) for path in self.folder.glob("*/") if _NAME.fullmatch(path.name)}
        kept = {path.name: layer for path, layer in found.items() if not path.name.startswith(_GONE)}
        parents = {name: layer.parent for name, layer in kept.items() if layer is not None}

        def is_whole(name: str) -> bool:
            return name in parents and (not parents[name] or is_whole(parents[name]))

        return [path.name for path in found if not is_whole(path.name) and self._remove(path)]

    def gc(self, limit_bytes: int | None = None) -> list[Layer]:
        """Remove the least recently used layers until all take at most `limit_bytes`; give those that went.

        One in use stays, and so does one that another stands on. None: half of what the disk has for layers.
        """
        make_folder(self.folder, private=True)
        with locked(self._store_lock):
            self._sweep()
            return self._collect(limit_bytes)

    def _collect(self, limit_bytes: int | None) -> list[Layer]:
        """Collect. The caller has the store's lock: no other process finds or removes anything meanwhile."""
        layers = self.load()
        sizes = {layer.folder.name: layer.size_bytes for layer in layers}
        if limit_bytes is None:
            limit_bytes = self._default_limit(sum(sizes.values()))
        gone: list[Layer] = []
        kept = sorted(layers, key=lambda layer: (layer.used_at, -layer.index))
        while sum(sizes.values()) > limit_bytes:
            below = {layer.parent for layer in kept}
            free = (layer for layer in kept if layer.folder.name not in below)
            victim = next((layer for layer in free if self._remove(layer.folder)), None)
            if victim is None:
                break
            kept.remove(victim)
            del sizes[victim.folder.name]
            gone.append(victim)
        return gone

    def _default_limit(self, taken_bytes: int) -> int:
        free_bytes = shutil.disk_usage(self.folder).free
        return min(_MOST_LIMIT_BYTES, (taken_bytes + free_bytes) // 2)

    def _remove(self, folder: Path) -> bool:
        """Remove a folder that nobody holds. The caller has the store's lock."""
        if folder.name.startswith(_GONE):
            shutil.rmtree(folder, ignore_errors=True)
            return True
        try:
            handle = _lock(folder / _HELD, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            gone = folder.with_name(f"{_GONE}{folder.name}")
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(handle)
        return True

    def _hold_chain(self, layer: Layer, held: ExitStack, damaged: list[Layer]) -> bool:
        """Hold `layer` and all below it, and tell whether all disks are whole. What is not is never found again."""
        held.callback(os.close, _lock(layer.folder / _HELD, fcntl.LOCK_SH))
        files, below = _look_at_disks(layer), self.below(layer)
        stands = not layer.parent or (below is not None and self._hold_chain(below, held, damaged))
        if files is None or not stands:
            damaged += [layer] if files is None else []
            (layer.folder / _RECORD).unlink(missing_ok=True)
            return False
        with contextlib.suppress(OSError, PrerequisiteError):
            if files == layer.files:
                os.utime(layer.folder / _RECORD)
            else:  # a copy, known by its content: who comes next need not read all of it
                _write_record(dataclasses.replace(layer, files=files))
        return True

    def is_memory_whole(self, layer: Layer) -> bool:
        """Tell whether the saved memory is untouched; a copy of the cache has none, since nobody hashes so much."""
        saved = {name: kept for name, kept in layer.files.items() if name in _SAVED}
        if not all(kept.is_still(layer.folder / name) for name, kept in saved.items()):
            return False
        if CHANGES not in saved:
            return True
        below = self.below(layer)
        return below is not None and below.memory == layer.memory and self.is_memory_whole(below)


def read_access(layer: Layer, store: LayerStore) -> dict[str, str]:
    """Give the way into the guest: it is kept with the installed disk that `layer` stands on."""
    while layer.parent:
        below = store.below(layer)
        assert below is not None, "held layers have what they stand on"
        layer = below
    access: dict[str, str] = json.loads((layer.folder / ACCESS).read_text(encoding="utf-8"))
    return access


def is_held(layer: Layer) -> bool:
    """Tell whether a build uses the layer now."""
    try:
        handle = os.open(layer.folder / _HELD, os.O_RDONLY | os.O_CLOEXEC)  # who only looks needs no right to write
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def find_nearest(
    layers: Sequence[Layer], key: StageKey, *, index: int, name: str, target: str, planned: Sequence[Inputs] = ()
) -> Layer | None:
    """Find the layer that `key` differs least from, the newest of several: what the same step left before it changed.

    One whose inputs are those of a step of the plan (`planned`) is that step's, wherever it stood. Of other targets the
    very same layer counts, and those of the same system on another platform or in another location, after its own.
    """

    def is_same_step(layer: Layer) -> bool:
        if layer.index == 0 or index == 0:
            return layer.index == index
        own = layer.inputs == key.inputs
        return own or ((layer.index == index or layer.name == name) and layer.inputs not in planned)

    def is_same_target(layer: Layer) -> bool:
        return layer.digest == key.digest or layer.target.rpartition("/")[2] == target.rpartition("/")[2]

    same = [layer for layer in reversed(layers) if is_same_target(layer) and is_same_step(layer)]
    return min(
        same,
        key=lambda layer: (layer.target != target, layer.digest != key.digest, _distance(layer.inputs, key.inputs)),
        default=None,
    )


def _distance(one: Inputs, other: Inputs) -> int:
    return sum(one.get(name) != other.get(name) for name in {*one, *other})


def _lock(path: Path, how: int) -> int:
    """Open and lock the file `path`. Raises OSError where it is locked by another, with LOCK_NB."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, how)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _disk_usage(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in _files(folder))


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.is_file())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name_below(drive: Path, *, index: int) -> Path:
    """Give the name by which a drive of layer `index` knows `drive`, that of the layer below."""
    return drive if index and index % _WHOLE_PATH_EACH == 0 else Path("..") / drive.parent.name / drive.name


def _is_in_its_place(layer: Layer) -> bool:
    """Tell whether the drives of a layer stand on those of its parent: one with a whole path may have been moved."""
    if not layer.parent or layer.index == 0 or layer.index % _WHOLE_PATH_EACH:
        return True
    below = layer.folder.parent / layer.parent
    try:
        return all(read_backing(drive) == (below / drive.name).resolve() for drive in layer.drives.values())
    except (OSError, Unreadable):
        return False


def _look_at_disks(layer: Layer) -> Mapping[str, KeptFile] | None:
    """Give a layer's files as they are now, where all but the saved memory are what they were; None: one is damaged, or
    does not find the one below it.
    """
    looked = {name: kept if name in _SAVED else kept.look(layer.folder / name) for name, kept in layer.files.items()}
    files = {name: kept for name, kept in looked.items() if kept is not None}
    return files if len(files) == len(looked) and _is_in_its_place(layer) else None


def _write_record(layer: Layer) -> None:
    write_kept(layer.folder / _RECORD, json.dumps(_render(layer), indent=1) + "\n", mode=0o600)


def _render(layer: Layer) -> dict[str, object]:
    """Give a layer as `layer.json` holds it."""
    plain = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer) if field.name != "folder"}
    return {
        "v": _VERSION,
        **plain,
        "created": layer.created.isoformat(),
        "drive_bytes": dict(layer.drive_bytes),
        "inputs": dict(layer.inputs),
        "files": {name: dataclasses.asdict(kept) for name, kept in layer.files.items()},
    }


def _load(record: Path) -> Layer | None:
    """Read a layer's record; one that is missing or of another version is no layer."""
    try:
        said = json.loads(record.read_text(encoding="utf-8"))
        if said.pop("v") != _VERSION:
            return None
        said["stage"] = Stage(said["stage"])
        said["created"] = datetime.fromisoformat(said["created"])
        said["files"] = {name: KeptFile(**kept) for name, kept in said["files"].items()}
        return Layer(folder=record.parent, **said)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
