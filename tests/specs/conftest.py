"""What every test of the shipped specs needs: look-ups that refuse, for nothing that ships may ask for anything."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from osimager.config.lookups import Lookups
from osimager.errors import ConfigError


class NoLookups:
    """No secret, host or variable is needed by what ships."""

    def secret(self, path: str, key: str | None) -> str:
        raise ConfigError(f"a shipped spec asks for the secret {path}:{key}")

    def dns(self, host: str, servers: Sequence[str], search: Sequence[str]) -> str | None:
        raise ConfigError(f"a shipped spec asks for the address of {host}")

    def environment(self, name: str) -> str | None:
        raise ConfigError(f"a shipped spec asks for the variable {name}")

    def salt(self, purpose: str) -> str:
        return "saltsaltsaltsalt"

    def is_writable(self, path: str) -> bool:
        return False


@pytest.fixture(scope="session")
def lookups() -> Lookups:
    """Give look-ups that refuse."""
    return NoLookups()
