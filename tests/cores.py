"""Secrets that one search finds in every form: the middle of each is letters that no quoting changes."""

from __future__ import annotations

import base64
import json
import random
import re
import shlex
import string
import urllib.parse
from collections.abc import Iterator

_CORE = re.compile(r"K[a-z]{10}Z")
_HEX = re.compile(r"(?:[0-9a-f]{2}){12,}", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}")


def make_secrets(count: int) -> list[str]:
    """Give `count` secrets full of quotes, the same each time."""
    chosen = random.Random(3)
    hostile = "\"'\\<>&$ !%#" + string.ascii_letters
    around = ["".join(chosen.choices(hostile, k=6)) for _ in range(2 * count)]
    cores = ["K" + "".join(chosen.choices(string.ascii_lowercase, k=10)) + "Z" for _ in range(count)]
    return [f"x{around[2 * at]}{core}{around[2 * at + 1]}x" for at, core in enumerate(cores)]


def forms(secret: str) -> Iterator[str]:
    """Give a secret as it is, and as JSON, shells, URLs, hex and base64 have it."""
    raw = secret.encode()
    yield secret
    yield json.dumps(secret)
    yield shlex.quote(secret)
    yield urllib.parse.quote(secret, safe="")
    yield raw.hex()
    yield base64.b64encode(raw).decode()
    yield base64.b64encode(b"user:" + raw).decode()


def find_cores(text: str) -> set[str]:
    """Give the middle of every secret that is in `text`, as it is, in hex or in base64 at any alignment."""
    found = set(_CORE.findall(text))
    for match in _HEX.findall(text):
        for shift in (0, 1):
            digits = match[shift:]
            found |= set(_CORE.findall(bytes.fromhex(digits[: len(digits) // 2 * 2]).decode("latin-1")))
    for match in _BASE64.findall(text):
        for shift in range(4):
            part = match[shift:].translate(str.maketrans("-_", "+/"))
            found |= set(_CORE.findall(base64.b64decode(part[: len(part) // 4 * 4]).decode("latin-1")))
    return found


def secrets_line(path: str, secrets: list[str]) -> str:
    """Give the line of a secrets file that holds them under `path`, by the keys k0, k1, …"""
    quoted = (secret.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for secret in secrets)
    return f"{path} " + " ".join(f'k{at}="{text}"' for at, text in enumerate(quoted)) + "\n"
