"""FETCH: from a MediaPlan to an ISO on this host that is what the plan says, with what its menus offer.

A local file is hashed once; a download is shared by all who wait for it and kept by digest; a made medium is made when
it is missing. Policy only: `download` speaks HTTP, `store` keeps files, `iso` reads them.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from osimager import kept
from osimager.aio import in_thread
from osimager.arch import Arch
from osimager.env import Env
from osimager.errors import MediaError, Place
from osimager.events import Notice, Progress
from osimager.media.checksums import find_checksum
from osimager.media.download import Patience, Wanted, download, download_bytes, shown_url
from osimager.media.iso import check_volume_id, inspect_iso
from osimager.media.iso9660 import read_volume
from osimager.media.signatures import NotChecked, check_signature
from osimager.media.store import IsoStore, StoredIso
from osimager.plan.facts import MediaFacts
from osimager.plan.model import MediaPlan

_TRUSTED_S = 24 * 3600.0  # so long a vendor's checksum is not asked for again


async def fetch(media: MediaPlan, env: Env, *, arch: Arch, patience: Patience | None = None) -> MediaFacts:
    """Get the ISO that `media` means, verify it, and read its volume id and boot menus.

    Raises MediaError for an ISO that cannot be had or is not the right one, PrerequisiteError for a full disk.
    """
    patience = patience or Patience()
    store = IsoStore(env.places)
    if media.made is not None:
        from osimager.media.made import make_iso

        path = await make_iso(media.made, env, arch=arch)
        return await _facts(media, path, await store.digest_of(path), verified=True)
    if media.path is not None:
        digest, verified = await _check_local(media, media.path, store, env, patience)
        return await _facts(media, media.path, digest, verified=verified)
    record = await _fetch_remote(media, store, env, patience)
    store.mark_used(record.sha256)
    return await _facts(media, store.path_of(record.sha256), record.sha256, verified=record.verified)


async def peek(media: MediaPlan, env: Env, *, arch: Arch, read: bool = False) -> MediaFacts | None:
    """Give what `fetch` would give, where the ISO is here and was hashed before, or is `read` now; asks nobody outside.

    Raises MediaError for one that is here and damaged.
    """
    store = IsoStore(env.places)
    if media.made is not None:
        from osimager.media.made import find_made

        path = await find_made(media.made, env, arch=arch)
    elif media.path is not None:
        path = media.path
    else:
        expected = media.sha256
        if expected is None and media.checksum_url is not None:
            known = store.find_source(checksum_url=shown_url(media.checksum_url), filename=media.filename)
            expected = None if known is None else known.sha256
        path = None if expected is None else store.path_of(expected)
    if path is None or not path.is_file():
        return None
    sha256 = store.known_digest(path)
    if sha256 is None and read:
        env.emit(Notice(f"reading {path}, to tell whether it is an ISO that was installed from before"))
        sha256 = await store.digest_of(path)
    return None if sha256 is None else await _facts(media, path, sha256, verified=False)


async def _facts(media: MediaPlan, path: Path, sha256: str, *, verified: bool) -> MediaFacts:
    found = await in_thread(lambda: inspect_iso(path))
    check_volume_id(found.volume_id, media.volume_id, path)
    return MediaFacts(
        path=path,
        sha256=sha256,
        verified=verified,
        volume_id=found.volume_id,
        entries=found.entries,
        arches=found.arches,
    )


async def _check_local(media: MediaPlan, path: Path, store: IsoStore, env: Env, patience: Patience) -> tuple[str, bool]:
    """Hash a local file and hold it against what is known. Gives its digest and whether that was known before."""
    await in_thread(lambda: read_volume(path))  # a missing or truncated file is told before it is hashed

    def tell(done: int, total: int) -> None:
        env.emit(Progress(f"reading {path.name}", done, total))

    digest = await store.digest_of(path, tell)
    expected = media.sha256
    if expected is None and media.checksum_url is not None:
        try:
            expected = await _vendors_checksum(media, store, env, patience)
        except MediaError as exc:
            env.emit(Notice(str(exc), "warning"))
    if expected is None:
        env.emit(Notice(f"{path} is recorded as unverified: nothing is known to check it against", "warning"))
    elif expected != digest:
        raise _wrong_checksum(media, path, digest, expected)
    return digest, expected is not None


async def _fetch_remote(media: MediaPlan, store: IsoStore, env: Env, patience: Patience) -> StoredIso:
    """Find the ISO in the cache, or download it; whoever waits meanwhile finds it then."""
    expected = media.sha256
    if expected is None and media.checksum_url is not None:
        expected = await _vendors_checksum(media, store, env, patience)
    if (record := await _find_stored(media, expected, store, env)) is not None:
        return record
    if env.offline:
        raise MediaError(
            f"{media.name} is not on this host, and --offline forbids downloads",
            where=media.origin,
            hint=f"once, without --offline: osimager iso fetch {media.name}",
        )
    key = expected or "url-" + hashlib.sha256("\n".join(media.urls).encode()).hexdigest()

    def tell() -> None:
        env.emit(Notice(f"another build downloads {media.name}: waiting for it"))

    async with kept.holding(store.lock(key), wait=env.wait, on_wait=tell):
        if (record := await _find_stored(media, expected, store, env)) is not None:
            return record
        return await _download(media, expected, key, store=store, env=env, patience=patience)


async def _download(
    media: MediaPlan, expected: str | None, key: str, *, store: IsoStore, env: Env, patience: Patience
) -> StoredIso:
    """Download into the cache. The caller holds the lock of `key`."""
    partial = store.partial(key)
    wanted = Wanted(name=media.name, urls=media.urls, sha256=expected, size_bytes=media.size_bytes)
    done = await download(wanted, partial, env, patience)
    now = env.clock.now().timestamp()
    record = StoredIso(
        sha256=done.sha256,
        name=media.name,
        filename=media.filename,
        size_bytes=done.size_bytes,
        verified=expected is not None,
        fetched_at=now,
        checked_at=now,
        url=done.url,
        checksum_url=shown_url(media.checksum_url or ""),
    )
    if expected is None:  # nothing vouches for it, so at least it must be an ISO
        try:
            await in_thread(lambda: inspect_iso(partial))
        except MediaError:
            partial.unlink(missing_ok=True)
            raise
        env.emit(Notice(f"{media.name} is recorded as unverified: sha256:{done.sha256}", "warning"))
    await in_thread(lambda: store.publish(partial, record))
    return record


async def _find_stored(media: MediaPlan, expected: str | None, store: IsoStore, env: Env) -> StoredIso | None:
    """Find an ISO in the cache, its content checked (once, as long as the file stays as it is).

    Without an expected digest one that came from the same URL serves, for a day or offline.
    """
    if expected is None:
        record = store.find_url([shown_url(url) for url in media.urls])
        if record is not None and not (env.offline or _is_fresh(record, env)):
            return None
    else:
        record = store.record(expected)
    if record is None:
        return None
    if await store.digest_of(store.path_of(record.sha256)) != record.sha256:
        env.emit(Notice(f"{media.name} in the cache is damaged: it is fetched again", "warning"))
        store.remove(record.sha256)
        return None
    if expected is not None and media.checksum_url is not None:
        known = replace(record, verified=True, checksum_url=shown_url(media.checksum_url), filename=media.filename)
        if known != record:
            store.write_record(known)
        return known
    return replace(record, verified=expected is not None)


async def _vendors_checksum(media: MediaPlan, store: IsoStore, env: Env, patience: Patience) -> str:
    """Give what the vendor's checksum file says; what it said before serves for a day, offline, and when it is down."""
    assert media.checksum_url is not None
    shown = shown_url(media.checksum_url)
    before = store.find_source(checksum_url=shown, filename=media.filename)
    if before is not None and (env.offline or _is_fresh(before, env)):
        return before.sha256
    if env.offline:
        raise MediaError(f"the checksum of {media.name} is not known here, and --offline forbids asking {shown}")
    try:
        content = await download_bytes(media.checksum_url, env, patience)
    except MediaError as exc:
        if before is None:
            raise
        env.emit(Notice(f"{exc}; the checksum from before is used", "warning"))
        return before.sha256
    await _check_signature(media, content, env, patience)
    digest = find_checksum(content.decode("utf-8", "replace"), media.filename, source=shown)
    if before is not None and before.sha256 == digest:
        store.write_record(replace(before, checked_at=env.clock.now().timestamp()))
    return digest


async def _check_signature(media: MediaPlan, content: bytes, env: Env, patience: Patience) -> None:
    """Check the signature of the vendor's checksum file where one is published, and say so where that cannot be.

    Raises MediaError for one that is not the vendor's.
    """
    if media.signature_url is None or media.signature_key is None:
        return
    unchecked = f"the signature of {media.name}'s checksum was not checked"
    try:
        signature = await download_bytes(media.signature_url, env, patience)
    except MediaError as exc:
        env.emit(Notice(f"{unchecked}: {exc}", "warning"))
        return
    try:
        await check_signature(content, signature, media.signature_key, env.places)
    except NotChecked as exc:
        env.emit(Notice(f"{unchecked}: {exc}"))
    except MediaError as exc:
        what = f"{shown_url(media.signature_url)}: {exc.what}"
        raise MediaError(what, where=media.origin, hint=exc.hint) from exc
    else:
        env.emit(Notice(f"the checksum of {media.name} is signed by {media.signature_key}"))


def _is_fresh(record: StoredIso, env: Env) -> bool:
    return 0 <= env.clock.now().timestamp() - record.checked_at < _TRUSTED_S


def _wrong_checksum(media: MediaPlan, path: Path, digest: str, expected: str) -> MediaError:
    return MediaError(
        f"the ISO's checksum is wrong: sha256 {digest} instead of {expected}",
        where=[place for place in (Place(path), media.origin) if place is not None],
        hint="the file is damaged or another one: get it again, or name another with --iso",
    )
