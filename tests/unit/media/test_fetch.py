"""FETCH against a real server on loopback, a hostile one for the most part."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from osimager.arch import Arch
from osimager.env import Clock, Env
from osimager.errors import MediaError, PrerequisiteError
from osimager.events import Event, Notice, Progress
from osimager.media.download import ChecksumMismatch, Patience
from osimager.media.fetch import fetch
from osimager.media.seed import make_seed
from osimager.plan.facts import MediaFacts
from osimager.plan.model import MediaPlan
from tests.unit.media.hostile import FINAL, Act, iso_of, serving

QUICK = Patience(connect_s=5, stall_s=0.3, tries=3, pause_s=0.0)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("iso") / "big.iso"
    make_seed(path, "TEST", {"filler": iso_of(16 << 20)})
    return path.read_bytes()


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("iso") / "x.iso"
    make_seed(path, "TEST", {"isolinux.cfg": b"label a\nkernel k", "k": b"kernel", "filler": iso_of(3 << 20)})
    return path.read_bytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def plan_of(*urls: str, digest: str | None = None, checksum_url: str | None = None) -> MediaPlan:
    return MediaPlan(name="test", filename="x.iso", urls=urls, sha256=digest, checksum_url=checksum_url)


async def get(media: MediaPlan, env: Env, patience: Patience = QUICK) -> MediaFacts:
    async with asyncio.timeout(60):
        return await fetch(media, env, arch=Arch.X86_64, patience=patience)


def check_store(env: Env) -> None:
    """Nothing in the cache is called by a digest that is not its own."""
    for path in (env.places.isos / "sha256").glob("*.iso"):
        assert sha256(path.read_bytes()) == path.stem


async def test_a_download_is_verified_kept_and_not_done_twice(env: Env, events: list[Event], iso: bytes) -> None:
    async with serving(iso) as server:
        media = plan_of(f"{server.url}/x.iso", digest=sha256(iso))
        facts = await get(media, env)
        assert facts.path.read_bytes() == iso
        assert (facts.verified, facts.sha256, facts.volume_id) == (True, sha256(iso), "TEST")
        assert facts.entries[0].kernel == "/k"
        assert await get(media, dataclasses.replace(env, offline=True)) == facts
        assert server.requests == 1
    progress = [event for event in events if isinstance(event, Progress)]
    assert (progress[-1].done, progress[-1].total) == (len(iso), len(iso))
    assert not list((env.places.isos / "partial").iterdir())


async def test_twenty_waiters_share_one_download(env: Env, events: list[Event], iso: bytes) -> None:
    async with serving(iso) as server, asyncio.TaskGroup() as group:
        media = plan_of(f"{server.url}/x.iso", digest=sha256(iso))
        tasks = [group.create_task(get(media, env)) for _number in range(20)]
        await asyncio.gather(*tasks)
        assert server.requests == 1
        assert server.sent_bytes == len(iso)
        assert len({task.result() for task in tasks}) == 1
    assert any(isinstance(event, Notice) and "another build downloads" in event.text for event in events)


@pytest.mark.parametrize("etag", [True, False])
async def test_a_resumed_download_fetches_the_rest_only(env: Env, big: bytes, etag: bool) -> None:
    async with serving(big, [Act.TRUNCATED]) as server:
        server.etag = etag
        media = plan_of(f"{server.url}/x.iso", digest=sha256(big))
        server.after = Act.ERROR
        with pytest.raises(MediaError, match="HTTP status 500"):
            await get(media, env)
        before = server.sent_bytes
        assert before >= len(big) // 2
        server.after = Act.GOOD
        facts = await get(media, env)
        assert facts.path.read_bytes() == big
        assert server.sent_bytes <= 1.1 * len(big)


async def test_a_cancelled_download_goes_on_where_it_was(env: Env, big: bytes) -> None:
    async with serving(big, [Act.STALL]) as server:
        media = plan_of(f"{server.url}/x.iso", digest=sha256(big))
        patient = dataclasses.replace(QUICK, stall_s=50)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await fetch(media, env, arch=Arch.X86_64, patience=patient)
        facts = await get(media, env)
        assert facts.path.read_bytes() == big
        assert server.sent_bytes <= 1.1 * len(big)


async def test_the_next_mirror_is_tried_and_goes_on_with_what_is_there(env: Env, big: bytes) -> None:
    async with serving(big, [Act.TRUNCATED], after=Act.MISSING) as bad, serving(big) as good:
        media = plan_of(f"{bad.url}/x.iso", f"{good.url}/y.iso", digest=sha256(big))
        assert (await get(media, env)).path.read_bytes() == big
        assert good.ranges[0].startswith("bytes=")
        assert bad.sent_bytes + good.sent_bytes <= 1.1 * len(big)


async def test_a_wrong_checksum_shows_both_digests_and_keeps_nothing(env: Env, iso: bytes) -> None:
    async with serving(iso, after=Act.WRONG) as server:
        media = plan_of(f"{server.url}/x.iso", digest=sha256(iso))
        with pytest.raises(ChecksumMismatch, match=f"sha256 {sha256(server.other)} instead of {sha256(iso)}"):
            await get(media, env)
        assert not list((env.places.isos / "partial").iterdir())
        assert not (env.places.isos / "sha256").exists()


async def test_every_mirrors_failure_is_told(env: Env, iso: bytes) -> None:
    async with serving(iso, after=Act.LOOP) as loop, serving(iso, after=Act.MISSING) as missing:
        media = plan_of(f"{loop.url}/a?token=secretsecret", f"{missing.url}/b", digest=sha256(iso))
        with pytest.raises(MediaError, match=r"/a: more than 8 redirects; http://.*/b: HTTP status 404") as caught:
            await get(media, env)
        assert "secret" not in str(caught.value)
        assert loop.requests <= 10


@pytest.mark.parametrize("form", ["{digest}  x.iso\n", "{digest} *x.iso\n", "SHA256 (x.iso) = {digest}\n"])
async def test_the_vendors_checksum_file_decides(env: Env, iso: bytes, form: str) -> None:
    async with serving(iso) as server:
        server.texts["/SUMS"] = "# a comment\n" + form.format(digest=sha256(iso))
        media = plan_of(f"{server.url}/x.iso", checksum_url=f"{server.url}/SUMS")
        facts = await get(media, env)
        assert facts.verified
        server.texts["/SUMS"] = form.format(digest="0" * 64)
        assert await get(media, dataclasses.replace(env, offline=True)) == facts
        # A day later the vendor is asked again, and has another one.
        later = Clock(now=lambda: datetime.now(UTC) + timedelta(days=2))
        with pytest.raises(ChecksumMismatch, match="instead of 0000"):
            await get(media, dataclasses.replace(env, clock=later))
        # And where the vendor is down, what it said before serves.
        del server.texts["/SUMS"]
        server.after = Act.MISSING
        assert await get(media, dataclasses.replace(env, clock=later)) == facts


SIGNED = Path(__file__).parent / "signatures"
SIGNER = "984F9EFDE6708EAE01BD1735F86DCB1BDA84320C"


@pytest.mark.needs("gpgv")
@pytest.mark.parametrize(
    ("key", "signature", "said"),
    [
        ("vendor.asc", "vendor.sig", f"the checksum of test is signed by {SIGNER}"),
        ("", "vendor.sig", f"was not checked: the key {SIGNER} is not on this host"),
        ("vendor.asc", "", "was not checked: "),
    ],
)
async def test_a_signed_checksum_file_is_checked_or_it_is_said(
    env: Env, events: list[Event], iso: bytes, *, key: str, signature: str, said: str
) -> None:
    async with serving(iso, after=Act.MISSING) as server:
        server.texts["/SUMS"] = (SIGNED / "SHA256SUMS").read_text()
        if signature:
            server.texts["/SUMS.gpg"] = (SIGNED / signature).read_text()
        if key:
            keys = env.places.config / "keys"
            keys.mkdir(parents=True)
            shutil.copy(SIGNED / key, keys)
        media = plan_of(f"{server.url}/x.iso", checksum_url=f"{server.url}/SUMS")
        media = dataclasses.replace(media, signature_url=f"{server.url}/SUMS.gpg", signature_key=SIGNER)
        with pytest.raises(MediaError, match="could not be downloaded"):  # its digest is made up
            await get(media, env)
    assert any(isinstance(event, Notice) and said in event.text for event in events)


@pytest.mark.needs("gpgv")
async def test_a_checksum_file_that_somebody_else_signed_is_not_believed(env: Env, iso: bytes) -> None:
    async with serving(iso) as server:
        server.texts["/SUMS"] = f"{sha256(iso)}  x.iso\n"
        server.texts["/SUMS.gpg"] = (SIGNED / "vendor.sig").read_text()
        keys = env.places.config / "keys"
        keys.mkdir(parents=True)
        shutil.copy(SIGNED / "vendor.asc", keys)
        media = plan_of(f"{server.url}/x.iso", checksum_url=f"{server.url}/SUMS")
        media = dataclasses.replace(media, signature_url=f"{server.url}/SUMS.gpg", signature_key=SIGNER)
        with pytest.raises(MediaError, match=f"not that of {SIGNER}"):
            await get(media, env)
        assert server.requests == 0


async def test_a_checksum_file_without_the_name_is_refused_before_the_download(env: Env, iso: bytes) -> None:
    async with serving(iso) as server:
        server.texts["/SUMS"] = f"{sha256(iso)}  xx.iso\n"
        with pytest.raises(MediaError, match=r"no SHA-256 for x\.iso"):
            await get(plan_of(f"{server.url}/x.iso", checksum_url=f"{server.url}/SUMS"), env)
        assert server.requests == 0


async def test_a_url_without_checksum_is_unverified_and_must_be_an_iso(
    env: Env, events: list[Event], iso: bytes
) -> None:
    async with serving(iso) as server, serving(b"<html>" * 20_000) as page:
        facts = await get(plan_of(f"{server.url}/x.iso"), env)
        assert not facts.verified
        assert await get(plan_of(f"{server.url}/x.iso"), env) == facts
        assert server.requests == 1
        with pytest.raises(MediaError, match="a web page"):
            await get(plan_of(f"{page.url}/x.iso"), env)
    warnings = [event for event in events if isinstance(event, Notice) and event.level == "warning"]
    assert len(warnings) == 1


async def test_offline_never_downloads(env: Env, iso: bytes) -> None:
    async with serving(iso) as server:
        offline = dataclasses.replace(env, offline=True)
        for media in (
            plan_of(f"{server.url}/x.iso", digest=sha256(iso)),
            plan_of(f"{server.url}/x.iso", checksum_url=f"{server.url}/SUMS"),
            plan_of(f"{server.url}/x.iso"),
        ):
            with pytest.raises(MediaError, match="--offline"):
                await get(media, offline)
        assert server.requests == 0


async def test_a_cached_iso_that_was_damaged_is_fetched_again(env: Env, events: list[Event], iso: bytes) -> None:
    async with serving(iso) as server:
        media = plan_of(f"{server.url}/x.iso", digest=sha256(iso))
        path = (await get(media, env)).path
        path.write_bytes(server.other)
        os.utime(path, (1, 1))
        assert (await get(media, env)).path.read_bytes() == iso
    assert any(isinstance(event, Notice) and "damaged" in event.text for event in events)


async def test_a_full_disk_is_told_before_the_download(env: Env, iso: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(total=10**9, used=10**9 - 10**6, free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    async with serving(iso) as server:
        with pytest.raises(PrerequisiteError, match=r"needs 3\.\d MiB of disk") as caught:
            await get(plan_of(f"{server.url}/x.iso", digest=sha256(iso)), env)
    assert "iso gc" in (caught.value.hint or "")


async def test_the_wrong_volume_is_refused(env: Env, iso: bytes) -> None:
    async with serving(iso) as server:
        media = dataclasses.replace(plan_of(f"{server.url}/x.iso", digest=sha256(iso)), volume_id="Debian.*")
        with pytest.raises(MediaError, match="wrong ISO"):
            await get(media, env)


async def test_a_local_iso_is_hashed_once_until_it_changes(
    env: Env, events: list[Event], iso: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "local.iso"
    path.write_bytes(iso)
    media = MediaPlan(name="local", filename="local.iso", path=path)
    facts = await get(media, env)
    assert (facts.path, facts.sha256, facts.verified) == (path, sha256(iso), False)
    assert [event for event in events if isinstance(event, Notice)] == [
        Notice(f"{path} is recorded as unverified: nothing is known to check it against", "warning")
    ]

    def not_again(_path: Path, _stopped: threading.Event, _tell: object) -> str:
        return "0" * 64

    monkeypatch.setattr("osimager.media.store._hash", not_again)
    assert (await get(media, env)).sha256 == facts.sha256
    os.utime(path, (1, 1))
    assert (await get(media, env)).sha256 == "0" * 64


async def test_a_local_iso_is_held_against_what_is_known(env: Env, iso: bytes, tmp_path: Path) -> None:
    path = tmp_path / "local.iso"
    path.write_bytes(iso)
    media = MediaPlan(name="local", filename="local.iso", path=path, sha256=sha256(iso))
    assert (await get(media, env)).verified
    with pytest.raises(MediaError, match=f"sha256 {sha256(iso)} instead of {'0' * 64}"):
        await get(dataclasses.replace(media, sha256="0" * 64), env)


@pytest.mark.parametrize("damage", ["absent", "truncated"])
async def test_a_local_iso_that_is_absent_or_truncated(env: Env, iso: bytes, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "local.iso"
    if damage == "truncated":
        path.write_bytes(iso[: len(iso) // 2])
    with pytest.raises(MediaError, match="no such ISO" if damage == "absent" else "truncated"):
        await get(MediaPlan(name="local", path=path), env)


@pytest.mark.parametrize("act", list(Act))
async def test_one_bad_answer_never_harms(env: Env, iso: bytes, act: Act) -> None:
    async with serving(iso, [act]) as server:
        media = plan_of(f"{server.url}/x.iso", digest=sha256(iso))
        try:
            assert (await get(media, env)).path.read_bytes() == iso
        except MediaError:
            assert act in (
                *FINAL,
                Act.NO_SUCH_RANGE,
                Act.WRONG,
                Act.SHORT,
                Act.LONG,
                Act.EMPTY,
                Act.CHANGED,
                Act.CHANGED_SILENTLY,
            )
        check_store(env)
        assert (await get(media, env)).path.read_bytes() == iso


@pytest.mark.parametrize("act", [Act.CHANGED, Act.CHANGED_SILENTLY, Act.NO_RANGE, Act.WRONG_RANGE, Act.NO_SUCH_RANGE])
async def test_parts_of_two_contents_are_never_put_together(env: Env, iso: bytes, act: Act) -> None:
    async with serving(iso, [Act.TRUNCATED, act]) as server:
        media = plan_of(f"{server.url}/x.iso", digest=sha256(iso))
        assert (await get(media, env)).path.read_bytes() == iso
        check_store(env)


async def test_parts_of_two_contents_are_told_apart_without_a_checksum(env: Env, iso: bytes) -> None:
    async with serving(iso, [Act.TRUNCATED, Act.CHANGED]) as server:
        assert (await get(plan_of(f"{server.url}/x.iso"), env)).path.read_bytes() == iso


async def test_a_server_that_is_too_slow_is_left(env: Env, iso: bytes) -> None:
    async with serving(iso, after=Act.STALL) as slow, serving(iso) as good:
        media = plan_of(f"{slow.url}/x.iso", f"{good.url}/x.iso", digest=sha256(iso))
        assert (await get(media, env)).path.read_bytes() == iso
        assert slow.requests <= QUICK.tries + 3
