"""What every place that secrets come from has in common."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from osimager.errors import ConfigError, Place

_MOST_BYTES = 4 << 20


class NoSuchSecret(ConfigError):
    """The provider works, and has no such path or key."""


class Provider(Protocol):
    """One place that secrets come from. Synchronous: resolving configuration is."""

    @property
    def name(self) -> str:
        """What a person calls it: `the secrets file /home/me/.config/osimager/secrets`."""
        ...

    def read(self, path: str, key: str | None) -> str:
        """Give the value at `path` and `key`; without a key, the only value there.

        Raises NoSuchSecret where it has none, ConfigError where it cannot be asked. No message holds a value.
        """
        ...


def pick(values: Mapping[str, str], key: str | None, *, what: str, hint: str, where: Place | None = None) -> str:
    """Give the value of `key` among those of one path. Raises NoSuchSecret, naming the keys that there are."""
    keys = ", ".join(sorted(values)) or "none"
    if key is not None:
        if key not in values:
            raise NoSuchSecret(f"{what} has no key {key!r}, only {keys}", where=where, hint=hint)
        return values[key]
    if len(values) != 1:
        hint = "name one of them: |>PATH:KEY<|"
        raise NoSuchSecret(f"{what} has {len(values)} keys ({keys}), and none was asked for", where=where, hint=hint)
    return next(iter(values.values()))


def read_private_text(path: Path) -> str:
    """Read a small text file that nobody but its owner may read.

    Raises ConfigError when it is missing, others can read it, it is not ours, or not a text.
    """
    where = Place(path)
    try:
        # Without O_NONBLOCK a FIFO in this place would hold us for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ConfigError("this file does not exist", where=where, hint=f"write it, and chmod 600 {path}") from None
    except OSError as exc:
        raise ConfigError(f"this file cannot be read: {exc.strerror}", where=where, hint=f"chmod 600 {path}") from exc
    with open(handle, "rb") as file:  # noqa: PTH123  a descriptor, checked as it is read
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            raise ConfigError("this is not a file of secrets", where=where, hint="name a plain text file")
        if status.st_mode & 0o077:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigError(
                f"others can read this file of secrets (mode {mode})", where=where, hint=f"chmod 600 {path}"
            )
        if status.st_uid not in (os.geteuid(), 0):
            hint = f"chown {os.geteuid()} {path}, or name a file of your own"
            raise ConfigError("this file of secrets belongs to somebody else", where=where, hint=hint)
        try:
            return file.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ConfigError("this file is not UTF-8", where=where, hint="save it as UTF-8") from None
