"""The registry file: every change is made under a lock and lands in one atomic write, or not at all.

The document on disk is the truth: it is changed in place, so what a newer osimager wrote into it stays. YAML is read
and written here, and not by `config/documents`, because this file is the program's own: it is written too, it may grow
beyond what a person's file may, and values need no line numbers.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml

from osimager.arch import Arch, Firmware, host_arch, parse_arch
from osimager.errors import ConfigError, Place, PublishError, UsageError
from osimager.kept import locked, sync_path, write_kept
from osimager.registry.entry import SCHEMA_VERSION, Entry, render_entry

T = TypeVar("T")
Document = dict[str, Any]  # opaque: read through `entry`'s model, kept as it is

_EMPTY: Document = {"version": SCHEMA_VERSION, "images": {}, "latest": {}, "channels": {}}
_HEADER = "# Images made by osimager. Terraform and Ansible read this file; `osimager image` changes it.\n"
_REPAIR = "repair the file, or move it away: the images stay where they are, and a new registry begins empty"


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry in the file `path`, which need not exist yet. Nothing is remembered between two calls."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Name the registry at `path`; a symbolic link is followed once, so that it is never replaced by a file."""
        return cls(path.resolve())

    def load(self) -> tuple[Entry, ...]:
        """Give every image, in the order of their making.

        Raises ConfigError for a file that is damaged or of a newer version; it is never overwritten.
        """
        return _entries(self._read(), self.path)

    def mentions(self, text: str) -> bool:
        """Say whether the file holds `text` anywhere: a look that reads no image."""
        try:
            return text in self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return True  # whoever reads it will say what is wrong

    def add(self, entry: Entry) -> None:
        """Record an image whose file is in its place. Raises PublishError where its id is taken."""
        self._change(lambda document: _put(document, entry))

    def publish(self, entry: Entry, partial: Path, *, replace: bool = False) -> Entry:
        """Move the finished file `partial` to `entry.path`, record it, and give the entry as recorded.

        `partial` lies in the same file system. Two images of one second do not collide: a file that is called by its
        id gets `-2`, `-3`, … after it where that is taken. Any other file that is there is a PublishError, unless
        `replace`: then its old record goes in the same write.
        """

        def record(document: Document) -> Entry:
            images = _images(document)
            free = _free_name(entry, images)
            if free.path.exists() and not replace:
                hint = "give another --output, or --replace"
                raise PublishError(f"{free.path} is there already", hint=hint)
            for old in [name for name, image in images.items() if image["path"] == str(free.path)]:
                del images[old]
            _put(document, free)
            _entries(document, self.path)  # before the file moves: what cannot be recorded changes nothing
            try:
                sync_path(partial, mode=0o644)
                partial.replace(free.path)
                sync_path(free.path.parent)
            except OSError as exc:
                hint = "check that the folder is there and can be written"
                raise PublishError(f"cannot write {free.path}: {exc.strerror}", hint=hint) from exc
            return free

        return self._change(record)

    def remove(self, image_id: str) -> None:
        """Take an image out of the registry; its file is the caller's. Raises UsageError for an unknown id."""

        def change(document: Document) -> None:
            _image(document, image_id)
            del document["images"][image_id]

        self._change(change)

    def find(self, text: str, *, arch: Arch | None = None, firmware: Firmware | None = None) -> Entry:
        """Give the image meant by `text`: an id, a target (short or long, with or without `+PROFILE`; the newest), or
        the beginning of one id that reaches into its time.

        Of several architectures the host's is taken. Raises UsageError, listing the candidates, where none or several
        are meant.
        """
        entries = [entry for entry in self.load() if arch in (None, entry.arch) and firmware in (None, entry.firmware)]
        for entry in entries:
            if entry.id == text:
                return entry
        if named := [entry for entry in entries if _is_meant(entry, text)]:
            return _newest(_of_one_arch(named, text))
        # A target that has images of other profiles only is not the beginning of their ids: scripts would be surprised.
        begun = [entry for entry in entries if entry.id.startswith(text) and len(text) > len(entry.names[0])]
        if len(begun) == 1:
            return begun[0]
        if begun:
            raise UsageError(f"{text!r} could be {len(begun)} images", hint=f"give more of it: {_listed(begun)}")
        known = sorted({entry.names[0] for entry in entries})
        hint = f"there are images of {', '.join(known)}" if known else "make one with `osimager build TARGET`"
        wanted = " ".join(str(word) for word in (text, arch, firmware) if word)
        raise UsageError(f"no image of {wanted!r} is registered", hint=hint)

    def _read(self) -> Document:
        where = Place(self.path)
        try:
            document = yaml.load(self.path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  a safe loader's subclass
        except FileNotFoundError:
            return copy.deepcopy(_EMPTY)
        except OSError as exc:
            raise ConfigError(f"the registry cannot be read: {exc.strerror}", where=where) from exc
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
            mark = exc.problem_mark if isinstance(exc, yaml.MarkedYAMLError) else None
            spot = Place(self.path, mark.line + 1) if mark else where
            reason = getattr(exc, "problem", None) or "it is not a text in YAML"
            raise ConfigError(f"the registry is damaged: {reason}", where=spot, hint=_REPAIR) from exc
        if not isinstance(document, dict):
            raise ConfigError("the registry is damaged: it holds no mapping", where=where, hint=_REPAIR)
        version = document.get("version")
        if type(version) is int and version > SCHEMA_VERSION:
            hint = "use that osimager, or a registry of another place (OSIMAGER_HOME)"
            what = f"the registry is of version {version}, written by a newer osimager; this one knows {SCHEMA_VERSION}"
            raise ConfigError(what, where=where, hint=hint)
        return document

    def _change(self, change: Callable[[Document], T]) -> T:
        """Run `change` on the document under the lock, and write it with `latest` made anew."""
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            try:
                document = self._read()
                _entries(document, self.path)
                result = change(document)
                document["latest"] = _latest(_entries(document, self.path))
            except ConfigError as exc:
                raise PublishError(exc.what, where=exc.where, hint=exc.hint) from exc
            document.setdefault("channels", {})
            write_kept(self.path, _HEADER + _dump(document))
        return result


def _entries(document: Document, path: Path) -> tuple[Entry, ...]:
    if document == _EMPTY:
        return ()
    from osimager.registry.form import parse_registry  # pydantic's import costs 150 ms and 12 MB

    try:
        return parse_registry(document)
    except ConfigError as exc:
        raise ConfigError(f"the registry is damaged: {exc.what}", where=Place(path), hint=_REPAIR) from exc


def _images(document: Document) -> dict[str, Document]:
    images: dict[str, Document] = document.setdefault("images", {})
    return images


def _image(document: Document, image_id: str) -> Document:
    image = _images(document).get(image_id)
    if image is None:
        raise UsageError(f"no image {image_id!r} is registered", hint="`osimager image list` shows the ids")
    return image


def _put(document: Document, entry: Entry) -> None:
    if entry.id in _images(document):
        raise PublishError(f"an image {entry.id!r} is registered already", hint="give it another id")
    _images(document)[entry.id] = render_entry(entry)


def _free_name(entry: Entry, taken: Mapping[str, object]) -> Entry:
    """Give `entry` with the first id that is free, its file following where it is called by the id."""
    by_id = entry.path.stem == entry.id
    candidate, number = entry, 1
    while candidate.id in taken or (by_id and candidate.path.exists()):
        number += 1
        name = f"{entry.id}-{number}"
        path = entry.path.with_name(f"{name}{entry.path.suffix}") if by_id else entry.path
        candidate = dataclasses.replace(entry, id=name, path=path)
    return candidate


def _latest(entries: Iterable[Entry]) -> dict[str, str]:
    """Map each name to its newest image; of two of one second, the later in the file."""
    newest: dict[str, Entry] = {}
    for entry in entries:
        for name in entry.names:
            if name not in newest or entry.created >= newest[name].created:
                newest[name] = entry
    return {name: newest[name].id for name in sorted(newest)}


def _newest(entries: list[Entry]) -> Entry:
    return max(reversed(entries), key=lambda entry: entry.created)


def _is_meant(entry: Entry, text: str) -> bool:
    """Say whether `text`, `[PLATFORM/[LOCATION/]]DIST-VERSION[-ARCH][+PROFILE]`, means this image's target."""
    target, _, profile = text.partition("+")
    *places, name = target.split("/")
    if profile != entry.profile or entry.target.split("/")[: len(places)] != places:
        return False
    dist, _, arch = name.rpartition("-")
    try:
        name = f"{dist}-{parse_arch(arch)}"
    except UsageError:
        name = f"{name}-{entry.arch}"
    return entry.short == name


def _of_one_arch(entries: list[Entry], text: str) -> list[Entry]:
    arches = {entry.arch for entry in entries}
    if len(arches) == 1:
        return entries
    if host_arch() not in arches:
        raise UsageError(f"{text!r} has images of {', '.join(sorted(arches))}", hint=f"give --arch: {_listed(entries)}")
    return [entry for entry in entries if entry.arch is host_arch()]


def _listed(entries: list[Entry]) -> str:
    return ", ".join(entry.id for entry in entries)


# YAML -----------------------------------------------------------------------------------------------------------------

_SAFE_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SAFE_DUMPER: type = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(_SAFE_LOADER):  # type: ignore[misc]  # CSafeLoader or SafeLoader
    """The safe loader, but times stay texts, and a key given twice is an error instead of a loss."""

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        mapping: dict[object, object] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(_SAFE_DUMPER):  # type: ignore[misc]  # CSafeDumper or SafeDumper
    """The safe dumper without anchors: a value that stands twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


# PyYAML writes YAML 1.1 and the readers (Terraform) know 1.2: what either would take for a number is quoted.
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+)$"),
    list("-+.0123456789"),
)


def _dump(document: Document) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return text
