"""`osimager spec`, `platform`, `location`, `schema`, `explain`: what can be built, and where values come from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run

Write = Callable[[str, str], Path]
WEB = """
provides: {dist: web, versions: ["1", "2"], arches: [x86_64]}
include: linux
iso: web.iso
installer: {format: preseed, kernel_arguments: ["url=>>answer_url<</web.cfg"]}
defs: {secret: "|>web/app:password<|", memory: 1G}
machine: {memory: ">>memory<<"}
version_specific:
  - version: "2"
    defs: {memory: 2G}
files:
  - dest: web.cfg
    sources: [web.cfg]
"""


@pytest.fixture
def web(write: Write, project: Path) -> Path:
    write("specs/web/spec.yml", WEB)
    write("files/web.cfg", "password >>secret<< on >>name<<\n")
    return project


def test_list_gives_the_projects_targets_among_the_shipped(run: Run, web: Path) -> None:
    assert run("spec", "list", "--dist", "web", "--project", web).out == "web-1-x86_64\nweb-2-x86_64\n"
    [row] = [row for row in run("spec", "list", "--json", "--project", web).json() if row["target"] == "web-1-x86_64"]
    assert row == {
        "target": "web-1-x86_64",
        "dist": "web",
        "version": "1",
        "arch": "x86_64",
        "spec": str(web / "specs/web/spec.yml"),
        "status": "",
        "needs": None,
    }
    assert run("spec", "list", "--dist", "web", "--arch", "arm64", "--project", web).out == ""


def test_list_of_an_unknown_distribution_names_the_likeliest(run: Run, web: Path) -> None:
    for asked, hint in (
        ("AlmaLinux", "there is alma"),
        ("windows", "there is windows-desktop, windows-server"),
        ("debain", "there is debian"),
    ):
        said = run("spec", "list", "--dist", asked, "--project", web)
        assert (said.status, said.out) == (2, "")
        assert said.err.rstrip().endswith(hint)
    assert ", web, " in run("spec", "list", "--dist", "zzz", "--project", web).err


def test_list_says_how_far_each_target_is(run: Run, web: Path, write: Write) -> None:
    write(
        "specs/far/spec.yml",
        "provides: {dist: far, versions: ['1', '2', '3', '4'], arches: [x86_64]}\n"
        "version_specific:\n"
        "  - {version: '1', status: installed}\n"
        "  - {version: '2', status: renders, needs: a moon}\n"
        "  - {version: '3', needs: a moon}\n"
        "  - {version: '4', machine: {memory: none}}\n",
    )
    assert run("spec", "list", "--long", "--dist", "far", "--project", web).out.splitlines() == [
        "far-1-x86_64  installed",
        "far-2-x86_64  renders; needs a moon",
        "far-3-x86_64  needs a moon",
        "far-4-x86_64  broken",
    ]


def test_file_that_cannot_be_read_is_told_on_stderr(run: Run, web: Path, write: Write) -> None:
    write("specs/bad/spec.yml", "provides: {dist: bad, versions: [1.0]}\n")
    said = run("spec", "list", "--dist", "web", "--project", web)
    assert said.out == "web-1-x86_64\nweb-2-x86_64\n"
    assert "bad/spec.yml:1" in said.err


def test_explain_gives_every_value_that_was_overridden_and_asks_for_no_secret(run: Run, web: Path) -> None:
    rows = run("explain", "web-2", "memory", "--json", "--project", web).json()
    assert [(row["value"], row["line"], row["section"]) for row in rows] == [
        ("2G", 9, "version_specific '2' > defs"),
        ("1G", 5, "defs"),
    ]
    assert run("explain", "web-2", "secret", "--project", web).out.startswith("secret = |>web/app:password<|   ")
    everything = run("explain", "web-2", "--project", web).out
    assert "machine.memory = >>memory<<" in everything
    assert "\niso = web.iso" in everything


def test_explain_tells_what_was_joined_from_what_was_overridden(run: Run, web: Path, write: Write) -> None:
    write("specs/base/spec.yml", "defs: {names: [zero]}\n")
    write("specs/middle/spec.yml", "include: base\ndefs:\n  names: [one]\n")
    write("specs/web/spec.yml", WEB.replace("linux", "[linux, middle]").replace("{secret", "{names: [two], secret"))
    said = run("explain", "web-1", "names", "--project", web).out.splitlines()
    assert [line.partition("   ")[0] for line in said] == [
        'names = ["two"]',
        '  overrode names = ["one"]',
        '  overrode names = ["zero"]',
    ]
    write("specs/web/spec.yml", (web / "specs/web/spec.yml").read_text() + "merge: names\n")
    said = run("explain", "web-1", "names", "--project", web).out.splitlines()
    assert [line.partition("   ")[0] for line in said] == [
        'names = ["one", "two"]', '  joined with names = ["one"]', '  overrode names = ["zero"]',
    ]  # fmt: skip
    rows = run("explain", "web-1", "names", "--json", "--project", web).json()
    assert [row["fate"] for row in rows] == ["", "joined", "overridden"]


def test_explain_of_a_list_gives_its_items_and_none_overrides_another(run: Run, web: Path, write: Write) -> None:
    write("specs/web/spec.yml", WEB + "steps:\n  - inline: [one]\n  - inline: [two]\n")
    said = run("explain", "web-1", "steps", "--project", web).out.splitlines()
    assert [line.partition("   ")[0] for line in said] == [
        'steps = {"inline": ["one"]}', 'steps = {"inline": ["two"]}',
    ]  # fmt: skip
    assert '\nsteps = {"inline": ["one"]}' in run("explain", "web-1", "--project", web).out


def test_explain_keeps_each_value_in_its_line(run: Run, web: Path, write: Write) -> None:
    write("specs/web/spec.yml", WEB + "  - dest: b.cfg\n    sources: []\nevars:\n  TEXT: |\n    one\n    two\n")
    assert run("explain", "web-1", "evars.TEXT", "--project", web).out.startswith('evars.TEXT = "one\\ntwo\\n"   ')


def test_explain_of_an_unknown_key_names_the_likeliest(run: Run, web: Path) -> None:
    said = run("explain", "web-2", "memroy", "--project", web)
    assert said.status == 2
    assert "memory" in said.err


def test_show_resolves_with_placeholders_and_keeps_types(run: Run, web: Path, write: Write) -> None:
    write("specs/web/spec.yml", WEB.replace("{secret", "{n: ~, no: false, zero: 0, list: [1, '2'], secret"))
    shown = run("spec", "show", "web-2", "--json", "--project", web).json()
    assert (shown["target"], shown["machine"]["memory_mib"]) == ("qemu/local/web-2-x86_64", 2048)
    expected = {"n": None, "no": False, "zero": 0, "list": [1, "2"], "secret": "placeholder-password"}
    assert expected.items() <= shown["defs"].items()
    assert shown["defs"]["answer_url"] == "{{answer_url}}"
    assert shown["packer"] is None
    assert "qemu/local/web-2-x86_64" in run("spec", "show", "web-2", "--project", web).out
    assert shown["end_of_life"] is None
    write("specs/web/spec.yml", f"{WEB}end_of_life: '2027-05-31'\n")
    assert re.search("^end_of_life +2027-05-31$", run("spec", "show", "web-2", "--project", web).out, re.MULTILINE)


def test_check_needs_no_secrets(run: Run, web: Path) -> None:
    said = run("spec", "check", "web-1", "web-2", "--project", web)
    assert (said.status, said.out) == (0, "")
    assert "2 targets checked, 0 with errors" in said.err


def test_check_shows_all_that_is_wrong_at_once_and_each_mistake_once(run: Run, web: Path, write: Write) -> None:
    write("files/web.cfg", "a >>nmae<<\nb >>name<<\n")
    write("specs/bad/spec.yml", "provides: {dist: bad, versions: ['1']}\nmachien: {}\n")
    said = run("spec", "check", "--all", "--project", web)
    assert said.status == 3
    assert said.err.count("'nmae' is not defined") == 1
    assert "web-1-x86_64 and 1 more" in said.err
    assert "files/web.cfg:1" in said.err
    assert "'machien' is unknown" in said.err


def test_each_target_is_checked_for_itself(run: Run, web: Path, write: Write) -> None:
    write(
        "specs/two/spec.yml",
        """
        provides: {dist: two, versions: ["1", "2"], arches: [x86_64]}
        needs: winrm
        files: [{dest: a, sources: [a.cfg]}]
        defs: {pw: "|>no/such:secret<|", sum: "6>no/such:secret<6"}
        version_specific: [{version: "2", defs: {x: 1}}]
        """,
    )
    write("files/a.cfg", "ok >>pw<<\n>>x<<\n")
    one, two = run("spec", "check", "two-1", "two-2", "--json", "--project", web).json()
    assert [(error["what"], error["where"]) for error in one["errors"]] == [
        ("'x' is not defined", [f"{web}/files/a.cfg:2"])
    ]
    assert (two["errors"], two["needs"]) == ([], "winrm")


def test_check_of_an_unknown_target_is_a_usage_error(run: Run, web: Path) -> None:
    said = run("spec", "check", "web-1", "wbe-1", "--project", web)
    assert (said.status, "there is no target 'wbe-1'" in said.err) == (2, True)


def test_check_as_json_has_an_object_for_each_target(run: Run, web: Path, write: Write) -> None:
    write("files/web.cfg", ">>nmae<<\n")
    said = run("spec", "check", "web-1", "--json", "--project", web)
    [row] = said.json()
    assert (row["target"], row["ok"], row["errors"][0]["hint"]) == ("web-1", False, "did you mean 'name'?")
    assert said.status == 3


def test_check_takes_targets_or_all(run: Run, web: Path) -> None:
    assert run("spec", "check", "--project", web).status == 2
    assert run("spec", "check", "web-1", "--all", "--project", web).status == 2


@pytest.mark.needs("debconf-set-selections")
def test_validate_runs_the_formats_own_validator(run: Run, web: Path, write: Write) -> None:
    write("files/web.cfg", "d-i netcfg/get_hostname string >>name<<\n")
    assert run("spec", "check", "web-1", "--validate", "--project", web).status == 0
    write("files/web.cfg", "d-i netcfg/get_hostname\n")
    said = run("spec", "check", "web-1", "--validate", "--project", web)
    assert (said.status, "at web.cfg:1" in said.err) == (3, True)


@pytest.mark.parametrize("only", ["firmware == 'uefi'", "proxy", "ip and ip != 'dhcp'"])
@pytest.mark.needs("debconf-set-selections")
def test_validate_asks_in_every_way_that_was_left_open(run: Run, web: Path, write: Write, only: str) -> None:
    write("files/web.cfg", f"E>'d-i netcfg/get_hostname' if {only} else ''<E\n")
    assert run("spec", "check", "web-1", "--project", web).status == 0
    said = run("spec", "check", "web-1", "--validate", "--project", web)
    assert (said.status, "at web.cfg:1" in said.err) == (3, True)
    named = ("--firmware", "bios", "--ip", "dhcp", "-D", "proxy=http://a")
    assert run("spec", "check", "web-1", "--validate", *named, "--project", web).status == (3 if only == "proxy" else 0)


def test_platforms_and_locations_are_listed_with_their_files(run: Run, web: Path, write: Write) -> None:
    write("specs/locations/lab.toml", 'description = "ours"\n')
    assert run("location", "list", "--project", web).out == "lab    ours\nlocal  built in\n"
    rows = run("location", "list", "--json", "--project", web).json()
    assert {"name": "local", "file": "built in", "description": "built in", "arches": []} in rows
    assert "qemu" in run("platform", "list", "--project", web).out


@pytest.mark.parametrize("kind", ["spec", "location", "platform", "profile", "iso"])
def test_every_kind_of_file_has_a_schema(run: Run, kind: str) -> None:
    assert run("schema", kind).json()["$schema"].startswith("https://json-schema.org/")


def test_unknown_schema_is_a_usage_error(run: Run) -> None:
    assert run("schema", "sepc").status == 2
