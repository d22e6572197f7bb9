"""The user's settings: our own `config.yml`, and OSImager's `config.json` and `osimager.conf`, which are only read.

Only the user's own folder is looked at, never the project's: a checked-out repository must not choose the program or
the server that secrets come from. A key in `config.yml` wins over one in `config.json`, that over `osimager.conf`.
A key that nobody knows is a warning, a value that cannot be meant is an error. docs/secrets.md has an example.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from osimager.config.values import Scalar, Value
from osimager.errors import ConfigError, Place, raise_all
from osimager.paths import Places
from osimager.units import parse_duration

if TYPE_CHECKING:
    from osimager.config.documents import Table

T = TypeVar("T")

OURS, OSIMAGER_JSON, OSIMAGER_INI = "config.yml", "config.json", "osimager.conf"
INI_SECTION = "osimager"
# What OSImager 1.0 to 1.11 keep in their settings; the ones that mean something to us are read, the others are known.
# fmt: off
OSIMAGER_KEYS = (
    "ansible_playbook", "base_dir", "bin_dir", "boot_disk_size", "conf_dir", "cpu_cores", "cpu_sockets",
    "credential_source", "data_dir", "install_dir", "iso_path", "lib_dir", "local_only", "memory", "packer_cache_dir",
    "packer_cmd", "save_index", "user_dir", "vault_addr", "vault_token", "vaultconfig", "venv_dir", "vms_path",
)
# fmt: on
PUBLIC_KEYS: tuple[str, ...] = ("username", "user", "login", "server", "host", "port", "domain")


class Source(StrEnum):
    """Where secrets come from."""

    FILE = "file"
    VAULT = "vault"
    ENVIRONMENT = "env"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """How to reach Vault, as far as files say; the environment (VAULT_ADDR, VAULT_TOKEN, …) goes before them."""

    address: str = ""
    namespace: str = ""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    role_id: str = field(default="", repr=False)
    secret_id_file: Path | None = None
    approle_mount: str = "approle"
    ca_cert: Path | None = None
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSettings:
    """A program that prints a secret: `{path}` and `{key}` in its words are replaced.

    `environment` names the variables that it gets besides the usual few.
    """

    argv: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSettings:
    """Where secrets come from: `sources` in their order (None: not said), and each one's own settings."""

    sources: tuple[Source, ...] | None = None
    file: Path
    public_keys: frozenset[str] = frozenset(PUBLIC_KEYS)
    vault: VaultSettings = VaultSettings()
    command: CommandSettings = CommandSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user's settings files say; None and empty where they say nothing.

    `osimager_defs` are the settings of OSImager as they stand in its file: it makes defs of them. Its Vault token is
    not among them.
    """

    output: Path | None = None
    iso_path: tuple[Path, ...] = ()
    data_dir: Path | None = None
    local_only: bool = False
    secrets: SecretSettings
    osimager_defs: Mapping[str, Value] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def load_settings(places: Places, *, home: Path | None = None) -> Settings:
    """Read the settings files under `places.config`; those that do not exist say nothing.

    `home` is what relative paths and `~` begin at. Raises ConfigError(s) with file and line.
    """
    reading = _Reading(home or Path.home())
    theirs = {**_load_ini(places.config / OSIMAGER_INI, reading), **_load_json(places.config / OSIMAGER_JSON, reading)}
    ours = _load_ours(places.config / OURS)
    settings = _settings_of(_Keys(reading, ours, ""), _Theirs(theirs, reading), places.config / "secrets")
    raise_all(reading.errors)
    return settings


class _Reading:
    """What one reading of all files has found so far."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.errors: list[ConfigError] = []
        self.warnings: list[str] = []

    def path(self, text: str) -> Path:
        """Give the path that a setting means: `~` is the user's home, where relative ones begin too."""
        return self.home / (text[2:] if text.startswith("~/") else text)

    def warn_unknown(self, key: str, known: Sequence[str], where: Place) -> None:
        import difflib

        close = difflib.get_close_matches(key, known, 1)
        tail = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
        self.warnings.append(f"{where}: the setting {key!r} is unknown; {tail}")


def _settings_of(ours: _Keys, theirs: _Theirs, secrets_file: Path) -> Settings:
    reading = ours.reading
    secrets = ours.inner("secrets")
    settings = Settings(
        output=ours.get("output", _reading_path, theirs.path("vms_path")),
        iso_path=ours.get("iso_path", _reading_paths, theirs.paths("iso_path")),
        data_dir=ours.get("data_dir", _reading_path, None),
        local_only=ours.get("local_only", _reading_bool, theirs.is_true("local_only")),
        secrets=SecretSettings(
            sources=secrets.get("source", _reading_sources, theirs.sources()),
            file=secrets.get("file", _reading_path, secrets_file),
            public_keys=frozenset(secrets.get("public_keys", _reading_texts, PUBLIC_KEYS)),
            vault=_vault_of(secrets.inner("vault"), theirs),
            command=_command_of(secrets.inner("command")),
        ),
        osimager_defs=theirs.defs(),
    )
    secrets.finish()
    ours.finish()
    theirs.finish()
    return _with_warnings(settings, reading.warnings)


def _with_warnings(settings: Settings, warnings: Sequence[str]) -> Settings:
    return dataclasses.replace(settings, warnings=tuple(warnings)) if warnings else settings


def _vault_of(keys: _Keys, theirs: _Theirs) -> VaultSettings:
    vault = VaultSettings(
        address=keys.get("address", _reading_text, theirs.text("vault_addr")),
        namespace=keys.get("namespace", _reading_text, ""),
        token=theirs.text("vault_token"),
        token_file=keys.get("token_file", _reading_path, None),
        role_id=keys.get("role_id", _reading_text, ""),
        secret_id_file=keys.get("secret_id_file", _reading_path, None),
        approle_mount=keys.get("approle_mount", _reading_text, "approle"),
        ca_cert=keys.get("ca_cert", _reading_path, None),
        timeout_s=keys.get("timeout", _reading_duration, 10.0),
    )
    keys.finish()
    return vault


def _command_of(keys: _Keys) -> CommandSettings:
    command = CommandSettings(
        argv=keys.get("argv", _reading_argv, ()),
        environment=keys.get("environment", _reading_texts, ()),
        timeout_s=keys.get("timeout", _reading_duration, 30.0),
    )
    keys.finish()
    return command


# Our own file -----------------------------------------------------------------------------------------------------


class _Keys:
    """One mapping of `config.yml`: each key is asked for once, what is left at the end is unknown."""

    def __init__(self, reading: _Reading, table: Table | None, inside: str) -> None:
        self.reading, self.table, self.inside = reading, table, inside
        self.asked: list[str] = []

    def get(self, key: str, read: Callable[[_Reading, Value], T], default: T) -> T:
        """Give the value of `key` as `read` takes it, else `default`; a wrong one is noted as an error."""
        self.asked.append(key)
        if self.table is None or key not in self.table:
            return default
        try:
            return read(self.reading, self.table[key])
        except ValueError as exc:
            where = self.table.place(key)
            self.reading.errors.append(ConfigError(f"{self.inside}{key} {exc}", where=where, hint=f"correct {key}"))
            return default

    def inner(self, key: str) -> _Keys:
        """Give the mapping that stands under `key`."""
        return _Keys(self.reading, self.get(key, _reading_table, None), f"{self.inside}{key}.")

    def finish(self) -> None:
        for key in self.table or ():
            if key not in self.asked:
                assert self.table is not None
                self.reading.warn_unknown(f"{self.inside}{key}", self.asked, self.table.place(key))


def _reading_text(_reading: _Reading, value: Value) -> str:
    """Take a text."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text")
    return value


def _reading_texts(reading: _Reading, value: Value) -> tuple[str, ...]:
    """Take a text or a list of texts."""
    return tuple(_reading_text(reading, item) for item in (value if isinstance(value, list) else [value]))


def _reading_path(reading: _Reading, value: Value) -> Path:
    """Take a path."""
    return reading.path(_reading_text(reading, value))


def _reading_paths(reading: _Reading, value: Value) -> tuple[Path, ...]:
    """Take a path or a list of paths."""
    return tuple(reading.path(text) for text in _reading_texts(reading, value))


def _reading_bool(_reading: _Reading, value: Value) -> bool:
    """Take `true` or `false`."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _reading_duration(_reading: _Reading, value: Value) -> float:
    """Take seconds, or a text such as `90s`."""
    seconds = 0.0 if isinstance(value, bool) or value is None else parse_duration(str(value))
    if seconds <= 0:
        raise ValueError("must be a duration such as 10s")
    return seconds


def _reading_sources(reading: _Reading, value: Value) -> tuple[Source, ...]:
    names = _reading_texts(reading, value)
    unknown = [name for name in names if name not in list(Source)]
    if unknown or not names:
        raise ValueError(f"must be some of {', '.join(Source)}, not {', '.join(unknown) or 'nothing'}")
    return tuple(Source(name) for name in dict.fromkeys(names))


def _reading_argv(reading: _Reading, value: Value) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError('must be a list of words, such as [pass, show, "{path}"]: no shell reads it')
    return _reading_texts(reading, value)


def _reading_table(_reading: _Reading, value: Value) -> Table | None:
    from osimager.config.documents import Table

    if value is not None and not isinstance(value, Table):
        raise ValueError("must be a mapping")
    return value


def _load_ours(path: Path) -> Table | None:
    if not path.is_file():
        return None
    from osimager.config.documents import load_document

    return load_document(path)


# OSImager's files -------------------------------------------------------------------------------------------------


class _Theirs:
    """The settings of OSImager, with the place of each: they are texts in INI, and mostly texts in JSON too."""

    def __init__(self, found: Mapping[str, tuple[Scalar, Place]], reading: _Reading) -> None:
        self.found, self.reading = found, reading

    def text(self, key: str) -> str:
        value, _ = self.found.get(key, ("", None))
        return "" if value is None else str(value)

    def path(self, key: str) -> Path | None:
        return self.reading.path(text) if (text := self.text(key)) else None

    def paths(self, key: str) -> tuple[Path, ...]:
        return (path,) if (path := self.path(key)) else ()

    def is_true(self, key: str) -> bool:
        return self.text(key).lower() in ("true", "yes", "on", "1")

    def sources(self) -> tuple[Source, ...] | None:
        """Give what `credential_source` means: `config` is OSImager's name for the secrets file."""
        names = {"config": Source.FILE, "vault": Source.VAULT}
        name = self.text("credential_source")
        if not name:
            return None
        if name not in names:
            what = f"credential_source must be config or vault, not {name!r}"
            where = self.found["credential_source"][1]
            self.reading.errors.append(ConfigError(what, where=where, hint=f"or set secrets.source in {OURS}"))
            return None
        return (names[name],)

    def defs(self) -> dict[str, Value]:
        return {key: value for key, (value, _) in self.found.items() if key in OSIMAGER_KEYS and key != "vault_token"}

    def finish(self) -> None:
        for key, (_, where) in self.found.items():
            if key not in OSIMAGER_KEYS:
                self.reading.warn_unknown(key, OSIMAGER_KEYS, where)
        token = self.found.get("vault_token")
        if token and token[0] and Path(token[1].path).stat().st_mode & 0o077:
            path = token[1].path
            self.reading.warnings.append(f"{token[1]}: others can read the Vault token in this file; chmod 600 {path}")


_Found = dict[str, tuple[Scalar, Place]]


def _load_json(path: Path, reading: _Reading) -> _Found:
    if not path.is_file():
        return {}
    from osimager.config.documents import load_document

    found: _Found = {}
    table = load_document(path)
    for key, value in table.items():
        if isinstance(value, list | dict):
            what = f"the setting {key!r} must be one value"
            reading.errors.append(ConfigError(what, where=table.place(key), hint=f"lists belong into {OURS}"))
        else:
            found[key] = (value, table.place(key))
    return found


def _load_ini(path: Path, reading: _Reading) -> _Found:
    if not path.is_file():
        return {}
    from osimager.config.documents import read_text

    text = read_text(path)
    import configparser  # costs 2 ms, and few have such a file

    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.DuplicateOptionError as exc:
        what = f"the setting {exc.option!r} stands twice"
        raise ConfigError(what, where=Place(path, exc.lineno), hint="remove one") from None
    except configparser.Error as exc:
        line = getattr(exc, "lineno", None) or next((number for number, _ in getattr(exc, "errors", ())), None)
        hint = f"write KEY = VALUE lines under [{INI_SECTION}]"
        raise ConfigError("not an INI file", where=Place(path, line), hint=hint) from None
    for name in parser.sections():
        if name != INI_SECTION:
            reading.warnings.append(f"{path}: the section [{name}] is unknown; settings stand in [{INI_SECTION}]")
    if not parser.has_section(INI_SECTION):
        return {}
    return {key: (value, Place(path, _line_of(text, key))) for key, value in parser.items(INI_SECTION)}


def _line_of(text: str, key: str) -> int | None:
    found = re.search(rf"^[ \t]*{re.escape(key)}[ \t]*[=:]", text, re.MULTILINE | re.IGNORECASE)
    return text.count("\n", 0, found.start()) + 1 if found else None
