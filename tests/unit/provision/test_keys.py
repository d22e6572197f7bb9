"""The key of one build: its secret part is masked wherever it is written, its public line never."""

from __future__ import annotations

from base64 import b64decode

from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from osimager.env import Env
from osimager.provision.keys import make_key, parse_key
from osimager.redact import MASK


def test_key_is_secret_and_reads_back(env: Env) -> None:
    key = make_key(env)
    assert parse_key(key.private, env) == key
    assert key.private.splitlines()[3] not in repr(key)
    # Of all kinds of key that can be loaded, ours is the Ed25519 one, which has a seed.
    seed = load_ssh_private_key(key.private.encode(), None).private_bytes_raw()  # type: ignore[union-attr]
    shown = [line for line in env.masker.mask(key.private).splitlines()[1:-1] if MASK not in line]
    assert seed not in b64decode("".join(shown) + "==")
    assert len(shown) >= 1
    assert key.public_line.startswith("ssh-ed25519 ")


def test_public_key_is_never_masked(env: Env) -> None:
    for _ in range(200):  # about one key in 25 has the characters that once made it look like a piece of its secret
        key = make_key(env)
        assert key.public_line == env.masker.mask(key.public_line)
