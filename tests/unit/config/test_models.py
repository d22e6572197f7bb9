"""Every section takes what its table says, and refuses the rest with the key's path."""

from __future__ import annotations

import pytest

from osimager.config import models
from osimager.config.documents import SourceFloat
from osimager.config.values import Value
from osimager.errors import ConfigErrors, Place

HERE = Place("spec.yml", 3)


def refused(fields: models.Fields, values: dict[str, Value]) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        models.check(fields, values, "section", lambda key: HERE)
    assert all(error.where == (HERE,) and error.hint for error in caught.value.errors)
    return [error.what for error in caught.value.errors]


@pytest.mark.parametrize(
    ("fields", "key", "value", "expected"),
    [
        (models.MACHINE, "memory", "1G", 1024),
        (models.MACHINE, "memory", 512, 512),
        (models.MACHINE, "memory", "512", 512),
        (models.MACHINE, "disk_size", "20G", 20 << 30),
        (models.MACHINE, "disk_size", 1024, 1 << 30),
        (models.MACHINE, "cpus", "3", 3),
        (models.MACHINE, "firmware", "efi", "uefi"),
        (models.MACHINE, "disk_interface", "nvme", "nvme"),
        (models.INSTALLER, "boot", "typed", ("typed",)),
        (models.INSTALLER, "kernel_arguments", ["a", "", 5, " "], ("a", "5")),
        (models.INSTALLER, "boot_wait", 5, 5.0),
        (models.INSTALLER, "boot_wait", "1m30s", 90.0),
        (models.VERIFY, "enabled", False, False),
        (models.STEP, "mode", "0644", 0o644),
        (models.STEP, "mode", "0o755", 0o755),
        (models.STEP, "environment", {"A": 1}, {"A": "1"}),
        (models.ISO_ARCH, "size", "1.5G", 3 << 29),
    ],
)
def test_values_come_out_final(fields: models.Fields, key: str, value: Value, expected: object) -> None:
    found = models.check(fields, {key: value, "_comment": "any"}, "section", lambda key: HERE)
    assert found == {fields[key].attribute or key: expected}


@pytest.mark.parametrize(
    ("fields", "key", "value"),
    [
        (models.MACHINE, "memory", True), (models.MACHINE, "memory", "much"), (models.MACHINE, "memory", 1),
        (models.MACHINE, "memory", -5), (models.MACHINE, "memory", 1.5), (models.MACHINE, "memory", "9999999T"),
        (models.MACHINE, "cpus", 0), (models.MACHINE, "cpus", 2.5), (models.MACHINE, "cpus", []),
        (models.MACHINE, "cpu", 5), (models.MACHINE, "firmware", "bois"), (models.MACHINE, "nic", {}),
        (models.MACHINE, "disk_interface", "scsi3"), (models.ACCESS, "method", "telnet"),
        (models.INSTALLER, "boot", ["direkt"]), (models.INSTALLER, "menu", "("), (models.INSTALLER, "format", False),
        (models.INSTALLER, "kernel_arguments", [True]), (models.INSTALLER, "kernel_arguments", {"a": "b"}),
        (models.INSTALLER, "drop_arguments", ["ok", "("]), (models.INSTALLER, "seed", "OEMDRV"),
        (models.INSTALLER, "seed", {"label": ""}), (models.INSTALLER, "seed", {"label": "x" * 33}),
        (models.INSTALLER, "boot_wait", "soon"), (models.INSTALLER, "boot_wait", -1),
        (models.INSTALLER, "restarts", -1),
        (models.ACCESS, "user", "Bad Name"), (models.ACCESS, "port", 70000), (models.SEAL, "mode", "clone"),
        (models.VERIFY, "enabled", "yes"), (models.STEP, "mode", 644), (models.STEP, "mode", "rwx"),
        (models.STEP, "environment", ["A=b"]), (models.STEP, "environment", {"A": []}), (models.STEP, "cache", "no"),
        (models.ISO_ARCH, "sha256", "abc"), (models.ISO_ARCH, "volume_id", "["),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_with_their_path(fields: models.Fields, key: str, value: Value) -> None:
    (what,) = refused(fields, {key: value})
    assert what.startswith(f"section.{key}")


@pytest.mark.parametrize("dest", ["../a", "a/..", "a/../b", ".", "..", "./a", "a//b", "a/", "/a"])
def test_a_file_s_name_stays_in_its_folder(dest: str) -> None:
    (what,) = refused(models.FILE, {"dest": dest, "sources": []})
    assert "is not a relative path" in what


def test_a_number_is_told_as_it_was_written() -> None:
    assert refused(models.MACHINE, {"cpu": SourceFloat("9.10")}) == ['section.cpu: 9.10 is a number; quote it: "9.10"']
    assert refused(models.MACHINE, {"memory": True}) == ["section.memory: text is needed here, not true or false"]
    assert refused(models.MACHINE, {"memory": 2.5}) == ["section.memory: '2.5' is not between 32M and 1024T"]


def test_all_wrong_values_of_a_section_come_at_once() -> None:
    found = refused(models.FILE, {"dest": "/abs", "sorces": []})
    assert [what.partition(":")[0].partition(" ")[0] for what in found] == ["section.dest", "the", "section.sources"]
    seed: dict[str, Value] = {"labl": "X"}
    assert refused(models.INSTALLER, {"seed": seed}) == [
        "the key 'labl' is unknown in section.seed", "section.seed.label is missing",
    ]  # fmt: skip
    arches: dict[str, Value] = {"x86_64": {"sha": "x"}}
    assert refused(models.ISO, {"arches": arches}) == ["the key 'sha' is unknown in section.arches.x86_64"]
    assert refused(models.ISO, {"arches": {}}) == ["section.arches: an empty mapping says nothing"]
    assert refused(models.ISO, {}) == ["section.arches is missing"]


def test_what_is_none_counts_as_not_given() -> None:
    assert models.check(models.MACHINE, {"cpus": None}, "machine", lambda key: HERE) == {}
    section = models.make_machine({"memory": 512, "minimum_memory": "1G"}, lambda key: HERE)
    assert section.memory_mib == 1024
