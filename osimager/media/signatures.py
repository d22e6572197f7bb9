"""Signatures of the vendors' checksum files: checked by gpgv or sqv, against the fingerprint that the catalogue names.

Keys come from this host: `keys/` in the user's configuration (`*.gpg`, `*.asc`) and the system's /usr/share/keyrings;
none is fetched. Where the key or the program is missing, the caller is told so and says it; a signature that is wrong
is an error. Source: gpgv(1), sqv(1), GnuPG's doc/DETAILS ("VALIDSIG"), RFC 9580 6 (ASCII armour).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import tempfile
from pathlib import Path
from typing import Final

from osimager.aio import in_thread
from osimager.errors import MediaError, PrerequisiteError
from osimager.paths import Places
from osimager.proc import Completed, find_tool, run_tool

SYSTEM_KEYS: Final = Path("/usr/share/keyrings")
_DEADLINE_S: Final = 60.0
_ARMOUR: Final = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\n]+\n)*?\s*\n(?P<body>[A-Za-z0-9+/=\s]+?)(?:\n=[^\n]*)?\s*-----END"
)
_PRIMARY_KEY: Final = 6
_ONE_OCTET, _TWO_OCTETS = 192, 224  # below these, the length of a packet takes so many
_VALID: Final = re.compile(r"^\[GNUPG:\] VALIDSIG (\S+) .*?(\S+)$", re.MULTILINE)


class NotChecked(Exception):
    """The signature could not be checked here; the message says why."""


async def check_signature(content: bytes, signature: bytes, fingerprint: str, places: Places) -> None:
    """Check the detached `signature` of `content` against the key with that `fingerprint`.

    Raises MediaError for a signature that is not that key's, NotChecked where this host lacks the key or the program.
    """
    wanted = fingerprint.replace(" ", "").upper()
    keyring = await in_thread(lambda: _find_keyring(places, wanted))
    if keyring is None:
        raise NotChecked(f"the key {wanted} is not on this host")
    with tempfile.TemporaryDirectory(prefix="osimager-signature-") as name:
        folder = Path(name)
        for file, data in (("keyring", keyring), ("content", content), ("signature", signature)):
            (folder / file).write_bytes(data)
        signers = await _verify(folder)
    if wanted not in signers:
        raise MediaError(
            f"the signature is not that of {wanted}",
            hint="somebody changed the vendor's file, or the catalogue's key is out of date",
        )


async def _verify(folder: Path) -> frozenset[str]:
    """Give the fingerprints whose signature is good; with those of primary keys where a subkey signed."""
    files: list[str | Path] = ["--keyring", folder / "keyring", folder / "signature", folder / "content"]
    try:
        gpgv = find_tool("gpgv", package="gpgv")
    except PrerequisiteError:
        try:
            sqv = find_tool("sqv", package="sqv")
        except PrerequisiteError as exc:
            raise NotChecked("neither gpgv nor sqv is on this host") from exc
        done = await run_tool([sqv, *files], deadline_s=_DEADLINE_S, check=False)
        return frozenset(done.text.upper().split() if done.status == 0 else ())
    done = await run_tool([gpgv, "--homedir", folder, "--status-fd", "1", *files], deadline_s=_DEADLINE_S, check=False)
    return _signers(done)


def _signers(done: Completed) -> frozenset[str]:
    return frozenset(word.upper() for match in _VALID.finditer(done.text) for word in match.groups())


def _find_keyring(places: Places, fingerprint: str) -> bytes | None:
    """Give the first keyring of this host, in binary form, that has the key."""
    own = sorted((places.config / "keys").glob("*.*"))
    for path in (*own, *sorted(SYSTEM_KEYS.glob("*.gpg"))):
        if path.suffix not in (".gpg", ".asc"):
            continue
        content = path.read_bytes()
        keys = _unarmoured(content.decode("ascii", "replace")) if path.suffix == ".asc" else content
        if fingerprint in _fingerprints(keys):
            return keys
    return None


def _unarmoured(text: str) -> bytes:
    try:
        return b"".join(base64.b64decode(match["body"]) for match in _ARMOUR.finditer(text))
    except binascii.Error:
        return b""


def _fingerprints(keys: bytes) -> frozenset[str]:
    """Give the fingerprints of version 4 primary keys. Source: RFC 9580, 4.2 (packets) and 5.5.4.2."""
    found, at = set(), 0
    while at < len(keys):
        tag, start, length = _packet(keys, at)
        body = keys[start : start + length]
        if tag == _PRIMARY_KEY and body[:1] == b"\x04":
            found.add(hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper())  # noqa: S324
        at = start + length
    return frozenset(found)


def _packet(keys: bytes, at: int) -> tuple[int, int, int]:
    """Give tag, start and length of the packet at `at`; a damaged one ends the keyring."""
    head, rest = keys[at], keys[at + 1 : at + 6].ljust(5, b"\0")
    if not head & 0x80:
        return 0, len(keys), 0
    if head & 0x40:  # the new format
        if rest[0] < _ONE_OCTET:
            return head & 0x3F, at + 2, rest[0]
        if rest[0] < _TWO_OCTETS:
            return head & 0x3F, at + 3, ((rest[0] - _ONE_OCTET) << 8) + rest[1] + _ONE_OCTET
        return head & 0x3F, at + 6, int.from_bytes(rest[1:5], "big")
    size = 1 << (head & 3)
    return head >> 2 & 0xF, at + 1 + size, int.from_bytes(rest[:size], "big")
