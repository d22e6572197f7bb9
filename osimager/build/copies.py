"""Compressed copies of layers' drives, in the layers' folders: made once, by the first build that needs them.

A copy is no part of its layer, which never changes. It may be missing, and one that is damaged is made anew. Whoever
finds or keeps one holds the layer.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from osimager.build.layers import COPY, KeptFile
from osimager.kept import publishing, write_kept


class Copies:
    """finalize.precompress.Shelf over the layers in `folder`; without `keep` nothing new is kept."""

    def __init__(self, folder: Path, *, keep: bool) -> None:
        self._folder = folder
        self._keep = keep

    def find(self, disk: Path) -> Path | None:
        """Find the whole copy of what `disk` itself holds."""
        try:
            kept = KeptFile(**json.loads(_record(disk).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return _copy(disk) if kept.is_still(_copy(disk)) else None

    def keep(self, disk: Path, copy: Path) -> Path:
        """Keep the copy of a layer's drive beside it; any other stays where it is."""
        if not self._keep or disk.resolve().parent.parent != self._folder.resolve():
            return copy
        with publishing(_copy(disk), mode=0o600) as partial:
            shutil.move(copy, partial)
        write_kept(_record(disk), json.dumps(dataclasses.asdict(KeptFile.of(_copy(disk), hashed=True))), mode=0o600)
        return _copy(disk)


def _copy(disk: Path) -> Path:
    return disk.with_name(f"{disk.stem}{COPY}")


def _record(disk: Path) -> Path:
    return disk.with_name(f"{disk.stem}{COPY}.json")
