"""A whole build whose installer is a boot sector that says a word and rests: real processes, ports and sockets."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pycdlib

from osimager.build.layers import LayerStore
from osimager.paths import Places
from tests.guest.lab import find_processes, run

TARGET = "tiny-1"
WORD = "the tiny installer rests"
_SPEC = """\
provides: {dist: tiny, versions: ["1"], arches: [x86_64]}
iso: ./tiny.iso
defs: {build_user: tiny}
installer: {boot: [menu]}
access: {user: tiny}
machine: {memory: 32M, minimum_memory: 32M, cpus: 1, disk_size: 4M}
"""
_SERVED = (
    _SPEC.replace(
        "boot: [menu]", 'boot: [typed], boot_command: ["%>answer_url<%/answers"], boot_wait: 1h, format: shell'
    )
    + "files: [{dest: answers, sources: [answers]}]\n"
)


def load_tiny() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_project(folder: Path, *, ending: bytes | None = None, serve: bool = False) -> tuple[str, ...]:
    """Write the project into `folder` and give the words of its build; its guest does `ending` (None: it rests).

    `serve`: an answer file is offered, which this guest never asks for. No build waits for a layer.
    """
    tiny = load_tiny()
    sector = tiny.make_boot_sector(f"{WORD}\r\n", tiny.HANG if ending is None else ending)
    _write_iso(folder / "tiny.iso", sector)
    spec = folder / "specs/tiny/spec.yml"
    spec.parent.mkdir(parents=True)
    spec.write_text(_SERVED if serve else _SPEC)
    (folder / "files").mkdir()
    (folder / "files/answers").write_text("nothing\n")
    words = ("build", TARGET, "--arch", "x86_64", "--accel", "tcg", "--iso", str(folder / "tiny.iso"))
    return (*words, "--project", str(folder), "--no-verify", "--force")


def _write_iso(path: Path, sector: bytes) -> None:
    """Write an ISO that BIOS boots without emulation (El Torito 1.0): its image is one sector of a CD."""
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident="TINY")
    image = sector.ljust(2048, b"\0")
    iso.add_fp(io.BytesIO(image), len(image), "/BOOT.;1")
    iso.add_eltorito("/BOOT.;1", bootcatfile="/BOOT.CAT;1", boot_load_size=4)
    iso.write(str(path))
    iso.close()


@dataclass(frozen=True)
class Site:
    """A home of the test's own, and the words of a build whose installer is the boot sector."""

    home: Path
    words: tuple[str, ...]

    @property
    def runtime(self) -> Path:
        """The folder of the sockets."""
        return Places.from_environment({"OSIMAGER_HOME": str(self.home)}).runtime

    def find(self) -> list[int]:
        """Give every process that names this site: runners by their ISO, guests by their disk."""
        return find_processes(str(self.home.parent))

    def builds(self, *words: str) -> list[dict[str, Any]]:
        """Give what `osimager ps` lists."""
        listed: list[dict[str, Any]] = json.loads(run("ps", "--json", *words, home=self.home).out)
        return listed

    def assert_swept(self) -> None:
        """Fail where a build left a workspace, a socket or half a file."""
        assert list((self.home / "cache/work").iterdir()) == []
        assert list(self.runtime.iterdir()) == []
        assert list(self.home.rglob(".partial-*")) == []
        assert LayerStore(Places.from_environment({"OSIMAGER_HOME": str(self.home)})).sweep() == []


@contextmanager
def open_site(folder: Path, ending: bytes | None = None) -> Iterator[Site]:
    """Give a site in `folder`; no process of it outlives the block."""
    project = folder / "project"
    project.mkdir()
    site = Site(folder / "home", make_project(project, ending=ending))
    try:
        yield site
    finally:
        for pid in site.find():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            site.runtime.rmdir()


def is_up(event: dict[str, Any]) -> bool:
    """Say whether the guest has said its word."""
    return (event["kind"], event.get("source")) == ("output_line", "serial")


def is_machine(event: dict[str, Any]) -> bool:
    """Say whether a QEMU was started."""
    return str(event["kind"]) == "machine_started"


def is_guest(pid: int) -> bool:
    """Say whether a process is a QEMU."""
    return read_words(pid)[0].endswith("qemu-system-x86_64")


def read_words(pid: int) -> list[str]:
    """Give a process's command line, one empty word where it has none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return [""]
