"""`osimager build` shows the answers to their validators before it boots anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from osimager.media.seed import make_seed
from osimager.paths import Places
from tests.unit.cli.conftest import Run

SPEC = """
provides: {dist: web, versions: ["1"], arches: [x86_64]}
installer:
  format: preseed
  boot: [direct]
  kernel_arguments: ["url=>>answer_url<</web.cfg"]
files: [{dest: web.cfg, sources: [web.cfg]}]
"""


@pytest.mark.needs("debconf-set-selections", "qemu-system-x86_64")
def test_a_wrong_answer_ends_the_build_at_seed_with_the_status_of_configuration(
    run: Run, project: Path, write: Callable[[str, str], Path], tmp_path: Path, places: Places
) -> None:
    write("specs/web/spec.yml", SPEC)
    write("files/web.cfg", "d-i netcfg/get_hostname string a\nd-i clock-setup/utc boolean yes\n")
    iso = tmp_path / "web.iso"
    make_seed(iso, "WEB", {"isolinux.cfg": b"label a\nkernel k\n", "k": b"kernel"})
    said = run("build", "web-1", "--iso", iso, "--project", project)
    assert (said.status, said.out) == (3, "")
    assert "clock-setup/utc must be true or false" in said.err
    assert "web.cfg:2" in said.err
    assert "SEED" in said.err
    assert "INSTALL" not in said.err
