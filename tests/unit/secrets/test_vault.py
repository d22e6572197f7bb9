"""Vault, over HTTP on loopback: versions of KV, ways to log in, and what each failure says."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from osimager.config.settings import VaultSettings
from osimager.errors import ConfigError, PrerequisiteError
from osimager.redact import MASK, Masker
from osimager.secrets.provider import NoSuchSecret
from osimager.secrets.vault import VaultSecrets
from tests.unit.secrets.vault_server import APPROLE_TOKEN, ROLE_ID, SECRET_ID, TOKEN, VaultState, running_vault

pytest.importorskip("hvac", reason="the extra [vault] is not installed")


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultState]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_vault() as state:
        yield state


def open_secrets(vault: VaultState, masker: Masker | None = None, **environ: str) -> VaultSecrets:
    environ = {"VAULT_ADDR": vault.address, "VAULT_TOKEN": TOKEN, "HOME": "/nonexistent", **environ}
    return VaultSecrets(VaultSettings(), environ, masker or Masker())


@pytest.mark.parametrize("tells_mounts", [True, False])
@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("images/linux", "password", "S3cr3t 'of' <v2>"),
        ("images/linux", "number", "42"),
        ("images/linux", "yes", "true"),
        ("images/single", None, "only-value-here"),
        ("old/linux", "password", "v1-password"),
        ("images/data/linux", "username", "root"),
        ("images/data/odd", "password", "under-data-itself"),
    ],
)
def test_both_versions_of_kv_are_read(
    vault: VaultState, tells_mounts: bool, path: str, key: str | None, value: str
) -> None:
    vault.tells_mounts = tells_mounts
    assert open_secrets(vault).read(path, key) == value


def test_a_mount_of_several_parts_is_found(vault: VaultState) -> None:
    assert open_secrets(vault).read("team/kv/app", "password") == "deep-mount-value"


def test_a_path_is_asked_for_once(vault: VaultState) -> None:
    secrets = open_secrets(vault)
    assert vault.asked == []
    secrets.read("images/linux", "password")
    secrets.read("images/linux", "username")
    assert vault.asked == ["sys/internal/ui/mounts/images/linux", "images/data/linux"]


@pytest.mark.parametrize(
    ("path", "key", "message"),
    [
        ("images/linux", "passwort", "has no key 'passwort', only number, password, username, yes"),
        ("images/linux", None, r"has 4 keys \(number, password, username, yes\), and none was asked for"),
        ("images/nothing", "password", r"there is no 'images/data/nothing' in Vault at http://127.0.0.1:\d+ \(404\)"),
        ("old/nothing", "password", "there is no 'old/nothing'"),
        ("linux", "password", "'linux' is no path of Vault"),
        ("images/gone", "password", "the newest version of 'images/data/gone' is deleted"),
    ],
)
def test_what_is_not_there_is_said_so(vault: VaultState, path: str, key: str | None, message: str) -> None:
    with pytest.raises(NoSuchSecret, match=message) as caught:
        open_secrets(vault).read(path, key)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere/at/all", r"forbids 'nowhere/data/at/all' \(403\)"),
        ("transit/key", "is no KV engine, but 'transit'"),
        ("images/nested", "images/nested:table in Vault at .* is not one value"),
    ],
)
def test_what_cannot_be_read_is_an_error_and_no_absence(vault: VaultState, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_secrets(vault).read(path, "password")
    assert not isinstance(caught.value, NoSuchSecret)
    assert caught.value.hint


def change(vault: VaultState, changes: dict[str, object]) -> None:
    for name, value in changes.items():
        setattr(vault, name, value)


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"sealed": True}, r"is sealed, or in maintenance \(503\)", "unseal"),
        ({"initialised": False}, r"is not initialised \(501\)", "init"),
        ({"forbidden": {"images/data/linux"}}, r"forbids 'images/data/linux' \(403\)", "policy"),
        ({"namespace": "team"}, r"forbids", "policy"),
        ({"status": 400}, r"refuses the request .* \(400\)", "address"),
        ({"status": 429}, r"too many requests \(429\)", "wait"),
        ({"status": 500}, r"failed: InternalServerError", "log"),
        ({"status": 418}, r"failed: UnexpectedError", "log"),
        (
            {"status": 307, "location": "http://127.0.0.1:1/v1/x"},
            r"does not answer as Vault does \(status 307\)",
            "active",
        ),
        ({"body": b"<html>hello</html>"}, r"does not answer as Vault does \(status 200\)", "active"),
        ({"body": b"[1, 2]"}, r"does not answer as Vault does", "active"),
    ],
)
def test_each_failure_says_what_it_is(vault: VaultState, changes: dict[str, object], message: str, hint: str) -> None:
    change(vault, changes)
    with pytest.raises(ConfigError, match=message) as caught:
        open_secrets(vault).read("images/linux", "password")
    assert not isinstance(caught.value, NoSuchSecret)
    assert hint in (caught.value.hint or "")
    assert caught.value.status == 3


def test_a_wrong_token_is_forbidden(vault: VaultState) -> None:
    with pytest.raises(ConfigError, match=r"forbids .* \(403\)"):
        open_secrets(vault, VAULT_TOKEN="hvs.wrong").read("images/linux", "password")


def test_a_slow_server_is_left_at_the_deadline(vault: VaultState) -> None:
    vault.hold = threading.Event()
    settings = VaultSettings(address=vault.address, token=TOKEN, timeout_s=0.2)
    with pytest.raises(ConfigError, match=r"did not answer within 0\.2 s"):
        VaultSecrets(settings, {"HOME": "/nonexistent"}, Masker()).read("images/linux", "password")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:1", r"cannot be reached \(ConnectionError\)"),
        ("vault.example.com", "has no address that can be used"),
        ("ftp://vault.example.com", "has no address that can be used"),
        ("http://", "has no address that can be used"),
        ("http://user:hunter22@127.0.0.1:1", r"Vault at http://127\.0\.0\.1:1 cannot be reached"),
    ],
)
def test_an_address_that_leads_nowhere_is_named(address: str, message: str) -> None:
    secrets = VaultSecrets(VaultSettings(), {"VAULT_ADDR": address, "VAULT_TOKEN": TOKEN}, Masker())
    with pytest.raises(ConfigError, match=message) as caught:
        secrets.read("images/linux", "password")
    assert "hunter22" not in str(caught.value)


def test_without_an_address_the_remedy_is_named() -> None:
    with pytest.raises(ConfigError, match="its address is not set") as caught:
        VaultSecrets(VaultSettings(), {}, Masker()).read("images/linux", "password")
    assert "VAULT_ADDR" in (caught.value.hint or "")


def test_without_hvac_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvac", None)
    with pytest.raises(PrerequisiteError, match="hvac is not installed") as caught:
        VaultSecrets(VaultSettings(address="http://127.0.0.1:1"), {}, Masker()).read("images/linux", "password")
    assert "osimager[vault]" in (caught.value.hint or "")


def test_the_namespace_goes_along(vault: VaultState) -> None:
    vault.namespace = "team"
    assert open_secrets(vault, VAULT_NAMESPACE="team").read("images/linux", "username") == "root"


# Logging in -----------------------------------------------------------------------------------------------------


def write_private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def read_with(vault: VaultState, settings: VaultSettings, environ: dict[str, str]) -> str:
    return VaultSecrets(settings, {"VAULT_ADDR": vault.address, **environ}, Masker()).read("images/linux", "username")


def test_a_token_comes_from_the_environment_a_file_osimager_or_vault_login(vault: VaultState, tmp_path: Path) -> None:
    nowhere = {"HOME": str(tmp_path / "nowhere")}
    named = write_private(tmp_path / "token", f"{TOKEN}\n")
    assert read_with(vault, VaultSettings(), {"VAULT_TOKEN": TOKEN}) == "root"
    assert read_with(vault, VaultSettings(token_file=named), nowhere) == "root"
    assert read_with(vault, VaultSettings(token=TOKEN), nowhere) == "root"
    write_private(tmp_path / ".vault-token", TOKEN)
    assert read_with(vault, VaultSettings(), {"HOME": str(tmp_path)}) == "root"


def test_the_environment_goes_before_files(vault: VaultState, tmp_path: Path) -> None:
    wrong = write_private(tmp_path / "token", "hvs.wrong")
    settings = VaultSettings(address="http://127.0.0.1:1", token_file=wrong, token="hvs.wrong", role_id="wrong")
    assert read_with(vault, settings, {"VAULT_TOKEN": TOKEN}) == "root"


def test_an_approle_logs_in_from_the_environment_or_files(vault: VaultState, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert read_with(vault, VaultSettings(), {"VAULT_ROLE_ID": ROLE_ID, "VAULT_SECRET_ID": SECRET_ID, **home}) == "root"
    secret_id = write_private(tmp_path / "secret-id", f"{SECRET_ID}\n")
    assert read_with(vault, VaultSettings(role_id=ROLE_ID, secret_id_file=secret_id), home) == "root"
    assert vault.asked.count("auth/approle/login") == 2


def test_an_approle_that_is_refused_or_not_enabled_is_told_apart(vault: VaultState, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "VAULT_ROLE_ID": ROLE_ID, "VAULT_SECRET_ID": "secret-wrong"}
    with pytest.raises(ConfigError, match=r"refuses the request for 'auth/approle/login' \(400\)") as caught:
        read_with(vault, VaultSettings(), environ)
    assert "secret-wrong" not in f"{caught.value} {caught.value.hint}"
    vault.status = 404
    with pytest.raises(ConfigError, match="has no AppRole at auth/ci") as caught:
        read_with(vault, VaultSettings(approle_mount="ci"), environ)
    assert not isinstance(caught.value, NoSuchSecret)


def test_no_way_to_log_in_is_an_error_with_the_remedy(vault: VaultState, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no token") as caught:
        read_with(vault, VaultSettings(), {"HOME": str(tmp_path)})
    assert "VAULT_TOKEN" in (caught.value.hint or "")
    assert vault.asked == []


@pytest.mark.parametrize("name", ["token", ".vault-token"])
def test_a_token_file_that_others_can_read_is_refused(vault: VaultState, tmp_path: Path, name: str) -> None:
    path = write_private(tmp_path / name, TOKEN)
    path.chmod(0o640)
    settings = VaultSettings(token_file=path if name == "token" else None)
    with pytest.raises(ConfigError, match="others can read") as caught:
        read_with(vault, settings, {"HOME": str(tmp_path)})
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_token_file_that_is_missing_is_an_error_and_no_absence(vault: VaultState, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        read_with(vault, VaultSettings(token_file=tmp_path / "nothing"), {})
    assert not isinstance(caught.value, NoSuchSecret)


@pytest.mark.parametrize("token", ["hvs.a\nb", "hvs.ä"])
def test_a_token_that_cannot_be_one_is_not_shown(vault: VaultState, token: str) -> None:
    with pytest.raises(ConfigError, match="holds what no token holds") as caught:
        read_with(vault, VaultSettings(), {"VAULT_TOKEN": token})
    assert token not in f"{caught.value} {caught.value.hint}"


def test_tokens_are_known_to_the_masker_and_never_sent_in_an_address(vault: VaultState, tmp_path: Path) -> None:
    masker = Masker()
    environ = {"VAULT_ROLE_ID": ROLE_ID, "VAULT_SECRET_ID": SECRET_ID, "VAULT_TOKEN": ""}
    secrets = open_secrets(vault, masker, **environ, HOME=str(tmp_path))
    secrets.read("images/linux", "password")
    assert masker.mask(f"{SECRET_ID} {APPROLE_TOKEN}") == f"{MASK} {MASK}"
    assert SECRET_ID not in repr(secrets)
    assert not [path for path in vault.asked if SECRET_ID in path or APPROLE_TOKEN in path]
    with pytest.raises(ConfigError):
        open_secrets(vault, masker).read("images/none", None)
    assert masker.mask(TOKEN) == MASK
