"""What images are called. Apart from `entry`, whose models cost a plan 80 ms that it has no use for."""

from __future__ import annotations

from datetime import UTC, datetime

_TIME = "%Y%m%dT%H%M%SZ"


def make_id(short_target: str, profile: str, created: datetime) -> str:
    """Give the id (and the file's stem) of an image: `TARGET[+PROFILE]-YYYYMMDDThhmmssZ`."""
    suffix = f"+{profile}" if profile else ""
    return f"{short_target}{suffix}-{created.astimezone(UTC):{_TIME}}"
