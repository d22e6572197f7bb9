"""A real sshd on a loopback port, with users of its own in a mount namespace: the host's own files stay untouched."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from osimager.env import Env
from osimager.events import Bus, Event, Stamped
from osimager.paths import Places
from osimager.plan.model import Access
from osimager.ports import Endpoint
from osimager.provision.keys import BuildKey, make_key
from osimager.redact import Masker

USER = "guestuser"
PASSWORD = "open sesame"


@dataclass
class Seen:
    """The events that an env's bus has had."""

    events: list[Event] = field(default_factory=list)

    def add(self, stamped: Stamped) -> None:
        self.events.append(stamped.event)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass(frozen=True)
class Sshd:
    """A running sshd; `key` opens root and guestuser (who may sudo), `nosudo` opens for nobody's friend."""

    endpoint: Endpoint
    key: BuildKey
    folder: Path

    @property
    def root(self) -> Access:
        return Access(user="root", port=self.endpoint.port)

    @property
    def user(self) -> Access:
        return Access(user=USER, port=self.endpoint.port)


def make_env(folder: Path) -> tuple[Env, Seen]:
    seen = Seen()
    masker = Masker()
    bus = Bus(now=lambda: datetime(2026, 1, 1, tzinfo=UTC), masker=masker)
    bus._sinks.append(seen.add)
    workspace = folder / "workspace"
    workspace.mkdir(mode=0o700, exist_ok=True)
    places = Places.from_environment({"OSIMAGER_HOME": str(folder / "home")})
    return Env(places=places, workspace=workspace, bus=bus, masker=masker), seen


@pytest.fixture
def env_and_seen(tmp_path: Path) -> tuple[Env, Seen]:
    return make_env(tmp_path)


@pytest.fixture
def env(env_and_seen: tuple[Env, Seen]) -> Env:
    return env_and_seen[0]


@pytest.fixture
def seen(env_and_seen: tuple[Env, Seen]) -> Seen:
    return env_and_seen[1]


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    folder = tmp_path_factory.mktemp("sshd")
    with open_sshd(folder, port=free_port()) as server:
        yield server


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def open_sshd(folder: Path, *, port: int, key: BuildKey | None = None) -> Iterator[Sshd]:
    """Start sshd and wait for its port. Its session is killed with the block."""
    sshd_program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin")
    for name, found in (("sshd", sshd_program), ("sudo", shutil.which("sudo")), ("unshare", shutil.which("unshare"))):
        if found is None:
            pytest.skip(f"{name} is not installed")
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    key = key or make_key(make_env(folder)[0])
    _write_configuration(folder, port, key)
    script = f"""set -e
mkdir -p /run/sshd
for name in passwd shadow; do mount --bind {folder}/$name /etc/$name; done
mount -t tmpfs -o mode=755 none /etc/sudoers.d
mount -t tmpfs none /run/sshd
cp {folder}/authorized_keys /run/sshd/
chmod 755 /run/sshd
echo '{USER} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/guestuser
chmod 440 /etc/sudoers.d/guestuser
exec {sshd_program} -D -e -f {folder}/sshd_config 2>{folder}/log"""
    child = subprocess.Popen(["unshare", "-m", "sh", "-c", script], start_new_session=True)
    try:
        _wait_port(port, child, folder)
        yield Sshd(Endpoint("127.0.0.1", port), key, folder)
    finally:
        child.terminate()
        child.wait()


def _write_configuration(folder: Path, port: int, key: BuildKey) -> None:
    crypt = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
    ).stdout.strip()
    (folder / "passwd").write_text(
        Path("/etc/passwd").read_text() + f"{USER}:x:65123:65123::/:/bin/sh\nnosudo:x:65124:65124::/:/bin/sh\n"
    )
    (folder / "shadow").write_text(
        Path("/etc/shadow").read_text() + f"{USER}:{crypt}:19000:0:99999:7:::\nnosudo:{crypt}:19000:0:99999:7:::\n"
    )
    (folder / "authorized_keys").write_text(key.public_line + "\n")
    if not (folder / "host").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile /run/sshd/authorized_keys\nPermitRootLogin prohibit-password\nMaxStartups 100\n"
    )


def _wait_port(port: int, child: subprocess.Popen[bytes], folder: Path) -> None:
    ends = time.monotonic() + 10
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        if child.poll() is not None or time.monotonic() > ends:
            raise AssertionError(f"sshd did not start: {(folder / 'log').read_text()}")
        time.sleep(0.02)
