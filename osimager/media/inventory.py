"""What lies in the cache of ISOs and what may go, and what an unknown ISO is.

An ISO tells what it is in `.treeinfo` (Anaconda's), `.disk/info` (Debian's and Ubuntu's), `media.1` (SUSE's), else in
its volume id alone. Everything blocks (`aio.in_thread`).
"""

from __future__ import annotations

import configparser
import glob
import json
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from osimager import kept
from osimager.arch import Arch, parse_arch
from osimager.errors import MediaError, UsageError
from osimager.media.iso9660 import IsoFiles, open_iso
from osimager.media.store import IsoStore
from osimager.paths import Places

_TEXT_LIMIT = 1 << 20
_DAY_S = 86_400.0
_BUSY_S = 3600.0  # what was used within the hour may be in use still
_NAMES = (  # how releases call themselves → how targets are called; the first that is found at the start
    ("red hat enterprise linux", "rhel"),
    ("almalinux", "alma"),
    ("rocky", "rocky"),
    ("centos stream", "centos-stream"),
    ("centos", "centos"),
    ("oracle linux", "oel"),
    ("ol", "oel"),
    ("fedora", "fedora"),
    ("rhel", "rhel"),
    ("ubuntu", "ubuntu"),
    ("debian", "debian"),
    ("opensuse", "opensuse"),
    ("sle", "sles"),
    ("suse linux enterprise", "sles"),
)
_ARCH = r"(?P<arch>x86_64|amd64|aarch64|arm64|i386|i586|i686|x64|x86)"
_VOLUMES = tuple(
    (dist, re.compile(pattern, re.IGNORECASE))
    for dist, pattern in (
        ("rhel", rf"RHEL-(?P<version>\d+[.-]\d+)\D.*?{_ARCH}"),
        ("alma", rf"AlmaLinux-(?P<version>\d+[.-]\d+)-{_ARCH}"),
        ("rocky", rf"Rocky-(?P<version>\d+[.-]\d+)-{_ARCH}"),
        ("oel", rf"OL-(?P<version>\d+[.-]\d+).*?{_ARCH}"),
        ("centos-stream", rf"CentOS-Stream-(?P<version>\d+)-.*?{_ARCH}"),
        ("centos", rf"CentOS[- ](?P<version>\d+(?:[.-]\d+)*)\D.*?{_ARCH}"),
        ("fedora", rf"Fedora-.*?{_ARCH}-(?P<version>\d+)"),
        ("debian", rf"Debian (?P<version>\d+(?:\.\d+)*) {_ARCH}"),
        ("ubuntu", rf"Ubuntu-Server (?P<version>\d+\.\d+(?:\.\d+)?) (?:LTS )?{_ARCH}"),
        ("opensuse", rf"(?:openSUSE-|Install-)?Leap-(?P<version>\d+\.\d+)-.*?{_ARCH}"),
        ("sles", rf"SLES?-?(?P<version>\d+(?:-SP\d+|\.\d+)?)-.*?{_ARCH}"),
        ("alpine", rf"alpine-\w+ (?P<version>\d+(?:\.\d+)+) {_ARCH}"),
        ("arch", r"ARCH_(?P<version>\d{6})"),
        ("freebsd", rf"(?P<version>\d+_\d+)_RELEASE_{_ARCH}_"),
        ("openbsd", rf"OpenBSD/{_ARCH} +(?P<version>\d+\.\d+)"),
        ("proxmox-ve", r"PVE"),
        ("photon", r"PHOTON_"),
        ("esxi", r"ESXI-(?P<version>\d+\.\d+\w*)"),
        ("windows", r"(?:SSS|SERVER|CCCOMA|CPBA|CES|CENA|IR\d)_?\w*_(?P<arch>X64|X86|A64|ARM64)\w*_"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoIdentity:
    """What an ISO is; empty or None where it does not say. `told_by`: the file or `volume id` that said so."""

    title: str
    dist: str
    version: str
    arch: Arch | None
    volume_id: str
    told_by: str


def recognise_iso(path: Path) -> IsoIdentity:
    """Say what the ISO `path` is. Raises MediaError where it is no ISO; an unknown one has no `dist`."""
    with open_iso(path) as iso:
        volume_id = iso.volume.volume_id
        readers: tuple[tuple[str, Callable[[str, str], IsoIdentity | None]], ...] = (
            ("/.treeinfo", parse_treeinfo),
            ("/.disk/info", parse_disk_info),
            ("/media.1/products", parse_products),
        )
        for name, parse in readers:
            text = _text(iso.files, name)
            if text is not None and (found := parse(text, volume_id)) is not None:
                return found
        return identify_volume(volume_id)


def parse_treeinfo(text: str, volume_id: str) -> IsoIdentity | None:
    """Read Anaconda's `.treeinfo` (productmd, Treeinfo file format 1.2; `[general]` alone before EL 7)."""
    ini = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        ini.read_string(text)
    except configparser.Error:
        return None
    general = ini["general"] if ini.has_section("general") else {}
    release = ini["release"] if ini.has_section("release") else {}
    name = release.get("name") or general.get("family") or ""
    version = release.get("version") or general.get("version") or ""
    arch = (ini["tree"] if ini.has_section("tree") else general).get("arch") or ""
    return _identity(f"{name} {version}", name, version, arch, volume_id, ".treeinfo") if name else None


def parse_disk_info(text: str, volume_id: str) -> IsoIdentity | None:
    """Read the line of `.disk/info`: `Debian GNU/Linux 12.8.0 "Bookworm" - Official amd64 NETINST …`."""
    line = next(iter(text.strip().splitlines()), "")
    match = re.match(r"(?P<name>[^\d\"]+?)[ _](?P<version>\d+(?:\.\d+)*)", line)
    arch = re.search(rf"\b{_ARCH}\b", line)
    if match is None:
        return None
    return _identity(line, match["name"], match["version"], arch["arch"] if arch else "", volume_id, ".disk/info")


def parse_products(text: str, volume_id: str) -> IsoIdentity | None:
    """Read SUSE's `media.1/products`: `/ openSUSE-Leap 15.6-0` (libzypp, MediaProductScanner)."""
    match = re.search(r"^\S+ +(?P<name>\S+) +(?P<version>\d+(?:\.\d+)*)", text, re.MULTILINE)
    arch = re.search(_ARCH, volume_id, re.IGNORECASE)
    if match is None:
        return None
    title = f"{match['name']} {match['version']}"
    return _identity(
        title, match["name"], match["version"], arch["arch"] if arch else "", volume_id, "media.1/products"
    )


def identify_volume(volume_id: str) -> IsoIdentity:
    """Say what a volume id alone tells."""
    for dist, pattern in _VOLUMES:
        if match := pattern.match(volume_id):
            found = match.groupdict()
            version = (found.get("version") or "").replace("_", ".")
            version = version if dist in ("sles",) else version.replace("-", ".")
            arch = _arch(found.get("arch") or "")
            return IsoIdentity(
                title=volume_id, dist=dist, version=version, arch=arch, volume_id=volume_id, told_by="volume id"
            )
    return IsoIdentity(title=volume_id, dist="", version="", arch=None, volume_id=volume_id, told_by="")


def _identity(title: str, name: str, version: str, arch: str, volume_id: str, told_by: str) -> IsoIdentity:  # noqa: PLR0917  a row
    dist = next((dist for start, dist in _NAMES if name.lower().startswith(start)), "")
    return IsoIdentity(
        title=" ".join(title.split()),
        dist=dist,
        version=version,
        arch=_arch(arch),
        volume_id=volume_id,
        told_by=told_by,
    )


def _arch(text: str) -> Arch | None:
    try:
        return parse_arch({"a64": "arm64", "i586": "i386"}.get(text.lower(), text)) if text else None
    except UsageError:
        return None


def _text(files: IsoFiles, name: str) -> str | None:
    if files.find(name) is None:
        return None
    try:
        return files.read(name, limit_bytes=_TEXT_LIMIT).decode("utf-8", "replace")
    except MediaError:
        return None


def render_entry(identity: IsoIdentity, *, name: str, arch: Arch, filename: str, sha256: str, size_bytes: int) -> str:
    """Give the ISO as an entry called `name` for a file of `isos.d`, in YAML.

    JSON's strings are YAML's (YAML 1.2, 1.3), so no YAML writer is needed.
    """
    quote = json.dumps
    return (
        f"{quote(name)}:\n"
        f"  notes: {quote(identity.title)}\n"
        f"  volume_id: {quote(re.escape(identity.volume_id))}\n"
        f"  arches:\n"
        f"    {arch}:\n"
        f"      patterns: [{quote(glob.escape(filename))}]\n"
        f"      sha256: {quote(sha256)}\n"
        f"      size: {size_bytes}\n"
    )


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file of the cache that may go, and why."""

    path: Path
    size_bytes: int
    reason: str


def find_garbage(places: Places, *, unused_s: float) -> tuple[Garbage, ...]:
    """Find ISOs that no build used for `unused_s` seconds, and what was left half.

    What was used within the last hour is never garbage.
    """
    now = time.time()
    store = IsoStore(places)
    found = []
    for record in store.records():
        idle_s = now - store.used_at(record.sha256)
        if idle_s >= max(unused_s, _BUSY_S):
            path = store.path_of(record.sha256)
            found.append(Garbage(path, record.size_bytes, f"not used for {idle_s / _DAY_S:.0f} days"))
    found += _outdated(store.folder / "made", now - unused_s)
    for path in (*store.folder.glob("partial/*"), *store.folder.rglob(f"{kept.PARTIAL_PREFIX}*")):
        stat = path.stat()
        if now - stat.st_mtime >= _DAY_S:
            found.append(Garbage(path, stat.st_size, "a download that was not finished"))
    return tuple(dict.fromkeys(found))


def _outdated(folder: Path, before: float) -> list[Garbage]:
    """Find made ISOs from before that time of which there is a newer one (`RECIPE-ARCH-DIGEST.iso`)."""
    newest: dict[str, float] = {}
    times = {path: path.stat().st_mtime for path in sorted(folder.glob("*.iso"))}
    for path, time_s in times.items():
        recipe = path.stem.rpartition("-")[0]
        newest[recipe] = max(time_s, newest.get(recipe, 0.0))
    old = [path for path, time_s in times.items() if time_s <= before and time_s < newest[path.stem.rpartition("-")[0]]]
    return [Garbage(path, path.stat().st_size, "made anew since") for path in old]


def remove_garbage(places: Places, garbage: Collection[Garbage]) -> int:
    """Remove what `find_garbage` found and give the bytes that were freed."""
    store = IsoStore(places)
    freed = 0
    for item in garbage:
        if item.path.suffix == ".iso":
            store.remove(item.path.stem)
        item.path.unlink(missing_ok=True)
        freed += item.size_bytes
    return freed
