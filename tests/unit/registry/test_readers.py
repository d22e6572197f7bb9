"""The Terraform module and the Ansible lookup, each run by the real tool over a registry that the store wrote."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from osimager.arch import Arch, Firmware
from osimager.registry.entry import Entry, IsoRecord
from osimager.registry.names import make_id
from osimager.registry.store import Registry

READERS = Path(__file__).parents[3] / "registry"
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def make_entry(folder: Path, short: str, profile: str = "", *, hours: int = 0) -> Entry:
    created = NOW + timedelta(hours=hours)
    image_id = make_id(short, profile, created)
    path = folder / f"{image_id}.qcow2"
    path.touch()
    return Entry(
        id=image_id,
        target=f"qemu/local/{short}",
        profile=profile,
        arch=Arch(short.rpartition("-")[2]),
        firmware=Firmware.UEFI if hours % 2 else Firmware.BIOS,
        path=path,
        size_bytes=1,
        sha256=f"{hours:064x}",
        iso=IsoRecord("debian-12-made", "cd" * 32, verified=True),
        created=created,
    )


@dataclasses.dataclass(frozen=True)
class Shelf:
    """A registry with an image or two of every sort, and the folder it lies in."""

    path: Path
    entries: dict[str, Entry]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    entries = {
        "old": make_entry(tmp_path, "debian-12-x86_64"),
        "new": make_entry(tmp_path, "debian-12-x86_64", hours=1),
        "web": make_entry(tmp_path, "debian-12-x86_64", "web", hours=2),
        "rocky-arm": make_entry(tmp_path, "rocky-9.5-aarch64", hours=3),
        "rocky-x86": make_entry(tmp_path, "rocky-9.5-x86_64", hours=4),
        "gone": make_entry(tmp_path, "gone-1-x86_64", hours=5),
    }
    entries["gone"].path.unlink()
    registry = Registry.open(tmp_path / "registry.yml")
    for entry in entries.values():
        registry.add(entry)
    return Shelf(registry.path, entries)


CASES = [
    ({"target": "debian-12"}, "new"),
    ({"target": "qemu/local/debian-12-x86_64"}, "new"),
    ({"target": "debian-12-x86_64", "firmware": "bios"}, "old"),
    ({"target": "debian-12", "profile": "web"}, "web"),
    ({"target": "rocky-9.5", "arch": "arm64"}, "rocky-arm"),
    ({"target": "rocky-9.5-x86_64"}, "rocky-x86"),
]
FAILURES = [
    ({"target": "debian-13"}, "run `osimager build"),
    ({"target": "rocky-9.5"}, "aarch64 and x86_64"),
    ({"target": "gone-1"}, "is gone"),
]


def run(argv: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "TF_CLI_CONFIG_FILE"}
    return subprocess.run(
        argv, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(params=["terraform", "tofu"])
def tool(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"the program {request.param!r} is not on this host")
    return str(request.param)


def plan_module(tool: str, folder: Path, registry: Path, inputs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    module = {"source": str(READERS / "terraform"), "registry": str(registry), **inputs}
    names = ("id", "path", "sha256", "image")
    outputs = {name: {"value": f"${{module.debian.{name}}}"} for name in names}
    (folder / "main.tf.json").write_text(json.dumps({"module": {"debian": module}, "output": outputs}))
    (folder / "terraform.rc").touch()
    environment = {"TF_CLI_CONFIG_FILE": str(folder / "terraform.rc"), "CHECKPOINT_DISABLE": "1"}
    started = run([tool, "init", "-no-color", "-input=false"], folder, **environment)
    assert started.returncode == 0, started.stderr
    applied = run([tool, "apply", "-no-color", "-input=false", "-auto-approve"], folder, **environment)
    return applied if applied.returncode else run([tool, "output", "-json"], folder, **environment)


@pytest.mark.parametrize(("inputs", "expected"), CASES)
def test_the_terraform_module_gives_the_newest_image(
    tool: str, shelf: Shelf, tmp_path: Path, inputs: dict[str, str], expected: str
) -> None:
    done = plan_module(tool, tmp_path / "root", shelf.path, inputs)
    assert done.returncode == 0, done.stderr
    entry = shelf.entries[expected]
    outputs = {name: output["value"] for name, output in json.loads(done.stdout).items()}
    assert (outputs["id"], outputs["path"], outputs["sha256"]) == (entry.id, str(entry.path), entry.sha256)
    assert outputs["image"]["iso"]["name"] == "debian-12-made"


@pytest.mark.parametrize(("inputs", "says"), FAILURES)
def test_the_terraform_module_refuses_what_is_not_there(
    tool: str, shelf: Shelf, tmp_path: Path, inputs: dict[str, str], says: str
) -> None:
    done = plan_module(tool, tmp_path / "root", shelf.path, inputs)
    assert done.returncode == 1
    assert says in " ".join(done.stderr.split())


@pytest.mark.parametrize("label", ["1e3", "0o17", "0E0", "no", "12:30", "2026-05-04", "~"])
def test_a_text_stays_a_text_for_terraform(tool: str, tmp_path: Path, label: str) -> None:
    entry = dataclasses.replace(make_entry(tmp_path, "debian-12-x86_64"), label=label)
    registry = Registry.open(tmp_path / "registry.yml")
    registry.add(entry)
    assert registry.load() == (entry,)
    done = plan_module(tool, tmp_path / "root", registry.path, {"target": "debian-12"})
    assert json.loads(done.stdout)["image"]["value"]["label"] == label


def test_the_terraform_module_says_that_there_is_no_registry(tool: str, tmp_path: Path) -> None:
    done = plan_module(tool, tmp_path / "root", tmp_path / "registry.yml", {"target": "debian-12"})
    assert "No image of 'debian-12'" in " ".join(done.stderr.split())


def look_up(shelf: Shelf, tmp_path: Path, inputs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    ansible = Path(sys.executable).with_name("ansible")
    if not ansible.exists():
        pytest.skip("the program 'ansible' is not on this host")
    options = "".join(f", {name}='{value}'" for name, value in inputs.items() if name != "target")
    template = f"{{{{ lookup('osimager.registry.image', '{inputs['target']}'{options}) | to_json }}}}"
    return run(
        [str(ansible), "localhost", "-c", "local", "-m", "ansible.builtin.debug", "-a", f"msg={template}"],
        tmp_path,
        ANSIBLE_COLLECTIONS_PATH=str(READERS / "ansible"),
        ANSIBLE_HOME=str(tmp_path / "ansible"),
        ANSIBLE_LOCALHOST_WARNING="False",
        ANSIBLE_INVENTORY_UNPARSED_WARNING="False",
        ANSIBLE_NOCOLOR="1",
        OSIMAGER_REGISTRY=str(shelf.path),
        LC_ALL="C.UTF-8",
    )


@pytest.mark.parametrize(("inputs", "expected"), CASES)
def test_the_ansible_lookup_gives_the_newest_image(
    shelf: Shelf, tmp_path: Path, inputs: dict[str, str], expected: str
) -> None:
    done = look_up(shelf, tmp_path, inputs)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout.partition("=>")[2])["msg"]
    found = json.loads(answer) if isinstance(answer, str) else answer
    entry = shelf.entries[expected]
    assert (found["id"], found["path"], found["sha256"]) == (entry.id, str(entry.path), entry.sha256)
    assert found["created"] == f"{entry.created:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize(("inputs", "says"), FAILURES)
def test_the_ansible_lookup_refuses_what_is_not_there(
    shelf: Shelf, tmp_path: Path, inputs: dict[str, str], says: str
) -> None:
    done = look_up(shelf, tmp_path, inputs)
    assert done.returncode != 0
    assert says in done.stdout + done.stderr
