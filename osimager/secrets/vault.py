"""Secrets from HashiCorp Vault or OpenBao, by hvac: the KV engine, versions 1 and 2, told apart by asking.

Source: Vault's HTTP API (`/sys/internal/ui/mounts/PATH` is what its own command line asks for an engine's version).
The token goes in a header and nowhere else; redirects are not followed, since a token would go along.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from osimager.config.settings import VaultSettings
from osimager.errors import ConfigError, PrerequisiteError
from osimager.redact import Masker
from osimager.secrets.provider import NoSuchSecret, pick, read_private_text

if TYPE_CHECKING:
    import hvac

_CONNECT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Mount:
    """A KV engine: where it is mounted, and its version."""

    path: str
    version: int


class VaultSecrets:
    """Ask Vault for each path, once. Logs in at the first question."""

    def __init__(self, settings: VaultSettings, environ: Mapping[str, str], masker: Masker) -> None:
        self._settings = settings
        self._environ = environ
        self._masker = masker
        self._client: hvac.Client | None = None
        self._found: dict[str, dict[str, str]] = {}
        self.address = environ.get("VAULT_ADDR") or settings.address

    @property
    def name(self) -> str:
        """What a person calls it; a password in the address is not shown."""
        parts = urllib.parse.urlsplit(self.address)
        return f"Vault at {parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()}"

    def read(self, path: str, key: str | None) -> str:
        """Give the value at `path` (`MOUNT/REST`) and `key`.

        Raises NoSuchSecret where there is none, ConfigError that says whether Vault is down, sealed, or forbids it.
        """
        if path not in self._found:
            client = self._open()
            try:
                values = self._read(client, path.strip("/"))
            finally:
                client.adapter.close()
            for name, value in values.items():
                if value is not None and not isinstance(value, str | int | float | bool):
                    raise ConfigError(f"{path}:{name} in {self.name} is not one value", hint="store a text there")
            self._found[path] = {
                name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()
            }
        hint = f"vault kv patch {path} {key or 'password'}=-"
        return pick(self._found[path], key, what=f"the secret {path!r} in {self.name}", hint=hint)

    # Reading ----------------------------------------------------------------------------------------------------

    def _read(self, client: hvac.Client, path: str) -> Mapping[str, object]:
        if "/" not in path:
            hint = "write the engine's mount first: |>MOUNT/PATH:KEY<|"
            raise NoSuchSecret(f"{path!r} is no path of Vault", hint=hint)
        mount = self._find_mount(client, path)
        if mount is not None:
            return self._read_kv(client, mount, path)
        # This token may not ask for mounts: the first part is the mount then, as in OSImager, and its version is tried.
        guess = path.partition("/")[0] + "/"
        try:
            return self._read_kv(client, _Mount(guess, 2), path)
        except (NoSuchSecret, _Forbidden) as newer:
            try:
                return self._read_kv(client, _Mount(guess, 1), path)
            except (NoSuchSecret, _Forbidden):
                raise newer from None

    def _find_mount(self, client: hvac.Client, path: str) -> _Mount | None:
        """Ask which engine `path` lies in; None where Vault does not tell this token."""
        try:
            answer = self._ask(client, f"sys/internal/ui/mounts/{path}")
        except (NoSuchSecret, _Forbidden):
            return None
        data = _table(answer.get("data"))
        if data.get("type") not in ("kv", "generic"):
            hint = "name a path in a KV engine; `vault secrets list` shows them"
            raise ConfigError(f"{path!r} in {self.name} is no KV engine, but {data.get('type')!r}", hint=hint)
        return _Mount(str(data.get("path", "")), 2 if str(_table(data.get("options")).get("version")) == "2" else 1)

    def _read_kv(self, client: hvac.Client, mount: _Mount, path: str) -> Mapping[str, object]:
        rest = (path + "/").removeprefix(mount.path).strip("/")
        if mount.version == 1:
            return _table(self._ask(client, f"{mount.path}{rest}").get("data"))
        try:
            answer = self._ask(client, f"{mount.path}data/{rest}")
        except NoSuchSecret:
            # Packer's own `vault` function wants the API's path, with `data/` in it.
            if not rest.startswith("data/"):
                raise
            answer = self._ask(client, f"{mount.path}{rest}")
        return _table(_table(answer.get("data")).get("data"))

    def _ask(self, client: hvac.Client, api_path: str) -> Mapping[str, object]:
        quoted = urllib.parse.quote(api_path)
        return self._call(api_path, lambda: client.adapter.get(f"/v1/{quoted}"))

    def _call(self, api_path: str, ask: Callable[[], object]) -> Mapping[str, object]:
        """Run one request, and map whatever goes wrong; an answer's text is not shown, it may hold anything."""
        import requests
        from hvac import exceptions

        try:
            answer = ask()
        except exceptions.Forbidden:
            hint = "check the token's lifetime (`vault token lookup`) and its policy: it needs `read` on this path"
            raise _Forbidden(f"{self.name} forbids {api_path!r} (403)", hint=hint) from None
        except exceptions.InvalidPath as exc:
            deleted = "deletion_time" in str(exc.json or "")
            what = f"the newest version of {api_path!r} is deleted" if deleted else f"there is no {api_path!r}"
            hint = "`vault kv undelete` brings it back" if deleted else "check the path: `vault kv get MOUNT/PATH`"
            raise NoSuchSecret(f"{what} in {self.name} (404)", hint=hint) from None
        except exceptions.VaultDown:
            hint = "unseal it: `vault operator unseal`"
            raise ConfigError(f"{self.name} is sealed, or in maintenance (503)", hint=hint) from None
        except exceptions.VaultNotInitialized:
            raise ConfigError(f"{self.name} is not initialised (501)", hint="`vault operator init`") from None
        except exceptions.RateLimitExceeded:
            raise ConfigError(f"{self.name} has had too many requests (429)", hint="wait, and try again") from None
        except exceptions.InvalidRequest:
            hint = "check the address, the namespace and, for AppRole, its two ids"
            raise ConfigError(f"{self.name} refuses the request for {api_path!r} (400)", hint=hint) from None
        except exceptions.VaultError as exc:
            hint = "see Vault's own log"
            raise ConfigError(f"{self.name} failed: {type(exc).__name__} for {api_path!r}", hint=hint) from None
        except requests.RequestException as exc:
            self._raise_unreachable(exc)
        if not isinstance(answer, dict):
            status = getattr(answer, "status_code", "?")
            hint = "is this address Vault's, and that of its active node? Redirects are not followed"
            raise ConfigError(f"{self.name} does not answer as Vault does (status {status})", hint=hint)
        return cast("dict[str, object]", answer)

    def _raise_unreachable(self, error: Exception) -> NoReturn:
        import requests

        match error:
            case requests.ConnectTimeout():
                what, hint = f"does not take connections within {_CONNECT_S:g} s", "check the address and the network"
            case requests.Timeout():
                what = f"did not answer within {self._settings.timeout_s:g} s"
                hint = "try again, or set secrets.vault.timeout in config.yml"
            case requests.exceptions.SSLError():
                what, hint = "shows a certificate that is not trusted", "set VAULT_CACERT, or secrets.vault.ca_cert"
            case requests.exceptions.InvalidURL() | requests.exceptions.InvalidSchema():
                what, hint = "has no address that can be used", "set VAULT_ADDR=https://HOST:8200"
            case requests.exceptions.MissingSchema():
                what, hint = "has no address that can be used", "set VAULT_ADDR=https://HOST:8200"
            case _:
                what, hint = f"cannot be reached ({type(error).__name__})", "check the address and the network"
        raise ConfigError(f"{self.name} {what}", hint=hint) from None

    # Logging in -------------------------------------------------------------------------------------------------

    def _open(self) -> hvac.Client:
        """Give a client that has a token. Raises ConfigError where there is no address, or no way to log in."""
        if self._client is not None:
            return self._client
        if not self.address:
            hint = "export VAULT_ADDR=https://HOST:8200, or set secrets.vault.address in config.yml"
            raise ConfigError("secrets come from Vault, and its address is not set", hint=hint)
        try:
            import hvac
        except ImportError:
            hint = "pip install 'osimager[vault]'"
            raise PrerequisiteError("secrets come from Vault, and hvac is not installed", hint=hint) from None
        ca_cert = self._environ.get("VAULT_CACERT") or self._settings.ca_cert
        client = hvac.Client(
            url=self.address,
            token="",  # None would make hvac look for one by itself
            verify=str(ca_cert) if ca_cert else True,
            timeout=(_CONNECT_S, self._settings.timeout_s),
            allow_redirects=False,
            namespace=self._environ.get("VAULT_NAMESPACE") or self._settings.namespace or None,
        )
        token = self._find_token() or self._log_in(client) or self._last_token()
        if not (token.isascii() and token.isprintable()):
            raise ConfigError(
                f"the token for {self.name} holds what no token holds", hint="`vault login` gives a new one"
            )
        client.adapter.token = token
        self._client = client
        return client

    def _find_token(self) -> str:
        """Give the token that was named most plainly: the environment's, else that of a file of `config.yml`."""
        if token := self._environ.get("VAULT_TOKEN", ""):
            return self._known(token)
        return self._from_file(self._settings.token_file)

    def _log_in(self, client: hvac.Client) -> str:
        role_id = self._environ.get("VAULT_ROLE_ID") or self._settings.role_id
        secret_id = self._environ.get("VAULT_SECRET_ID") or self._from_file(self._settings.secret_id_file)
        if not role_id:
            return ""
        self._masker.register(secret_id)
        mount = self._settings.approle_mount
        login = client.auth.approle.login
        try:
            answer = self._call(
                f"auth/{mount}/login",
                lambda: login(role_id=role_id, secret_id=secret_id or None, use_token=False, mount_point=mount),
            )
        except NoSuchSecret:
            hint = "`vault auth enable approle`, or set secrets.vault.approle_mount"
            raise ConfigError(f"{self.name} has no AppRole at auth/{mount}", hint=hint) from None
        return self._known(str(_table(answer.get("auth")).get("client_token", "")))

    def _last_token(self) -> str:
        """Give OSImager's `vault_token`, else what `vault login` left. Raises ConfigError where there is neither."""
        home = Path(self._environ.get("HOME") or Path.home())
        token = self._settings.token
        if not token and (home / ".vault-token").is_file():
            token = self._from_file(home / ".vault-token")
        if not token:
            hint = "export VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID, or set secrets.vault.token_file"
            raise ConfigError(f"there is no token for {self.name}", hint=hint)
        return self._known(token)

    def _from_file(self, path: Path | None) -> str:
        return "" if path is None else self._known(read_private_text(path).strip())

    def _known(self, secret: str) -> str:
        self._masker.register(secret)
        return secret


class _Forbidden(ConfigError):
    """Vault answers 403."""


def _table(value: object) -> Mapping[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
