"""Errors, architectures and places: the small ones of the base layer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from osimager import errors
from osimager.arch import ALIASES, Arch, parse_arch
from osimager.errors import ConfigError, ConfigErrors, OsimagerError, Place, UsageError
from osimager.paths import DATA_KINDS, Places, search_path, shipped


def test_each_family_of_errors_has_the_status_of_the_contract() -> None:
    statuses = {
        kind.__name__: kind.status for kind in OsimagerError.__subclasses__() if kind.__module__ == errors.__name__
    }
    assert statuses == {
        "UsageError": 2,
        "ConfigError": 3,
        "PrerequisiteError": 4,
        "MediaError": 5,
        "MachineError": 6,
        "ProvisionError": 7,
        "PublishError": 8,
        "LockedError": 75,
    }


def test_an_error_says_where() -> None:
    error = ConfigError("no such key", where=[Place(Path("a.yml"), 3), Place("b.yml")], hint="remove it")
    assert str(error) == "no such key (a.yml:3) (b.yml)"
    assert ConfigErrors([error]).what == "no such key"
    assert ConfigErrors([error, error]).what == "2 configuration errors"


@pytest.mark.parametrize(("name", "arch"), [*ALIASES.items(), ("AMD64", Arch.X86_64), ("aarch64", Arch.AARCH64)])
def test_an_architecture_is_known_by_all_its_names(name: str, arch: Arch) -> None:
    assert parse_arch(name) is arch


def test_an_unknown_architecture_names_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse_arch("vax")
    assert "arm64" in str(caught.value.hint)


def test_osimager_home_moves_everything(tmp_path: Path) -> None:
    places = Places.from_environment({"OSIMAGER_HOME": str(tmp_path), "XDG_DATA_HOME": "/elsewhere"})
    assert all(path.is_relative_to(tmp_path) for path in (places.config, places.registry, places.isos, places.layers))
    assert len(os.fsencode(places.runtime)) < 60


def test_the_xdg_folders_are_obeyed_and_relative_ones_ignored() -> None:
    environ = {"HOME": "/h", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "relative", "XDG_RUNTIME_DIR": "/run/user/7"}
    places = Places.from_environment(environ)
    assert places == Places(
        Path("/h/.config/osimager"), Path("/d/osimager"), Path("/h/.cache/osimager"), Path("/run/user/7/osimager")
    )


@pytest.mark.parametrize("kind", DATA_KINDS)
def test_the_data_folders_that_ship_are_found(kind: str) -> None:
    assert shipped(kind).is_dir()


def test_the_projects_folder_wins_over_the_users_and_the_shipped(tmp_path: Path, places: Places) -> None:
    project = tmp_path / "project"
    for folder in (project / "specs", places.config / "specs"):
        folder.mkdir(parents=True)
    found = search_path("specs", project=project, places=places)
    assert found == (project / "specs", places.config / "specs", shipped("specs"))
