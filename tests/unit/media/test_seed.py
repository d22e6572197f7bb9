"""Seed ISOs: names, label, permissions, and the same bytes for the same files."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.errors import ConfigError
from osimager.media.iso9660 import open_iso
from osimager.media.seed import make_seed

FILES = {"ks.cfg": b"text\n", "user-data": b"#cloud-config\n", "meta-data": b"", "a/b/Mixed.Case~1": b"x" * 5000}


@pytest.mark.parametrize("label", ["OEMDRV", "CIDATA", "cidata", "a label of more than sixteen"])
def test_names_and_contents_come_back_as_they_went_in(tmp_path: Path, label: str) -> None:
    path = tmp_path / "seed.iso"
    make_seed(path, label, FILES)
    with open_iso(path) as iso:
        assert iso.volume.volume_id == label
        assert {name: iso.files.read(f"/{name}", limit_bytes=1 << 20) for name in FILES} == FILES
        assert sorted(iso.files.paths()) == sorted(f"/{name}" for name in FILES)


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    make_seed(tmp_path / "seed.iso", "OEMDRV", FILES)
    assert stat.S_IMODE((tmp_path / "seed.iso").stat().st_mode) == 0o600


def test_the_same_files_give_the_same_bytes_whatever_the_clock_and_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_seed(tmp_path / "a.iso", "OEMDRV", FILES)
    monkeypatch.setattr("time.time", lambda: 1_900_000_000.0)
    make_seed(tmp_path / "b.iso", "OEMDRV", dict(reversed(FILES.items())))
    assert (tmp_path / "a.iso").read_bytes() == (tmp_path / "b.iso").read_bytes()


@pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed")
def test_another_implementation_reads_it(tmp_path: Path) -> None:
    make_seed(tmp_path / "seed.iso", "OEMDRV", FILES)
    argv = ["xorriso", "-osirrox", "on", "-indev", str(tmp_path / "seed.iso"), "-extract", "/", str(tmp_path / "out")]
    subprocess.run(argv, check=True, capture_output=True)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == FILES


@pytest.mark.needs("busybox")
def test_busybox_finds_even_the_smallest_by_its_label(tmp_path: Path) -> None:
    make_seed(tmp_path / "seed.iso", "CIDATA", {"x": b""})
    done = subprocess.run(["busybox", "blkid", str(tmp_path / "seed.iso")], check=True, capture_output=True, text=True)
    assert 'LABEL="CIDATA" TYPE="iso9660"' in done.stdout


@pytest.mark.parametrize("label", ["", "x" * 33, "é", "a\nb"])
def test_a_label_that_cannot_be_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(ConfigError, match="volume label"):
        make_seed(tmp_path / "seed.iso", label, FILES)


@pytest.mark.parametrize("name", ["", "/ks.cfg", "../ks.cfg", "a//b", "a/./b", "x" * 101, "a/b/c/d/e/f/g/h", "a\0"])
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a file's name"):
        make_seed(tmp_path / "seed.iso", "OEMDRV", {name: b""})


def test_a_file_cannot_be_a_folder_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a file itself"):
        make_seed(tmp_path / "seed.iso", "OEMDRV", {"a": b"", "a/b": b""})


NAMES = st.from_regex(r"[A-Za-z0-9._ +~äß漢-]{1,30}", fullmatch=True).filter(lambda name: name not in (".", ".."))


@given(st.dictionaries(NAMES, st.binary(max_size=3000), max_size=12))
def test_any_files_come_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.iso"
    if len({name.lower() for name in files}) < len(files):
        return
    make_seed(path, "CIDATA", files)
    with open_iso(path) as iso:
        assert {name: iso.files.read(f"/{name}", limit_bytes=1 << 20) for name in files} == files
