"""Versions: the range language of `provides: versions`, their order, and which one is the latest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product

_GROUP = re.compile(r"\[([^\[\]]*)\]")
_ITEM = re.compile(r"([0-9A-Za-z_]+)(?:-([0-9]+))?")
_VERSION = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.+~-]*")
MOST_VERSIONS = 10_000
MOST_LENGTH = 100


def version_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Give what versions are sorted by: runs of digits as numbers, before letters: 9.2 < 9.10 < 9.10rc < 10."""
    parts = re.findall(r"(\d+)|([^\d.]+)", text)
    return tuple((1, int(number), "") if number else (0, 0, word.lower()) for number, word in parts)


def expand_range(text: str) -> tuple[str, ...]:
    """Give the versions that `6.[9,10]`, `9.[0-10]`, `[01-12]` or `[7-8].[0-3,5]` stands for, in the order written.

    A range whose ends have a leading zero pads to their width. Raises ValueError with a sentence for a bad one.
    """
    if any(len(number) > MOST_LENGTH for number in re.findall(r"[0-9]+", text)):
        raise ValueError(f"{text[:20]!r}… is not a version: a number in it has more than {MOST_LENGTH} digits")
    literals = _GROUP.split(text)
    if any("[" in literal or "]" in literal for literal in literals[::2]):
        raise ValueError(f"{text!r}: a bracket is not closed, or stands inside another")
    groups = [_expand_group(inner, text) for inner in literals[1::2]]
    count = 1
    for group in groups:
        count *= len(group)
    if count > MOST_VERSIONS:
        raise ValueError(f"{text!r} stands for {count} versions; {MOST_VERSIONS} is the most")
    found = []
    for choice in product(*groups):
        version = literals[0] + "".join(a + b for a, b in zip(choice, literals[2::2], strict=True))
        if len(version) > MOST_LENGTH:
            raise ValueError(f"{version[:20]!r}… is not a version: it has more than {MOST_LENGTH} characters")
        if not _VERSION.fullmatch(version):
            raise ValueError(f"{version!r} is not a version: letters, digits and . _ + ~ - only")
        found.append(version)
    return tuple(dict.fromkeys(found))


def _expand_group(inner: str, whole: str) -> list[str]:
    values: list[str] = []
    for raw in inner.split(","):
        item = raw.strip()
        match = _ITEM.fullmatch(item)
        if match is None:
            reason = "an empty item" if not item else f"{item!r} is neither a value nor a range such as 0-9"
            raise ValueError(f"{whole!r}: {reason}")
        first, last = match[1], match[2]
        if last is None:
            values.append(first)
            continue
        if not first.isdigit():
            raise ValueError(f"{whole!r}: the range {item!r} must go from a number to a number")
        low, high = int(first), int(last)
        if high < low:
            raise ValueError(f"{whole!r}: the range {item!r} is empty; write {last}-{first}")
        if high - low >= MOST_VERSIONS:
            raise ValueError(f"{whole!r}: the range {item!r} is too long")
        padded = any(end.startswith("0") and len(end) > 1 for end in (first, last))
        width = max(len(first), len(last)) if padded else 0
        values += [str(number).zfill(width) for number in range(low, high + 1)]
    return values


def latest_version(versions: Iterable[str], line: str = "") -> str | None:
    """Give the newest of `versions`, or of those of the `line` (9: 9, 9.0, 9.10 but not 90); None for no candidate."""
    candidates = [text for text in versions if not line or text == line or text.startswith(line + ".")]
    return max(candidates, key=version_key, default=None)
