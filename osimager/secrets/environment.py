"""Secrets from environment variables: `images/linux:password` is `OSIMAGER_SECRET_IMAGES_LINUX_PASSWORD`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from osimager.secrets.provider import NoSuchSecret

PREFIX = "OSIMAGER_SECRET_"


def variable_of(path: str, key: str | None) -> str:
    """Give the name of the variable that holds a secret."""
    reference = path if key is None else f"{path}_{key}"
    return PREFIX + re.sub(r"[^A-Za-z0-9]+", "_", reference).strip("_").upper()


class EnvironmentSecrets:
    """Secrets from `environ`. A variable has one value, so a reference without a key names it whole."""

    name = "the environment"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def read(self, path: str, key: str | None) -> str:
        """Give the variable's value. Raises NoSuchSecret where it is not set."""
        variable = variable_of(path, key)
        if variable not in self._environ:
            raise NoSuchSecret(f"the environment variable {variable} is not set", hint=f"export {variable}")
        return self._environ[variable]
