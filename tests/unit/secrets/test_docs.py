"""docs/secrets.md says what is so: each section's files are written, and each of its examples is tried."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from osimager.config.settings import load_settings
from osimager.errors import ConfigError
from osimager.paths import Places
from osimager.redact import Masker
from osimager.secrets.store import SecretStore, open_store
from tests.unit.secrets.vault_server import TOKEN, running_vault

PAGE = Path(__file__).parents[3] / "docs" / "secrets.md"
FILE = re.compile(r"^`([\w.]+)`(?:, mode (\d+))?:\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^\* `([\w/-]+)(?::([\w-]+))?` (?:is `(.+)`|fails with `(.+?)`, hint `(.+)`)$", re.MULTILINE)


@dataclass
class Case:
    """The files of one or more blocks that stand together, and what they give."""

    title: str
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    examples: list[tuple[str, str | None, str | None, str | None, str | None]] = field(default_factory=list)


def read_cases() -> list[Case]:
    cases: list[Case] = []
    for section in PAGE.read_text().split("\n## ")[1:]:
        title = section.partition("\n")[0]
        found = sorted([*FILE.finditer(section), *EXAMPLE.finditer(section)], key=lambda match: match.start())
        for match in found:
            is_file = match.re is FILE
            if not cases or cases[-1].title != title or (is_file and cases[-1].examples):
                cases.append(Case(title))
            if is_file:
                cases[-1].files[match[1]] = (int(match[2] or "600", 8), match[3])
            else:
                path, key, value, error, hint = match.groups()
                cases[-1].examples.append((path, key, value, error, hint))
    return cases


def test_the_page_is_read_as_it_is_meant() -> None:
    cases = read_cases()
    assert [case.title for case in cases] == [
        "The secrets file",
        "The secrets file",
        "The environment",
        "A command",
        "Vault",
        "Settings files",
    ]
    assert sum(len(case.examples) for case in cases) == len(
        re.findall(r"^\* `.* (?:is|fails with) `", PAGE.read_text(), re.M)
    )


def open_case(case: Case, places: Places, address: str) -> SecretStore:
    places.config.mkdir()
    environ = {"HOME": str(places.data), "PATH": "/usr/bin:/bin"}
    for name, (mode, text) in case.files.items():
        if name == "environment":
            environ |= dict(line.split("=", 1) for line in text.splitlines())
            continue
        path = places.config / name
        path.write_text(text.replace('"VAULT"', f'"{address}"').replace('"TOKEN"', f'"{TOKEN}"'))
        path.chmod(mode)
    settings = load_settings(places, home=places.data)
    assert settings.warnings == ()
    return open_store(settings.secrets, environ, Masker())


@pytest.mark.parametrize("case", read_cases(), ids=lambda case: case.title.replace(" ", "-"))
def test_every_example_gives_what_the_page_says(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.title == "Vault":
        pytest.importorskip("hvac", reason="the extra [vault] is not installed")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_vault() as vault:
        store = open_case(case, Places.from_environment({"OSIMAGER_HOME": str(tmp_path)}), vault.address)
        for path, key, value, error, hint in case.examples:
            if value is not None:
                assert store.get(path, key) == value
                continue
            with pytest.raises(ConfigError) as caught:
                store.get(path, key)
            assert str(error) in caught.value.what
            assert str(hint) in (caught.value.hint or "")
