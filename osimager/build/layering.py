"""One build's layers: where it goes on from, what it writes to, and what it keeps of each stage for the next build.

The guest always writes into `top`: the next layer in the making, or a folder of the workspace where nothing more is to
be kept. A layer is published beside the build, which goes on meanwhile; who makes one holds the lock of its digest, so
that builds that need the same layer make it once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import in_thread
from osimager.build.copies import Copies
from osimager.build.credentials import Credentials, read_credentials
from osimager.build.layers import Content, Layer, LayerStore, NewLayer, name_below, read_access
from osimager.build.request import CacheUse
from osimager.env import Env
from osimager.errors import LockedError, MachineError, OsimagerError
from osimager.events import Notice, Stage
from osimager.kept import holding, make_folder
from osimager.machine.qemu import QemuMachine
from osimager.machine.ram import CHANGES, MACHINE, MEMORY, SavedMemory
from osimager.machine.tpm import STATE
from osimager.plan.digests import PlanKeys
from osimager.plan.model import BuildPlan
from osimager.qemu_img import create_overlay, read_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Where a build goes on: an installed system after `steps` steps, the way in, and its memory where that loads.

    `drives` are in `folder`, by name, with the bytes that the guest sees of each.
    """

    folder: Path
    drives: Mapping[str, int]
    steps: int
    credentials: Credentials
    saved: SavedMemory | None = None


@dataclass(slots=True)
class _Top:
    """Where the guest's drives are now. `new` None: nothing is kept of it. `index`: the steps that will be in it."""

    folder: Path
    index: int
    new: NewLayer | None


@contextlib.asynccontextmanager
async def open_layers(
    plan: BuildPlan, keys: PlanKeys, use: CacheUse, env: Env, *, memory_key: str
) -> AsyncIterator[BuildLayers]:
    """Give the build's layers; what is to be published when the block ends, well or by an error, is published first: a
    build that fails is resumed from there. Only a cancel cuts that short.
    """
    failed: Exception | None = None
    with ExitStack() as held:
        async with AsyncExitStack() as locks, asyncio.TaskGroup() as publishing:
            owners = _Owners(held, locks, publishing)
            try:
                yield BuildLayers(plan, keys, use, env, memory_key=memory_key if use.warm else "", owners=owners)
            except Exception as exc:  # whatever failed: a task group would cancel its tasks for it
                failed = exc
    if failed is not None:
        raise failed


@dataclass(frozen=True, slots=True)
class _Owners:
    """What ends with the build: folders and holds on layers, the locks of their making, the tasks that publish them."""

    held: ExitStack
    locks: AsyncExitStack
    publishing: asyncio.TaskGroup


class BuildLayers:
    """See the module. Made by `open_layers`."""

    def __init__(
        self,
        plan: BuildPlan,
        keys: PlanKeys,
        use: CacheUse,
        env: Env,
        *,
        memory_key: str,
        owners: _Owners,
    ) -> None:
        self._plan = plan
        self._keys = keys.layers
        self._use = use
        self._env = env
        self._memory_key = memory_key
        self._owners = owners
        self._store = LayerStore(env.places)
        self._making: AsyncExitStack | None = None
        self._publishing = asyncio.Lock()
        self._wakes = True
        self._top = _Top(env.workspace, 0, None)
        self._following: asyncio.Future[_Top] | None = None
        self._unkept = 0
        self._drives: Mapping[str, int] = {}
        self._since = env.clock.monotonic()

    # Finding --------------------------------------------------------------------------------------------------------

    async def find_base(self) -> Base | None:
        """Find the last layer that fits, and become the one who makes the next; None: not even the disk is installed.

        Waits for who makes that layer already, and looks again. The deadline is the caller's.
        """
        making = AsyncExitStack()
        locked: int | None = None
        while True:
            with ExitStack() as held:
                damaged: list[Layer] = []
                found = await in_thread(functools.partial(self._find, held, damaged))
                for layer in damaged:
                    self._env.emit(Notice(f"the layer of {layer.name} is damaged: it is not used any more", "warning"))
                following = 0 if found is None else found.index + 1
                if locked == following or not self._is_shared(following):
                    self._owners.held.enter_context(held.pop_all())
                    self._making = await self._owners.locks.enter_async_context(making)
                    return None if found is None else self._base(found)
            # It may be there by the time that we hold its lock: only then it is certain that nobody else makes it.
            await making.aclose()
            await making.enter_async_context(
                holding(self._lock_of(following), wait=self._env.wait, on_wait=self._tell_wait)
            )
            locked = following

    def _find(self, held: ExitStack, damaged: list[Layer]) -> Layer | None:
        last = len(self._keys) if self._use.first_made is None else min(self._use.first_made, len(self._keys))
        memory = self._memory_key or None
        for key in reversed(self._keys[:last]):
            if (layer := self._store.find(key.digest, held, memory=memory, damaged=damaged)) is not None:
                return layer
        return None

    def _is_shared(self, index: int) -> bool:
        """Say whether layer `index` is one that other builds would wait for."""
        return index < len(self._keys) and self._use.keep and self._use.first_made is None

    def _lock_of(self, index: int) -> Path:
        return self._store.making(self._keys[index].digest)

    def _tell_wait(self) -> None:
        self._env.emit(Notice("another build makes the layer that this one needs: waiting for it"))

    def _base(self, layer: Layer) -> Base:
        fits = bool(self._memory_key) and layer.memory == self._memory_key
        if layer.memory and self._memory_key and not fits:
            self._env.emit(Notice("the saved memory is another machine's (QEMU, CPU or firmware): the disk is booted"))
        elif MACHINE in layer.files and not layer.memory and self._memory_key:
            self._env.emit(Notice("the saved memory is damaged, or a copy of what was saved: the disk is booted"))
        return Base(
            folder=layer.folder,
            drives=layer.drive_bytes,
            steps=layer.index,
            credentials=read_credentials(read_access(layer, self._store), self._env),
            saved=SavedMemory(layer.folder / MACHINE, self._store.ram_of(layer)) if fits else None,
        )

    @property
    def copies(self) -> Copies:
        """Give the compressed copies of the layers' drives."""
        return Copies(self._store.folder, keep=self._use.keep)

    # Writing --------------------------------------------------------------------------------------------------------

    def drive(self, name: str) -> Path:
        """Give a drive's file as it is now."""
        return self._top.folder / f"{name}.qcow2"

    async def make_installed(self, credentials: Credentials, install: Callable[[Path], Awaitable[None]]) -> Base:
        """Let `install` write the drives into a folder that it is given, and keep what it leaves."""
        self._since = self._env.clock.monotonic()
        self._top = top = self._open_top(0, below="")
        await install(top.folder)
        drives = {path.stem: await read_size(path) for path in sorted(top.folder.glob("*.qcow2"))}
        if top.new is not None:
            top.new.write_access(credentials.to_json())
            self._publish(top, drives, memory="")
        return Base(folder=top.folder, drives=drives, steps=0, credentials=credentials)

    @property
    def saves_memory(self) -> bool:
        """Say whether the machine is to be one whose memory can be saved."""
        return bool(self._memory_key)

    def saved_memory(self, base: Base) -> SavedMemory | None:
        """Give the memory that the guest goes on from; None: it boots."""
        return base.saved if self._wakes else None

    def forget_memory(self) -> None:
        """Boot from now on: the saved memory is of no use. What was written since it was loaded is dropped."""
        self._wakes = False

    async def open_drives(self, base: Base) -> dict[str, Path]:
        """Give overlays on `base`'s drives for a machine that starts now, booting or from saved memory."""
        self._since = self._env.clock.monotonic()
        # What has booted is the same layer once more, with its memory.
        boots = self.saved_memory(base) is None
        index = base.steps if boots and self.saves_memory else base.steps + 1
        below = base.folder.name if self._is_kept(base.folder) else ""
        self._top = self._open_top(index, below=below)
        self._drives = base.drives
        overlays = await self._overlay(base.folder, self._top)
        self._prepare_following()
        return overlays

    def keeping(self, machine: QemuMachine) -> Callable[[int], Awaitable[None]]:
        """Give what is to be called with the number of steps done, before the first and after each.

        What a step wrote must have left the guest's cache; of a guest that has only booted, its disk alone is no use.
        """

        async def keep(done: int) -> None:
            if self._top.new is not None and self._top.index == done:
                await self._keep(machine)

        return keep

    async def _keep(self, machine: QemuMachine) -> None:
        """Make a layer of what the guest has written, and let it go on in the next one."""
        assert self._following is not None, "what is kept has drives, and what comes after them"
        top = self._top
        self._top = following = await asyncio.shield(self._following)  # who makes it tells of it, cancelled or not
        async with machine.paused():
            await machine.move_drives({name: self.drive(name) for name in self._drives})
            machine.keep_tpm(top.folder / STATE)
            memory = await self._save_memory(machine, top.folder)
        self._publish(top, self._drives, memory=memory)
        self._prepare_following()
        if following.new is not None:
            await self._try_lock(following.index)
        self._since = self._env.clock.monotonic()

    def _prepare_following(self) -> None:
        """Make what the guest goes on in after the layer that it writes now, meanwhile: qemu-img takes its time."""
        top = self._top
        if top.new is None:
            return
        self._following = prepared = asyncio.get_running_loop().create_future()

        async def prepare() -> None:
            try:
                following = self._open_top(top.index + 1, below=top.folder.name)
                await self._overlay(top.folder, following)
            except (OsimagerError, OSError) as exc:
                prepared.set_exception(exc)
                prepared.exception()  # looked at: a build may end before it needs it
            else:
                prepared.set_result(following)

        self._owners.publishing.create_task(prepare())

    async def _save_memory(self, machine: QemuMachine, folder: Path) -> str:
        """Save the paused guest's memory, and give the key of the machine that it loads into; empty: not saved."""
        if not self._memory_key:
            return ""
        try:
            await machine.save(folder)
        except (MachineError, OSError) as exc:
            self._env.emit(Notice(f"the guest's memory is not kept from here on: {exc}", "warning"))
            self._memory_key = ""
            for name in (MACHINE, MEMORY, CHANGES):
                (folder / name).unlink(missing_ok=True)
        return self._memory_key

    async def _overlay(self, below: Path, top: _Top) -> dict[str, Path]:
        """Make an overlay of each drive in `below`, to which a guest may still write."""
        overlays = {}
        for name, size_bytes in self._drives.items():
            backing = below / f"{name}.qcow2"
            named = name_below(backing, index=top.index) if self._is_kept(top.folder) else backing
            overlays[name] = await create_overlay(top.folder / backing.name, named, size_bytes=size_bytes, is_open=True)
        return overlays

    def _open_top(self, index: int, *, below: str) -> _Top:
        """Open the folder of layer `index`, or one of the workspace where that is not to be kept."""
        if self._use.keep and index < len(self._keys) and (index == 0 or below):
            new = self._owners.held.enter_context(self._store.open_new(self._keys[index], below))
            return _Top(new.folder, index, new)
        self._unkept += 1
        return _Top(make_folder(self._env.workspace / f"drives-{self._unkept}", private=True), index, None)

    def _is_kept(self, folder: Path) -> bool:
        return folder.parent == self._store.folder

    # Keeping --------------------------------------------------------------------------------------------------------

    def _publish(self, top: _Top, drives: Mapping[str, int], *, memory: str) -> None:
        """Publish a layer that nothing writes to any more, beside the build; then others may have it."""
        assert top.new is not None
        step = self._plan.steps[top.index - 1] if top.index else None
        content = Content(
            stage=Stage.INSTALL if step is None else Stage.PROVISION,
            name="installed disk" if step is None else step.name,
            index=top.index,
            target=str(self._plan.target),
            build=self._env.bus.build,
            created=self._env.clock.now(),
            seconds=round(self._env.clock.monotonic() - self._since, 3),
            drive_bytes=drives,
            memory=memory,
        )
        making, self._making = self._making, None
        self._owners.publishing.create_task(self._publish_beside(top.new, content, making))

    async def _publish_beside(self, new: NewLayer, content: Content, making: AsyncExitStack | None) -> None:
        """Publish after the layers below: whoever finds a layer has those that it stands on."""
        try:
            async with self._publishing:
                if self._store.is_published(new.parent):
                    await in_thread(lambda: new.publish(content))
        except (OsimagerError, OSError) as exc:
            self._env.emit(Notice(f"the layer of {content.name} is not kept: {exc}", "warning"))
        finally:
            if making is not None:
                await making.aclose()

    async def _try_lock(self, index: int) -> None:
        """Become the maker of layer `index` unless somebody is: then it is made twice, which harms nobody."""
        making = AsyncExitStack()
        with contextlib.suppress(LockedError):
            await making.enter_async_context(holding(self._lock_of(index), wait=False))
            self._making = await self._owners.locks.enter_async_context(making)
