"""The secrets file: what a line means, and who may read it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.errors import ConfigError
from osimager.secrets.file import SecretsFile, parse_secrets
from osimager.secrets.provider import NoSuchSecret

PATH = Path("secrets")


def values_of(line: str) -> dict[str, str]:
    (entry,) = parse_secrets(line, PATH).values()
    return dict(entry.values)


def test_lines_of_osimager_mean_what_they_meant() -> None:
    entries = parse_secrets(
        "# a comment\n\n"
        "images/linux username=root password=Ch@ng3m3\n"
        "  vsphere/lab\tserver=vcenter.example.com \t username=administrator@vsphere.local password=a=b'c\"d#e\\n\r\n",
        PATH,
    )
    assert dict(entries["images/linux"].values) == {"username": "root", "password": "Ch@ng3m3"}
    assert entries["vsphere/lab"].values["password"] == "a=b'c\"d#e\\n"
    assert entries["vsphere/lab"].values["server"] == "vcenter.example.com"
    assert entries["vsphere/lab"].place.line == 4


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("p k='two words'", "two words"),
        ('p k="two words"', "two words"),
        (r"""p k='as \n "it" stands'""", r'as \n "it" stands'),
        (r'p k="a\nb\tc\"d\\e\f"', 'a\nb\tc"d\\e\\f'),
        ("p k=''", ""),
        ("p k=", ""),
        ("p k=value # a comment", "value"),
        ("p k=#value", "#value"),
        ("p k=it's", "it's"),
        ("p k=ünï", "ünï"),
    ],
)
def test_values_are_read_through_quotes_and_escapes(line: str, value: str) -> None:
    assert values_of(line) == {"k": value}


@given(st.dictionaries(st.from_regex(r"[a-z][a-z_.-]{0,8}", fullmatch=True), st.text(), min_size=1, max_size=4))
def test_any_value_can_be_written_in_double_quotes(values: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{text}"'

    line = "a/path " + " ".join(f"{key}={quoted(value)}" for key, value in values.items())
    assert values_of(line) == values


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("p k=v word", 1, "word 3 of this line is not KEY=VALUE"),
        ("p k=two words", 1, "word 3 of this line"),
        ("\np", 2, "has no KEY=VALUE"),
        ("p # nothing", 1, "has no KEY=VALUE"),
        ("p k='open", 1, "the value of 'k' is quoted wrongly"),
        ('p k="open\\"', 1, "quoted wrongly"),
        ("p k='a'b", 1, "quoted wrongly"),
        ("p k=a k=b", 1, "the key 'k' stands twice"),
        ("p k=a\nq k=b\np l=c", 3, r"the path 'p' stands twice \(first in line 1\)"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_showing_it(text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_secrets(text, PATH)
    assert [place.line for place in caught.value.where] == [line]
    assert caught.value.hint
    assert not {"words", "open", "word "} & set(str(caught.value).split())


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_secrets(text, PATH)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "secrets"
    file.write_text("images/linux username=root password='hunter 22'\nimages/one code=1234-5678\n")
    file.chmod(0o600)
    return file


def test_a_value_is_read_by_path_and_key(path: Path) -> None:
    secrets = SecretsFile(path)
    assert secrets.read("images/linux", "password") == "hunter 22"
    assert secrets.read("images/one", None) == "1234-5678"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o777])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"others can read this file of secrets \(mode {mode:04o}\)") as caught:
        SecretsFile(path).read("images/linux", "password")
    assert caught.value.hint == f"chmod 600 {path}"
    path.chmod(0o400)
    assert SecretsFile(path).read("images/linux", "username") == "root"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(path: Path) -> None:
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        SecretsFile(path).read("images/linux", "password")


def test_a_pipe_in_its_place_does_not_hold_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secrets", 0o600)
    with pytest.raises(ConfigError, match="not a file of secrets"):
        SecretsFile(tmp_path / "secrets").read("images/linux", "password")


def test_a_file_that_is_not_utf8_is_refused(path: Path) -> None:
    path.write_bytes(b"p k=\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        SecretsFile(path).read("p", "k")


@pytest.mark.parametrize(
    ("reference", "message", "line"),
    [
        (("images/windows", "password"), "the path 'images/windows' is not in the secrets file", None),
        (("images/linux", "passwort"), "has no key 'passwort', only password, username", 1),
        (("images/linux", None), r"has 2 keys \(password, username\), and none was asked for", 1),
    ],
)
def test_what_is_missing_is_told_with_file_and_remedy(
    path: Path, reference: tuple[str, str | None], message: str, line: int | None
) -> None:
    with pytest.raises(NoSuchSecret, match=message) as caught:
        SecretsFile(path).read(*reference)
    assert [(place.path, place.line) for place in caught.value.where] == [(path, line)]
    assert caught.value.hint


def test_without_a_file_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoSuchSecret, match="there is no secrets file") as caught:
        SecretsFile(tmp_path / "secrets").read("a", "b")
    assert "chmod 600" in (caught.value.hint or "")
