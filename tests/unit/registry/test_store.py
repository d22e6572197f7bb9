"""The registry file under use, damage, newer versions and two writers at once."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from osimager.arch import Arch, Firmware, host_arch
from osimager.errors import ConfigError, PublishError, UsageError
from osimager.events import Stage
from osimager.registry.entry import Deployment, Entry, IsoRecord, StageRecord, render_entry
from osimager.registry.form import RegistryModel, parse_registry
from osimager.registry.names import make_id
from osimager.registry.store import Registry

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
REPOSITORY = Path(__file__).parents[3]


def make_entry(
    target: str = "qemu/local/debian-12-x86_64",
    profile: str = "",
    *,
    created: datetime = NOW,
    folder: Path = Path("/i"),
) -> Entry:
    short = target.rpartition("/")[2]
    image_id = make_id(short, profile, created)
    return Entry(
        id=image_id,
        target=target,
        profile=profile,
        arch=Arch(short.rpartition("-")[2]),
        firmware=Firmware.BIOS,
        path=folder / f"{image_id}.qcow2",
        size_bytes=123,
        sha256="ab" * 32,
        iso=IsoRecord("debian-12-made", "cd" * 32, verified=True),
        stages=(StageRecord(Stage.INSTALL, "ef" * 32, 61.25), StageRecord(Stage.SEAL, "", 2.0)),
        created=created,
        label="nightly",
        deployments=(Deployment("s3://there", NOW),),
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "data/registry.yml")


def document(registry: Registry) -> dict[str, object]:
    loaded: dict[str, object] = yaml.safe_load(registry.path.read_text())
    return loaded


def test_a_registry_that_is_not_there_is_empty(registry: Registry) -> None:
    assert registry.load() == ()
    assert not registry.path.exists()


def test_an_added_image_comes_back_as_it_was(registry: Registry) -> None:
    entry = make_entry()
    registry.add(entry)
    assert registry.load() == (entry,)


def test_the_file_has_the_version_the_images_by_id_and_the_newest_of_each_name(registry: Registry) -> None:
    old, new = make_entry(), make_entry(created=NOW + timedelta(days=1))
    web = make_entry(profile="web")
    for entry in (new, old, web):
        registry.add(entry)
    content = document(registry)
    assert content["version"] == 1
    assert content["channels"] == {}
    assert list(content["images"]) == [new.id, old.id, web.id]  # type: ignore[call-overload]
    assert content["latest"] == {
        "debian-12-x86_64": new.id,
        "qemu/local/debian-12-x86_64": new.id,
        "debian-12-x86_64+web": web.id,
        "qemu/local/debian-12-x86_64+web": web.id,
    }
    assert web.id == "debian-12-x86_64+web-20260504T030201Z"


def test_removing_the_newest_image_makes_the_one_before_it_the_latest(registry: Registry) -> None:
    old, new = make_entry(), make_entry(created=NOW + timedelta(days=1))
    registry.add(old)
    registry.add(new)
    registry.remove(new.id)
    assert registry.find("debian-12") == old
    assert document(registry)["latest"]["debian-12-x86_64"] == old.id  # type: ignore[index]
    registry.remove(old.id)
    assert document(registry)["latest"] == {}


def test_an_unknown_id_is_a_usage_error(registry: Registry) -> None:
    with pytest.raises(UsageError, match="no-such"):
        registry.remove("no-such")


def test_an_id_cannot_be_taken_twice(registry: Registry) -> None:
    registry.add(make_entry())
    with pytest.raises(PublishError, match="registered already"):
        registry.add(make_entry())


# Publishing -----------------------------------------------------------------------------------------------------------


def publish(registry: Registry, entry: Entry, content: str, *, replace: bool = False) -> Entry:
    entry.path.parent.mkdir(exist_ok=True)
    partial = entry.path.parent / ".partial-x"
    partial.write_text(content)
    return registry.publish(entry, partial, replace=replace)


def test_two_images_of_one_second_get_a_file_and_an_id_each(registry: Registry, tmp_path: Path) -> None:
    entry = make_entry(folder=tmp_path / "images")
    published = [publish(registry, entry, content) for content in ("one", "two", "three")]
    assert [item.id for item in published] == [entry.id, f"{entry.id}-2", f"{entry.id}-3"]
    assert [item.path.read_text() for item in published] == ["one", "two", "three"]
    assert registry.load() == tuple(published)
    assert registry.find("debian-12") == published[-1]


def test_a_file_of_a_chosen_name_is_replaced_only_when_that_was_asked(registry: Registry, tmp_path: Path) -> None:
    entry = dataclasses.replace(make_entry(), path=tmp_path / "out/debian.qcow2")
    publish(registry, entry, "one")
    with pytest.raises(PublishError, match="is there already"):
        publish(registry, entry, "two")
    assert entry.path.read_text() == "one"
    second = publish(registry, entry, "two", replace=True)
    assert entry.path.read_text() == "two"
    assert registry.load() == (second,)


def test_what_cannot_be_recorded_moves_no_file(registry: Registry, tmp_path: Path) -> None:
    entry = dataclasses.replace(make_entry(folder=tmp_path / "images"), sha256="short")
    with pytest.raises(PublishError, match="sha256"):
        publish(registry, entry, "one")
    assert not entry.path.exists()
    assert not registry.path.exists()


# Finding --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "debian-12",
        "debian-12-x86_64",
        "debian-12-amd64",
        "qemu/debian-12",
        "qemu/local/debian-12",
        "qemu/local/debian-12-x86_64",
        "debian-12-x86_64-20260505T030201Z",
        "debian-12-x86_64-20260505",
    ],
)
def test_an_image_is_found_by_every_form_of_its_name(registry: Registry, text: str) -> None:
    new = make_entry(created=NOW + timedelta(days=1))
    for entry in (new, make_entry(), make_entry(profile="web"), make_entry("qemu/local/debian-12.1-x86_64")):
        registry.add(entry)
    assert registry.find(text) == new


def test_a_profile_is_found_by_its_name_only(registry: Registry) -> None:
    web = make_entry(profile="web")
    registry.add(web)
    assert registry.find("debian-12+web") == web
    with pytest.raises(UsageError) as caught:
        registry.find("debian-12")
    assert caught.value.hint == "there are images of debian-12-x86_64+web"


def test_an_id_of_several_meanings_lists_them(registry: Registry) -> None:
    entries = [make_entry(), make_entry(created=NOW + timedelta(seconds=1))]
    for entry in entries:
        registry.add(entry)
    with pytest.raises(UsageError) as caught:
        registry.find("debian-12-x86_64-2026")
    assert all(entry.id in str(caught.value.hint) for entry in entries)


def test_of_several_architectures_the_hosts_is_taken(registry: Registry) -> None:
    entries = {
        arch: make_entry(f"qemu/local/debian-12-{arch}", created=NOW + timedelta(hours=hours))
        for hours, arch in enumerate(Arch)
    }
    for entry in entries.values():
        registry.add(entry)
    assert registry.find("debian-12") == entries[host_arch()]
    assert registry.find("debian-12", arch=Arch.AARCH64) == entries[Arch.AARCH64]
    registry.remove(entries[host_arch()].id)
    with pytest.raises(UsageError, match="has images of"):
        registry.find("debian-12")


def test_the_firmware_narrows_the_choice(registry: Registry) -> None:
    bios = make_entry()
    uefi = dataclasses.replace(make_entry(created=NOW + timedelta(hours=1)), firmware=Firmware.UEFI)
    registry.add(bios)
    registry.add(uefi)
    assert registry.find("debian-12") == uefi
    assert registry.find("debian-12", firmware=Firmware.BIOS) == bios


# Damage and other versions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("version: 1\nimages: {", "line|expected|did not find"),
        ("version: 1\nimages: {}\nimages: {}\n", "twice"),
        ("- 1\n", "no mapping"),
        ("", "no mapping"),
        ("version: 1\nimages: []\n", "images"),
        ("version: 1\nimages: {x: {target: 1}}\n", "images.x"),
        ("version: one\n", "version"),
        ("images: {}\n", "version"),
        ("version: 2\nimages: {}\n", "newer osimager"),
        ("a: !!python/object/apply:os.getcwd []\nversion: 1\n", "constructor"),
        ("\x00", "damaged"),
        ("{[a]: 1}", "no text"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_and_never_overwritten(
    registry: Registry, content: str, says: str
) -> None:
    registry.path.parent.mkdir()
    registry.path.write_text(content)
    with pytest.raises(ConfigError, match=says) as read:
        registry.load()
    assert read.value.hint
    assert read.value.where
    with pytest.raises(PublishError, match=says):
        registry.add(make_entry())
    assert registry.path.read_text() == content


def test_what_a_newer_osimager_added_is_kept(registry: Registry) -> None:
    entry = make_entry()
    registry.add(entry)
    content = document(registry)
    content["signatures"] = {"key": "since: 2030"}
    content["channels"] = {"stable": {"id": entry.id}}
    image = content["images"][entry.id]  # type: ignore[index]
    image["signed_at"] = "2030-01-01T00:00:00Z"
    image["stages"]["SIGN"] = {"digest": "", "seconds": 1.0}
    image["iso"]["mirror"] = "no"
    registry.path.write_text(yaml.safe_dump(content))
    assert registry.load() == (entry,)
    registry.add(make_entry(profile="web"))
    after = document(registry)
    assert after["signatures"] == content["signatures"]
    assert after["channels"] == content["channels"]
    assert after["images"][entry.id] == image  # type: ignore[index]


_WRITER = """
import dataclasses, pathlib, sys
from osimager.registry.store import Registry

registry = Registry.open(pathlib.Path(sys.argv[1]))
for number in range(10):
    entry = registry.load()[0]
    registry.add(dataclasses.replace(entry, id=f"{sys.argv[2]}-{number}"))
"""


def test_two_writers_lose_nothing(registry: Registry) -> None:
    registry.add(make_entry())
    argv = [sys.executable, "-c", _WRITER, str(registry.path)]
    writers = [subprocess.Popen([*argv, name]) for name in ("one", "two")]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(registry.load()) == 21
    leftovers = [path.name for path in registry.path.parent.iterdir() if path.name.startswith(".partial-")]
    assert leftovers == []


def test_a_symbolic_link_to_the_registry_stays_one(tmp_path: Path) -> None:
    link = tmp_path / "registry.yml"
    link.symlink_to(tmp_path / "real.yml")
    Registry.open(link).add(make_entry())
    assert link.is_symlink()
    assert Registry.open(tmp_path / "real.yml").load() == (make_entry(),)


# The form on disk -----------------------------------------------------------------------------------------------------

_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)


@given(profile=st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True) | st.just(""), label=_NAMES, size=st.integers(0))
def test_an_entry_survives_its_form_on_disk(profile: str, label: str, size: int) -> None:
    entry = dataclasses.replace(make_entry(profile=profile), label=label, size_bytes=size)
    text = yaml.safe_dump({"version": 1, "images": {entry.id: render_entry(entry)}})
    assert parse_registry(yaml.safe_load(text)) == (entry,)


def test_the_shipped_schema_is_the_models(update_golden: bool) -> None:
    path = REPOSITORY / "registry/schema.json"
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RegistryModel.model_json_schema(),
        "title": "osimager registry",
    }
    if update_golden:
        path.write_text(json.dumps(made, indent=2) + "\n")
    assert json.loads(path.read_text()) == made
