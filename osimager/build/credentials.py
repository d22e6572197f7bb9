"""This build's own way in: an Ed25519 key and a password that no person ever sees, known to the masker from birth."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from osimager.crypt import ALPHABET, crypt
from osimager.env import Env
from osimager.holes import BUILD_PASSWORD, BUILD_PASSWORD_CRYPT, BUILD_PUBLIC_KEY
from osimager.provision.keys import BuildKey, make_key, parse_key


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """The key and the password of the build account. Kept with the installed layer, 0600, and nowhere else."""

    key: BuildKey
    password: str
    password_crypt: str

    @property
    def holes(self) -> Mapping[str, str]:
        """What the answers' holes are filled with."""
        return {
            BUILD_PUBLIC_KEY: self.key.public_line,
            BUILD_PASSWORD: self.password,
            BUILD_PASSWORD_CRYPT: self.password_crypt,
        }

    def to_json(self) -> dict[str, str]:
        """Give what is kept with the installed disk: `read_credentials` takes it."""
        return {"key": self.key.private, "password": self.password, "password_crypt": self.password_crypt}


def read_credentials(kept: Mapping[str, str], env: Env) -> Credentials:
    """Read what was kept with an installed disk, and tell the masker. Raises MachineError where it is no key."""
    for name in ("password", "password_crypt"):
        env.masker.register(kept[name])
    return Credentials(parse_key(kept["key"], env), kept["password"], kept["password_crypt"])


def make_credentials(env: Env) -> Credentials:
    """Make a new key and password. 24 random bytes: no guessing at a login that lives for minutes."""
    key = make_key(env)
    password = base64.urlsafe_b64encode(env.entropy(24)).decode()
    salt = "".join(ALPHABET[byte & 63] for byte in env.entropy(16))
    hashed = crypt(password, salt)
    for secret in (password, hashed):
        env.masker.register(secret)
    return Credentials(key, password, hashed)
