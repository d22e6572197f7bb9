"""Every target there is, and how one is resolved: the door to this package.

catalog = Catalog.open(Roots(specs=…, files=…, isos=…))
configuration = catalog.resolve(Request("debian-12"), lookups)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from osimager.config.lookups import Lookups
from osimager.config.sections import IsoEntry, Origin, Sections, Target, Value
from osimager.errors import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """The folders that are searched for each kind, an earlier one wins (`paths.search_path` gives them)."""

    specs: tuple[Path, ...]
    files: tuple[Path, ...] = ()
    isos: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """One line of `spec list`: a target that a spec provides, and the spec's place."""

    dist: str
    version: str
    arch: str
    spec: Path

    def __str__(self) -> str:
        return f"{self.dist}-{self.version}-{self.arch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a person asked for. `defines` is `-D` as it was typed, each once; `given` are values that the caller adds
    to the defs over everything else (holes such as `answer_url`).
    """

    target: str
    host_arch: str = "x86_64"
    arch: str | None = None
    profile: str = "default"
    name: str | None = None
    ip: str | None = None
    fqdn: str | None = None
    defines: tuple[str, ...] = ()
    firmware: str | None = None
    iso: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A target resolved: typed defs and sections, each value explained."""

    target: Target
    profile: str
    defs: Mapping[str, Value]
    sections: Sections
    iso: str | None
    """The `isos.d` name, path or URL to install from; None where the spec and the request name none."""
    warnings: tuple[str, ...] = ()

    def render(self, text: str, place: Place | None = None) -> str:
        """Give `text` with every marker resolved. Raises ConfigError with the line in `place` that went wrong."""
        raise NotImplementedError

    def explain(self, key: str) -> tuple[Origin, ...]:
        """Give the origin of `key` (`memory`, `defs.memory`, `machine.memory`), the winner first, then what it overrode."""
        raise NotImplementedError


class Catalog:
    """All configuration under some roots; reads a file when it is needed, and once."""

    @classmethod
    def open(cls, roots: Roots) -> Catalog:
        """Give the catalogue of `roots`; no file is read yet."""
        raise NotImplementedError

    def targets(self) -> Sequence[TargetEntry]:
        """Give every target, by dist, version (numbers as numbers) and arch."""
        raise NotImplementedError

    def resolve(self, request: Request, lookups: Lookups) -> Configuration:
        """Resolve one target. Raises UsageError for an unknown target, ConfigError(s) for bad configuration."""
        raise NotImplementedError

    def find_iso(self, name: str, arch: str) -> IsoEntry | None:
        """Give the ISO catalogue's entry `name` for `arch`, or None."""
        raise NotImplementedError
