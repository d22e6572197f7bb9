"""A data tree of OSImager 1.x, in small: its targets, its defs, its build, and what becomes of it here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from osimager.arch import Firmware
from osimager.config.catalog import Catalog, Roots
from osimager.config.oldtree import OldBuild, OldSettings, resolve_old
from osimager.config.request import Request
from osimager.config.sections import Rung, StepKind
from osimager.config.values import Value
from osimager.errors import ConfigError

from .conftest import SALT, TableLookups, Tree

PLATFORM: dict[str, Value] = {
    "arches": ["x86_64", "aarch64"],
    "platform_defs": {"firmware": "bios"},
    "config": {
        "type": "qemu",
        "iso_url": "E>'>>iso_path<</>>iso_name<<' if >>local_only<< else '>>iso_url<<'<E",
        "memory": "#>memory<#",
        "cores": "#>cpu_cores<#",
        "disk_size": ">>boot_disk_size<<M",
        "cpu_model": "E>'host' if os.access('/dev/kvm', os.W_OK) else 'max'<E",
        "cd_files": "%>cd_files<%",
        "cd_label": ">>cd_label<<",
        "vnc_password": "x",
        "empty": "",
        "vm_name": ">>name<<",
    },
}
SPEC: dict[str, Value] = {
    "provides": {"dist": "rhel", "versions": ["9.[0-1]", "10.0"], "arches": ["x86_64"]},
    "include": "ssh",
    "platforms": ["qemu", "vmware"],
    "defs": {
        "iso_url": "https://example.org/>>version<</rhel.iso?x=1",
        "cd_files": ">>temp_dir<</ks.cfg",
        "cd_label": "OEMDRV",
        "firmware": "efi",
        "spec_config": "specs/rhel/config.yml",
    },
    "config": {"boot_command": ["<tab> inst.ks=hd:LABEL=>>cd_label<<:/ks.cfg<enter>"], "boot_wait": "10s"},
    "files": [{"sources": ["rhel/ks.cfg", "rhel/end.cfg"], "dest": "ks.cfg"}],
    "post_provisioners": [{"type": "shell", "inline": ["touch >>undefined_name<</done"], "environment_vars": ["A=b"]}],
    "version_specific": [
        {"version": "10.*", "defs": {"iso_url": ""}},
        {
            "version": "9\\.1",
            "ansible_version": "2.18",
            "method": "replace",
            "files": [{"sources": ["rhel/ks.cfg"], "dest": "ks.cfg"}],
        },
    ],
}
SSH: dict[str, Value] = {
    "variables": {"ssh-username": "root", "ssh-password": "{{vault `images/linux` `password`}}"},
    "config": {
        "communicator": "ssh",
        "ssh_username": "{{ user `ssh-username` }}",
        "ssh_password": "{{ user `ssh-password` }}",
    },
}


@pytest.fixture
def old(tree: Tree) -> Catalog:
    """Give a small tree and a user's folder with a location."""
    for name, content in (
        ("data/platforms/qemu.json", PLATFORM),
        ("data/platforms/vmware.json", {"arches": ["x86_64"], "config": {"type": "vmware-iso"}}),
        ("data/specs/rhel/spec.json", SPEC),
        ("data/specs/ssh/spec.json", SSH),
        ("user/locations/lab.json", {"defs": {"domain": "lab.org", "cidr": "10.0.0.0/24", "vms_path": "vms"}}),
    ):
        tree.write(name, json.dumps(content, indent=1))
    tree.write("data/specs/rhel/config.yml", "- hosts: all\n")
    tree.write("data/files/rhel/ks.cfg", "rootpw --iscrypted 6>images/linux:password<6\nhost >>fqdn<< >>nothing<<\n")
    tree.write("data/files/rhel/end.cfg", "<tz>>>major<<</tz>\n")
    return Catalog.open(Roots.of_old_tree(tree.root / "data", tree.root / "user"))


def resolve(catalog: Catalog, target: str = "qemu/lab/rhel-9.0-x86_64", **asked: str) -> OldBuild:
    settings = OldSettings(user_dir=Path("/user"), temp_dir="/temp", home=Path("/home/u"))
    return resolve_old(catalog, Request(target=target, **asked), TableLookups(), settings)  # type: ignore[arg-type]


def test_targets_have_a_medium(old: Catalog) -> None:
    assert [str(entry) for entry in old.targets()] == ["rhel-9.0-x86_64", "rhel-9.1-x86_64"]
    assert not old.problems


def test_defs_and_builder_are_osimagers(old: Catalog) -> None:
    build = resolve(old)
    expected: dict[str, Value] = {
        "firmware": "bios", "iso_name": "rhel.iso", "fqdn": "rhel-9.0-x86_64.lab.org", "gateway": "10.0.0.254",
        "cd_files": "/temp/ks.cfg", "vms_path": "/home/u/vms", "major": "9", "minor": "0", "image_import": "",
        "iso_url": "https://example.org/9.0/rhel.iso?x=1", "platform_type": "qemu", "memory": 2048,
    }  # fmt: skip
    assert {key: build.defs[key] for key in expected} == expected
    assert build.config == {
        "type": "qemu", "iso_url": "https://example.org/9.0/rhel.iso?x=1", "memory": 2048, "cores": 2,
        "disk_size": "16384M", "cpu_model": "host", "cd_files": "/temp/ks.cfg", "cd_label": "OEMDRV",
        "vnc_password": "x", "communicator": "ssh", "ssh_username": "{{ user `ssh-username` }}",
        "ssh_password": "{{ user `ssh-password` }}", "vm_name": "rhel-9.0-x86_64", "boot_wait": "10s",
        "boot_command": ["<tab> inst.ks=hd:LABEL=OEMDRV:/ks.cfg<enter>"], "name": "rhel-9.0-x86_64",
    }  # fmt: skip
    assert build.variables["ssh-password"] == "s3cret"
    assert [step["type"] for step, _ in build.provisioners if isinstance(step, dict)] == ["ansible", "shell"]


def test_generated_files_are_rendered_and_undefined_names_are_warnings(old: Catalog) -> None:
    from osimager.crypt import crypt

    build = resolve(old)
    assert build.render_files() == {
        "ks.cfg": f"rootpw --iscrypted {crypt('s3cret', SALT)}\nhost rhel-9.0-x86_64.lab.org \n<tz>9</tz>\n"
    }
    assert any("undefined_name" in warning and "spec.json" in warning for warning in build.warnings)


def test_fields_of_a_version_and_its_methods(old: Catalog) -> None:
    build = resolve(old, "qemu/lab/rhel-9.1-x86_64")
    assert build.evars["PATH"] == "/2.18/bin:"
    assert "<tz>" not in build.render_files()["ks.cfg"]


def test_a_local_iso_is_used(old: Catalog, tree: Tree) -> None:
    isos = tree.root / "isos"
    isos.mkdir()
    (isos / "rhel.iso").write_text("")
    settings = OldSettings(user_dir=Path("/user"), values={"iso_path": str(isos)}, temp_dir="/temp")
    build = resolve_old(old, Request(target="qemu/lab/rhel-9.0"), TableLookups(), settings)
    assert build.config["iso_url"] == f"{isos}/rhel.iso"


def test_an_old_target_becomes_a_configuration(old: Catalog) -> None:
    configuration = old.resolve(Request(target="qemu/lab/rhel-9.0"), TableLookups())
    sections = configuration.sections
    assert sections.installer.boot == (Rung.TYPED,)
    assert sections.installer.boot_wait_s == 10.0
    assert sections.installer.seed is not None
    assert (sections.installer.seed.label, sections.installer.seed.files) == ("OEMDRV", ("ks.cfg",))
    assert (sections.machine.memory_mib, sections.machine.cpus, sections.machine.disk_size_bytes) == (2048, 2, 16 << 30)
    assert sections.machine.firmware is Firmware.BIOS
    assert (sections.access.user, sections.access.password) == ("root", "s3cret")
    assert "s3cret" not in repr(sections.access)
    assert [step.kind for step in sections.steps] == [StepKind.ANSIBLE, StepKind.INLINE]
    assert sections.steps[1].environment == {"A": "b"}
    assert "spec_config=specs/rhel/config.yml" in sections.steps[0].arguments[1]
    assert sections.needs is None
    assert configuration.iso == "https://example.org/9.0/rhel.iso?x=1"
    assert any("vnc_password" in warning and "qemu.json:" in warning for warning in configuration.warnings)
    assert [origin.section for origin in configuration.explain("firmware")] == ["platform_defs"]
    asked = old.resolve(Request(target="qemu/lab/rhel-9.0", firmware="uefi"), TableLookups())
    assert asked.sections.machine.firmware is Firmware.UEFI


def test_what_cannot_be_built_yet_is_named_not_skipped(old: Catalog, tree: Tree) -> None:
    assert old.resolve(Request(target="vmware/lab/rhel-9.0"), TableLookups()).sections.needs == "the platform vmware"
    spec = {**SPEC, "provisioners": [{"type": "chef-solo"}], "config": {"communicator": "winrm"}}
    tree.write("data/specs/rhel/spec.json", json.dumps(spec))
    catalog = Catalog.open(old.roots)
    needs = catalog.resolve(Request(target="qemu/lab/rhel-9.0"), TableLookups()).sections.needs
    assert needs == "winrm, the provisioner chef-solo"


def test_platforms_that_a_spec_is_not_for(old: Catalog, tree: Tree) -> None:
    tree.write("data/platforms/aws.json", '{"config": {"type": "amazon-ebs"}}')
    with pytest.raises(ConfigError, match="aws"):
        resolve(old, "aws/lab/rhel-9.0")


def test_unknown_keys_warn_in_an_old_tree(old: Catalog, tree: Tree) -> None:
    tree.write("data/specs/rhel/spec.json", json.dumps({**SPEC, "post_provisioner": []}, indent=1))
    catalog = Catalog.open(old.roots)
    warnings = catalog.resolve(Request(target="qemu/lab/rhel-9.0"), TableLookups()).warnings
    assert any("post_provisioner" in warning and "did you mean" in warning for warning in warnings)


def test_a_wrong_pattern_hides_its_own_spec_only(old: Catalog, tree: Tree) -> None:
    spec: dict[str, Any] = {**SPEC, "version_specific": [{"version": "(9", "defs": {"iso_url": "http://x"}}]}
    tree.write("data/specs/other/spec.json", json.dumps(spec, indent=1))
    catalog = Catalog.open(old.roots)
    assert [str(entry) for entry in catalog.targets()] == [str(entry) for entry in old.targets()]
    [problem] = catalog.problems
    assert "'(9' is not a regular expression" in problem.what
    assert problem.where[0].line is not None
