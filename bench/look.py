"""What stands in an image's files, read off its disk without booting it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

SECTOR_BYTES = 512


def find_differences(image: Path, expected: Mapping[str, str], work: Path) -> list[str]:
    """Say which of the `expected` files (path -> its text) are not so in the image's last partition, an ext4."""
    raw = work / "look.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    try:
        table = json.loads(_output("sfdisk", "--json", str(raw)))["partitiontable"]["partitions"]
        start = max(partition["start"] for partition in table) * SECTOR_BYTES
        found = {path: _output("debugfs", "-R", f"cat {path}", f"{raw}?offset={start}").strip() for path in expected}
    finally:
        raw.unlink()
    return [f"{path} is {found[path]!r}, not {text!r}" for path, text in expected.items() if found[path] != text]


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
