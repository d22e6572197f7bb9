"""Compressed copies beside the drives of layers: found while they are whole, and never a part of the layer."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from osimager.build.copies import Copies
from osimager.build.layers import LayerStore
from osimager.env import Env
from tests.unit.build.layer_lab import make_digest, publish_layer

pytestmark = pytest.mark.needs("qemu-img", "qemu-io")


@pytest.fixture
def drive(env: Env) -> Path:
    """Give the drive of a published layer."""
    [drive] = publish_layer(LayerStore(env.places), 1).drives.values()
    return drive


def keep(copies: Copies, drive: Path, folder: Path) -> Path:
    (made := folder / "made").write_bytes(b"compressed")
    return copies.keep(drive, made)


def test_copy_is_found_again_beside_the_drive_and_nobody_else_can_read_it(
    drive: Path, env: Env, tmp_path: Path
) -> None:
    copies = Copies(env.places.layers, keep=True)
    assert copies.find(drive) is None
    kept = keep(copies, drive, tmp_path)
    assert kept.parent == drive.parent
    assert kept.stat().st_mode & 0o777 == 0o600
    assert copies.find(drive) == kept
    assert kept.read_bytes() == b"compressed"


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "record"])
def test_damaged_copy_is_not_found_and_is_made_anew(damage: str, drive: Path, env: Env, tmp_path: Path) -> None:
    copies = Copies(env.places.layers, keep=True)
    kept = keep(copies, drive, tmp_path)
    match damage:
        case "cut":
            kept.write_bytes(b"compr")
        case "changed":
            kept.write_bytes(b"Compressed")
        case "gone":
            kept.unlink()
        case "record":
            kept.with_name(f"{kept.name}.json").write_text("{")
    assert copies.find(drive) is None
    assert copies.find(drive) is None
    assert keep(copies, drive, tmp_path) == copies.find(drive)


def test_layer_is_whole_with_a_copy_and_without_and_the_copy_counts(drive: Path, env: Env, tmp_path: Path) -> None:
    store = LayerStore(env.places)
    [before] = store.load()
    size_bytes = before.size_bytes
    kept = keep(Copies(env.places.layers, keep=True), drive, tmp_path)
    for _ in range(2):
        with ExitStack() as holds:
            found = store.find(make_digest(1), holds, memory=None)
            assert found is not None
            assert all(kept.name not in name for name in found.files)
        assert store.load()[0].size_bytes > size_bytes  # its record stays
        kept.unlink(missing_ok=True)


def test_what_is_no_layers_is_left_where_it_is(drive: Path, env: Env, tmp_path: Path) -> None:
    outside = tmp_path / "disk0.qcow2"
    assert keep(Copies(env.places.layers, keep=True), outside, tmp_path) == tmp_path / "made"
    assert keep(Copies(env.places.layers, keep=False), drive, tmp_path) == tmp_path / "made"
    assert Copies(env.places.layers, keep=True).find(drive) is None
