"""Where things lie: the user's XDG folders, the project, and the data folders that ship with osimager.

macOS uses the XDG places too. `OSIMAGER_HOME` moves all of them under one folder.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DATA_KINDS = ("specs", "files", "isos.d", "scripts.d", "registry")


@dataclass(frozen=True, slots=True)
class Places:
    """The four folders everything of a user's lies under. `runtime` is short: macOS allows 104 bytes for a socket."""

    config: Path
    data: Path
    cache: Path
    runtime: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Places:
        """Read `OSIMAGER_HOME`, else the XDG variables (XDG Base Directory Specification 0.8, with its defaults)."""
        if home := environ.get("OSIMAGER_HOME"):
            root = Path(home).expanduser().absolute()
            return cls(root / "config", root / "data", root / "cache", _runtime_folder(root))
        user = Path(environ.get("HOME") or Path.home())
        config = _xdg_folder(environ, "XDG_CONFIG_HOME", user / ".config")
        data = _xdg_folder(environ, "XDG_DATA_HOME", user / ".local/share")
        cache = _xdg_folder(environ, "XDG_CACHE_HOME", user / ".cache")
        return cls(config, data, cache, _runtime_folder(data, environ.get("XDG_RUNTIME_DIR")))

    @property
    def isos(self) -> Path:
        """Downloaded and made ISOs, by digest."""
        return self.cache / "isos"

    @property
    def layers(self) -> Path:
        """Layers of the build cache, by digest."""
        return self.cache / "layers"

    @property
    def images(self) -> Path:
        """Finished images, where `--output` does not say otherwise."""
        return self.data / "images"

    @property
    def venvs(self) -> Path:
        """Virtual environments that specs name for their playbooks, unless OSImager's `venv_dir` says otherwise."""
        return self.data / "venvs"

    @property
    def registry(self) -> Path:
        """The registry file that Terraform and Ansible read."""
        return self.data / "registry.yml"

    @property
    def builds(self) -> Path:
        """One folder a build: its record, log and, after a failure, the evidence."""
        return self.data / "builds"


def _xdg_folder(environ: Mapping[str, str], name: str, default: Path) -> Path:
    """Give our folder under `name`'s; the specification says that a relative path there is to be ignored."""
    said = Path(environ.get(name) or ".")
    return (said if said.is_absolute() else default) / "osimager"


def _runtime_folder(root: Path, xdg_runtime: str | None = None) -> Path:
    """Give a short folder that is this user's and this root's own."""
    if xdg_runtime and Path(xdg_runtime).is_absolute() and len(os.fsencode(xdg_runtime)) < 40:
        return Path(xdg_runtime) / "osimager"
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    base = "/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()  # noqa: S108  made 0700 and checked by its opener
    return Path(base) / f"osimager-{os.getuid()}-{digest}"


def shipped(kind: str) -> Path:
    """Find the data folder `kind` (one of DATA_KINDS) that came with osimager.

    In a wheel it lies inside the package; in a checkout at the top of the repository.
    """
    assert kind in DATA_KINDS
    package = Path(__file__).parent
    inside = package / "shipped" / kind
    return inside if inside.is_dir() else package.parent / kind


def search_path(kind: str, *, project: Path, places: Places) -> tuple[Path, ...]:
    """Give the folders that are searched for `kind`: the project's, the user's, the shipped; an earlier one wins."""
    candidates = (project / kind, places.config / kind, shipped(kind))
    return tuple(dict.fromkeys(folder.absolute() for folder in candidates if folder.is_dir()))
