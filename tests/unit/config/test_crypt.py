"""Hashes are those of openssl."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osimager.crypt import ALPHABET, Method, crypt

passwords = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r"), min_size=1, max_size=60)
salts = st.text(ALPHABET, min_size=1, max_size=8)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@settings(max_examples=30)
@given(password=passwords, salt=salts, method=st.sampled_from(Method))
def test_hash_is_that_of_openssl(password: str, salt: str, method: Method) -> None:
    argv = ["openssl", "passwd", f"-{method}", "-salt", salt, "-stdin"]
    done = subprocess.run(argv, input=password.encode(), capture_output=True, check=True)
    assert crypt(password, salt, method) == done.stdout.decode().strip()


def test_hash_is_that_of_the_published_vector() -> None:
    # U. Drepper, "Unix crypt using SHA-256 and SHA-512", test vectors.
    assert crypt("Hello world!", "saltstring", Method.SHA512) == (
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
    )


@pytest.mark.parametrize(("password", "salt"), [("x", ""), ("x", "a$b"), ("a\0b", "salt")])
def test_what_cannot_be_hashed_is_refused(password: str, salt: str) -> None:
    with pytest.raises(ValueError, match=r"salt|NUL"):
        crypt(password, salt)
