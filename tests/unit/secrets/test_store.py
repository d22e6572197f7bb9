"""The store: who is asked, in what order, and that no value goes where it must not."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from osimager.config.settings import CommandSettings, SecretSettings, Source, VaultSettings
from osimager.errors import ConfigError, Place, PrerequisiteError
from osimager.holes import hole
from osimager.redact import MASK, Masker
from osimager.secrets.command import CommandSecrets
from osimager.secrets.environment import EnvironmentSecrets, variable_of
from osimager.secrets.provider import NoSuchSecret
from osimager.secrets.store import SecretStore, open_store
from tests.unit.secrets.vault_server import TOKEN, VaultState, running_vault

PLACE = Place("specs/x.yml", 7)


class Book:
    """A provider that is a dict, and counts."""

    def __init__(self, name: str, *, error: ConfigError | None = None, **values: str) -> None:
        self.name = name
        self.values, self.error, self.asked = values, error, 0

    def read(self, path: str, key: str | None) -> str:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if key not in self.values:
            raise NoSuchSecret(f"{self.name} has no {path}:{key}", hint=f"add it to {self.name}")
        return self.values[key]


def test_a_value_is_known_to_the_masker_before_it_is_out() -> None:
    masker = Masker()
    value = SecretStore([Book("one", password="hunter22")], masker).get("a", "password")
    assert value == "hunter22"
    assert masker.mask("login: hunter22") == f"login: {MASK}"


def test_names_that_are_no_secrets_stay_readable() -> None:
    masker = Masker()
    store = SecretStore([Book("one", username="root", token="rootroot")], masker, public_keys=frozenset({"username"}))
    assert (store.get("a", "username"), store.get("a", "token")) == ("root", "rootroot")
    assert masker.mask("user root token rootroot") == f"user root token {MASK}"


def test_nothing_is_asked_before_it_is_used_and_then_once() -> None:
    book = Book("one", password="hunter22")
    store = SecretStore([book], Masker())
    assert book.asked == 0
    assert store.get("a", "password") == store.get("a", "password")
    assert book.asked == 1


def test_the_first_that_has_it_gives_it() -> None:
    first, second = Book("one", a="first"), Book("two", a="second", b="other")
    store = SecretStore([first, second], Masker())
    assert (store.get("x", "a"), store.get("x", "b")) == ("first", "other")
    assert second.asked == 1


def test_an_outage_stops_the_search() -> None:
    store = SecretStore([Book("one", error=ConfigError("sealed", hint="unseal")), Book("two", a="other")], Masker())
    with pytest.raises(ConfigError, match="sealed"):
        store.get("x", "a")


def test_a_missing_one_names_all_that_were_asked_the_place_and_the_remedies() -> None:
    with pytest.raises(ConfigError, match="no secret x:a: one has no x:a; two has no x:a") as caught:
        SecretStore([Book("one"), Book("two")], Masker()).get("x", "a", PLACE)
    assert caught.value.where == (PLACE,)
    assert caught.value.hint == "add it to one or add it to two"
    assert caught.value.status == 3


@pytest.mark.parametrize("value", [f"a{hole('build_password')}b", "a\0b"])
def test_a_value_that_would_be_read_as_something_else_is_refused(value: str) -> None:
    masker = Masker()
    with pytest.raises(ConfigError, match="holds a character") as caught:
        SecretStore([Book("one", a=value)], masker).get("x", "a", PLACE)
    assert value not in "".join(traceback.format_exception(caught.value))
    assert masker.mask(value) == MASK


def test_no_representation_shows_a_value(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text("a password=hunter22\n")
    file.chmod(0o600)
    environ = {"OSIMAGER_SECRET_B_PASSWORD": "hunter33", "VAULT_ADDR": "http://u:hunter44@127.0.0.1:1", "HOME": "/x"}
    store = open_store(SecretSettings(file=file, vault=VaultSettings(token="hunter55")), environ, Masker())
    assert store.get("b", "password") == "hunter33"
    with pytest.raises(ConfigError) as caught:
        store.get("a/b", "password", PLACE)
    shown = repr(store) + "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    assert "Vault at http://127.0.0.1:1 cannot be reached" in shown
    assert not [value for value in ("hunter22", "hunter33", "hunter44", "hunter55") if value in shown]


# Which source ---------------------------------------------------------------------------------------------------


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultState]:
    pytest.importorskip("hvac", reason="the extra [vault] is not installed")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_vault() as state:
        yield state


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.write_text("images/linux username=filed password=filed-password\nonly/here password=only-in-file\n")
    path.chmod(0o600)
    return path


def test_without_a_setting_the_environment_then_vault_then_the_file(vault: VaultState, file: Path) -> None:
    environ = {"OSIMAGER_SECRET_IMAGES_LINUX_USERNAME": "set", "HOME": "/x"}
    store = open_store(SecretSettings(file=file), environ, Masker())
    assert store.get("images/linux", "username") == "set"
    assert store.get("images/linux", "password") == "filed-password"
    environ |= {"VAULT_ADDR": vault.address, "VAULT_TOKEN": TOKEN}
    store = open_store(SecretSettings(file=file), environ, Masker())
    assert store.get("images/linux", "username") == "set"
    assert store.get("images/linux", "password") == "S3cr3t 'of' <v2>"


def test_with_a_setting_it_alone_is_asked(vault: VaultState, file: Path) -> None:
    environ = {"OSIMAGER_SECRET_IMAGES_LINUX_USERNAME": "set", "VAULT_ADDR": vault.address, "VAULT_TOKEN": TOKEN}

    def username(*sources: Source) -> str:
        return open_store(SecretSettings(sources=sources, file=file), environ, Masker()).get("images/linux", "username")

    assert username(Source.FILE) == "filed"
    assert username(Source.VAULT) == "root"
    assert username(Source.ENVIRONMENT, Source.FILE) == "set"
    assert username(Source.FILE, Source.VAULT) == "filed"


# The environment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "key", "name"),
    [
        ("images/linux", "password", "OSIMAGER_SECRET_IMAGES_LINUX_PASSWORD"),
        ("images/rhel-9.5", "root-pw", "OSIMAGER_SECRET_IMAGES_RHEL_9_5_ROOT_PW"),
        ("token", None, "OSIMAGER_SECRET_TOKEN"),
    ],
)
def test_a_variable_is_named_after_path_and_key(path: str, key: str | None, name: str) -> None:
    assert variable_of(path, key) == name
    assert EnvironmentSecrets({name: "hunter22"}).read(path, key) == "hunter22"
    with pytest.raises(NoSuchSecret, match=name):
        EnvironmentSecrets({}).read(path, key)


# A command ------------------------------------------------------------------------------------------------------

ECHO = "import sys; print(sys.argv[1:])"


def command(*argv: str, environment: tuple[str, ...] = (), timeout_s: float = 30.0) -> CommandSecrets:
    settings = CommandSettings(argv=argv, environment=environment, timeout_s=timeout_s)
    return CommandSecrets(settings, {"PASSED": "yes", "HELD_BACK": "no", **os.environ})


def python(code: str, *words: str) -> CommandSecrets:
    return command(sys.executable, "-c", code, *words)


def test_path_and_key_go_into_the_words_and_no_shell_reads_them() -> None:
    secrets = python(ECHO, "{path}/{key}", "; echo $HOME")
    assert secrets.read("a b/$(id)", "k") == "['a b/$(id)/k', '; echo $HOME']"
    assert secrets.read("a", None) == "['a/', '; echo $HOME']"


def test_only_the_last_line_end_is_left_out() -> None:
    assert python(r"print(' two\n\nlines ')").read("a", "k") == " two\n\nlines "
    assert python("import sys; sys.stdout.write('bare')").read("a", "k") == "bare"


def test_it_works_inside_a_running_loop() -> None:
    async def inside() -> str:
        return python("print('hunter22')").read("a", "k")

    assert asyncio.run(inside()) == "hunter22"


def test_it_gets_the_variables_that_are_named_and_no_others() -> None:
    code = "import os; print(os.environ.get('PASSED'), os.environ.get('HELD_BACK'))"
    assert command(sys.executable, "-c", code, environment=("PASSED", "NOT_SET")).read("a", "k") == "yes None"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('gpg: no key')", r"exited with status 1: gpg: no key"),
        ("import sys; print('hunter22'); sys.exit('hunter22')", r"exited with status 1$"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", "did not print UTF-8"),
    ],
)
def test_a_command_that_fails_is_an_error_and_no_absence(code: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        python(code).read("a", "k")
    assert not isinstance(caught.value, NoSuchSecret)
    assert "hunter22" not in f"{caught.value} {caught.value.hint}"


def test_a_command_that_prints_nothing_has_none() -> None:
    with pytest.raises(NoSuchSecret, match="printed nothing"):
        python("print()").read("a", "k")


def test_a_command_that_does_not_end_is_ended() -> None:
    with pytest.raises(ConfigError, match=r"did not end within 0\.3 s"):
        command(sys.executable, "-c", "import time; time.sleep(60)", timeout_s=0.3).read("a", "k")


def test_a_command_that_is_not_there_is_a_prerequisite() -> None:
    with pytest.raises(PrerequisiteError, match="cannot start"):
        command("/nonexistent/pass").read("a", "k")


def test_a_source_without_its_command_is_an_error() -> None:
    with pytest.raises(ConfigError, match="none is given"):
        open_store(SecretSettings(sources=(Source.COMMAND,), file=Path("x")), {}, Masker())
