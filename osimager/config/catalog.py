"""Every target there is, and how one is resolved: the door to this package.

catalog = Catalog.open(Roots(specs=…, files=…, isos=…))
configuration = catalog.resolve(Request(target="debian-12"), lookups)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from osimager.arch import ALIASES
from osimager.config.documents import SUFFIXES, Items, Table, as_written, load_document, read_text
from osimager.config.request import Request
from osimager.config.values import Value
from osimager.config.versions import expand_range, latest_version, version_key
from osimager.errors import ConfigError, ConfigErrors, Place, UsageError

if TYPE_CHECKING:
    from osimager.config.configuration import Configuration
    from osimager.config.lookups import Lookups
    from osimager.config.sections import Fragment, IsoEntry

ARCHES = ("x86_64", "aarch64")
_DIST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_OTHER_KINDS = frozenset(("platforms", "locations", "profiles"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """The folders that are searched for each kind, an earlier one wins (`paths.search_path` gives them).

    Platforms, locations and profiles lie in folders of these names under `specs`, where not said otherwise.
    `old_tree` is the data folder of an OSImager 1.x, whose meaning of some things is then kept; `old_user` the user's
    folder beside it, `old_settings` what its settings file says.
    """

    specs: tuple[Path, ...]
    files: tuple[Path, ...] = ()
    isos: tuple[Path, ...] = ()
    platforms: tuple[Path, ...] = ()
    locations: tuple[Path, ...] = ()
    old_tree: Path | None = None
    old_user: Path | None = None
    old_settings: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def of_old_tree(cls, data: Path, user: Path, settings: Mapping[str, Value] | None = None) -> Roots:
        """Give the folders of OSImager 1.x: `--data-dir`'s, and before them the user's (`~/.config/osimager`)."""

        def both(kind: str) -> tuple[Path, ...]:
            return tuple(folder / kind for folder in (user, data))

        return cls(
            specs=both("specs"),
            files=both("files"),
            platforms=both("platforms"),
            locations=both("locations"),
            old_tree=data,
            old_user=user,
            old_settings=settings or {},
        )

    def folders(self, kind: str) -> tuple[Path, ...]:
        """Give the folders of `platforms`, `locations` or `profiles`."""
        own = {"platforms": self.platforms, "locations": self.locations}.get(kind, ())
        return own or tuple(root / kind for root in self.specs)


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """One line of `spec list`: a target that a spec provides, and the spec's place."""

    dist: str
    version: str
    arch: str
    spec: Path

    def __str__(self) -> str:
        return f"{self.dist}-{self.version}-{self.arch}"


class Catalog:
    """All configuration under some roots; reads a file when it is needed, and once."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self.problems: list[ConfigError] = []
        self._documents: dict[Path, Table] = {}
        self._targets: tuple[TargetEntry, ...] | None = None
        self._arches: tuple[str, ...] = ()
        self.checked: dict[Path, list[ConfigError]] = {}
        self._isos: dict[Path, Mapping[str, Table]] = {}
        self._iso_paths: tuple[Path, ...] | None = None

    @classmethod
    def open(cls, roots: Roots) -> Catalog:
        """Give the catalogue of `roots`; no file is read yet."""
        return cls(roots)

    def document(self, path: Path) -> Table:
        """Give the document at `path`, read once."""
        if path not in self._documents:
            self._documents[path] = load_document(path)
        return self._documents[path]

    def targets(self) -> Sequence[TargetEntry]:
        """Give every target, by dist, version (numbers as numbers) and arch.

        A file that cannot be read gives none; what is wrong with it is found in `problems`.
        """
        if self._targets is None:
            found: dict[tuple[str, str, str], TargetEntry] = {}
            for path in self.spec_files():
                try:
                    provided = self._provided(path)
                except ConfigError as exc:
                    self.problems.append(exc)
                    continue
                for entry in provided:
                    found.setdefault((entry.dist, entry.version, entry.arch), entry)
            self._targets = tuple(sorted(found.values(), key=lambda e: (e.dist, version_key(e.version), e.arch)))
        return self._targets

    def _provided(self, path: Path) -> list[TargetEntry]:
        if self.roots.old_tree is None:
            return provided_targets(self.document(path), path)
        from osimager.config.oldtargets import old_targets, platform_arches

        self._arches = self._arches or platform_arches(self)
        return old_targets(self, path, self._arches)

    def spec_files(self) -> list[Path]:
        """Give the spec files, those of earlier roots first; a file hides later ones of the same name.

        Old trees keep playbooks beside their specs: there, only JSON files and those called `spec` count.
        """
        found: dict[str, Path] = {}
        for root in self.roots.specs:
            for folder, folders, names in os.walk(root):
                folders.sort()
                if folder == str(root):
                    folders[:] = [name for name in folders if name not in _OTHER_KINDS]
                for name in sorted(names):
                    stem, suffix = os.path.splitext(name)  # noqa: PTH122  a name, not a path
                    if suffix in SUFFIXES and (self.roots.old_tree is None or suffix == ".json" or stem == "spec"):
                        path = Path(folder, name)
                        found.setdefault(f"{path.parent.relative_to(root)}/{stem}", path)
        return list(found.values())

    def find_file(self, kind: str, name: str) -> Path | None:
        """Find `name` of a kind (`platforms`, `locations`, `profiles`, or `` for specs) in the search order."""
        if not re.fullmatch(r"[\w.+-]+(/[\w.+-]+)*", name) or ".." in name:
            return None
        for base in self.roots.folders(kind) if kind else self.roots.specs:
            stems = (name,) if kind else (name, f"{name}/spec", f"{name}/{name.rpartition('/')[2]}")
            for stem in stems:
                for path in (base / f"{stem}{suffix}" for suffix in ("", *SUFFIXES)):
                    if path.suffix in SUFFIXES and path.is_file():
                        return path
        return None

    def names_of(self, kind: str) -> tuple[str, ...]:
        """Give the names of all platforms, locations or profiles."""
        builtin = {"locations": {"local"}, "profiles": {"default"}}.get(kind, set())
        stems = {
            path.stem
            for folder in self.roots.folders(kind)
            for path in folder.glob("*")
            if path.suffix in SUFFIXES and path.is_file()
        }
        return tuple(sorted(stems | builtin))

    def find_source(self, name: str) -> Path | None:
        """Find a fragment under the `files` folders."""
        if name.startswith("/") or ".." in Path(name).parts:
            return None
        return next((root / name for root in self.roots.files if (root / name).is_file()), None)

    def load_fragment(self, name: str, where: Place) -> Fragment:
        """Load the fragment `name`. Raises ConfigError at `where` when it does not exist."""
        from osimager.config.sections import Fragment

        path = self.find_source(name)
        if path is None:
            roots = ", ".join(str(root) for root in self.roots.files) or "no folder"
            raise ConfigError(f"the file {name!r} does not exist", where=where, hint=f"looked in {roots}")
        return Fragment(Place(path, 1), read_text(path))

    def find_target(self, request: Request) -> tuple[str, str, TargetEntry]:
        """Give platform, location and entry of the target asked for. Raises UsageError that names the likeliest one."""
        parts = request.target.split("/")
        if not 1 <= len(parts) <= 3 or not all(parts):
            hint = "write [PLATFORM/[LOCATION/]]DIST-VERSION[-ARCH], such as debian-12"
            raise UsageError(f"{request.target!r} is not a target", hint=hint)
        platform = parts[0] if len(parts) > 1 else "qemu"
        location = parts[1] if len(parts) > 2 else "local"
        return platform, location, self._find_entry(parts[-1], request)

    def _find_entry(self, text: str, request: Request) -> TargetEntry:
        name, arch = _split_arch(text)
        if request.arch is not None:
            asked = ALIASES.get(request.arch.lower(), request.arch.lower())
            if arch is not None and arch != asked:
                raise UsageError(f"{text!r} and --arch {request.arch} exclude each other", hint="leave one of them out")
            arch = asked
        entries = self._entries_named(name, arch)
        if not entries:
            raise self._unknown(text)
        by_arch = {entry.arch: entry for entry in entries}
        if arch is not None:
            if arch not in by_arch:
                hint = f"it is made for {', '.join(by_arch)}"
                raise UsageError(f"there is no {name} for {arch}", hint=hint)
            return by_arch[arch]
        if request.host_arch in by_arch:
            return by_arch[request.host_arch]
        if len(by_arch) > 1:
            raise UsageError(f"{name} is made for {', '.join(by_arch)}", hint="choose one with --arch")
        return entries[0]

    def _entries_named(self, name: str, arch: str | None) -> list[TargetEntry]:
        """Give the entries of all architectures of `DIST-VERSION`, `DIST-latest` or `DIST-LINE-latest`."""
        targets = self.targets()
        dists = sorted({entry.dist for entry in targets}, key=len, reverse=True)
        for dist in (dist for dist in dists if name.startswith(dist + "-")):
            version = name[len(dist) + 1 :]
            of_dist = [entry for entry in targets if entry.dist == dist]
            if version == "latest" or version.endswith("-latest"):
                line = version.removesuffix("latest").removesuffix("-")
                fitting = (entry.version for entry in of_dist if arch in (None, entry.arch))
                version = latest_version(fitting, line) or version
            if found := [entry for entry in of_dist if entry.version == version]:
                return found
        return []

    def _unknown(self, text: str) -> UsageError | ConfigError:
        """Make the error for a target that no spec provides; where its spec cannot be read, say what is wrong there."""
        import difflib

        broken = [problem for problem in self.problems if _is_about(problem, text)]
        if broken:
            return ConfigErrors(broken) if len(broken) > 1 else broken[0]
        names = dict.fromkeys(f"{entry.dist}-{entry.version}" for entry in self.targets())
        close = difflib.get_close_matches(_split_arch(text)[0].lower(), names, 3, 0.7)
        hint = f"did you mean {' or '.join(close)}?" if close else "`osimager spec list` shows every target"
        where = [place for problem in self.problems for place in problem.where[:1]]
        if where:
            hint += f" ({len(where)} spec files could not be read)"
        return UsageError(f"there is no target {text!r}", where=where, hint=hint)

    def resolve(self, request: Request, lookups: Lookups) -> Configuration:
        """Resolve one target. Raises UsageError for an unknown target, ConfigError(s) for bad configuration."""
        if self.roots.old_tree is not None:
            from osimager.config.oldplan import configure_old

            return configure_old(self, request, lookups)
        from osimager.config.resolve import resolve

        return resolve(self, request, lookups)

    def find_iso(self, name: str, arch: str) -> IsoEntry | None:
        """Give the ISO catalogue's entry `name` for `arch` from the first file that has it, or None."""
        from osimager.config.isos import make_iso

        for path in self._iso_files():
            # Reading a text costs a hundredth of parsing it, and one file in many has the name.
            if (
                (path in self._isos or name in read_text(path))
                and name in self._isos_of(path)
                and (entry := make_iso(name, arch, self._isos_of(path)[name])) is not None
            ):
                return entry
        return None

    def iso_tables(self) -> Mapping[str, Table]:
        """Give every entry of `isos.d`, as it stands in the files."""
        entries: dict[str, Table] = {}
        for path in self._iso_files():
            entries = {**self._isos_of(path), **entries}
        return entries

    def _iso_files(self) -> Iterable[Path]:
        """Give the files of the ISO catalogue; looked for once."""
        if self._iso_paths is not None:
            return self._iso_paths
        files: dict[str, Path] = {}
        for root in self.roots.isos:
            for path in sorted(root.glob("*")):
                if path.suffix in SUFFIXES and path.is_file():
                    files.setdefault(path.stem, path)
        self._iso_paths = tuple(files.values())
        return self._iso_paths

    def _isos_of(self, path: Path) -> Mapping[str, Table]:
        if path not in self._isos:
            self._isos[path] = iso_entries(self.document(path))
        return self._isos[path]


def iso_entries(document: Table) -> dict[str, Table]:
    """Give the entries of a file of `isos.d`.

    What `sources` says at its top holds for each of them that does not say otherwise.
    """
    entries: dict[str, Table] = {}
    for name, value in document.items():
        if not isinstance(value, Table):
            raise ConfigError(f"{name} must be a mapping", where=document.place(name), hint="write KEY: VALUE")
        entries[name] = value
    shared = entries.pop("sources", None)
    return entries if shared is None else {name: _with_sources(entry, shared) for name, entry in entries.items()}


def _with_sources(entry: Table, shared: Table) -> Table:
    """Give an entry with the sources of its file laid under its own."""
    own = entry.get("sources")
    if own is not None and not isinstance(own, Table):
        return entry  # the check of the entry says what is wrong with it
    found, sources = Table(entry.path, entry.line), Table(shared.path, shared.line)
    found.update(entry)
    found.lines.update(entry.lines)
    sources.update(shared)
    sources.update(own or {})
    found["sources"] = sources
    found.lines.setdefault("sources", shared.line)
    return found


def provided_targets(document: Table, path: Path, default_arches: tuple[str, ...] = ARCHES) -> list[TargetEntry]:
    """Give the targets that a spec's `provides` stands for; `arches` of a `version_specific` entry go first."""
    provides = document.get("provides")
    if provides is None:
        return []
    if not isinstance(provides, Table):
        hint = "write dist, versions and arches under it"
        raise ConfigError("provides must be a mapping", where=document.place("provides"), hint=hint)
    dist = provides.get("dist")
    if not isinstance(dist, str) or not dist:
        raise ConfigError("provides needs a dist", where=provides.place("dist"), hint="add dist: NAME")
    if not _DIST.fullmatch(dist):
        hint = "letters, digits and . _ + - only: files are named after it"
        raise ConfigError(f"{dist!r} is not the name of a dist", where=provides.place("dist"), hint=hint)
    arches = _arches(provides) or default_arches
    entries = []
    for version in provided_versions(provides):
        for arch in _arches_of_version(document, version) or arches:
            entries.append(TargetEntry(dist, version, arch, path))
    return entries


def provided_versions(provides: Table) -> list[str]:
    """Give the versions of a `provides` section, its ranges expanded. Raises ConfigError with the line of a bad one."""
    given = provides.get("versions")
    texts: list[tuple[Value, Place]] = []
    if isinstance(given, Items):
        texts = [(text, given.place(index)) for index, text in enumerate(given)]
    elif given is not None:
        texts = [(given, provides.place("versions"))]
    if not texts:
        raise ConfigError("provides needs versions", where=provides.place("versions"), hint='add versions: ["1.0"]')
    versions: dict[str, None] = {}
    for text, where in texts:
        if not isinstance(text, str):
            written = as_written(text)
            raise ConfigError(f"the version {written} is a number", where=where, hint=f'quote it: "{written}"')
        try:
            versions |= dict.fromkeys(expand_range(text))
        except ValueError as exc:
            raise ConfigError(f"bad version range: {exc}", where=where, hint="such as 9.[0-10] or 6.[9,10]") from None
    return list(versions)


def _arches(table: Table) -> tuple[str, ...]:
    given = table.get("arches")
    if given is None:
        return ()
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            "arches must be a list of names", where=table.place("arches"), hint="arches: [x86_64, aarch64]"
        )
    return tuple(dict.fromkeys(ALIASES.get(str(name), str(name)) for name in names))


def _arches_of_version(document: Table, version: str) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    entries = document.get("version_specific")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Table) and "arches" in entry:
            pattern = entry.get("version")
            if isinstance(pattern, str) and re.fullmatch(pattern, version, re.IGNORECASE):
                found = _arches(entry)
    return found


def _is_about(problem: ConfigError, target: str) -> bool:
    """Tell whether a file that cannot be read is, by its name or its folder's, that of `target`."""
    path = Path(problem.where[0].path) if problem.where else Path("-")
    return any(target.startswith(name) for name in (path.stem, path.parent.name))


def _split_arch(text: str) -> tuple[str, str | None]:
    """Split `DIST-VERSION-ARCH`; the architecture by any of its names."""
    name, _, last = text.rpartition("-")
    known = {**{arch: arch for arch in (*ARCHES, "i386")}, **ALIASES}
    return (name, str(known[last.lower()])) if name and last.lower() in known else (text, None)
