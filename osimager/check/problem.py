"""What a validator gives back: findings by the file's place in its batch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class NotAtHand(Exception):
    """A validator that does not know the version asked for; the message says which."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of file number `index` of the batch."""

    index: int
    line: int | None
    what: str
    hint: str | None = None
    is_warning: bool = False


def suggest(word: str, known: Iterable[str]) -> str | None:
    """Give "did you mean …?" for the likeliest known word, or None."""
    close = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"did you mean {close[0]}?" if close else None


def write_texts(folder: Path, files: Sequence[tuple[str, str]]) -> list[Path]:
    """Write each (name, text) into `folder` for a validator to read; give the paths in their order."""
    paths = []
    for index, (_, text) in enumerate(files):
        path = folder / f"{index:05d}.txt"
        path.write_text(text)
        paths.append(path)
    return paths
