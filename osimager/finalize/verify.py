"""VERIFY: boot the image as its user will, and prove what was promised. One boot, all checks; the image stays as it is.

Machines and connections come in as callables (`Means`), so that this knows of ports only.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import in_thread
from osimager.env import Env
from osimager.errors import PublishError
from osimager.events import OutputLine
from osimager.finalize.seal import Sealed
from osimager.plan.model import SealMode, SealPlan
from osimager.ports import Communicator, Endpoint, Machine
from osimager.proc import ToolFailed
from osimager.qemu_img import create_overlay, read_size

USER = "osimager-verify"
LABEL = "CIDATA"
ADDED_BYTES = 1 << 30
_SOURCE = "verify"

_LOOK = """
if command -v cloud-init >/dev/null; then
    timeout 900 cloud-init status --wait >/tmp/status 2>&1
    echo "cloud-init-status $?"
    sed 's/^/cloud-init-said /' /tmp/status | tr -d '.'
fi
echo "machine-id $(cat /etc/machine-id)"
echo "hostname $(uname -n)"
echo "root-kib $(df -Pk / | { read -r _; read -r _ size _; echo "$size"; })"
for key in /etc/ssh/ssh_host_*_key.pub; do
    [ ! -r "$key" ] || { read -r kind blob _ <"$key" && echo "host-key $kind $blob"; }
done
for name in passwd shadow group sudoers; do
    ! grep -qs "^BUILD_USER[: ]" "/etc/$name" || echo "build-account /etc/$name"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What `build` lends: machines, and ways in with this trial's own key, whose public line is `public_line`.

    `start` boots a disk (an overlay, larger than the image) and CDs from clean firmware variables. `find_accepted`
    names those of the build's credentials that sshd still takes; it needs a guest whose sshd answers.
    """

    start: Callable[[Path, tuple[Path, ...]], AbstractAsyncContextManager[Machine]]
    open_ssh: Callable[[Endpoint, str], AbstractAsyncContextManager[Communicator]]
    public_line: str
    make_seed: Callable[[Path, str, Mapping[str, bytes]], None]
    find_accepted: Callable[[Endpoint], Awaitable[tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and what was seen."""

    name: str
    good: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the booted image says of itself."""

    status: int | None
    said: str
    machine_id: str
    hostname: str
    root_kib: int
    host_keys: tuple[str, ...]
    build_account: tuple[str, ...]


async def verify(image: Path, plan: SealPlan, sealed: Sealed, means: Means, env: Env, *, hostname: str) -> None:
    """Boot an overlay on `image` and check it. `hostname` is what a `machine` image must be called.

    The deadline is the caller's. Raises PublishError that names the first check that failed, GuestGone.
    """
    overlay = await _make_overlay(image, env)
    seed = env.workspace / "verify-seed.iso"
    name = f"verify-{env.entropy(3).hex()}" if plan.mode is SealMode.TEMPLATE else hostname
    try:
        files = _seed_files(name, means.public_line, env)
        await in_thread(lambda: means.make_seed(seed, LABEL, files))
        async with means.start(overlay, (seed,)) as machine:
            if sealed.cloud_init:
                async with means.open_ssh(await machine.find_endpoint(), USER) as guest:
                    seen = parse_seen(await guest.read(_LOOK.replace("BUILD_USER", plan.build_user), deadline_s=1200))
                accepted = await means.find_accepted(machine.endpoint)
                checks = (*_check_access(accepted), *check_seen(seen, plan, sealed, hostname=name))
            else:
                # Nobody's key but the configuration's opens it: sshd's answer is as far as we come.
                accepted = await means.find_accepted(await machine.find_endpoint())
                checks = (*_check_access(accepted), _check_logins(sealed))
    finally:
        overlay.unlink(missing_ok=True)
        seed.unlink(missing_ok=True)
    for check in checks:
        env.emit(OutputLine(_SOURCE, f"{'ok  ' if check.good else 'FAIL'} {check.name}: {check.evidence}"))
    if failed := [check for check in checks if not check.good]:
        raise PublishError(
            f"the image did not pass: {failed[0].name}: {failed[0].evidence}",
            hint="look at the serial log of the trial boot; --no-verify registers the image unproven",
        )


async def _make_overlay(image: Path, env: Env) -> Path:
    try:
        size_bytes = await read_size(image) + ADDED_BYTES
    except ToolFailed as exc:
        raise PublishError(f"the image cannot be read: {exc.what}") from exc
    # A relative name would be looked for in the overlay's folder.
    return await create_overlay(env.workspace / "verify.qcow2", Path.cwd() / image, size_bytes=size_bytes)


def _seed_files(name: str, public_line: str, env: Env) -> dict[str, bytes]:
    """Give a NoCloud seed (cloud-init's documentation, "NoCloud"): one user, who may become root."""
    user = {
        "name": USER,
        "lock_passwd": True,
        "shell": "/bin/sh",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [public_line],
    }
    meta = {"instance-id": f"osimager-{env.entropy(8).hex()}", "local-hostname": name}
    # Passwords are let in, so that it is the account that refuses the build's; an RSA key takes a minute under TCG.
    config = {"users": [user], "ssh_pwauth": True, "ssh_genkeytypes": ["ed25519"]}
    # JSON is YAML.
    return {
        "user-data": b"#cloud-config\n" + json.dumps(config).encode() + b"\n",
        "meta-data": json.dumps(meta).encode() + b"\n",
    }


def parse_seen(text: str) -> Seen:
    """Read what `_LOOK` printed."""
    rows = [line.partition(" ")[::2] for line in text.splitlines()]

    def all_of(name: str) -> tuple[str, ...]:
        return tuple(value for key, value in rows if key == name)

    def one_of(name: str) -> str:
        return next(iter(all_of(name)), "")

    status = one_of("cloud-init-status")
    return Seen(
        status=int(status) if status else None,
        said=" / ".join(line for line in all_of("cloud-init-said") if line.strip()),
        machine_id=one_of("machine-id"),
        hostname=one_of("hostname"),
        root_kib=int(one_of("root-kib") or 0),
        host_keys=all_of("host-key"),
        build_account=all_of("build-account"),
    )


def check_seen(seen: Seen, plan: SealPlan, sealed: Sealed, *, hostname: str) -> tuple[Check, ...]:
    """Judge what the booted image says of itself. A template's clone is new, a machine is who it was."""
    new = plan.mode is SealMode.TEMPLATE
    same_keys = set(seen.host_keys) & set(sealed.host_keys)
    keys_good = bool(seen.host_keys) and (not same_keys if new else same_keys == set(sealed.host_keys))
    id_good = len(seen.machine_id) == 32 and (seen.machine_id != sealed.machine_id) is new
    grown_kib = seen.root_kib - sealed.root_kib
    gone = not plan.remove_build_user or plan.build_user == "root" or not seen.build_account
    return (
        Check("a new key logs in", good=True, evidence=f"{USER}, by the seed's key"),
        Check("cloud-init ends well", good=seen.status in (0, 2), evidence=seen.said or f"status {seen.status}"),
        Check(
            "the root file system grows", good=grown_kib > ADDED_BYTES // 1024 * 8 // 10, evidence=f"{grown_kib} KiB"
        ),
        Check(f"the machine-id is {'new' if new else 'kept'}", good=id_good, evidence=seen.machine_id or "none"),
        Check(
            f"the SSH host keys are {'new' if new else 'kept'}",
            good=keys_good,
            evidence=f"{len(seen.host_keys)} keys, {len(same_keys)} of them the build's",
        ),
        Check("the host name is set", good=_is_called(seen, hostname), evidence=seen.hostname),
        Check("the build's account is gone", good=gone, evidence=", ".join(seen.build_account) or plan.build_user),
    )


def _is_called(seen: Seen, hostname: str) -> bool:
    return seen.hostname.partition(".")[0] == hostname.partition(".")[0]


def _check_access(accepted: tuple[str, ...]) -> tuple[Check, ...]:
    evidence = f"accepted: {', '.join(accepted)}" if accepted else "key and password refused"
    return (
        Check("sshd answers", good=True, evidence="it spoke"),
        Check("the build is shut out", not accepted, evidence),
    )


def _check_logins(sealed: Sealed) -> Check:
    return Check("somebody can log in", bool(sealed.logins), ", ".join(sealed.logins) or "no cloud-init, no kept login")
