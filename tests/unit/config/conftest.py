"""A scratch tree of configuration, and look-ups that answer from a table."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from osimager.config.catalog import Catalog, Roots
from osimager.errors import ConfigError

SALT = "saltsaltsaltsalt"


class TableLookups:
    """Answers from dictionaries; whatever is not there is an error, as for real look-ups."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {"images/linux:password": "s3cret"}
        self.hosts: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.asked: list[str] = []

    def secret(self, path: str, key: str | None) -> str:
        name = f"{path}:{key}" if key else path
        self.asked.append(name)
        if name not in self.secrets:
            raise ConfigError(f"there is no secret {name}", hint="add it")
        return self.secrets[name]

    def dns(self, host: str, servers: Sequence[str], search: Sequence[str]) -> str | None:
        self.asked.append(host)
        return self.hosts.get(host)

    def environment(self, name: str) -> str | None:
        return self.variables.get(name)

    def salt(self, purpose: str) -> str:
        return SALT

    def is_writable(self, path: str) -> bool:
        return path == "/dev/kvm"


class Tree:
    """A folder with specs and files; `write` takes the text with its indentation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lookups = TableLookups()
        for kind in ("specs", "files", "isos.d"):
            (root / kind).mkdir()
        self.write("specs/platforms/qemu.yml", "machine: {memory: 2G}\n")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def catalog(self) -> Catalog:
        roots = Roots(specs=(self.root / "specs",), files=(self.root / "files",), isos=(self.root / "isos.d",))
        return Catalog.open(roots)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Give an empty tree that knows the platform qemu."""
    return Tree(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Give a writer of one scratch file."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write_file
