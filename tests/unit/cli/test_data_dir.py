"""`--data-dir`: a tree of OSImager 1.x is planned as it stands, and what cannot be run stops at RESOLVE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from osimager.paths import Places
from osimager.redact import MASK
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.needs("qemu-system-x86_64")

PLATFORM = {
    "arches": ["x86_64"],
    "platform_defs": {"firmware": "bios"},
    "config": {
        "type": "qemu",
        "iso_url": ">>iso_url<<",
        "iso_checksum": ">>iso_checksum<<",
        "output_directory": ">>vms_path<</>>name<<",
        "cores": "#>cpu_cores<#",
        "memory": "#>memory<#",
        "disk_size": ">>boot_disk_size<<M",
        "disk_interface": "virtio-scsi",
        "net_device": "e1000",
        "machine_type": "pc",
        "cd_files": ">>temp_dir<</ks.cfg",
        "cd_label": "OEMDRV",
        "boot_wait": "10s",
        "boot_command": ["<tab> inst.ks=hd:LABEL=OEMDRV:/ks.cfg<enter>"],
        "ssh_username": "{{user `ssh-username`}}",
        "ssh_password": "{{user `ssh-password`}}",
        "qemuargs": [["-cpu", "host"], ["-global", "ICH9-LPC.disable_s3=1"], ["-netdev", "user,id=x"]],
    },
}
SPEC: dict[str, Any] = {
    "provides": {"dist": "web", "versions": ["9.[1-2]"], "arches": ["x86_64"]},
    "defs": {
        "memory": 3072,
        "cpu_cores": 1,
        "iso_checksum": "",
        "iso_url": "https://vendor.example/web->>version<<.iso",
        "ansible_extra_args": ["-e", "scp_args='-O'"],
        "ansible_extra_vars": "word=>>name<<",
    },
    "variables": {
        "ssh-username": "{{vault `images/linux` `username`}}",
        "ssh-password": "{{vault `images/linux` `password`}}",
        "ansible-opts": "",
    },
    "files": [{"sources": ["ks.cfg"], "dest": "ks.cfg"}],
    "pre_provisioners": [{"type": "shell", "inline": ["echo {{user `ssh-username`}}"], "environment_vars": ["A=b"]}],
    "post_provisioners": [{"type": "file", "source": ">>temp_dir<</ks.cfg", "destination": "/root/ks.cfg"}],
}


@pytest.fixture
def tree(tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a made-up tree, an ISO where its user keeps them, and an ansible-playbook that is never run."""
    tree = tmp_path / "data"
    for folder in ("specs/web", "platforms", "files"):
        (tree / folder).mkdir(parents=True)
    (tree / "platforms/qemu.json").write_text(json.dumps(PLATFORM, indent=1))
    (tree / "files/ks.cfg").write_text("rootpw --iscrypted 6>images/linux:password<6\nhostname >>name<<\n")
    (tree / "config.yml").write_text("- hosts: all\n")
    write_spec(tree, {})
    isos = tmp_path / "isos"
    isos.mkdir()
    (isos / "web-9.1.iso").write_bytes(b"iso")
    places.config.mkdir(parents=True)
    (places.config / "secrets").touch(0o600)
    (places.config / "secrets").write_text("images/linux username=root password=Ch@ng3m3\n")
    (places.config / "osimager.conf").write_text(f"[osimager]\niso_path = {isos}\nvms_path = {tmp_path}/vms\n")
    program = tmp_path / "bin/ansible-playbook"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setattr("sys.executable", str(program.with_name("python")))
    return tree


def write_spec(tree: Path, changes: dict[str, Any]) -> None:
    (tree / "specs/web/spec.json").write_text(json.dumps({**SPEC, **changes}, indent=1))


def line_of(tree: Path, key: str) -> int:
    """Give the line of the spec that holds `key`."""
    lines = (tree / "specs/web/spec.json").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if f'"{key}"' in line)


def test_builder_maps_to_the_plan(run: Run, tree: Path, tmp_path: Path) -> None:
    said = run("plan", "web-9.1", "--data-dir", tree, "--json")
    assert said.status == 0, said.err
    plan = said.json()
    machine = plan["machine"]
    assert (machine["machine"], machine["memory_mib"], machine["cpus"], machine["firmware"]) == ("pc", 3072, 1, "bios")
    assert machine["disks"] == [{"id": "disk0", "size_bytes": 16384 << 20, "interface": "scsi"}]
    assert machine["nics"][0]["model"] == "e1000"
    boot = plan["install"]["boot"]
    assert (boot["rung"], boot["boot_command"], boot["boot_wait_s"]) == (
        "typed",
        "<tab> inst.ks=hd:LABEL=OEMDRV:/ks.cfg<enter>",
        10.0,
    )
    assert plan["install"]["seed"] == {"label": "OEMDRV", "files": ["ks.cfg"]}
    assert plan["media"]["path"] == str(tmp_path / "isos/web-9.1.iso")
    assert plan["output"]["folder"] == str(tmp_path / "vms")


def test_show_gives_defs_and_the_packer_build_as_the_peer_prints_them(run: Run, tree: Path) -> None:
    shown = run("spec", "show", "web-9.1", "--data-dir", tree, "--json").json()
    assert {"memory": 3072, "cpu_cores": 1, "local_only": True, "hostname": "web-9-1-x86-64"}.items() <= shown[
        "defs"
    ].items()
    packer = shown["packer"]
    assert packer["variables"]["ssh-password"] == "placeholder-password"
    assert [provisioner["type"] for provisioner in packer["provisioners"]] == ["shell", "ansible", "file"]
    assert (packer["builders"][0]["disk_size"], packer["builders"][0]["memory"]) == ("16384M", 3072)


def test_login_is_the_specs_and_stays_in_the_image(run: Run, tree: Path) -> None:
    said = run("plan", "web-9.1", "--data-dir", tree, "--json")
    plan = said.json()
    assert plan["access"] == {"user": "root", "port": 22, "become": "sudo", "password": MASK}
    assert plan["seal"] == {"mode": "template", "build_user": "root", "remove_build_user": False}
    assert plan["install"]["answers"][0]["text"] == f"rootpw --iscrypted {MASK}\nhostname web-9.1-x86_64\n"
    assert "Ch@ng3m3" not in said.out + said.err


def test_provisioners_keep_their_order_and_nothing_of_ours_is_added(run: Run, tree: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.sh"
    extra.write_text("true\n")
    said = run("build", "web-9.1", "--data-dir", tree, "--dry-run", "--json", "--step", extra)
    steps = said.json()["steps"]
    assert [(step["kind"], step["name"]) for step in steps] == [
        ("script", f"spec.json:{line_of(tree, 'pre_provisioners') + 1}"),
        ("ansible", "config"),
        ("file", f"spec.json:{line_of(tree, 'post_provisioners') + 1}"),
        ("script", "extra"),
    ]
    assert steps[0]["environment"] == [["A", "b"]]
    playbook = dict(steps[1]["environment"])
    assert playbook["platform"] == "qemu"
    assert playbook["word"] == "web-9.1-x86_64"
    assert playbook["scp_args"] == "-O"
    assert playbook["ANSIBLE_NOCOWS"] == "1"
    assert steps[1]["arguments"] == []


def test_builder_key_without_a_counterpart_is_a_warning_with_its_place(run: Run, tree: Path) -> None:
    said = run("plan", "web-9.1", "--data-dir", tree)
    assert said.status == 0
    line = (tree / "platforms/qemu.json").read_text().splitlines().index('  "qemuargs": [') + 1
    assert "'qemuargs' '-netdev user,id=x' of Packer's QEMU builder has no counterpart and is left out" in said.err
    assert f"platforms/qemu.json:{line}" in said.err


def test_strict_plan_stops_at_a_warning(run: Run, tree: Path) -> None:
    said = run("plan", "web-9.1", "--data-dir", tree, "--strict")
    assert (said.status, "error: 'qemuargs'" in said.err) == (3, True)


def test_provisioner_that_cannot_be_run_stops_at_resolve(run: Run, tree: Path) -> None:
    write_spec(tree, {"provisioners": [{"type": "puppet-masterless"}]})
    said = run("plan", "web-9.1", "--data-dir", tree)
    assert (said.status, "the provisioner puppet-masterless" in said.err) == (3, True)
    assert f"specs/web/spec.json:{line_of(tree, 'provisioners') + 1}\n" in said.err


def test_hook_that_changes_the_iso_stops_at_resolve_and_one_that_comes_after_is_a_warning(run: Run, tree: Path) -> None:
    write_spec(tree, {"post_build": "scripts/mine.py"})
    said = run("plan", "web-9.1", "--data-dir", tree)
    assert (said.status, "the post_build hook 'scripts/mine.py' is not run" in said.err) == (0, True)
    write_spec(tree, {"pre_build": "scripts/mine.py"})
    said = run("plan", "web-9.1", "--data-dir", tree)
    assert (said.status, "needs the pre_build hook scripts/mine.py" in said.err) == (3, True)
    assert f"specs/web/spec.json:{line_of(tree, 'pre_build')}\n" in said.err


def test_local_provisioner_runs_in_the_data_folder(run: Run, tree: Path) -> None:
    write_spec(tree, {"pre_provisioners": [{"type": "shell-local", "command": "./scripts/mine.sh"}]})
    steps = run("plan", "web-9.1", "--data-dir", tree, "--json").json()["steps"]
    assert steps[0]["folder"] == str(tree)


def test_ansible_of_the_spec_is_run_where_it_is_and_else_ours_with_a_warning(
    run: Run, tree: Path, places: Places
) -> None:
    write_spec(tree, {"ansible_version": "2.16"})
    program = places.data / "venvs/2.16/bin/ansible-playbook"
    said = run("plan", "web-9.1", "--data-dir", tree, "--json")
    assert (said.json()["steps"][1]["program"], f"there is no {program}" in said.err) == (None, True)
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    said = run("plan", "web-9.1", "--data-dir", tree, "--json")
    assert (said.json()["steps"][1]["program"], "ansible-playbook" in said.err) == (str(program), False)


def test_ansible_that_is_missing_is_told_before_anything_is_built(
    run: Run, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin/ansible-playbook").unlink()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    said = run("plan", "web-9.1", "--data-dir", tree)
    assert (said.status, "osimager[ansible]" in said.err) == (4, True)


def test_playbook_that_does_not_exist_is_told_with_its_spec(run: Run, tree: Path) -> None:
    (tree / "config.yml").unlink()
    said = run("plan", "web-9.1", "--data-dir", tree)
    assert (said.status, "config.yml' of a step does not exist" in said.err) == (3, True)


def test_url_of_a_spec_is_downloaded_where_no_file_lies(run: Run, tree: Path) -> None:
    write_spec(tree, {"defs": {**SPEC["defs"], "iso_checksum": "sha256:" + "a" * 64}})
    media = run("plan", "web-9.2", "--data-dir", tree, "--json").json()["media"]
    assert (media["urls"], media["sha256"]) == (["https://vendor.example/web-9.2.iso"], "a" * 64)
    write_spec(tree, {"defs": {**SPEC["defs"], "iso_checksum": "file:https://vendor.example/SHA256SUMS"}})
    media = run("plan", "web-9.2", "--data-dir", tree, "--json").json()["media"]
    assert (media["checksum_url"], media["sha256"]) == ("https://vendor.example/SHA256SUMS", None)


def test_settings_name_the_tree_once_for_all_verbs(run: Run, tree: Path) -> None:
    assert run("config", "set", "data_dir", tree).status == 0
    assert run("spec", "list").out == "web-9.1-x86_64\nweb-9.2-x86_64\n"
    assert run("plan", "web-9.1", "--json").json()["target"]["dist"] == "web"


def test_check_of_the_whole_tree_needs_no_secrets(run: Run, tree: Path, places: Places) -> None:
    (places.config / "secrets").unlink()
    assert run("spec", "check", "--all", "--data-dir", tree).status == 0
    strict = run("spec", "check", "--all", "--strict", "--data-dir", tree)
    assert (strict.status, "qemuargs" in strict.err) == (3, True)
