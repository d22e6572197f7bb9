"""A step that runs on this host, beside the guest: a script that is told how to get in."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from osimager.env import Env
from osimager.errors import ProvisionError
from osimager.plan.model import Step
from osimager.proc import run_tool
from osimager.provision.remote import interpreter_of
from osimager.units import format_duration

if TYPE_CHECKING:
    from osimager.provision.steps import Way


async def run_local(step: Step, way: Way, env: Env, *, tell: Callable[[str], None], deadline_s: float) -> int:
    """Run the step's script here, in its folder, and give its exit status.

    It finds the guest in OSIMAGER_SSH_HOST, _PORT, _USER, _KEY (a file) and _KNOWN_HOSTS (a file).
    """
    with open_credentials(way, env) as folder:
        script = _write(folder / "step", step.content)
        environment = dict(step.environment) | {
            "OSIMAGER_SSH_HOST": way.endpoint.host,
            "OSIMAGER_SSH_PORT": str(way.endpoint.port),
            "OSIMAGER_SSH_USER": way.access.user,
            "OSIMAGER_SSH_KEY": str(folder / "key"),
            "OSIMAGER_SSH_KNOWN_HOSTS": str(folder / "known_hosts"),
        }
        interpreter = interpreter_of(step.content.split(b"\n", 1)[0].decode(errors="replace"))
        return await run_merged(
            (*interpreter, str(script)), step, environment=environment, tell=tell, deadline_s=deadline_s
        )


@contextlib.contextmanager
def open_credentials(way: Way, env: Env) -> Iterator[Path]:
    """Give a 0700 folder with `key` (0600) and `known_hosts`, gone after the block."""
    with tempfile.TemporaryDirectory(prefix="step-", dir=env.workspace) as name:
        folder = Path(name)
        _write(folder / "key", way.key.private.encode())
        host = f"[{way.endpoint.host}]:{way.endpoint.port}" if way.endpoint.port != 22 else way.endpoint.host
        _write(folder / "known_hosts", f"{host} {way.host_key}\n".encode())
        yield folder


async def run_merged(
    argv: tuple[str, ...],
    step: Step,
    *,
    environment: dict[str, str],
    tell: Callable[[str], None],
    deadline_s: float,
) -> int:
    """Run a program in the step's folder, or that of its file; both its outputs come line by line."""
    folder = step.folder or Path(step.origin.path).parent
    try:
        done = await run_tool(
            ("sh", "-c", 'exec "$@" >&2', "sh", *argv),
            deadline_s=deadline_s,
            on_line=tell,
            check=False,
            cwd=folder if folder.is_dir() else None,
            environment=environment,
        )
    except TimeoutError as exc:
        raise ProvisionError(f"it ran for more than {format_duration(deadline_s)}") from exc
    return done.status


def _write(path: Path, content: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path
