"""What is on a guest's disk: every file of its file systems, without booting it. Needs root, for loop devices."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def list_files(image: Path, folder: Path) -> dict[str, str]:
    """Give each file of an image by its name (the partition's number first), and all that it is, as a text."""
    raw = folder / "image.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True, timeout=600)
    found: dict[str, str] = {}
    for number, (start, size) in enumerate(read_partitions(raw), start=1):
        with mounted(raw, start, size, folder) as root:
            if root is not None:
                found |= {f"{number}:{name}": said for name, said in walk(root)}
    raw.unlink()
    return found


def read_partitions(raw: Path) -> list[tuple[int, int]]:
    """Give where each partition begins and its size, in bytes."""
    argv = ["sfdisk", "--json", str(raw)]
    table = json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout)["partitiontable"]
    return [(part["start"] * 512, part["size"] * 512) for part in table["partitions"]]


@contextmanager
def mounted(raw: Path, start: int, size: int, folder: Path) -> Iterator[Path | None]:
    """Mount a partition read-only; None where it holds no file system that this kernel knows."""
    root = folder / "mounted"
    root.mkdir(exist_ok=True)
    options = f"ro,noload,loop,offset={start},sizelimit={size}"
    argv = ["mount", "-o", options, str(raw), str(root)]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    if done.returncode != 0:
        argv[2] = options.replace("noload,", "")  # an option of ext4 only
        done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    if done.returncode != 0:
        yield None
        return
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True, timeout=60)


def walk(root: Path) -> Iterator[tuple[str, str]]:
    """Give each file under `root` with its kind, mode, owner and content."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            yield f"/{path.relative_to(root)}", describe(path)


def describe(path: Path) -> str:
    """Say what a file is, but for its times."""
    about = path.lstat()
    said = f"{stat.filemode(about.st_mode)} {about.st_uid}:{about.st_gid}"
    if stat.S_ISLNK(about.st_mode):
        return f"{said} -> {os.readlink(path)}"  # noqa: PTH115  a target's text, not a path of this host
    if stat.S_ISREG(about.st_mode):
        with path.open("rb") as file:
            return f"{said} {about.st_size} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return said


def list_differences(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Give the files that differ, with what each is here and there (empty: it is not)."""
    return {
        name: (one.get(name, ""), other.get(name, ""))
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    }
