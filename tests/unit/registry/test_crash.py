"""A publisher that is killed: the registry loads, no acknowledged image is lost, no record lacks its file."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from osimager.registry.store import Registry

_PUBLISHER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from osimager.arch import Arch, Firmware
from osimager.registry.entry import Entry, IsoRecord
from osimager.registry.names import make_id
from osimager.registry.store import Registry

folder = Path(sys.argv[1])
created = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
registry = Registry.open(folder / "registry.yml")
while True:
    image_id = make_id("debian-12-x86_64", "", created)
    partial = folder / ".partial-image"
    partial.write_text("image")
    entry = Entry(
        id=image_id, target="qemu/local/debian-12-x86_64", profile="", arch=Arch.X86_64, firmware=Firmware.BIOS,
        path=folder / f"{image_id}.qcow2", size_bytes=5, sha256="ab" * 32,
        iso=IsoRecord("made", "cd" * 32, verified=True), created=created,
    )
    print(registry.publish(entry, partial).id, flush=True)
"""


@pytest.mark.parametrize("spins", range(0, 2000, 200))
def test_a_killed_publisher_loses_no_acknowledged_image(tmp_path: Path, spins: int) -> None:
    acknowledged = []
    argv = [sys.executable, "-c", _PUBLISHER, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as publisher:
        assert publisher.stdout is not None
        acknowledged += [publisher.stdout.readline().strip() for _ in range(2)]
        for _ in range(spins):  # another moment for each, without a clock
            (tmp_path / "registry.yml").exists()
        publisher.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in publisher.stdout if line.endswith("\n")]
    entries = {entry.id: entry for entry in Registry.open(tmp_path / "registry.yml").load()}
    assert entries.keys() >= set(acknowledged)
    assert all(entry.path.read_text() == "image" for entry in entries.values())
    latest = list(entries.values())[-1]
    assert Registry.open(tmp_path / "registry.yml").find("debian-12") == latest
