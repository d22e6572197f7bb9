"""Settings files: which ones are read, which wins, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from osimager.config.settings import PUBLIC_KEYS, Settings, Source, load_settings
from osimager.errors import ConfigError, ConfigErrors
from osimager.paths import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    folder = Places.from_environment({"OSIMAGER_HOME": str(tmp_path)})
    folder.config.mkdir()
    return folder


def load(places: Places) -> Settings:
    return load_settings(places, home=Path("/home/me"))


def test_no_file_says_nothing(places: Places) -> None:
    settings = load(places)
    assert (settings.output, settings.iso_path, settings.data_dir, settings.warnings) == (None, (), None, ())
    assert settings.secrets.sources is None
    assert settings.secrets.file == places.config / "secrets"
    assert settings.secrets.public_keys == frozenset(PUBLIC_KEYS)


def test_our_file_is_read_whole(places: Places) -> None:
    (places.config / "config.yml").write_text("""
output: ~/images
iso_path: [isos, /iso]
data_dir: /opt/osimager/data
local_only: true
secrets:
  source: [env, vault, command]
  file: ~/secrets
  public_keys: username
  vault:
    address: https://vault.example.com:8200
    namespace: team
    token_file: ~/.token
    role_id: builder
    secret_id_file: ~/.secret-id
    approle_mount: ci
    ca_cert: /etc/ca.pem
    timeout: 1m30s
  command:
    argv: [pass, show, "{path}/{key}"]
    environment: GNUPGHOME
    timeout: 5
""")
    settings = load(places)
    assert settings.output == Path("/home/me/images")
    assert settings.iso_path == (Path("/home/me/isos"), Path("/iso"))
    assert settings.data_dir == Path("/opt/osimager/data")
    assert settings.local_only
    assert settings.warnings == ()
    secrets = settings.secrets
    assert secrets.sources == (Source.ENVIRONMENT, Source.VAULT, Source.COMMAND)
    assert secrets.file == Path("/home/me/secrets")
    assert secrets.public_keys == {"username"}
    assert secrets.vault.address == "https://vault.example.com:8200"
    assert secrets.vault.token_file == Path("/home/me/.token")
    assert secrets.vault.timeout_s == 90
    assert secrets.command.argv == ("pass", "show", "{path}/{key}")
    assert secrets.command.environment == ("GNUPGHOME",)
    assert secrets.command.timeout_s == 5


def test_osimagers_json_is_read_and_never_written(places: Places) -> None:
    path = places.config / "config.json"
    content = {"vms_path": "vms", "iso_path": "/iso", "credential_source": "config", "memory": "4096", "cpu_cores": 4,
               "local_only": "yes", "vault_addr": "", "vault_token": "", "packer_cmd": "packer"}  # fmt: skip
    path.write_text(json.dumps(content))
    before = path.stat()
    settings = load(places)
    assert settings.output == Path("/home/me/vms")
    assert settings.iso_path == (Path("/iso"),)
    assert settings.secrets.sources == (Source.FILE,)
    assert settings.local_only
    assert settings.warnings == ()
    assert dict(settings.osimager_defs) == {key: value for key, value in content.items() if key != "vault_token"}
    assert (path.stat().st_mtime_ns, list(places.config.iterdir())) == (before.st_mtime_ns, [path])


def test_osimagers_ini_is_read(places: Places) -> None:
    (places.config / "osimager.conf").write_text(
        "[osimager]\nVMS_PATH = /vms\ncredential_source = vault\nvault_addr: http://v:8200\nvenv_dir = /50%/done\n"
    )
    settings = load(places)
    assert settings.output == Path("/vms")
    assert settings.secrets.sources == (Source.VAULT,)
    assert settings.secrets.vault.address == "http://v:8200"
    assert settings.osimager_defs["venv_dir"] == "/50%/done"


def test_ours_wins_over_json_over_ini(places: Places) -> None:
    (places.config / "osimager.conf").write_text("[osimager]\nvms_path=/ini\niso_path=/ini\ncredential_source=vault\n")
    (places.config / "config.json").write_text('{"vms_path": "/json", "iso_path": "/json"}')
    (places.config / "config.yml").write_text("output: /ours\n")
    settings = load(places)
    assert settings.output == Path("/ours")
    assert settings.iso_path == (Path("/json"),)
    assert settings.secrets.sources == (Source.VAULT,)


def test_unknown_keys_warn_with_place_and_the_likely_one(places: Places) -> None:
    (places.config / "config.yml").write_text("ouput: /x\nsecrets:\n  vault:\n    adress: x\n")
    (places.config / "config.json").write_text('{"memmory": 1,\n "colour": 2}')
    (places.config / "osimager.conf").write_text("[osimager]\n\nvms_pth = /x\n[other]\na = b\n")
    warnings = "\n".join(load(places).warnings)
    assert "config.yml:1: the setting 'ouput' is unknown; did you mean 'output'?" in warnings
    assert "config.yml:4: the setting 'secrets.vault.adress' is unknown" in warnings
    assert "config.json:1: the setting 'memmory' is unknown; did you mean 'memory'?" in warnings
    assert "config.json:2: the setting 'colour' is unknown; known are" in warnings
    assert "osimager.conf:3: the setting 'vms_pth' is unknown; did you mean 'vms_path'?" in warnings
    assert "the section [other] is unknown" in warnings


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("output: 3", 1, "output must be a text"),
        ("a: 1\nlocal_only: no", 2, "local_only must be true or false"),
        ("secrets: x", 1, "secrets must be a mapping"),
        ("secrets:\n  source: [file, vualt]", 2, "must be some of file, vault, env, command, not vualt"),
        ("secrets:\n  source: []", 2, "not nothing"),
        ("secrets:\n  command:\n    argv: pass show x", 3, "must be a list of words"),
        ("secrets:\n  vault:\n    timeout: soon", 3, "'soon' is not a duration"),
        ("secrets:\n  vault:\n    timeout: 0", 3, "must be a duration"),
    ],
)
def test_wrong_values_are_errors_with_their_line(places: Places, text: str, line: int, message: str) -> None:
    (places.config / "config.yml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(places)
    assert [place.line for place in caught.value.where] == [line]
    assert caught.value.hint


def test_all_wrong_values_are_told_at_once(places: Places) -> None:
    (places.config / "config.yml").write_text("output: 3\nlocal_only: 4\n")
    (places.config / "config.json").write_text('{"credential_source": "pigeon"}')
    with pytest.raises(ConfigErrors) as caught:
        load(places)
    assert len(caught.value.errors) == 3


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("vms_path=/x\n", 1, "not an INI file"),
        ("[osimager]\na=1\na=2\n", 3, "'a' stands twice"),
        ("[osimager]\nx\n", 2, "not an INI file"),
    ],
)
def test_a_broken_ini_file_is_an_error_with_its_line(places: Places, text: str, line: int, what: str) -> None:
    (places.config / "osimager.conf").write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        load(places)
    assert [place.line for place in caught.value.where] == [line]


def test_a_vault_token_that_others_can_read_is_warned_about_and_never_shown(places: Places) -> None:
    path = places.config / "config.json"
    path.write_text('{"vault_token": "hvs.verysecret"}')
    path.chmod(0o644)
    settings = load(places)
    assert settings.secrets.vault.token == "hvs.verysecret"
    assert f"chmod 600 {path}" in settings.warnings[0]
    assert "verysecret" not in repr(settings)
    path.chmod(0o600)
    assert load(places).warnings == ()


def test_the_projects_folder_is_not_asked(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yml").write_text("secrets: {source: command, command: {argv: [evil]}}")
    monkeypatch.chdir(tmp_path)
    assert load(places).secrets.sources is None
