"""md5-, sha256- and sha512-crypt in plain Python, for answer files: Python 3.13 has no `crypt` any more.

Sources: FreeBSD's md5crypt by P.-H. Kamp; U. Drepper, "Unix crypt using SHA-256 and SHA-512", 2008.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS = 5000


class Method(StrEnum):
    """How a password is hashed; the value is the number in `$N$`, and in the markers `1> 5> 6>`."""

    MD5 = "1"
    SHA256 = "5"
    SHA512 = "6"


def crypt(password: str, salt: str, method: Method = Method.SHA512) -> str:
    """Hash `password` as crypt(3) does. `salt` is of ALPHABET, at most 16 characters count (8 of md5-crypt).

    Raises ValueError for a salt with other characters, or a password with a NUL in it.
    """
    if not salt or set(salt) - set(ALPHABET):
        raise ValueError("a salt is made of letters, digits, '.' and '/'")
    if "\0" in password:
        raise ValueError("a password cannot hold a NUL")
    if method is Method.MD5:
        return _md5_crypt(password.encode(), salt[:8])
    return _sha_crypt(password.encode(), salt[:16], method)


def _sha_crypt(password: bytes, salt_text: str, method: Method) -> str:
    def digest(data: bytes) -> bytes:
        return (hashlib.sha256 if method is Method.SHA256 else hashlib.sha512)(data).digest()

    salt = salt_text.encode()
    first = digest(password + salt + password)
    mixed = password + salt + _stretch(first, len(password))
    bits = len(password)
    while bits:
        mixed += first if bits & 1 else password
        bits >>= 1
    result = digest(mixed)
    long_password = _stretch(digest(password * len(password)), len(password))
    long_salt = _stretch(digest(salt * (16 + result[0])), len(salt))
    for number in range(_ROUNDS):
        block = long_password if number & 1 else result
        if number % 3:
            block += long_salt
        if number % 7:
            block += long_password
        result = digest(block + (result if number & 1 else long_password))
    return f"${method}${salt_text}${_encode(result, _sha_order(len(result)))}"


def _stretch(block: bytes, length: int) -> bytes:
    return (block * (length // len(block) + 1))[:length]


def _sha_order(size: int) -> list[tuple[int, ...]]:
    """Give the order in which the digest's bytes are encoded, three at a time, the highest first."""
    third = size // 3
    triples: list[tuple[int, ...]] = []
    turn = (0, third, 2 * third)
    for _ in range(third):
        triples.append(turn)
        a, b, c = turn
        turn = (b + 1, c + 1, a + 1) if size == 64 else (c + 1, a + 1, b + 1)
    return [*triples, (63,) if size == 64 else (31, 30)]


def _md5_crypt(password: bytes, salt_text: str) -> str:
    def digest(data: bytes) -> bytes:
        return hashlib.md5(data, usedforsecurity=False).digest()

    salt = salt_text.encode()
    mixed = password + b"$1$" + salt + _stretch(digest(password + salt + password), len(password))
    bits = len(password)
    while bits:
        mixed += b"\0" if bits & 1 else password[:1]
        bits >>= 1
    result = digest(mixed)
    for number in range(1000):
        block = password if number & 1 else result
        if number % 3:
            block += salt
        if number % 7:
            block += password
        result = digest(block + (result if number & 1 else password))
    order: list[tuple[int, ...]] = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5), (11,)]
    return f"$1${salt_text}${_encode(result, order)}"


def _encode(digest: bytes, order: list[tuple[int, ...]]) -> str:
    letters = []
    for group in order:
        number = int.from_bytes(bytes(digest[index] for index in group))
        for _ in range(len(group) + 1):
            letters.append(ALPHABET[number & 63])
            number >>= 6
    return "".join(letters)
