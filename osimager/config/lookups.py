"""The seam through which values of the outside come into configuration; config itself opens nothing.

Whatever a look-up gives is data: it is never read as a marker or as code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Lookups(Protocol):
    """What the markers `|> 1> 5> 6> *> $>` ask for. Every method raises ConfigError for what it cannot give."""

    def secret(self, path: str, key: str | None) -> str:
        """Give the secret at `path` and `key`; without a key, the only value there. To be told to the masker first."""
        ...

    def dns(self, host: str, servers: Sequence[str], search: Sequence[str]) -> str | None:
        """Give the first address of `host`, asked at `servers` (none: the system's); None where it has none."""
        ...

    def environment(self, name: str) -> str | None:
        """Give the environment variable `name`, or None."""
        ...

    def salt(self, purpose: str) -> str:
        """Give 16 characters of `[a-zA-Z0-9./]`, the same for the same `purpose` all through one build."""
        ...

    def is_writable(self, path: str) -> bool:
        """Tell whether a device such as `/dev/kvm` may be opened (`os.access` in OSImager's data)."""
        ...
