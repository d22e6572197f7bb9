"""Checksum files as the vendors write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.errors import MediaError
from osimager.media.checksums import find_checksum

A, B, C = "a" * 64, "b" * 64, "c" * 64

FEDORA = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# Fedora-Server-dvd-x86_64-41-1.4.iso: 2655125504 bytes
SHA256 (Fedora-Server-dvd-x86_64-41-1.4.iso) = {A}
# Fedora-Server-netinst-x86_64-41-1.4.iso: 979695616 bytes
SHA256 (Fedora-Server-netinst-x86_64-41-1.4.iso) = {B}
-----BEGIN PGP SIGNATURE-----

iQIzBAEBCAAdFiEE
-----END PGP SIGNATURE-----
"""
UBUNTU = f"{A} *ubuntu-24.04.1-desktop-amd64.iso\n{B} *ubuntu-24.04.1-live-server-amd64.iso\n"
DEBIAN = f"{A}  debian-12.8.0-amd64-netinst.iso\n{B}  debian-edu-12.8.0-amd64-netinst.iso\n"


@pytest.mark.parametrize(
    ("text", "filename", "digest"),
    [
        (FEDORA, "Fedora-Server-netinst-x86_64-41-1.4.iso", B),
        (UBUNTU, "ubuntu-24.04.1-live-server-amd64.iso", B),
        (DEBIAN, "debian-12.8.0-amd64-netinst.iso", A),
        (f"{A}  ./netboot/mini.iso\n", "mini.iso", A),
        (f"{A}  a/x.iso\n{B}  x.iso\n", "x.iso", B),
        (f"{A}\n", "anything.iso", A),
        (A.upper() + "  X.iso\r\n", "X.iso", A),
        (f"\ufeff{A}  name with spaces.iso\n", "name with spaces.iso", A),
        (f"MD5 (x.iso) = {'a' * 32}\nSHA512 (x.iso) = {'a' * 128}\nSHA256 (x.iso) = {C}\n", "x.iso", C),
        (f"{A}  x.iso\n{A} *x.iso\n", "x.iso", A),
    ],
)
def test_the_digest_of_the_exact_name_is_found(text: str, filename: str, digest: str) -> None:
    assert find_checksum(text, filename, source="SHA256SUMS") == digest


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (DEBIAN, "no SHA-256 for 12.8.0-amd64-netinst.iso"),
        ("<html>Not found</html>", "no SHA-256"),
        ("", "no SHA-256"),
        (f"{A}  12.8.0-amd64-netinst.iso\n{B}  12.8.0-amd64-netinst.iso\n", "2 different checksums"),
        (f"{A}\n{B}\n", "2 different checksums"),
        (f"{'a' * 128}  12.8.0-amd64-netinst.iso", "no SHA-256"),
        (f"{A}  other.iso\n{B}\n", "no SHA-256"),
    ],
)
def test_anything_less_than_one_digest_is_refused(text: str, what: str) -> None:
    with pytest.raises(MediaError, match=what):
        find_checksum(text, "12.8.0-amd64-netinst.iso", source="SHA256SUMS")


@given(st.text(), st.text(min_size=1))
def test_hostile_text_gives_media_error_or_a_digest_that_is_in_it(text: str, filename: str) -> None:
    try:
        digest = find_checksum(text, filename, source="x")
    except MediaError:
        return
    assert digest in text.lower()
