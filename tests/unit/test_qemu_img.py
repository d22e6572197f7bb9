"""Disk files as qemu-img makes them, and what is said where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from osimager.errors import PrerequisiteError
from osimager.qemu_img import create_disk, create_overlay, read_size

pytestmark = pytest.mark.needs("qemu-img")


async def test_an_overlay_is_of_its_disks_size_or_larger(tmp_path: Path) -> None:
    disk = await create_disk(tmp_path / "disk.qcow2", 1 << 20)
    assert await read_size(await create_overlay(tmp_path / "same.qcow2", disk)) == 1 << 20
    assert await read_size(await create_overlay(tmp_path / "more.qcow2", disk, size_bytes=1 << 21)) == 1 << 21


async def test_a_disk_that_cannot_be_made_is_this_hosts_lack(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"cannot make the disk .*none/disk\.qcow2.*No such file"):
        await create_disk(tmp_path / "none/disk.qcow2", 1 << 20)
    with pytest.raises(PrerequisiteError, match=r"gone\.qcow2") as caught:
        await create_overlay(tmp_path / "over.qcow2", tmp_path / "gone.qcow2")
    assert "there and whole" in str(caught.value.hint)
