"""Layers made of small real disks, in this process or in another."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from osimager.build.layers import Content, Layer, LayerStore
from osimager.events import Stage
from osimager.machine.ram import CHANGES, MACHINE, MEMORY
from osimager.paths import Places
from osimager.plan.digests import StageKey

DRIVE = "disk0"
WAY_IN = {"key": "the key", "password": "the password", "password_crypt": "its hash"}
_BEGINNING = datetime(2026, 11, 26, tzinfo=UTC)


def make_digest(number: int) -> str:
    """Give a digest for tests: its number is its first letters."""
    return f"{number:064x}"


def make_content(number: int, *, index: int = 0, memory: str = "") -> Content:
    """Describe a layer; a higher number was made later."""
    return Content(
        stage=Stage.PROVISION if index else Stage.INSTALL,
        name=f"step-{index}" if index else "installed disk",
        index=index,
        target="qemu/local/tiny-1-x86_64",
        build="test",
        created=_BEGINNING + timedelta(seconds=number),
        seconds=1.0,
        drive_bytes={DRIVE: 64 << 10},
        memory=memory,
    )


def make_qcow2(path: Path, *, below: Path | None = None, filled: str = "64k", pattern: int = 0x5A) -> None:
    """Make a disk of 1 MiB whose first `filled` bytes are written."""
    backing = [] if below is None else ["-b", f"../{below.parent.name}/{below.name}", "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, path, "1M"], check=True, timeout=60)
    write = f"write -q -P {pattern} 0 {filled}"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, path], check=True, timeout=60, capture_output=True)


def publish_layer(
    store: LayerStore,
    number: int,
    *,
    on: Layer | None = None,
    memory: str = "",
    changes: bool = False,
    filled: str = "64k",
    inputs: Mapping[str, str] | None = None,
    digest: int | None = None,
    build: str = "test",
    target: str = "qemu/local/tiny-1-x86_64",
    way_in: Mapping[str, str] = WAY_IN,
) -> Layer:
    """Publish a layer of one disk, `on` another; nobody holds it then. `changes`: to the memory of that one."""
    index = 0 if on is None else on.index + 1
    key = StageKey(digest=make_digest(number if digest is None else digest), inputs=inputs or {"schema": "1"})
    with store.open_new(key, "" if on is None else on.folder.name) as new:
        below = None if on is None else on.folder / f"{DRIVE}.qcow2"
        make_qcow2(new.folder / f"{DRIVE}.qcow2", below=below, filled=filled, pattern=number % 255 + 1)
        if on is None:
            new.write_access(way_in)
        if memory:
            (new.folder / MACHINE).write_bytes(b"stream")
            (new.folder / (CHANGES if changes else MEMORY)).write_bytes(b"ram")
        content = make_content(number, index=index, memory=memory)
        return new.publish(dataclasses.replace(content, build=build, target=target))


def find(store: LayerStore, number: int, *, memory: str | None = None) -> Path | None:
    """Give the folder of the layer that a build finds, and let go of it."""
    with ExitStack() as holds:
        found = store.find(make_digest(number), holds, memory=memory)
        return None if found is None else found.folder


def is_readable(layer: Layer) -> bool:
    """Tell whether QEMU reads the layer's disk, chain and all, and finds nothing wrong with it."""
    disk = layer.folder / f"{DRIVE}.qcow2"
    check = subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", disk], timeout=60, check=False)
    read = subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", disk, disk], timeout=60, check=False)
    return (check.returncode, read.returncode) == (0, 0)


_HOLDER = """
import sys
from contextlib import ExitStack
from pathlib import Path
from osimager.build.layers import LayerStore
from osimager.paths import Places

with ExitStack() as holds:
    found = LayerStore(Places.from_environment({"OSIMAGER_HOME": sys.argv[1]})).find(sys.argv[2], holds, memory=None)
    print(found.folder, flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(home: Path, number: int) -> Iterator[subprocess.Popen[str]]:
    """Let another process use a layer while the block runs."""
    argv = [sys.executable, "-c", _HOLDER, str(home), make_digest(number)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip()
        yield process
        process.kill()


def open_store(home: Path) -> LayerStore:
    """Give the store of the home in `home`."""
    return LayerStore(Places.from_environment({"OSIMAGER_HOME": str(home)}))
