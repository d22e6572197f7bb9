"""Signatures of checksum files, by the real gpgv: keys and signatures were made once, and lie in `signatures/`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from osimager.errors import MediaError
from osimager.media.signatures import SYSTEM_KEYS, NotChecked, check_signature
from osimager.paths import Places

FOLDER = Path(__file__).parent / "signatures"
VENDOR = "984F9EFDE6708EAE01BD1735F86DCB1BDA84320C"
SUMS = (FOLDER / "SHA256SUMS").read_bytes()

pytestmark = pytest.mark.needs("gpgv")


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@pytest.fixture
def keys(places: Places) -> Path:
    """Give the user's folder of keys, with the vendor's in it."""
    folder = places.config / "keys"
    folder.mkdir(parents=True)
    shutil.copy(FOLDER / "vendor.asc", folder)
    return folder


async def test_the_vendors_signature_is_accepted(places: Places, keys: Path) -> None:
    await check_signature(SUMS, read("vendor.sig"), VENDOR, places)
    spaced = " ".join(VENDOR[at : at + 4] for at in range(0, len(VENDOR), 4)).lower()
    await check_signature(SUMS, read("vendor.sig"), spaced, places)


async def test_a_changed_list_is_refused(places: Places, keys: Path) -> None:
    with pytest.raises(MediaError, match=f"not that of {VENDOR}"):
        await check_signature(SUMS.replace(b"0", b"1"), read("vendor.sig"), VENDOR, places)


async def test_somebody_elses_signature_is_refused_though_its_key_is_known(places: Places, keys: Path) -> None:
    shutil.copy(FOLDER / "other.asc", keys)
    with pytest.raises(MediaError, match="not that of"):
        await check_signature(SUMS, read("other.sig"), VENDOR, places)


async def test_a_key_that_nobody_knows_counts_as_wrong_where_the_vendors_is_known(places: Places, keys: Path) -> None:
    with pytest.raises(MediaError, match="not that of"):
        await check_signature(SUMS, read("other.sig"), VENDOR, places)


@pytest.mark.skipif(not (SYSTEM_KEYS / "debian-archive-keyring.gpg").is_file(), reason="no debian-archive-keyring here")
async def test_the_systems_keyrings_are_looked_into(places: Places) -> None:
    stable = "4D64FEC119C2029067D6E791F8D2585B8783D481"  # Debian Stable Release Key (12/bookworm)
    with pytest.raises(MediaError, match="not that of"):
        await check_signature(SUMS, read("vendor.sig"), stable, places)


@pytest.mark.parametrize("signature", [b"", b"<html>404</html>"])
async def test_what_is_no_signature_is_refused(places: Places, keys: Path, signature: bytes) -> None:
    with pytest.raises(MediaError, match="not that of"):
        await check_signature(SUMS, signature, VENDOR, places)


async def test_without_the_key_it_is_not_checked_and_says_so(places: Places) -> None:
    with pytest.raises(NotChecked, match=f"the key {VENDOR} is not on this host"):
        await check_signature(SUMS, read("vendor.sig"), VENDOR, places)


async def test_without_a_program_it_is_not_checked_and_says_so(
    places: Places, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osimager.proc.shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(NotChecked, match="neither gpgv nor sqv"):
        await check_signature(SUMS, read("vendor.sig"), VENDOR, places)
