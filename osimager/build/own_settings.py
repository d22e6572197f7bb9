"""The user's settings as `osimager config` shows and changes them. OSImager's own files are only ever read."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from osimager.config.documents import parse_scalar, read_text
from osimager.config.settings import OURS, Settings, load_settings
from osimager.config.settings_edit import set_value
from osimager.config.values import Value
from osimager.errors import ConfigError, UsageError
from osimager.kept import locked, write_kept
from osimager.paths import Places
from osimager.plan.digests import to_plain
from osimager.redact import MASK

# Settings that are lists: one word more is one item more.
_LISTS = ("iso_path", "secrets.source", "secrets.public_keys", "secrets.command.argv", "secrets.command.environment")
# What is spelled otherwise in the file, and what is secret: it is not shown.
_NAMES = {"secrets.sources": "secrets.source", "secrets.vault.timeout_s": "secrets.vault.timeout"} | {
    "secrets.command.timeout_s": "secrets.command.timeout"
}
_SECRET = ("secrets.vault.token",)


def list_settings(places: Places) -> dict[str, object]:
    """Give every setting by its name in `config.yml`, with the value that holds now; the Vault token is not shown."""
    return dict(_flatten("", load_settings(places)))


def _flatten(prefix: str, settings: object) -> Iterator[tuple[str, object]]:
    assert dataclasses.is_dataclass(settings)
    for field in dataclasses.fields(settings):
        name = _NAMES.get(prefix + field.name, prefix + field.name)
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flatten(name + ".", value)
        elif name not in (*_SECRET, "warnings", "osimager_defs"):
            yield name, MASK if name == "secrets.vault.role_id" and value else to_plain(value)


def set_setting(places: Places, key: str, words: Sequence[str]) -> Settings:
    """Write one setting into `config.yml`, and give all of them as they are then.

    Raises UsageError for a key that nobody knows or a value that cannot be meant: nothing is written then.
    """
    path = places.config / OURS
    scalars: list[Value] = [parse_scalar(word) for word in words]
    value: Value = scalars if key in _LISTS and len(scalars) > 1 else scalars[0]
    if len(scalars) > 1 and key not in _LISTS:
        raise UsageError(f"{key} takes one value", hint="quote it if it holds spaces")
    with locked(path.with_suffix(".lock")):
        text = set_value(read_text(path) if path.is_file() else "", key.split("."), value)
        before = set(load_settings(places).warnings)
        _check(places, key, text, before)
        write_kept(path, text, mode=path.stat().st_mode & 0o777 if path.is_file() else 0o600)
    return load_settings(places)


def _check(places: Places, key: str, text: str, before: set[str]) -> None:
    """Read the text as if it were the file. Raises UsageError for an unknown key and for a bad value."""
    with tempfile.TemporaryDirectory(prefix="osimager-config-") as folder:
        (Path(folder) / OURS).write_text(text, encoding="utf-8")
        try:
            checked = load_settings(dataclasses.replace(places, config=Path(folder)))
        except ConfigError as exc:
            wrong = exc.errors[0]
            raise UsageError(wrong.what, hint=wrong.hint) from exc
    unknown = [warning for warning in checked.warnings if f"{key!r} is unknown" in warning]
    if unknown and not any(f"{key!r} is unknown" in warning for warning in before):
        raise UsageError(f"there is no setting {key!r}", hint=unknown[0].partition("; ")[2])
