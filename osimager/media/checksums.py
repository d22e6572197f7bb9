"""The vendors' checksum files: text → the SHA-256 of one file, by its exact name; pure.

Three forms are read: GNU (`DIGEST  NAME`, `DIGEST *NAME`), BSD (`SHA256 (NAME) = DIGEST`), and a digest alone, in a
file that holds nothing else. Lines of other algorithms, comments and PGP armour are passed over. Source: sha256sum(1),
md5(1) of FreeBSD, RFC 9580 7.1 (dash-escaping).
"""

from __future__ import annotations

import posixpath
import re

from osimager.errors import MediaError

_GNU = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)|([0-9a-fA-F]{64})\t+(.+)")
_BSD = re.compile(r"SHA-?256 ?\((.+)\) ?= ?([0-9a-fA-F]{64})", re.IGNORECASE)
_ALONE = re.compile(r"[0-9a-fA-F]{64}")
_LONGEST_LINE = 4096


def find_checksum(text: str, filename: str, *, source: str) -> str:
    """Give the SHA-256 (64 lower-case digits) that the checksum file `text` from `source` has for `filename`.

    A folder before the name is passed over, unless a line has the name without one. Raises MediaError where there is
    none, or two that differ.
    """
    lines = [
        line.removeprefix("- ").strip() for line in text.lstrip("\ufeff").splitlines() if len(line) < _LONGEST_LINE
    ]
    found = [pair for line in lines if (pair := _read_line(line)) is not None]
    exact = {digest for name, digest in found if name.removeprefix("./") == filename}
    digests = exact or {digest for name, digest in found if posixpath.basename(name) == filename}
    if not digests and not found:
        digests = {line.lower() for line in lines if _ALONE.fullmatch(line)}
    if len(digests) == 1:
        return digests.pop()
    if digests:
        raise MediaError(f"{source} has {len(digests)} different checksums for {filename}")
    names = ", ".join(name for name, _digest in found[:5])
    hint = f"it names {names}{', …' if len(found) > 5 else ''}" if names else "it names no file at all"
    raise MediaError(f"{source} has no SHA-256 for {filename}", hint=hint)


def _read_line(line: str) -> tuple[str, str] | None:
    """Give name and digest of one line, or None for any other line."""
    if match := _BSD.fullmatch(line):
        return match[1], match[2].lower()
    if match := _GNU.fullmatch(line):
        return (match[2] or match[4]).strip(), (match[1] or match[3]).lower()
    return None
