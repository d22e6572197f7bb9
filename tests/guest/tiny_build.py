"""A whole build whose installer is a boot sector that says a word and rests: real processes, ports and sockets."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pycdlib

TARGET = "tiny-1"
WORD = "the tiny installer rests"
_SPEC = """\
provides: {dist: tiny, versions: ["1"], arches: [x86_64]}
iso: ./tiny.iso
defs: {build_user: tiny}
installer: {boot: [menu]}
access: {user: tiny}
machine: {memory: 32M, minimum_memory: 32M, cpus: 1, disk_size: 1M}
"""


def _load_tiny() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_project(folder: Path, *, ending: bytes | None = None) -> tuple[str, ...]:
    """Write the project into `folder` and give the words of its build; its guest does `ending` (None: it rests)."""
    tiny = _load_tiny()
    sector = tiny.make_boot_sector(f"{WORD}\r\n", tiny.HANG if ending is None else ending)
    _write_iso(folder / "tiny.iso", sector)
    spec = folder / "specs/tiny/spec.yml"
    spec.parent.mkdir(parents=True)
    spec.write_text(_SPEC)
    words = ("build", TARGET, "--arch", "x86_64", "--accel", "tcg", "--iso", str(folder / "tiny.iso"))
    return (*words, "--project", str(folder), "--no-verify")


def _write_iso(path: Path, sector: bytes) -> None:
    """Write an ISO that BIOS boots without emulation (El Torito 1.0): its image is one sector of a CD."""
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident="TINY")
    image = sector.ljust(2048, b"\0")
    iso.add_fp(io.BytesIO(image), len(image), "/BOOT.;1")
    iso.add_eltorito("/BOOT.;1", bootcatfile="/BOOT.CAT;1", boot_load_size=4)
    iso.write(str(path))
    iso.close()
