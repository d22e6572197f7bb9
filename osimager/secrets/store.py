"""The one front of all secrets: a reference in, a value out, known to the masker before anybody else has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from osimager.config.settings import SecretSettings, Source
from osimager.config.values import scalar_problem
from osimager.errors import ConfigError, Place
from osimager.redact import Masker
from osimager.secrets.command import CommandSecrets
from osimager.secrets.environment import EnvironmentSecrets
from osimager.secrets.file import SecretsFile
from osimager.secrets.provider import NoSuchSecret, Provider
from osimager.secrets.vault import VaultSecrets


class SecretStore:
    """Secrets of one build, each asked for when it is first used and kept till the build's end.

    The first provider that has a secret gives it. One that cannot be asked stops the search: an outage must not
    change which value an image gets.
    """

    def __init__(self, providers: Sequence[Provider], masker: Masker, *, public_keys: frozenset[str] = frozenset()):
        self._providers = tuple(providers)
        self._masker = masker
        self._public_keys = public_keys
        self._values: dict[tuple[str, str | None], str] = {}

    def __repr__(self) -> str:
        return f"SecretStore({', '.join(provider.name for provider in self._providers)})"

    def get(self, path: str, key: str | None = None, place: Place | None = None) -> str:
        """Give the secret at `path` and `key`; without a key, the only value there. `place` is where it was asked for.

        Raises ConfigError with place and remedy where no provider has it.
        """
        if (path, key) not in self._values:
            try:
                self._values[path, key] = self._learn(path, key)
            except ConfigError as exc:
                where = exc.where if place is None else (*exc.where, place)
                raise ConfigError(exc.what, where=where, hint=exc.hint) from exc
        return self._values[path, key]

    def _learn(self, path: str, key: str | None) -> str:
        value = self._ask(path, key)
        if key not in self._public_keys:
            self._masker.register(value)
        if scalar_problem(value) or "\0" in value:
            reference = _reference(path, key)
            raise ConfigError(f"the secret {reference} holds a character that no answer file can", hint="change it")
        return value

    def _ask(self, path: str, key: str | None) -> str:
        missing: list[NoSuchSecret] = []
        for provider in self._providers:
            try:
                return provider.read(path, key)
            except NoSuchSecret as exc:
                missing.append(exc)
        if len(missing) == 1:
            raise missing[0]
        tried = "; ".join(exc.what for exc in missing)
        raise NoSuchSecret(
            f"no secret {_reference(path, key)}: {tried}",
            where=[place for exc in missing for place in exc.where],
            hint=" or ".join(exc.hint for exc in missing if exc.hint) or None,
        )


def open_store(settings: SecretSettings, environ: Mapping[str, str], masker: Masker) -> SecretStore:
    """Give the store that the settings describe; nothing is read, and nobody asked, until a secret is used.

    Without `secrets.source` it is the environment, then Vault where its address is known, then the secrets file.
    """
    sources = settings.sources
    if sources is None:
        has_vault = bool(environ.get("VAULT_ADDR") or settings.vault.address)
        sources = (Source.ENVIRONMENT, *((Source.VAULT,) if has_vault else ()), Source.FILE)
    providers = [_provider_of(source, settings, environ, masker) for source in sources]
    return SecretStore(providers, masker, public_keys=settings.public_keys)


def _provider_of(source: Source, settings: SecretSettings, environ: Mapping[str, str], masker: Masker) -> Provider:
    match source:
        case Source.FILE:
            return SecretsFile(settings.file)
        case Source.VAULT:
            return VaultSecrets(settings.vault, environ, masker)
        case Source.ENVIRONMENT:
            return EnvironmentSecrets(environ)
        case Source.COMMAND:
            return CommandSecrets(settings.command, environ)


def _reference(path: str, key: str | None) -> str:
    return path if key is None else f"{path}:{key}"
