"""A data tree of OSImager 1.11.1 builds an image: its kickstart, its boot command, its Ansible playbook, as they are.

`OSIMAGER_PEER` names a virtual environment with `osimager==1.11.1` in it; the ISO is the test installer's.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from tests.guest.lab import run
from tests.guest.test_el import open_shelf, said
from tests.installers.media import TOOLS

PEER = os.environ.get("OSIMAGER_PEER", "")
pytestmark = [
    pytest.mark.guest,
    pytest.mark.full,
    pytest.mark.needs(*TOOLS, "ansible-playbook"),
    pytest.mark.skipif(not PEER, reason="OSIMAGER_PEER names no virtual environment with OSImager 1.11.1"),
]
# The first file is the playbook's, of what it was told; the second its last task's; the banner is put there by it too.
LOOK = """#!/bin/sh
cat /build; echo
cat /install_complete; echo
cat "/sys/dev/block/$(mountpoint -d /)/dm/name"
grep -m 1 . /etc/issue
"""


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_rhel_of_the_old_tree_is_installed_and_its_playbook_runs(tmp_path: Path, firmware: str) -> None:
    [tree] = Path(PEER).glob("lib/python3*/site-packages/osimager/data")
    shelf = open_shelf(tmp_path / "project", "rhel-9.5")
    home = tmp_path / "home"
    secrets = home / "config/secrets"
    secrets.parent.mkdir(parents=True)
    secrets.touch(0o600)
    secrets.write_text("images/linux username=root password=Ch@ng3m3\n")
    look = tmp_path / "look.sh"
    look.write_text(LOOK)
    ran = run(
        "build", "rhel-9.5", "--arch", "x86_64", "--firmware", firmware, "--data-dir", tree, "--project", shelf.folder,
        "--step", look, "--no-verify", "--json",
        home=home, deadline_s=3600,
    )  # fmt: skip
    assert ran.status == 0, ran.err
    [published] = ran.of_kind("image_published")
    assert Path(published["path"]).is_file()
    serial = "\n".join(said(ran, "serial"))
    assert "anaconda: running the kickstart script %pre" in serial
    built, completed, root, banner = [line for line in said(ran, "look") if line]
    assert built == "qemu,local,qemu"
    assert date.fromisoformat(completed)
    assert root == "vgroot-root"
    assert banner.startswith("Unauthorized access")
