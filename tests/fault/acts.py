"""What is cut short at each of its system calls: forked, with everything loaded, from one process that serves tests.

`python -m tests.fault.acts` reads lines `ACT HOME`, forks, and says the child's process id; the child stops itself
before its first system call that counts, and goes on with SIGCONT. What it has been promised is in HOME/promised.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import filelock  # noqa: F401  loaded before the fork, not after it

from osimager.arch import Arch, Firmware
from osimager.build.layers import Content, Layer, LayerStore
from osimager.errors import OsimagerError
from osimager.events import Stage
from osimager.machine.ram import CHANGES, MACHINE, MEMORY
from osimager.paths import Places
from osimager.plan.digests import StageKey
from osimager.registry.entry import Entry, IsoRecord
from osimager.registry.store import Registry

DISK = "disk0.qcow2"
NOW = datetime(2026, 11, 26, tzinfo=UTC)
REFUSED = 9  # the status of an act that was refused by an error of ours, and said so
FULL_DISK_CALLS = ("write", "pwrite64", "fsync", "fchmod", "mkdir", "rename", "renameat", "renameat2", "ftruncate")


def places_of(home: Path) -> Places:
    """Give the folders under `home`."""
    return Places.from_environment({"OSIMAGER_HOME": str(home)})


def digest_of(number: int) -> str:
    """Give the digest of a layer by its number."""
    return f"{number:064x}"


def content_of(number: int) -> bytes:
    """Give what is on the disk of a layer: more than one write's worth."""
    return bytes([number]) * (300 << 10)


def make_layer(home: Path, number: int, *, on: Layer | None = None, memory: str = "") -> Layer:
    """Publish a layer."""
    store = LayerStore(places_of(home))
    key = StageKey(digest=digest_of(number), inputs={"schema": "1"})
    with store.open_new(key, "" if on is None else on.folder.name) as new:
        (new.folder / DISK).write_bytes(content_of(number))
        if on is None:
            new.write_access({"key": "the key", "password": "the password", "password_crypt": "its hash"})
        if memory:
            (new.folder / MACHINE).write_bytes(b"stream" * 1000)
            (new.folder / (CHANGES if on and on.memory else MEMORY)).write_bytes(b"ram" * 10_000)
        return new.publish(
            Content(
                stage=Stage.PROVISION if on else Stage.INSTALL,
                name=f"step-{number}",
                index=0 if on is None else on.index + 1,
                target="qemu/local/tiny-1-x86_64",
                build="test",
                created=NOW,
                seconds=1.0,
                drive_bytes={DISK.removesuffix(".qcow2"): 64 << 10},
                memory=memory,
            )
        )


def record_image(home: Path, number: int, *, replace: bool = False) -> Entry:
    """Publish an image of one byte's repetition in the registry."""
    places = places_of(home)
    places.images.mkdir(parents=True, exist_ok=True)
    partial = places.images / f".partial-image-{number}-{os.getpid()}.qcow2"
    partial.write_bytes(content_of(number))
    name = "tiny" if replace else f"tiny-{number}"
    entry = Entry(
        id=f"tiny-1-x86_64-{number}",
        target="qemu/local/tiny-1-x86_64",
        profile="",
        arch=Arch.X86_64,
        firmware=Firmware.BIOS,
        path=places.images / f"{name}.qcow2",
        size_bytes=partial.stat().st_size,
        sha256="ab" * 32,
        iso=IsoRecord("tiny", "cd" * 32, verified=True),
        created=NOW,
        label=str(number),
    )
    return Registry.open(places.registry).publish(entry, partial, replace=replace)


def find_layer(home: Path, number: int, holds: ExitStack) -> Layer | None:
    """Find a layer as a build does."""
    return LayerStore(places_of(home)).find(digest_of(number), holds, memory="m")


def _act(name: str, home: Path) -> str:
    """Do it, and give what is promised from then on."""
    match name:
        case "install":
            return f"layer {make_layer(home, 2).index}"
        case "step" | "warm-step":
            with ExitStack() as holds:
                below = find_layer(home, 1, holds)
                assert below is not None
                make_layer(home, 2, on=below, memory="m" if name == "warm-step" else "")
                return "layer"
        case "collect":
            LayerStore(places_of(home)).gc(0)
            return ""
        case "image":
            return f"image {record_image(home, 2).id}"
        case "replace":
            return f"image {record_image(home, 2, replace=True).id}"
    raise AssertionError(name)


def _run(name: str, home: Path) -> int:
    os.kill(os.getpid(), signal.SIGSTOP)
    try:
        (home / "promised").write_text(_act(name, home))
    except (OsimagerError, OSError):
        return REFUSED
    return 0


def serve() -> None:
    """Fork a child for each line, and say its id, then its status."""
    for line in sys.stdin:
        name, home = line.split()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = _run(name, Path(home))
            finally:
                os._exit(status)
        os.waitpid(pid, os.WUNTRACED)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
