"""Sizes, durations and times: text to number and back. Sizes are binary (1G = 1024³ bytes), as QEMU's are."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", re.ASCII)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str, *, unit: str = "") -> int:
    """Give bytes for `20G`, `512MiB`, `1.5g` or a plain number of `unit`s.

    Raises ValueError with a sentence that names the accepted forms.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write a number with K, M, G or T, such as 20G")
    whole, _, fraction = match[1].partition(".")
    # In whole numbers: a float has 53 bits, and importing fractions.Fraction costs a plan 3 ms.
    factor: int = 1024 ** _POWER[(match[2] or unit).lower()]
    return int(whole + fraction) * factor // int("1" + "0" * len(fraction))


def parse_duration(text: str) -> float:
    """Give seconds for `90`, `90s`, `5m`, `1h30m`, `250ms`.

    Raises ValueError with a sentence that names the accepted forms.
    """
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if not text or match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration: write 90s, 5m or 1h30m")
    days, hours, minutes, seconds, millis = (float(group or 0) for group in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds + millis / 1000


def format_size(size_bytes: int) -> str:
    """Give a size as people read it: three digits at most, binary units."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_duration(seconds: float) -> str:
    """Give a duration as people read it: `3.2s`, `48s`, `2m05s`, `1h02m`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_time(moment: datetime, *, timespec: str = "milliseconds") -> str:
    """Give a moment as programs read it: RFC 3339, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
