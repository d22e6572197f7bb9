"""Every case of docs/errors.md says what the page says. `--update-golden` writes the page's messages anew."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from osimager.config.catalog import Catalog, Roots
from osimager.config.request import Request
from osimager.errors import ConfigError, ConfigErrors, OsimagerError
from osimager.paths import shipped

PAGE = Path(__file__).parents[3] / "docs/errors.md"
_FILE = re.compile(r"`([^`\n]+)`\n```\w+\n(.*?)```\n", re.DOTALL)
_CONSOLE = re.compile(r"```console\n\$ osimager plan ([^\n]*)\n(.*?)```\n", re.DOTALL)


class NoLookups:
    """A host that knows no secret, no host and no variable."""

    def secret(self, path: str, key: str | None) -> str:
        raise ConfigError(f"there is no secret {path}:{key}", hint=f"add it: osimager secret set {path} {key}=…")

    def dns(self, host: str, servers: Sequence[str], search: Sequence[str]) -> str | None:
        return None

    def environment(self, name: str) -> str | None:
        return None

    def salt(self, purpose: str) -> str:
        return "saltsaltsaltsalt"

    def is_writable(self, path: str) -> bool:
        return False


@dataclass(frozen=True)
class Case:
    title: str
    files: dict[str, str]
    command: str
    said: str


def cases() -> Iterator[Case]:
    for section in PAGE.read_text().split("\n## ")[1:]:
        console = _CONSOLE.search(section)
        assert console, section
        yield Case(section.partition("\n")[0], dict(_FILE.findall(section)), console[1], console[2])


def render_all(catalog: Catalog, request: Request) -> None:
    """Do what `plan` does with configuration."""
    configuration = catalog.resolve(request, NoLookups())
    for file in configuration.sections.files:
        for part in file.fragments:
            configuration.render(part.text, part.place)


def say(root: Path, case: Case) -> str:
    """Run a case's command and give what a person would read."""
    for name, text in case.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    target, *options = shlex.split(case.command)
    defines = tuple(value for flag, value in pairwise(options) if flag == "-D")
    catalog = Catalog.open(Roots(specs=(root / "specs", shipped("specs")), files=(root / "files",)))
    with pytest.raises(OsimagerError) as caught:
        render_all(catalog, Request(target=target, defines=defines))
    error = caught.value
    lines = []
    for each in error.errors if isinstance(error, ConfigErrors) else [error]:
        lines += [f"error: {each.what}", *(f"  at {place}" for place in each.where), f"  hint: {each.hint}"]
    text = "\n".join(lines) + "\n"
    return text.replace(f"{root}/", "").replace(str(shipped("specs")), "(shipped specs)")


ALL = list(cases())


def test_the_page_has_twenty_cases() -> None:
    assert len(ALL) >= 20


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.title)
def test_message_is_the_page_s(case: Case, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    said = say(tmp_path, case)
    assert re.search(r"^  hint: (?!None)", said, re.MULTILINE)
    if request.config.getoption("--update-golden"):
        page = PAGE.read_text()
        head, title, rest = page.partition(f"\n## {case.title}\n")
        new = _CONSOLE.sub(lambda match: f"```console\n$ osimager plan {match[1]}\n{said}```\n", rest, count=1)
        PAGE.write_text(head + title + new)
        return
    assert said == case.said
