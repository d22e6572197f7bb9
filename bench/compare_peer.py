"""Compare what osimager and OSImager 1.x make of every target of the peer's data tree.

    python bench/compare_peer.py PEER_VENV [NAME IP]

Every difference is put down to a mended bug of `docs/osimager-1.x.md`, or counted as unexplained (exit status 1).
"""

from __future__ import annotations

import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osimager.config.catalog import Catalog, Roots
from osimager.config.oldtree import OldBuild, OldSettings, resolve_old
from osimager.config.request import Request
from osimager.errors import ConfigError, OsimagerError

SALT = "saltsaltsaltsalt"
SECRETS = {
    "images/linux": {"username": "root", "password": "Ch@ng3m3"},
    "images/windows": {"username": "Administrator", "password": "W1nd0ws"},
    "vsphere/lab": {"server": "vc", "username": "u", "password": "p"},
    "proxmox/lab": {"server": "px", "username": "u", "password": "p"},
    "hyperv/lab": {"server": "hv", "username": "u", "password": "p"},
    "suse/registration": {"code": "ABC"},
}
LOCATION = {
    "defs": {
        "domain": "lab.example.com",
        "cidr": "192.168.1.0/24",
        "dns": {"search": ["lab.example.com"], "servers": ["192.168.1.1"]},
        "gateway": "192.168.1.1",
        "ntp": {"servers": ["pool.ntp.org"]},
        "vms_path": "/vms",
    }
}


class PeerLookups:
    """The same answers that the peer gets: its secrets file, no DNS, one salt."""

    def secret(self, path: str, key: str | None) -> str:
        """Give a secret of SECRETS; nothing for an unknown one, as the peer does."""
        entry = SECRETS.get(path, {})
        return entry.get(key, "") if key else str(entry)

    def dns(self, host: str, servers: Sequence[str], search: Sequence[str]) -> str | None:
        """Know no host."""
        return None

    def environment(self, name: str) -> str | None:
        """Give the variable, or nothing."""
        return os.environ.get(name, "")

    def salt(self, purpose: str) -> str:
        """Give the one salt."""
        return SALT

    def is_writable(self, path: str) -> bool:
        """Ask the file system, as the peer does."""
        return os.access(path, os.W_OK)


def prepare_home(home: Path) -> Path:
    """Write the peer's user folder: settings, secrets and the location `lab`."""
    user = home / ".config/osimager"
    (user / "locations").mkdir(parents=True)
    (user / "config.json").write_text(json.dumps({"credential_source": "config"}))
    (user / "locations/lab.json").write_text(json.dumps(LOCATION))
    lines = [" ".join([path, *(f"{k}={v}" for k, v in entry.items())]) for path, entry in SECRETS.items()]
    (user / "secrets").write_text("\n".join(lines) + "\n")
    (user / "secrets").chmod(0o600)
    return user


def peer_results(venv: Path, home: Path, host: list[str]) -> Iterator[dict[str, Any]]:
    """Run the peer once over all targets."""
    script = Path(__file__).with_name("peer_dump.py")
    argv = [str(venv / "bin/python"), "-W", "ignore", str(script), str(home / "temp"), *host]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    yield from map(json.loads, done.stdout.splitlines())


@dataclass
class Ours:
    """Our engine over the peer's tree."""

    data: Path
    home: Path
    user: Path
    host: list[str]

    def __post_init__(self) -> None:
        self.catalog = Catalog.open(Roots.of_old_tree(self.data, self.user))

    def resolve(self, target: str, build_id: str) -> OldBuild:
        """Resolve one target as the peer was asked to."""
        values = {
            "credential_source": "config",
            "data_dir": str(self.home / ".local/share/osimager"),
            "venv_dir": str(self.home / ".local/share/osimager/venvs"),
            "packer_cache_dir": str(self.home / ".cache/osimager"),
        }
        settings = OldSettings(
            user_dir=self.user, values=values, temp_dir=str(self.home / "temp"), build_id=build_id, home=self.home
        )
        name, ip = [*self.host, None, None][:2]
        return resolve_old(self.catalog, Request(target=target, name=name, ip=ip), PeerLookups(), settings)


def differences(peer: dict[str, Any], ours: OldBuild) -> Iterator[tuple[str, Any, Any]]:
    """Give each differing value: its path, the peer's, ours."""
    yield from _differ("defs", peer["defs"], dict(ours.defs))
    yield from _differ("evars", peer["evars"], dict(ours.evars))
    yield from _differ("build", peer["build"], ours.packer())
    try:
        files = ours.render_files()
    except ConfigError as exc:
        if not peer["files_error"]:
            yield "files", "", str(exc)
        return
    yield from _differ("files", peer["files"], files)


def _differ(path: str, peer: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(peer, dict) and isinstance(ours, dict):
        for key in dict.fromkeys([*peer, *ours]):
            yield from _differ(f"{path}.{key}", peer.get(key, "(absent)"), ours.get(key, "(absent)"))
    elif isinstance(peer, list) and isinstance(ours, list) and len(peer) == len(ours):
        for index, (one, other) in enumerate(zip(peer, ours, strict=True)):
            yield from _differ(f"{path}[{index}]", one, other)
    elif isinstance(peer, str) and isinstance(ours, str) and "\n" in peer + ours:
        one, other = peer.splitlines(), ours.splitlines()
        if len(one) != len(other):
            yield path, peer, ours
        else:
            yield from ((f"{path}:", a, b) for a, b in zip(one, other, strict=True) if a != b)
    elif peer != ours or type(peer) is not type(ours):
        yield path, peer, ours


def reason(path: str, peer: Any, ours: Any, hostname: str) -> str | None:
    """Name the mended bug (its heading in docs/osimager-1.x.md) that makes this difference; None: unexplained."""
    if path == "defs.hostname" and peer == "(absent)":
        return "`hostname`"
    if isinstance(peer, str) and isinstance(ours, str):
        if peer.replace("amd64", "x86_64") == ours.replace("amd64", "x86_64"):
            return "`amd64`"
        if re.search(r">>>\w+<<", peer):
            return "Markers beside `<` and `>`"
        parts = ours.split(hostname) if hostname else []
        if any(hostname.join(parts[:at]) + hostname.join(parts[at:]) == peer for at in range(1, len(parts))):
            return "`hostname`"
    return None


def main() -> int:
    """Compare all, print what differs by kind."""
    venv, host = Path(sys.argv[1]), sys.argv[2:4]
    (data,) = venv.glob("lib/python3*/site-packages/osimager/data")
    reasons: collections.Counter[str] = collections.Counter()
    unexplained: dict[str, list[str]] = {}
    count, spent = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        ours = Ours(data, home, prepare_home(home), host)
        for peer in peer_results(venv, home, host):
            count += 1
            started = time.perf_counter()
            hostname = ""
            try:
                build = ours.resolve(peer["target"], peer.get("defs", {}).get("build_id", ""))
                hostname = str(build.defs["hostname"])
                found = list(differences(peer, build))
            except OsimagerError as exc:
                found = [("resolve", peer.get("error", "resolved"), f"{exc} ({exc.hint})")]
            spent += time.perf_counter() - started
            for path, one, other in found:
                name = reason(path, one, other, hostname)
                reasons[name or "unexplained"] += 1
                if name is None:
                    kind = re.sub(r"\[\d+\]", "[]", path)
                    unexplained.setdefault(kind, []).append(f"{peer['target']}: {one!r:.300} / {other!r:.300}")
    for kind, lines in unexplained.items():
        print(f"{kind}: {len(lines)}\n    " + "\n    ".join(lines[:3]))
    print(f"{count} targets in {spent:.1f} s (ours); differences: {dict(reasons)}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
