"""The SSH key of one build. The only import site of cryptography: slow to import, so imported when first used."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from osimager.env import Env
from osimager.errors import MachineError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED_CHARS = 43  # 32 bytes in base64
_SEED_PART_AT_LEAST = 8  # what a line break cuts off is a character or two: to mask that would mask words by chance


@dataclass(frozen=True, slots=True)
class BuildKey:
    """An Ed25519 key of one build: `private` is OpenSSH's format (secret), `public_line` authorized_keys'."""

    private: str = field(repr=False)
    public_line: str


def make_key(env: Env) -> BuildKey:
    """Make a new key, known to the masker."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _known_key(Ed25519PrivateKey.from_private_bytes(env.entropy(32)), env)


def parse_key(private: str, env: Env) -> BuildKey:
    """Read a key that `make_key` made (an INSTALL layer keeps it). Raises MachineError where the text is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(private.encode(), None)
    except ValueError as exc:
        raise MachineError("the key kept with the installed disk cannot be read", hint="build with --force") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise MachineError("the key kept with the installed disk is not osimager's", hint="build with --force")
    return _known_key(key, env, private)


def _known_key(key: Ed25519PrivateKey, env: Env, private: str | None = None) -> BuildKey:
    """Tell the masker of the secret part only: the private text holds the public key as well, which may be shown."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = private or key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    lines = private.strip().splitlines()[1:-1]
    start = base64.b64decode("".join(lines)).rindex(key.private_bytes_raw()) * 4 // 3
    at = 0
    for line in lines:
        # The public key stands behind the seed: a whole line would mask that where it is shown by itself.
        part = line[max(start - at, 0) : max(start + _SEED_CHARS - at, 0)]
        if len(part) >= _SEED_PART_AT_LEAST:
            env.masker.register(part)
        at += len(line)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return BuildKey(private, f"{public} osimager-build")
