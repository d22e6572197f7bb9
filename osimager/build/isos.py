"""What `osimager iso` does beside fetching: look at the catalogue, check it, add to it, and clear the cache."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from osimager import kept
from osimager.aio import in_thread
from osimager.arch import Arch
from osimager.build.media_choice import default_iso_path, find_local
from osimager.config.catalog import Catalog
from osimager.config.sections import IsoEntry
from osimager.config.settings import load_settings
from osimager.config.versions import version_key
from osimager.env import Env
from osimager.errors import ConfigErrors, MediaError, OsimagerError, UsageError
from osimager.media.download import Patience, find_dead_urls
from osimager.media.inventory import IsoIdentity, recognise_iso, render_entry
from osimager.media.store import IsoStore
from osimager.paths import Places

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(?<!\.iso)")
_QUICK = Patience(connect_s=10.0, stall_s=15.0, tries=1)
# What an entry says that somebody must be able to look up.
SOURCED = ("urls", "patterns", "sha256", "checksum_url", "signature_url", "signature_key", "volume_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedIso:
    """An entry of the catalogue for one architecture, and the file of it that is on this host already."""

    entry: IsoEntry
    local: Path | None = None
    verified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoProblem:
    """What is wrong with an entry of the catalogue. `is_lack`: it is only less than it could be."""

    name: str
    arch: str
    what: str
    is_lack: bool = False


def iso_folders(project: Path, places: Places) -> tuple[Path, ...]:
    """Give the folders that are searched for ISOs, the user's own first."""
    return (*load_settings(places).iso_path, *default_iso_path(project, places))


def list_isos(catalog: Catalog, folders: Sequence[Path], places: Places) -> Iterator[ListedIso]:
    """Give every entry with what is here of it. Raises ConfigErrors for an entry that is wrong."""
    store = IsoStore(places)
    records = {record.url: record for record in store.records() if record.url}
    for name in sorted(catalog.iso_tables(), key=version_key):
        for arch in Arch:
            entry = catalog.find_iso(name, arch)
            if entry is not None:
                record = next((records[url] for url in entry.urls if url in records), None)
                if record is not None:
                    yield ListedIso(entry=entry, local=store.path_of(record.sha256), verified=record.verified)
                else:
                    yield ListedIso(entry=entry, local=_find_file(entry, folders, places))


def _find_file(entry: IsoEntry, folders: Sequence[Path], places: Places) -> Path | None:
    if entry.make:
        made = sorted((places.isos / "made").glob(f"{entry.make}-{entry.arch}-*.iso"), key=lambda p: p.stat().st_mtime)
        return made[-1] if made else None
    return find_local(folders, [*(_file_name(url) for url in entry.urls), *entry.patterns])


def _file_name(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).name


# Checking ------------------------------------------------------------------------------------------------------------


def check_entries(catalog: Catalog, names: Sequence[str]) -> tuple[list[IsoEntry], list[IsoProblem]]:
    """Look whether the entries called `names` (none: all) are whole: where from, checked by what, known from where."""
    tables = catalog.iso_tables()
    for name in names:
        if name not in tables:
            raise UsageError(f"the ISO catalogue has no {name!r}", hint="osimager iso list shows what it has")
    entries: list[IsoEntry] = []
    problems: list[IsoProblem] = []
    for name in names or tables:
        for arch in Arch:
            try:
                entry = catalog.find_iso(name, arch)
            except OsimagerError as exc:
                errors = exc.errors if isinstance(exc, ConfigErrors) else (exc,)
                problems += [IsoProblem(name=name, arch=arch, what=str(error)) for error in errors]
                break
            if entry is not None:
                entries.append(entry)
                problems += _entry_problems(entry)
    return entries, problems


def _entry_problems(entry: IsoEntry) -> Iterator[IsoProblem]:
    def problem(what: str, *, is_lack: bool = False) -> IsoProblem:
        return IsoProblem(name=entry.name, arch=entry.arch, what=what, is_lack=is_lack)

    if entry.make:
        return
    for url in (*entry.urls, *filter(None, (entry.checksum_url, entry.signature_url))):
        if not url.startswith(("https://", "http://")):
            yield problem(f"{url} is neither http nor https")
    if not entry.urls and not entry.needs_login:
        yield problem("nothing says where to get it: urls, or needs_login with the page")
    if entry.signature_url and not entry.signature_key:
        yield problem("it has a signature, and no key's fingerprint to check it by")
    for key in SOURCED:
        if getattr(entry, key) and key not in entry.sources:
            yield problem(f"{key} has no source: say under sources where the vendor says so")
    if entry.urls and not (entry.sha256 or entry.checksum_url):
        yield problem("nothing to verify it by: the vendor publishes no SHA-256", is_lack=True)
    if not entry.volume_id:
        yield problem("its volume id is not known: a wrong ISO is not refused by it", is_lack=True)


async def find_dead_addresses(entries: Sequence[IsoEntry], env: Env) -> tuple[int, list[IsoProblem]]:
    """Ask each address of `entries` whether it is there; give how many were asked, and what those say that are not."""
    asked: dict[str, list[IsoEntry]] = {}
    for entry in entries:
        for url in (*entry.urls, *filter(None, (entry.checksum_url, entry.signature_url))):
            asked.setdefault(url, []).append(entry)
    dead = await find_dead_urls(tuple(asked), env, _QUICK)
    problems = [
        IsoProblem(name=entry.name, arch=entry.arch, what=f"{url}: {why}")
        for url, why in dead.items()
        for entry in asked[url]
    ]
    return len(asked), problems


# Adding --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedIso:
    """What `iso add` wrote: the entry's name and file, what the ISO is, and where it is found from now on."""

    name: str
    arch: Arch
    file: Path
    identity: IsoIdentity
    sha256: str
    found_at: Path


async def add_iso(
    path: Path, catalog: Catalog, env: Env, *, folders: Sequence[Path], name: str | None, arch: Arch | None
) -> AddedIso:
    """Say what the ISO `path` is, and write it as an entry into the user's `isos.d`, in the place of one of before.

    Raises MediaError for what is no ISO, UsageError where it does not tell its name or architecture, or `name` is none.
    """
    if name and not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of an ISO", hint="a name has letters, digits, and . _ + - inside"
        )
    identity = await in_thread(lambda: recognise_iso(path))
    name, arch = name or iso_name(identity, catalog.iso_tables()), arch or identity.arch
    if not name or arch is None:
        lacks = "what it is" if not name else "its architecture"
        hint = "say --name NAME" if not name else "say --arch ARCH"
        raise UsageError(f"{path.name} does not tell {lacks} (volume id {identity.volume_id!r})", hint=hint)
    sha256 = await IsoStore(env.places).digest_of(path)
    size_bytes = await in_thread(lambda: path.stat().st_size)
    text = render_entry(identity, name=name, arch=arch, filename=path.name, sha256=sha256, size_bytes=size_bytes)
    found_at = await in_thread(lambda: _make_findable(path, folders, env.places))
    file = env.places.config / "isos.d" / f"added-{name}-{arch}.yml"
    kept.write_kept(file, f"# Added by `osimager iso add` from {path}\n{text}")
    return AddedIso(name=name, arch=arch, file=file, identity=identity, sha256=sha256, found_at=found_at)


def iso_name(identity: IsoIdentity, known: Collection[str]) -> str:
    """Give the name that a target of ours looks for: `debian-12.8` for 12.8.0, `sles-15.6` for 15-SP6."""
    version = identity.version.replace("-SP", ".")
    parts = version.split(".")
    shorter = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    names = [f"{identity.dist}-{each}" for each in shorter if each and identity.dist]
    return next((name for name in names if name in known), names[0] if names else "")


def _make_findable(path: Path, folders: Sequence[Path], places: Places) -> Path:
    """Give where the ISO is found: where it is, if that is searched, else a link to it in the cache's folder."""
    path = path.absolute()
    if find_local(folders, [glob.escape(path.name)]) == path:
        return path
    link, real = kept.make_folder(places.isos) / path.name, os.path.realpath(path)
    if link.exists() and os.path.realpath(link) != real:
        raise MediaError(f"{link} is there already, and is another file", hint="rename one of them")
    link.unlink(missing_ok=True)
    link.symlink_to(real)
    return link


def describe_entry(listed: ListedIso) -> dict[str, object]:
    """Give an entry as plain data, for `--json`: what the catalogue says of it, and where it is on this host."""
    entry = listed.entry
    fields: Mapping[str, object] = {
        field.name: getattr(entry, field.name) for field in dataclasses.fields(entry) if field.name != "place"
    }
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
    local = str(listed.local) if listed.local else None
    return {**plain, "place": str(entry.place), "path": local, "verified": listed.verified}
