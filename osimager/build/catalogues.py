"""Where configuration is read from: the project, the user, what ships; or an OSImager 1.x data tree."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from osimager.config.catalog import Catalog, Roots
from osimager.config.settings import Settings, load_settings
from osimager.paths import Places, search_path


def open_catalog(
    project: Path, places: Places, data_dir: Path | None = None, settings: Settings | None = None
) -> Catalog:
    """Open the configuration: the project's, the user's, the shipped one; or an OSImager 1.x tree.

    Without `data_dir` it is the settings' tree, where they name one. ISOs come from our catalogue in each case.
    """

    def search(kind: str) -> tuple[Path, ...]:
        return search_path(kind, project=project, places=places)

    settings = settings or load_settings(places)
    tree = data_dir or settings.data_dir
    if tree is None:
        return Catalog.open(Roots(specs=search("specs"), files=search("files"), isos=search("isos.d")))
    # What OSImager's settings are where its file says nothing.
    folders = {"data_dir": places.data, "venv_dir": places.venvs, "packer_cache_dir": places.cache}
    defaults = {name: str(folder) for name, folder in folders.items()}
    roots = Roots.of_old_tree(tree.absolute(), places.config, {**defaults, **settings.osimager_defs})
    return Catalog.open(dataclasses.replace(roots, isos=search("isos.d")))
