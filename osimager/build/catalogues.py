"""Where configuration is read from: the project, the user, what ships; or an OSImager 1.x data tree."""

from __future__ import annotations

from pathlib import Path

from osimager.config.catalog import Catalog, Roots
from osimager.paths import Places, search_path


def open_catalog(project: Path, places: Places, data_dir: Path | None = None) -> Catalog:
    """Open the configuration: the project's, the user's, the shipped one; or an OSImager 1.x tree."""
    if data_dir is not None:
        return Catalog.open(Roots.of_old_tree(data_dir, places.config))

    def search(kind: str) -> tuple[Path, ...]:
        return search_path(kind, project=project, places=places)

    return Catalog.open(Roots(specs=search("specs"), files=search("files"), isos=search("isos.d")))
