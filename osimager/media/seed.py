"""Seed ISOs: the small volume (OEMDRV, CIDATA, …) on which an installer or cloud-init finds its answers by label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from osimager import kept
from osimager.errors import ConfigError, MediaError
from osimager.media.iso9660 import make_image

_PART = re.compile(r"[^/\0-\x1f]{1,100}")


def make_seed(path: Path, label: str, files: Mapping[str, bytes]) -> None:
    """Write an ISO labelled `label` with `files` (relative path → content) to `path`, readable by its owner alone.

    Names stay as they are (Rock Ridge; Joliet too, but for labels over 16 characters). The same input gives the
    same bytes. Blocks for milliseconds. Raises ConfigError for a label or name that cannot be.
    """
    if not 1 <= len(label) <= 32 or not label.isascii() or not label.isprintable():
        raise ConfigError(f"{label!r} cannot be a volume label", hint="1 to 32 ASCII characters")
    for name in files:
        parts = name.split("/")
        if len(parts) > 7 or any(part in (".", "..") or not _PART.fullmatch(part) for part in parts):
            raise ConfigError(f"{name!r} cannot be a file's name on a seed", hint="a relative path, 7 levels at most")
        if any("/".join(parts[:depth]) in files for depth in range(1, len(parts))):
            raise ConfigError(f"{name!r} lies under a name that is a file itself")
    try:
        image = make_image(label, files)
    except MediaError as exc:
        raise ConfigError(f"the seed {label} cannot be made: {exc.what}") from exc
    kept.write_kept(path, image, mode=0o600)
