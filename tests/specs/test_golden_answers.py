"""One whole set of answers of each family, as a golden file: the diff is the review. Rewritten with --update-golden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from osimager.config.catalog import Catalog, Roots
from osimager.config.lookups import Lookups
from osimager.config.request import Request
from osimager.holes import OF_BUILD, hole, name_holes
from osimager.plan.resolve import render_answers

REPOSITORY = Path(__file__).parent.parent.parent
LAB = """
defs: {cidr: 192.168.77.0/24, gateway: 192.168.77.1, dns: [192.168.77.1, 192.168.77.2], ntp: [192.168.77.1],
       domain: example.org}
"""
KEPT = """
username: keeper
authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0 keeper@example.org]
packages: [tmux]
"""
TARGETS = [
    "rhel-9.5-aarch64",
    "rhel-7.9-x86_64",
    "centos-6.10-x86_64",
    "fedora-43-x86_64",
    "debian-13-x86_64",
    "ubuntu-24.04-x86_64",
    "opensuse-15.6-x86_64",
    "opensuse-16.0-x86_64",
    "alpine-3.22-x86_64",
    "photon-5.0-x86_64",
    "amazon-2023-x86_64",
    "arch-rolling-x86_64",
    "esxi-8.0U2-x86_64",
    "fedora-coreos-stable-x86_64",
    "freebsd-14.5-x86_64",
    "openbsd-7.9-x86_64",
    "proxmox-ve-9.2-x86_64",
    "solaris-11.4-x86_64",
    "windows-server-2022-x86_64",
    "xcpng-8.3-x86_64",
]


@pytest.mark.parametrize("target", TARGETS)
def test_the_answers_are_the_reviewed_ones(
    target: str, tmp_path: Path, lookups: Lookups, check_golden: Callable[[Path, str], None]
) -> None:
    for name, text in (("locations/lab.yml", LAB), ("profiles/kept.yml", KEPT)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    catalog = Catalog.open(Roots(specs=(tmp_path, REPOSITORY / "specs"), files=(REPOSITORY / "files",)))
    request = Request(
        target=f"qemu/lab/{target}",
        name="web1",
        ip="192.168.77.10",
        firmware="uefi",
        profile="kept",
        defines=("proxy=http://proxy.example.org:3128",),
        given={name: hole(name) for name in OF_BUILD},
    )
    configuration = catalog.resolve(request, lookups)
    for answer in render_answers(configuration):
        check_golden(REPOSITORY / "tests" / "golden" / "answers" / f"{target}-{answer.name}", name_holes(answer.text))
