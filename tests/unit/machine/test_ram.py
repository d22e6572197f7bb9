"""A guest's RAM: what is saved of it is what is loaded, and no more is written than has changed."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.machine.ram import CHANGES, MEMORY, GuestRam

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd: QEMU saves the RAM")
SIZE_MIB, PAGE = 4, 4096
PAGES = SIZE_MIB * 256
SAVE = None
# What a guest does: it fills a page with a byte (0 too: a page that was freed and cleared), or is saved.
ACTS = st.lists(st.one_of(st.just(SAVE), st.tuples(st.integers(0, PAGES - 1), st.integers(0, 255))), max_size=40)


@contextlib.contextmanager
def opened() -> Iterator[GuestRam]:
    ram = GuestRam(SIZE_MIB)
    try:
        yield ram
    finally:
        ram.close()


def fill(ram: GuestRam, page: int, byte: int, *, at: int = 0, length: int = PAGE) -> None:
    os.pwrite(ram.handle, bytes([byte]) * length, page * PAGE + at)


def read(ram: GuestRam) -> bytes:
    return os.pread(ram.handle, SIZE_MIB << 20, 0)


def save(ram: GuestRam, parent: Path, number: int) -> Path:
    folder = parent / str(number)
    folder.mkdir()
    ram.save(folder)
    (file,) = folder.iterdir()
    return file


@given(ACTS, ACTS)
def test_what_was_saved_is_loaded_whatever_was_written_meanwhile(
    before: list[tuple[int, int] | None], after: list[tuple[int, int] | None]
) -> None:
    """Also where a guest goes on from what was loaded, and is saved again."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        files: list[Path] = []
        content = b""
        for acts in (before, after):
            ram = stack.enter_context(opened())
            if files:
                ram.load(files)
                assert read(ram) == content
            for act in [*acts, SAVE]:
                if act is not SAVE:
                    fill(ram, *act)
                else:
                    files.append(save(ram, Path(name), len(files)))
            content = read(ram)
        last = stack.enter_context(opened())
        last.load(files)
        assert read(last) == content
        assert [file.name for file in files] == [MEMORY] + [CHANGES] * (len(files) - 1)


def test_a_later_save_is_what_has_changed_since(tmp_path: Path) -> None:
    with opened() as ram:
        for page in range(0, PAGES, 2):
            fill(ram, page, 1)
        whole = save(ram, tmp_path, 0)
        fill(ram, 2, 1)  # the same once more
        fill(ram, 4, 2, at=17, length=1)
        fill(ram, PAGES - 1, 3)
        changes = save(ram, tmp_path, 1)
        again = save(ram, tmp_path, 2)
    assert whole.stat().st_size == SIZE_MIB << 20
    assert [len(file.read_bytes()) // PAGE for file in (changes, again)] == [2, 0]
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in (whole, changes))


def test_save_that_failed_is_followed_by_a_whole_one(tmp_path: Path) -> None:
    with opened() as ram:
        fill(ram, 1, 1)
        save(ram, tmp_path, 0)
        fill(ram, 2, 2)
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / CHANGES).touch()
        with pytest.raises(FileExistsError):
            ram.save(tmp_path / "taken")
        whole = save(ram, tmp_path, 1)
        with opened() as other:
            other.load([whole])
            assert read(other) == read(ram)


@pytest.mark.parametrize("name", [MEMORY, CHANGES])
def test_save_that_finds_no_room_is_an_error_and_takes_none(tmp_path: Path, name: str) -> None:
    with opened() as ram:
        if name == CHANGES:
            save(ram, tmp_path, 0)
        for page in range(PAGES):
            fill(ram, page, 7)
        (tmp_path / "full").mkdir()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20 if name == CHANGES else PAGE, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                ram.save(tmp_path / "full")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / "full" / name).stat().st_blocks == 0
