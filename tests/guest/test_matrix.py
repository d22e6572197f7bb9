"""The long ones: every firmware and architecture end to end, a static address, unseen media, kills at any moment."""

from __future__ import annotations

import functools
import random
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest.lab import HOME, find_processes, run, started, wait_for_event, wait_until

pytestmark = [pytest.mark.guest, pytest.mark.full]
LOCATION = """\
defs:
  cidr: 192.168.77.0/24
  gateway: 192.168.77.1
  domain: lab.example
"""


@pytest.mark.parametrize(("arch", "firmware"), [("x86_64", "uefi"), ("aarch64", "uefi")])
def test_whole_image_is_built_and_verified(arch: str, firmware: str) -> None:
    words = ("debian-12", "--arch", arch, "--firmware", firmware, "--iso", "debian-12-made")
    ran = run("build", *words, "--force", "--json", deadline_s=3600)
    assert ran.status == 0, ran.err
    [published] = ran.of_kind("image_published")
    assert run("image", "path", "debian-12", "--arch", arch, "--firmware", firmware).out == f"{published['path']}\n"


def test_static_address_is_the_images_own(tmp_path: Path) -> None:
    locations = tmp_path / "specs/locations"
    locations.mkdir(parents=True)
    (locations / "lab.yml").write_text(LOCATION)
    look = tmp_path / "look.sh"
    look.write_text("#!/bin/sh\nip -4 -o addr show scope global\nhostname -f\nip route show default\n")
    words = (
        "qemu/lab/debian-12",
        "--arch",
        "x86_64",
        "--iso",
        "debian-12-made",
        "--name",
        "myhost",
        "--ip",
        "192.168.77.10",
    )
    ran = run("build", *words, "--step", look, "--force", "--json", cwd=tmp_path, deadline_s=1800)
    assert ran.status == 0, ran.err
    said = [event["text"] for event in ran.of_kind("output_line") if event["source"] == "look"]
    assert any("192.168.77.10/24" in line for line in said)
    assert "myhost.lab.example" in said
    assert any("via 192.168.77.1 " in line for line in said)


def test_offline_guest_installs_from_a_seed() -> None:
    ran = run(
        "build",
        "debian-12",
        "--arch",
        "x86_64",
        "--iso",
        "debian-12-made",
        "--offline",
        "--force",
        "--json",
        deadline_s=1800,
    )
    assert ran.status == 0, ran.err
    assert ran.of_kind("answer_fetched") == []


def test_medium_never_seen_with_names_of_its_own(needs: Callable[[str], Path], tmp_path: Path) -> None:
    """The made ISO again under another volume id, its kernel elsewhere and its menu renamed."""
    xorriso = needs("xorriso")
    made = run("iso", "make", "debian-12-made", "--arch", "x86_64", deadline_s=1500)
    tree, iso = tmp_path / "tree", tmp_path / "other-name.iso"
    subprocess.run(
        [xorriso, "-osirrox", "on", "-indev", made.out.strip(), "-extract", "/", tree], check=True, capture_output=True
    )
    for path in tree.rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    (tree / "install.amd").rename(tree / "setup")
    for menu in [*tree.rglob("*.cfg")]:
        text = menu.read_text().replace("/install.amd/", "/setup/").replace("label install", "label deploy")
        menu.write_text(text.replace("menu label ^Install", "menu label Deploy").replace("'Install'", "'Deploy'"))
    subprocess.run(
        [xorriso, "-as", "mkisofs", "-quiet", "-r", "-J", "-V", subprocess.run(
            [xorriso, "-indev", made.out.strip(), "-pvd_info"], capture_output=True, text=True, check=True
        ).stdout.partition("Volume Id    : ")[2].partition("\n")[0].strip("' "), "-o", iso, tree],
        check=True,
    )  # fmt: skip
    ran = run(
        "build", "debian-12", "--arch", "x86_64", "--iso", iso, "--force", "--no-verify", "--json", deadline_s=1800
    )
    assert ran.status == 0, ran.err


def test_step_that_fails_ends_the_build_with_its_place(tmp_path: Path) -> None:
    step = tmp_path / "bad.sh"
    step.write_text("#!/bin/sh\necho about to fail\nexit 3\n")
    ran = run("build", "debian-12", "--arch", "x86_64", "--iso", "debian-12-made", "--step", step, deadline_s=1800)
    assert ran.status == 7
    assert "exited with status 3" in ran.err
    assert str(step) in ran.err
    assert "about to fail" in ran.err


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_real_debian_installer_fetches_the_preseed_and_asks_nothing_up_to_the_mirror(arch: str) -> None:
    """It is ended there: not every mirror has the udebs of its kernel. Its console says how far it came."""
    with started("build", "debian-12", "--arch", arch, "--iso", "debian-12-netboot", "--no-verify", "--json") as child:
        wait_for_event(child, lambda event: event["kind"] == "answer_fetched")
        asked: list[str] = []

        def is_at_the_mirror(event: dict[str, object]) -> bool:
            text = str(event.get("text", ""))
            if "[!!]" in text or "[?]" in text:
                asked.append(text)
            return event["kind"] == "output_line" and "mirror" in text.lower()

        event = wait_for_event(child, is_at_the_mirror)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert [text for text in asked if "mirror" not in text.lower()] == []
    assert find_processes(event["build"]) == []


def _has_no_process(build: str) -> bool:
    return find_processes(build) == []


def test_twenty_kills_at_random_moments_leave_nothing_and_the_next_build_works() -> None:
    moments = random.Random(20)
    for turn in range(20):
        made_anew = ["--force"] if turn % 2 else []  # every other goes on from what those before it left
        words = ("build", "debian-12", "--arch", "x86_64", "--iso", "debian-12-made", *made_anew, "--json")
        with started(*words) as child:
            event = wait_for_event(child, lambda event: event["kind"] == "stage_changed")
            wait_until(lambda: child.poll() is not None, deadline_s=moments.uniform(0, 75))
            child.kill()
            child.communicate()
        is_gone = functools.partial(_has_no_process, event["build"])
        assert wait_until(is_gone, deadline_s=5)
        sockets = [path for path in (HOME / "cache").rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
        assert sockets == []
        assert run("image", "list", "--json").status == 0
    ran = run("build", "debian-12", "--arch", "x86_64", "--iso", "debian-12-made", "--no-verify", deadline_s=1800)
    assert ran.status == 0, ran.err
    assert list((HOME / "cache/work").iterdir()) == []
