"""What scripts.d/base.sh leaves in an image whose root is a logical volume, on a PATH of tools that say their call."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

BASE = Path(__file__).parents[3] / "scripts.d/base.sh"


def grow(folder: Path, filesystem: str, free: int) -> list[str]:
    script = BASE.read_text().split("osimager-grow-root <<'END'\n", 1)[1].split("\nEND\n", 1)[0]
    said = folder / "said"
    answers = {
        "findmnt": f'case "$*" in *FSTYPE*) echo {filesystem} ;; *) echo 0:0 ;; esac',
        "lvs": f'case "$*" in *free*) echo "    {free}" ;; *) echo "  /dev/none3(0)" ;; esac',
    }
    for name in ("findmnt", "lvs", "pvresize", "lvextend", "growpart", "xfs_growfs", "resize2fs", "btrfs"):
        program = folder / name
        say = f'echo {name} "$@" >>{said}'
        program.write_text(f"#!/bin/sh\n{answers.get(name, say)}\n")
        program.chmod(0o755)
    ran = subprocess.run(["/bin/sh", "-c", script], env={"PATH": f"{folder}:/usr/bin:/bin"}, check=False, timeout=30)
    assert ran.returncode == 0
    return said.read_text().splitlines()


@pytest.mark.parametrize(
    ("filesystem", "grown"),
    [
        ("xfs", "xfs_growfs /"),
        ("ext4", "resize2fs /dev/mapper/"),
        ("btrfs", "btrfs filesystem resize max /"),
    ],
)
def test_file_system_is_grown_by_its_own_tool(tmp_path: Path, filesystem: str, grown: str) -> None:
    """Not by fsadm: it takes a root for unmounted whose source is /dev/dm-0, and ended in "Filesystem check failed"."""
    assert grow(tmp_path, filesystem, 256) == ["pvresize /dev/none3", "lvextend -l +100%FREE /dev/mapper/", grown]


def test_file_system_is_grown_where_the_volume_was_already(tmp_path: Path) -> None:
    assert grow(tmp_path, "xfs", 0) == ["pvresize /dev/none3", "xfs_growfs /"]
