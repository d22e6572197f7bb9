"""What configuration asks of the outside, answered: secrets, DNS, environment, salts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from osimager.config.settings import SecretSettings, load_settings
from osimager.errors import ConfigError
from osimager.kept import write_kept
from osimager.paths import Places
from osimager.redact import Masker, find_hashes

if TYPE_CHECKING:
    from osimager.secrets.store import SecretStore


class HostLookups:
    """`config.lookups.Lookups` for real. Secrets are told to the masker before they are given out."""

    def __init__(self, places: Places, masker: Masker, *, offline: bool, secrets: SecretSettings | None = None) -> None:
        self._places = places
        self._masker = masker
        self._offline = offline
        self._settings = secrets
        self._key: bytes | None = None
        self._store: SecretStore | None = None
        self._addresses: dict[tuple[str, tuple[str, ...], tuple[str, ...]], tuple[str, ...]] = {}

    def secret(self, path: str, key: str | None) -> str:
        """Give a secret, by whatever provider the settings name."""
        if self._store is None:
            from osimager.secrets.store import open_store

            settings = self._settings or load_settings(self._places).secrets
            self._store = open_store(settings, os.environ, self._masker)
        return self._store.get(path, key)

    def dns(self, host: str, servers: Sequence[str], search: Sequence[str]) -> str | None:
        """Give the first address of `host`. Raises ConfigError offline, and where no server answers."""
        from osimager.lookup.dns import find_addresses

        if self._offline:
            raise ConfigError(f"the address of {host!r} is not looked up: this run is offline", hint="write an address")
        asked = (host, tuple(servers), tuple(search))
        if asked not in self._addresses:
            self._addresses[asked] = find_addresses(host, servers=servers, search=search)
        return next(iter(self._addresses[asked]), None)

    def environment(self, name: str) -> str | None:
        """Give an environment variable."""
        return os.environ.get(name)

    def salt(self, purpose: str) -> str:
        """Give a salt that is the same in each of this user's plans, so that equal input makes equal digests."""
        digest = hmac.digest(self.user_key(), purpose.encode(), hashlib.sha256)
        return base64.b64encode(digest, b"./").decode()[:16]

    def is_writable(self, path: str) -> bool:
        """Tell whether a device may be opened."""
        return os.access(path, os.W_OK)

    def user_key(self) -> bytes:
        """Give the key under which this user's secrets enter digests; made at first use, 0600."""
        if self._key is None:
            self._key = load_user_key(self._places)
        return self._key

    def learn(self, text: str) -> None:
        """Tell the masker of every crypt hash in `text`, so that it is also found when it is encoded."""
        for found in find_hashes(text):
            self._masker.register(found)

    def protect(self, text: str) -> str:
        """Give `text` as digests may hold it: its secrets masked, the whole as an HMAC under the user's key beside it.

        Nobody can try passwords against a digest that the registry shows, and a changed secret still changes it.
        """
        masked = self._masker.mask(text)
        if masked == text:
            return text
        return f"{masked}\0{hmac.digest(self.user_key(), text.encode(errors='surrogateescape'), hashlib.sha256).hex()}"


def load_user_key(places: Places) -> bytes:
    """Read, or make once, the 32 bytes of `digest.key`."""
    path: Path = places.data / "digest.key"
    if not path.is_file():
        write_kept(path, os.urandom(32), mode=0o600)
    return path.read_bytes()
