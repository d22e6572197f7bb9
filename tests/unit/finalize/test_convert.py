"""Images by the real qemu-img: content, compression, what is in the way, what is left after a failure or a death."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from osimager.env import Env
from osimager.errors import PublishError
from osimager.events import Event, Progress
from osimager.finalize.convert import image_path, open_image
from osimager.finalize.precompress import precompressing
from osimager.kept import make_folder
from osimager.plan.model import OutputPlan

pytestmark = pytest.mark.needs("qemu-img")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Give an overlay with data in the base and in itself."""
    raw = tmp_path / "raw"
    raw.write_bytes(os.urandom(1 << 20) + b"text " * (1 << 18))
    base, overlay = tmp_path / "base.qcow2", tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, base], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay, "64M"], check=True)
    return overlay


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


async def test_image_stands_alone_compressed_and_is_what_the_report_says(
    disk: Path, env: Env, events: list[Event], tmp_path: Path
) -> None:
    async with open_image(disk, OutputPlan(folder=tmp_path / "new" / "out", stem="image"), env) as image:
        assert image.size_bytes == image.path.stat().st_size < 2 << 20
        assert image.sha256 == hashlib.sha256(image.path.read_bytes()).hexdigest()
        shown = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", image.path]))
        assert "backing-filename" not in shown
        assert shown["format-specific"]["data"]["compression-type"] == "zstd"
        assert shown["virtual-size"] == 64 << 20
        subprocess.run(["qemu-img", "compare", "-q", disk, image.path], check=True)
    told = [event for event in events if isinstance(event, Progress)]
    assert told[-1].done == told[-1].total


async def test_file_in_the_way_is_replaced_only_when_asked(disk: Path, env: Env, tmp_path: Path) -> None:
    output = OutputPlan(folder=tmp_path / "out", stem="image")
    output.folder.mkdir()
    image_path(output).touch()
    with pytest.raises(PublishError, match=r"image\.qcow2 is there already"):
        async with open_image(disk, output, env):
            pass
    async with open_image(disk, OutputPlan(folder=output.folder, stem="image", replace=True), env):
        pass


async def test_broken_disk_leaves_nothing(env: Env, tmp_path: Path) -> None:
    broken = tmp_path / "broken.qcow2"
    broken.write_bytes(b"no image")
    with pytest.raises(PublishError, match=r"cannot read broken\.qcow2"):
        async with open_image(broken, OutputPlan(folder=tmp_path / "out", stem="image"), env):
            pass
    assert _left(tmp_path / "out") == []


class Shelf:
    """finalize.precompress.Shelf in a folder; `asked` are the disks whose copies were not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[str] = []

    def find(self, disk: Path) -> Path | None:
        if (copy := self._folder / disk.name).exists():
            return copy
        self.asked.append(disk.name)
        return None

    def keep(self, disk: Path, copy: Path) -> Path:
        if disk.name == "disk.qcow2":
            return copy
        return copy.rename(make_folder(self._folder) / disk.name)


async def test_what_is_compressed_once_is_taken_over_and_the_image_is_the_same(
    disk: Path, env: Env, tmp_path: Path
) -> None:
    subprocess.run(["qemu-io", "-c", "write -P 7 100k 300k", disk], check=True, capture_output=True)
    shelf = Shelf(tmp_path / "shelf")
    for asked in (["base.qcow2", "disk.qcow2"], ["disk.qcow2"]):
        shelf.asked = []
        async with precompressing(tmp_path / "base.qcow2", env, shelf) as ahead:
            assert await ahead.parts() == [tmp_path / "shelf/base.qcow2"]
            async with open_image(disk, OutputPlan(folder=tmp_path / "out", stem="image"), env, ahead) as image:
                assert image.size_bytes == image.path.stat().st_size
                assert image.sha256 == hashlib.sha256(image.path.read_bytes()).hexdigest()
                subprocess.run(["qemu-img", "compare", "-q", disk, image.path], check=True)
        assert shelf.asked == asked
        assert _left(env.workspace) == []


async def test_what_cannot_be_compressed_ahead_is_compressed_at_the_end(disk: Path, env: Env, tmp_path: Path) -> None:
    async with precompressing(tmp_path / "missing.qcow2", env, Shelf(tmp_path)) as ahead:
        assert await ahead.parts() is None
        async with open_image(disk, OutputPlan(folder=tmp_path / "out", stem="image"), env, ahead) as image:
            subprocess.run(["qemu-img", "compare", "-q", disk, image.path], check=True)


async def test_disk_of_another_origin_is_not_mixed_with_what_is_compressed_ahead(
    disk: Path, env: Env, tmp_path: Path
) -> None:
    other = tmp_path / "other.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", other, "64M"], check=True)
    async with (
        precompressing(other, env, Shelf(tmp_path / "shelf")) as ahead,
        open_image(disk, OutputPlan(folder=tmp_path / "out", stem="image"), env, ahead) as image,
    ):
        subprocess.run(["qemu-img", "compare", "-q", disk, image.path], check=True)


async def test_build_that_ends_early_leaves_nothing_of_what_it_compressed(disk: Path, env: Env, tmp_path: Path) -> None:
    async with precompressing(disk, env, Shelf(tmp_path / "shelf")):
        while not _left(env.workspace):
            await asyncio.sleep(0)
    assert _left(env.workspace) == []


async def test_image_goes_with_the_block_unless_it_got_its_name(disk: Path, env: Env, tmp_path: Path) -> None:
    output = OutputPlan(folder=tmp_path / "out", stem="image")
    async with open_image(disk, output, env) as image:
        assert image.path.name.startswith(".partial-image-")
    assert _left(output.folder) == []
    async with open_image(disk, output, env) as image:
        image.path.rename(output.folder / "image.qcow2")
    assert _left(output.folder) == ["image.qcow2"]


async def test_partial_image_of_a_dead_build_is_swept_and_a_living_ones_stays(
    disk: Path, env: Env, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".partial-dead.qcow2").touch()
    async with (
        open_image(disk, OutputPlan(folder=folder, stem="one"), env) as one,
        open_image(disk, OutputPlan(folder=folder, stem="two"), env),
    ):
        assert one.path.exists()
        assert not (folder / ".partial-dead.qcow2").exists()


async def test_cancel_leaves_nothing(disk: Path, env: Env, tmp_path: Path) -> None:
    output = OutputPlan(folder=tmp_path / "out", stem="image")

    async def write() -> None:
        async with open_image(disk, output, env):
            raise AssertionError("it was cancelled before")

    task = asyncio.ensure_future(write())
    while not _left(output.folder):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _left(output.folder) == []
