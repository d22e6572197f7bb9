"""A server that speaks the part of Vault's HTTP API that secrets need, on loopback.

Source: Vault's API documentation (KV version 1 and 2, AppRole, /sys/internal/ui/mounts), and answers of Vault 1.15.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hvs.CAESIJtest-token-0001"
ROLE_ID, SECRET_ID = "role-7c1f", "secret-id-93ab-77"
APPROLE_TOKEN = "hvs.CAESIJapprole-token"

KV2: dict[str, dict[str, object]] = {
    "images/linux": {"username": "root", "password": "S3cr3t 'of' <v2>", "number": 42, "yes": True},
    "images/nested": {"password": "x-in-nested", "table": {"a": "deep-secret"}},
    "images/single": {"code": "only-value-here"},
    "images/data/odd": {"password": "under-data-itself"},
    "team/kv/app": {"password": "deep-mount-value"},
}
KV1 = {"old/linux": {"username": "admin", "password": "v1-password"}}
MOUNTS = {"images/": 2, "team/kv/": 2, "old/": 1, "transit/": 0}
DELETED = ("images", "gone")


@dataclass
class VaultState:
    """What the server does, and what it has been asked."""

    sealed: bool = False
    initialised: bool = True
    tells_mounts: bool = True
    forbidden: set[str] = field(default_factory=set)
    status: int = 0
    location: str = ""
    body: bytes | None = None
    namespace: str = ""
    hold: threading.Event | None = None
    asked: list[str] = field(default_factory=list)
    address: str = ""


def make_handler(state: VaultState) -> type[BaseHTTPRequestHandler]:
    """Make the request handler that answers as `state` says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.answer({})

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, body: dict[str, object]) -> None:
            path = self.path.removeprefix("/v1/")
            state.asked.append(path)
            if state.hold is not None:
                state.hold.wait(30)
            if state.body is not None:
                self.send(state.status or 200, raw=state.body)
            elif state.status:
                self.send(state.status, {"errors": ["as the test wants it"]})
            elif not state.initialised:
                self.send(501, {"errors": ["Vault is not initialized"]})
            elif state.sealed:
                self.send(503, {"errors": ["Vault is sealed"]})
            elif path == "auth/approle/login":
                self.log_in(body)
            elif self.headers.get("X-Vault-Namespace", "") != state.namespace or path in state.forbidden:
                self.forbid()
            elif self.headers.get("X-Vault-Token") not in (TOKEN, APPROLE_TOKEN):
                self.forbid("permission denied", "invalid token")
            elif path.startswith("sys/internal/ui/mounts/"):
                self.tell_mount(path.removeprefix("sys/internal/ui/mounts/"))
            else:
                self.tell_secret(path)

        def log_in(self, body: dict[str, object]) -> None:
            if (body.get("role_id"), body.get("secret_id")) != (ROLE_ID, SECRET_ID):
                self.send(400, {"errors": ["invalid role or secret ID"]})
            else:
                self.send(200, {"auth": {"client_token": APPROLE_TOKEN, "policies": ["default"]}})

        def tell_mount(self, path: str) -> None:
            found = [mount for mount in MOUNTS if (path + "/").startswith(mount)]
            if not found or not state.tells_mounts:
                self.forbid(f'preflight capability check returned 403, please ensure access to path "{path}/"')
                return
            version = MOUNTS[found[0]]
            options = {"version": str(version)} if version else None
            data = {"path": found[0], "type": "kv" if version else "transit", "options": options}
            self.send(200, {"data": data})

        def tell_secret(self, path: str) -> None:
            mount = next((mount for mount in MOUNTS if path.startswith(mount)), None)
            if mount is None or MOUNTS[mount] == 0:
                self.forbid()
                return
            rest = path.removeprefix(mount)
            if MOUNTS[mount] == 1:
                found = KV1.get(path)
                self.send(200, {"data": found}) if found else self.send(404, {"errors": []})
                return
            if not rest.startswith("data/"):
                message = "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate paths."
                self.send(404, {"errors": [], "warnings": [message]})
                return
            rest = rest.removeprefix("data/")
            if (mount.strip("/"), rest) == DELETED:
                metadata = {"deletion_time": "2026-01-01T00:00:00Z", "destroyed": False, "version": 3}
                self.send(404, {"data": {"data": None, "metadata": metadata}})
                return
            value = KV2.get(f"{mount}{rest}")
            if value is None:
                self.send(404, {"errors": []})
            else:
                self.send(200, {"data": {"data": value, "metadata": {"version": 1}}})

        def forbid(self, *errors: str) -> None:
            self.send(403, {"errors": [*(errors or ("permission denied",))]})

        def send(self, status: int, answer: object = None, *, raw: bytes | None = None) -> None:
            data = json.dumps(answer).encode() if raw is None else raw
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(status)
                if state.location:
                    self.send_header("Location", state.location)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

    return Handler


@contextlib.contextmanager
def running_vault() -> Iterator[VaultState]:
    """Serve till the block ends; `state.address` is where."""
    state = VaultState()
    with ThreadingHTTPServer(("127.0.0.1", 0), make_handler(state)) as server:
        state.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state
        finally:
            if state.hold is not None:
                state.hold.set()
            server.shutdown()
            thread.join()
