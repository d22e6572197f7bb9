"""Images joined without compressing again: the real qemu-img says whether they are sound and the same."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osimager.finalize.qcow2 import Unreadable, join, read_backing

pytestmark = [pytest.mark.needs("qemu-img"), pytest.mark.needs("qemu-io")]

_DISK_BYTES = 600 << 20  # two L2 tables
_WRITES = st.tuples(
    st.sampled_from(("write -P 65", "write -P 66", "write -z", "discard", "noise")),
    st.one_of(st.integers(0, 40), st.integers(8180, 8200)).map(lambda cluster: cluster << 16),
    st.sampled_from((0, 512, 4096)),
    st.sampled_from((512, 65536, 200_704)),
)


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def _compress(disk: Path, target: Path, *options: str) -> Path:
    _run("qemu-img", "convert", "-O", "qcow2", "-c", "-o", ",".join(("compression_type=zstd", *options)), disk, target)
    return target


def _make_overlay(folder: Path, name: str, backing: Path | None, size_bytes: int = _DISK_BYTES) -> Path:
    under = [] if backing is None else ["-b", backing, "-F", "qcow2"]
    _run("qemu-img", "create", "-q", "-f", "qcow2", *under, folder / name, size_bytes)
    return folder / name


def _write(disk: Path, writes: list[tuple[str, int, int, int]], noise: Path) -> None:
    commands = [
        f"{f'write -s {noise}' if how == 'noise' else how} {at + more} {size}" for how, at, more, size in writes
    ]
    _run("qemu-io", *(word for command in commands for word in ("-c", command)), disk)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(_WRITES, min_size=1, max_size=8), min_size=1, max_size=4))
def test_joined_image_is_sound_and_holds_what_the_overlays_hold(layers: list[list[tuple[str, int, int, int]]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        noise = folder / "noise"
        noise.write_bytes(hashlib.shake_256(b"noise").digest(1 << 20))  # no compressor makes it smaller
        disk: Path | None = None
        parts = []
        for number, writes in enumerate(layers):
            below, disk = disk, _make_overlay(folder, f"disk-{number}", disk)
            _write(disk, writes, noise)
            options = () if below is None else (f"backing_file={below}", "backing_fmt=qcow2")
            parts.append(_compress(disk, folder / f"part-{number}", *options))
        assert disk is not None
        size_bytes, sha256 = join(parts, folder / "joined")
        raw = (folder / "joined").read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (size_bytes, sha256)
        _run("qemu-img", "check", "-q", folder / "joined")
        _run("qemu-img", "compare", "-q", disk, folder / "joined")
        assert read_backing(folder / "joined") is None


def test_nothing_of_what_an_overlay_replaces_is_in_the_image(tmp_path: Path) -> None:
    """Compressed clusters share sectors: the neighbour's bytes must not come along."""
    disk = _make_overlay(tmp_path, "base", None)
    secret = hashlib.shake_256(b"secret").hexdigest(3000).encode()  # half of it is left when it is compressed
    for number in range(30):
        (tmp_path / "text").write_bytes(secret[number * 100 :] + b"x" * 65536)
        _run("qemu-io", "-c", f"write -s {tmp_path / 'text'} {number << 16} 65536", disk)
    over = _make_overlay(tmp_path, "over", disk)
    _run("qemu-io", *(word for at in range(0, 30, 2) for word in ("-c", f"write -z {at << 16} 65536")), over)
    base = _compress(disk, tmp_path / "part-0")
    parts = [base, _compress(over, tmp_path / "part-1", f"backing_file={disk}", "backing_fmt=qcow2")]
    size_bytes, _ = join(parts, tmp_path / "joined")
    alone, _ = join([_compress(over, tmp_path / "alone")], tmp_path / "same")
    # Only the end of a file is rounded up to a sector: the 14 neighbours' ends would be some 3,500 bytes.
    assert abs(size_bytes - alone) <= 512
    _run("qemu-img", "compare", "-q", over, tmp_path / "joined")


def test_overlay_may_be_larger_than_what_it_stands_on(tmp_path: Path) -> None:
    base = _make_overlay(tmp_path, "base", None, 1 << 20)
    over = _make_overlay(tmp_path, "over", base, 5 << 29)
    _run("qemu-io", "-c", "write -P 1 2G 64k", over)
    parts = [
        _compress(base, tmp_path / "part-0"),
        _compress(over, tmp_path / "part-1", f"backing_file={base}", "backing_fmt=qcow2"),
    ]
    join(parts, tmp_path / "joined")
    _run("qemu-img", "check", "-q", tmp_path / "joined")
    _run("qemu-img", "compare", "-q", over, tmp_path / "joined")


@pytest.mark.parametrize(
    "options", ["cluster_size=4k", "compat=0.10", "extended_l2=on", "lazy_refcounts=on,data_file=outside"]
)
def test_other_kinds_of_qcow2_are_refused(options: str, tmp_path: Path) -> None:
    options = options.replace("outside", str(tmp_path / "outside"))
    _run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, tmp_path / "disk", "10M")
    with pytest.raises(Unreadable):
        join([tmp_path / "disk"], tmp_path / "joined")


@pytest.mark.parametrize("cut", [0, 3, 111, 65536, 131080])
def test_file_that_is_cut_off_is_refused(cut: int, tmp_path: Path) -> None:
    disk = _make_overlay(tmp_path, "disk", None)
    _run("qemu-io", "-c", "write -P 1 0 64k", disk)
    part = _compress(disk, tmp_path / "part")
    part.write_bytes(part.read_bytes()[:cut])
    with pytest.raises(Unreadable):
        join([part], tmp_path / "joined")
