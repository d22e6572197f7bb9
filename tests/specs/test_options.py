"""What a user may ask of an installation, in every family: it reaches the answer file, and the answer file's reader.

Values are found again the way their reader finds them: the format's own parser first, a shell's words in what it gives.
"""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from osimager.check.answers import AnswerFile, check_answers
from osimager.config.catalog import Catalog, Roots
from osimager.config.lookups import Lookups
from osimager.config.request import Request
from osimager.errors import ConfigError
from osimager.holes import OF_BUILD, hole
from osimager.plan.model import Answer
from osimager.plan.resolve import render_answers

REPOSITORY = Path(__file__).parent.parent.parent
LAB = "defs: {cidr: 192.168.77.0/24, gateway: 192.168.77.1, dns: [192.168.77.1], domain: example.org}\n"


@dataclass(frozen=True)
class Family:
    """One target of each kind of answer files, and the file that `disk_layout: custom` names."""

    target: str
    custom: str = ""
    has_late: bool = True
    has_proxy: bool = True
    format: str = ""


FAMILIES = {
    "anaconda": Family("rhel-9.5-x86_64", "anaconda/disk-custom.cfg"),
    "anaconda-7": Family("centos-7.9-x86_64", "anaconda/disk-custom.cfg"),
    "anaconda-legacy": Family("centos-6.10-x86_64", "anaconda-legacy/disk-custom.cfg"),
    "fedora": Family("fedora-43-x86_64", "anaconda/disk-custom.cfg"),
    "preseed": Family("debian-12-x86_64", "debian/partitioning-custom.cfg", format="preseed"),
    "preseed-ubuntu": Family("ubuntu-18.04-x86_64", "debian/partitioning-custom.cfg", format="preseed"),
    "autoinstall": Family("ubuntu-24.04-x86_64", "ubuntu/storage-custom.yml"),
    "autoyast": Family("sles-15.6-x86_64", "autoyast/disk-custom.xml"),
    "agama": Family("sles-16.0-x86_64"),
    "alpine": Family("alpine-3.22-x86_64"),
    "photon": Family("photon-5.0-x86_64", has_proxy=False),
    "arch": Family("arch-rolling-x86_64", "arch/disk-custom.yml"),
    "amazon": Family("amazon-2023-x86_64"),
    "freebsd": Family("freebsd-14.5-x86_64", "freebsd/disk-custom.sh"),
    "openbsd": Family("openbsd-7.9-x86_64", "openbsd/disk-custom.conf", has_late=False),
    "proxmox": Family("proxmox-ve-9.2-x86_64", "proxmox-ve/disk-custom.toml", has_late=False, has_proxy=False),
    "esxi": Family("esxi-8.0U2-x86_64", "esxi/disk-custom.cfg", has_late=False, has_proxy=False),
    "xcpng": Family("xcpng-8.3-x86_64"),
    "ignition": Family("fedora-coreos-stable-x86_64", has_late=False, format="ignition"),
    "windows": Family("windows-server-2022-x86_64", "windows/disk-bios-custom.xml", has_late=False, has_proxy=False),
}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
LATE = [family for family in FAMILIES.values() if family.has_late]
WITH_PROXY = [family for family in FAMILIES.values() if family.has_proxy]


def open_project(project: Path) -> Catalog:
    """Open the shipped catalogue behind a project's own files, with a location that has a network."""
    (project / "locations").mkdir(exist_ok=True)
    (project / "locations" / "lab.yml").write_text(LAB)
    return Catalog.open(Roots(specs=(project, REPOSITORY / "specs"), files=(project / "files", REPOSITORY / "files")))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Give the shipped catalogue, opened once."""
    return open_project(tmp_path_factory.mktemp("project"))


def render(catalog: Catalog, target: str, lookups: Lookups, *, profile: str = "default", **given: str) -> list[Answer]:
    """Render the answers of `target`; `given` are defs, taken as they are."""
    holes = {name: hole(name) for name in OF_BUILD}
    request = Request(target=f"qemu/lab/{target}", name="web1", profile=profile, given={**holes, **given})
    return list(render_answers(catalog.resolve(request, lookups)))


async def check(answers: list[Answer], target: str) -> None:
    """Let the validators that are at hand see the answers."""
    dist, version = target.rsplit("-", 2)[0], target.rsplit("-", 2)[1]
    files = [
        AnswerFile(name=each.name, text=each.text, format=each.format, dist=dist, version=version) for each in answers
    ]
    report = await check_answers(files)
    assert not report.errors, "\n".join(map(str, report.errors))


# Finding a value again -----------------------------------------------------------------------------------------------


def leaves(value: Any) -> Iterator[str]:
    """Give every text in what a parser gave."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (str(key), *leaves(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif value is not None:
        yield str(value)


def parsed(answer: Answer) -> list[str]:
    """Give what the reader of an answer file gets: its texts, as they mean."""
    text = answer.text
    if answer.name.endswith((".xml",)):
        root = ElementTree.fromstring(text)
        return [part for each in root.iter() for part in (each.text or "", *each.attrib.values())]
    if answer.format in ("agama", "photon", "ignition"):
        return list(leaves(json.loads(text)))
    if answer.format == "proxmox":
        return list(leaves(tomllib.loads(text)))
    if answer.format in ("autoinstall", "cloud-config", "vyos"):
        return list(leaves(yaml.safe_load(text)))
    if answer.format == "preseed":
        joined = text.replace("\\\n", " ")
        return [line.split(None, 3)[-1] for line in joined.splitlines() if line.strip()]
    return text.splitlines()


def words(text: str, depth: int = 3) -> Iterator[str]:
    """Give the text, and a shell's words of it, and of those, as deep as scripts are nested."""
    yield text
    try:
        found = shlex.split(text, comments=False)
    except ValueError:
        return
    for word in found:
        if word != text and depth:
            yield from words(word, depth - 1)


def carries(answers: list[Answer], value: str) -> bool:
    """Tell whether a reader of the answers meets `value`, every character of it."""
    return any(value in word for answer in answers for text in parsed(answer) for word in words(text))


# The tests -----------------------------------------------------------------------------------------------------------


# Every character that some language of ours gives a meaning to. The last would join two lines of a preseed.
HOSTILE = ["a\"b'c<d>e&f$g`h%i;j|k*l?m{n}[o]#p:=q~ü€", "a\\b", "a\\"]
NAMES = {"keyboard": "us", "timezone": "Etc/UTC", "locale": "en_US.UTF-8"}


@pytest.mark.parametrize("family", WITH_PROXY, ids=[family.target for family in WITH_PROXY])
@pytest.mark.parametrize("value", HOSTILE)
async def test_a_proxy_of_any_characters_comes_through_or_is_refused(
    catalog: Catalog, family: Family, value: str, lookups: Lookups
) -> None:
    proxy = f"http://{value}"
    if value.endswith("\\") and family.format == "preseed":
        with pytest.raises(ConfigError, match="joins lines at a backslash"):
            render(catalog, family.target, lookups, proxy=proxy)
        return
    answers = render(catalog, family.target, lookups, proxy=proxy)
    assert carries(answers, proxy)
    if family.format != "ignition":  # Ignition wants a URL there, and says so
        await check(answers, family.target)


@every_family
@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_any_characters_comes_through_or_is_refused(
    catalog: Catalog, family: Family, name: str, lookups: Lookups
) -> None:
    if not carries(render(catalog, family.target, lookups, **{name: "plainvalue"}), "plainvalue"):
        pytest.skip(f"its answers do not hold the {name} as it is")
    for value in HOSTILE:
        if value.endswith("\\") and family.format == "preseed":
            with pytest.raises(ConfigError, match="joins lines at a backslash"):
                render(catalog, family.target, lookups, **{name: value})
        else:
            assert carries(render(catalog, family.target, lookups, **{name: value}), value), value


@every_family
@pytest.mark.parametrize("name", ["proxy", "mirror", *NAMES])
def test_a_line_break_is_refused_before_any_answer_is_made(
    catalog: Catalog, family: Family, name: str, lookups: Lookups
) -> None:
    with pytest.raises(ConfigError, match=f"{name} holds a line break"):
        render(catalog, family.target, lookups, **{name: "a\n%end\npoweroff"})


@pytest.mark.parametrize("target", ["sles-12.5-x86_64", "sles-15.6-x86_64", "opensuse-15.6-x86_64"])
async def test_suses_time_server_is_told_in_the_form_of_the_release(
    catalog: Catalog, lookups: Lookups, target: str
) -> None:
    answers = render(catalog, target, lookups, ntp1="time.example.org")
    assert carries(answers, "time.example.org")
    await check(answers, target)


@every_family
def test_a_package_is_a_name(family: Family, tmp_path: Path, lookups: Lookups) -> None:
    for bad in ("a b", "a;b", "a\n%end", "$(x)", "a'b"):
        (tmp_path / "profiles").mkdir(exist_ok=True)
        (tmp_path / "profiles" / "mine.yml").write_text(yaml.safe_dump({"packages": [bad]}))
        with pytest.raises(ConfigError, match="is not the name of a package"):
            render(open_project(tmp_path), family.target, lookups, profile="mine")


@every_family
def test_a_disk_layout_of_ones_own_is_a_file_of_the_project(family: Family, tmp_path: Path, lookups: Lookups) -> None:
    if not family.custom:
        pytest.skip("its layouts are not files")
    with pytest.raises(ConfigError, match="custom"):
        render(open_project(tmp_path), family.target, lookups, disk_layout="custom")
    path = tmp_path / "files" / family.custom
    path.parent.mkdir(parents=True)
    path.write_text("# my own layout for >>name<<\n")
    assert any(
        "# my own layout for web1" in each.text
        for each in render(open_project(tmp_path), family.target, lookups, disk_layout="custom")
    )


SCRIPT = """#!/bin/sh
echo "it's $HOME for >>name<<" > /tmp/x
%end
</script> & <a> `b` back\\slash 100%
END
d-i evil
"""


@pytest.mark.parametrize("family", LATE, ids=[family.target for family in LATE])
async def test_a_late_script_reaches_the_installed_system_line_by_line(
    family: Family, tmp_path: Path, lookups: Lookups
) -> None:
    folder = tmp_path / "files" / "late"
    folder.mkdir(parents=True)
    (folder / "default.sh").write_text("echo of default\n")
    (folder / "mine.sh").write_text(SCRIPT)
    (tmp_path / "profiles").mkdir()
    for profile in ("mine", "other"):
        (tmp_path / "profiles" / f"{profile}.yml").write_text("packages: []\n")
    mine = render(open_project(tmp_path), family.target, lookups, profile="mine")
    for line in SCRIPT.replace(">>name<<", "web1").splitlines():
        assert carries(mine, line), line
    assert not carries(mine, "echo of default")
    assert carries(render(open_project(tmp_path), family.target, lookups, profile="other"), "echo of default")
    await check(mine, family.target)


def test_a_late_script_runs_as_it_is_written(tmp_path: Path, lookups: Lookups) -> None:
    """What stands in the answer file is run, in the place of the installer, by a real shell."""
    import subprocess

    folder = tmp_path / "files" / "late"
    folder.mkdir(parents=True)
    out = tmp_path / "out"
    (folder / "default.sh").write_text(f"printf '%s' \"it's \\\\ 100% <b>\" > {out}\n")
    [answer] = render(open_project(tmp_path), "rhel-9.5-x86_64", lookups)
    [line] = [line for line in answer.text.splitlines() if "late.sh" in line]
    subprocess.run(["sh", "-c", line.replace("/root/late.sh", str(tmp_path / "late.sh"))], check=True)
    assert out.read_text() == "it's \\ 100% <b>"


@every_family
async def test_a_profile_changes_packages_login_and_language(family: Family, tmp_path: Path, lookups: Lookups) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yml").write_text(
        "username: keeper\n"
        "authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0 keeper@example.org]\n"
        "packages: [mypackage]\nkeyboard: dk\ntimezone: Europe/Berlin\n"
    )
    plain = render(open_project(tmp_path), family.target, lookups)
    mine = render(open_project(tmp_path), family.target, lookups, profile="mine")
    name = family.target.split("-", maxsplit=1)[0]
    expected = {
        "mypackage": name not in ("esxi", "openbsd", "proxmox", "fedora-coreos", "windows", "xcpng"),
        "keeper@example.org": name not in ("openbsd", "windows"),
        "dk": name != "photon",
        "Berlin": name not in ("photon", "esxi"),
    }
    if family.target.startswith("fedora-coreos"):
        expected |= {"mypackage": False, "dk": False}
    for value, is_there in expected.items():
        assert carries(mine, value) == is_there, value
        assert not carries(plain, value)
    await check(mine, family.target)
