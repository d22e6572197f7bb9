"""Files that are kept, under a kill, a full disk, and two owners of one lock."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.env import Env
from osimager.errors import LockedError, PrerequisiteError
from osimager.kept import PARTIAL_PREFIX, holding, locked, make_folder, publishing, write_kept
from osimager.media.fetch import fetch
from osimager.plan.model import MediaPlan
from tests.unit.media.hostile import iso_of, serving

OLD, NEW = b"old" * 10_000, b"new" * 1_000_000

_WRITER = """
import sys
from pathlib import Path
from osimager.kept import write_kept

path, content = Path(sys.argv[1]), b"new" * 1_000_000
print("ready", flush=True)
while True:
    write_kept(path, content)
"""


def list_partials(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(PARTIAL_PREFIX)]


def test_a_file_is_replaced_whole_with_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file"
    write_kept(path, OLD)
    write_kept(path, "text", mode=0o600)
    assert path.read_text() == "text"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["file"]  # noqa: PTH208


@pytest.mark.parametrize("kill_after", range(10))
def test_a_killed_writer_leaves_the_old_file_or_the_new(tmp_path: Path, kill_after: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(kill_after * 7):  # another moment for each, without a clock
            assert path.read_bytes() in (OLD, NEW)
        writer.send_signal(signal.SIGKILL)
    assert path.read_bytes() in (OLD, NEW)
    assert len(list_partials(tmp_path)) <= 1


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file of this process grow past 64 KiB: a write fails with EFBIG, as on a full disk with ENOSPC."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "file"
    write_kept(path, OLD)
    with pytest.raises(PrerequisiteError, match="cannot write") as caught:
        write_kept(path, NEW)
    assert "free some space" in str(caught.value.hint)
    assert path.read_bytes() == OLD
    assert list_partials(tmp_path) == []


async def test_a_download_that_fills_the_disk_is_told_as_that(env: Env, small_files: None) -> None:
    content = iso_of(1 << 20)
    async with serving(content) as server:
        media = MediaPlan(name="x", filename="x.iso", urls=(f"{server.url}/x.iso",), sha256="0" * 64)
        with pytest.raises(PrerequisiteError, match=r"cannot write .*: File too large") as caught:
            await fetch(media, env, arch=Arch.X86_64)
    assert (caught.value.cause, "free some space" in str(caught.value.hint)) == ("host-disk-full", True)


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no right to mount a tmpfs on this host")
    try:
        write_kept(disk / "file", OLD)
        with pytest.raises(PrerequisiteError, match="No space left"):
            write_kept(disk / "file", NEW)
        assert (disk / "file").read_bytes() == OLD
        assert list_partials(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("error", [TimeoutError("the deadline"), ConnectionResetError("the mirror"), ValueError("bad")])
def test_the_blocks_own_errors_pass_and_leave_nothing(tmp_path: Path, error: Exception) -> None:
    def write_half() -> None:
        with publishing(tmp_path / "file") as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(type(error), match=str(error)):
        write_half()
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize("blocker", ["file", "unwritable"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, blocker: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "sub" if blocker == "file" else Path("/proc/sub")
    for use in (
        lambda: write_kept(folder / "x", ""),
        lambda: make_folder(folder),
        lambda: locked(folder / "x").__enter__(),
    ):
        with pytest.raises(PrerequisiteError, match=str(folder)):
            use()


def test_a_private_folder_that_others_could_read_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o755)
    make_folder(folder, private=True)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
@pytest.mark.parametrize("as_link", [False, True])
def test_a_private_folder_that_another_user_made_first_is_refused(tmp_path: Path, as_link: bool) -> None:
    tmp_path.chmod(0o1777)
    folder = tmp_path / "private"
    if as_link:
        (tmp_path / "mine").mkdir()
        folder.symlink_to(tmp_path / "mine")
    else:
        folder.mkdir()
    os.chown(folder, 12345, 12345, follow_symlinks=False)
    with pytest.raises(PrerequisiteError, match="another user"):
        make_folder(folder, private=True)


# Locks ----------------------------------------------------------------------------------------------------------------

_HOLDER = """
import sys
from pathlib import Path
from osimager.kept import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", _HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


async def test_a_lock_that_is_held_is_said_so_where_waiting_was_not_wanted(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(LockedError) as caught:
        async with holding(tmp_path / "lock", wait=False):
            pass
    assert caught.value.status == 75


async def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    told = []

    def end_holder() -> None:
        told.append("waiting")
        holder.kill()

    async with asyncio.timeout(60), holding(tmp_path / "lock", on_wait=end_holder):
        pass
    assert told == ["waiting"]


async def test_two_tasks_of_one_process_exclude_each_other_and_a_cancel_gives_the_lock_back(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def second() -> None:
        async with holding(tmp_path / "lock", on_wait=waiting.set):
            pytest.fail("both held it")

    async with holding(tmp_path / "lock"):
        task = asyncio.ensure_future(second())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with holding(tmp_path / "lock", wait=False):
        pass
