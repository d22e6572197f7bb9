"""Which ISO a build takes: a catalogue name, a path or a URL → one `MediaPlan`."""

from __future__ import annotations

import dataclasses
import glob
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from osimager.config.catalog import Catalog
from osimager.config.configuration import Configuration
from osimager.config.markers import as_text
from osimager.config.sections import IsoEntry
from osimager.errors import MediaError, UsageError
from osimager.paths import Places, search_path
from osimager.plan.model import MadeMedium, MediaPlan

_SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")


def default_iso_path(project: Path, places: Places) -> tuple[Path, ...]:
    """Give the folders that are searched for local ISOs, in their order."""
    return (project / "isos", places.isos, Path.home() / "Downloads", Path("/iso"))


def choose_media(
    configuration: Configuration,
    catalog: Catalog,
    *,
    checksum: str | None,
    iso_path: Sequence[Path],
    project: Path,
    places: Places,
) -> MediaPlan:
    """Decide where the installer ISO comes from. Raises UsageError or MediaError that says what there is."""
    text = configuration.iso
    if not text:
        raise UsageError(
            f"no ISO is known for {configuration.target.short}", hint="give one: --iso NAME, --iso PATH or --iso URL"
        )
    if catalog.roots.old_tree is not None and "://" in text:
        return _from_old_url(configuration, text, checksum, iso_path)
    sha256 = parse_checksum(checksum)
    if "://" in text:
        return _from_url(text, sha256, checksum)
    path = Path(text).expanduser()
    if "/" in text or path.suffix.lower() == ".iso":
        if not path.is_file() and catalog.roots.old_tree is not None:
            path = find_local(iso_path, [glob.escape(path.name)]) or path
        if not path.is_file():
            raise MediaError(f"there is no ISO at {path}", hint="check the path; osimager iso list shows the catalogue")
        return MediaPlan(name=path.name, filename=path.name, path=path.absolute(), sha256=sha256)
    entry = catalog.find_iso(text, configuration.target.arch)
    if entry is None:
        raise UsageError(
            f"the ISO catalogue has no {text!r} for {configuration.target.arch}",
            hint="osimager iso list shows what it has; a path needs a slash or ends in .iso",
        )
    return from_entry(entry, sha256=sha256, iso_path=iso_path, project=project, places=places)


def from_entry(
    entry: IsoEntry, *, sha256: str | None, iso_path: Sequence[Path], project: Path, places: Places
) -> MediaPlan:
    """Give the plan for a catalogue entry: made, found under `iso_path`, or downloaded."""
    if entry.make:
        made = MadeMedium(recipe=entry.make, folder=_recipe(entry, project, places))
        return MediaPlan(name=entry.name, made=made, volume_id=entry.volume_id, origin=entry.place)
    wanted = sha256 or entry.sha256
    names = [PurePosixPath(urlsplit(url).path).name for url in entry.urls]
    local = find_local(iso_path, [*names, *entry.patterns])
    if local is None and not entry.urls:
        lacks = f"no file {' or '.join(entry.patterns)} was found"
        if entry.needs_login is None:
            hint = f"put it into {iso_path[0]}, or take the entry away"
            raise MediaError(f"{entry.name} is a file of your own, and {lacks}", where=entry.place, hint=hint)
        note = f". {entry.notes}" if entry.notes else ""
        raise MediaError(
            f"{entry.name} cannot be downloaded without a login, and {lacks}",
            where=entry.place,
            hint=f"get it from {entry.needs_login} and put it into {iso_path[0]}, or say --iso PATH{note}",
        )
    return MediaPlan(
        name=entry.name,
        filename=names[0] if names else "",
        path=local,
        urls=() if local else entry.urls,
        sha256=wanted,
        checksum_url=entry.checksum_url,
        signature_url=entry.signature_url,
        signature_key=entry.signature_key,
        size_bytes=entry.size_bytes,
        volume_id=entry.volume_id,
        origin=entry.place,
    )


def from_file(entry: IsoEntry, path: Path) -> MediaPlan:
    """Give the plan for the file `path`, which is to be what the catalogue's `entry` says."""
    names = [PurePosixPath(urlsplit(url).path).name for url in entry.urls]
    return MediaPlan(
        name=entry.name,
        filename=names[0] if names else path.name,
        path=path.absolute(),
        sha256=entry.sha256,
        checksum_url=entry.checksum_url,
        signature_url=entry.signature_url,
        signature_key=entry.signature_key,
        volume_id=entry.volume_id,
        origin=entry.place,
    )


def parse_checksum(text: str | None) -> str | None:
    """Read `--iso-checksum`. Raises UsageError for anything but `sha256:…` and `none`."""
    if text is None or text == "none":
        return None
    match = _SHA256.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a checksum", hint="write sha256: and 64 hexadecimal digits, or none")
    return match[1].lower()


def _from_url(url: str, sha256: str | None, said: str | None) -> MediaPlan:
    if sha256 is None and said != "none":
        raise UsageError(
            "an ISO from a URL needs a checksum",
            hint="add --iso-checksum sha256:…, or --iso-checksum none to go without",
        )
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url} is neither http nor https", hint="download it yourself and say --iso PATH")
    name = PurePosixPath(urlsplit(url).path).name or "download.iso"
    return MediaPlan(name=name, filename=name, urls=(url,), sha256=sha256)


def _from_old_url(configuration: Configuration, url: str, said: str | None, iso_path: Sequence[Path]) -> MediaPlan:
    """Give the plan for the URL of an OSImager 1.x spec: a file of its name goes first, as it did there.

    Packer's `iso_checksum` is a digest, `file:URL` or `none`; `--iso-checksum` goes before it.
    """
    place = configuration.merged.place("config", "iso_checksum")
    raw = configuration.merged.tables["config"].get("iso_checksum")
    told = said or as_text(configuration.renderer.resolve_value(raw, place)) or "none"
    checksum_url = told.removeprefix("file:") if told.startswith("file:") else None
    sha256 = None if checksum_url else parse_checksum(told)
    name = PurePosixPath(urlsplit(url).path).name
    local = find_local(iso_path, [glob.escape(name)])
    if local is not None:
        return MediaPlan(name=name, filename=name, path=local, sha256=sha256, origin=place)
    media = _from_url(url, sha256, "none")
    return dataclasses.replace(media, checksum_url=checksum_url, origin=place)


def find_local(folders: Sequence[Path], patterns: Sequence[str]) -> Path | None:
    """Give the file in the first folder that has one of `patterns`, the last by name; None where there is none."""
    for folder in folders:
        for pattern in patterns:
            found = sorted(folder.glob(pattern)) if pattern and "/" not in pattern else []
            if found:
                return found[-1].absolute()
    return None


def _recipe(entry: IsoEntry, project: Path, places: Places) -> Path:
    for folder in search_path("isos.d", project=project, places=places):
        if (folder / "made" / str(entry.make)).is_dir():
            return folder / "made" / str(entry.make)
    raise MediaError(
        f"there is no recipe {entry.make!r} to make {entry.name}", where=entry.place, hint="see isos.d/made"
    )
