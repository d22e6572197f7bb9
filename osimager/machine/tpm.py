"""A TPM 2.0 for a guest: one swtpm a machine, over a socket pair, so that nothing on this host has its name.

swtpm(8): with `--terminate` it ends with its control channel, whose other end is QEMU's. What the TPM remembers without
power is one file of its folder, replaced as a whole each time; what it knows while it runs goes with the saved memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from osimager.aio import supervised
from osimager.env import Env
from osimager.events import Notice, OutputLine
from osimager.proc import find_tool, open_child

STATE = "tpm"
"""The file of a layer that holds what the TPM remembers."""
_PERMANENT = "tpm2-00.permall"
_PACKAGE = "swtpm (Debian 12 and Ubuntu 22.04 up, Fedora, EL 9 up, Homebrew)"


def find_swtpm() -> Path:
    """Find the program. Raises PrerequisiteError."""
    return find_tool("swtpm", package=_PACKAGE)


@contextlib.asynccontextmanager
async def open_tpm(folder: Path | None, env: Env) -> AsyncIterator[int | None]:
    """Give the descriptor of a TPM's control channel for QEMU, which its state in `folder` is behind. None: no TPM.

    An empty folder makes a TPM that is new. Raises PrerequisiteError.
    """
    if folder is None:
        yield None
        return
    near, far = socket.socketpair()
    with near, far:
        argv: list[str | Path] = [
            *(find_swtpm(), "socket", "--tpm2", "--tpmstate", f"dir={folder},mode=0600"),
            *("--ctrl", f"type=unixio,clientfd={far.fileno()}", "--terminate"),
        ]
        async with (
            open_child(argv, pass_fds=[far.fileno()], cwd=folder, umask=0o077) as child,
            supervised(_tell(child, env)),
        ):
            far.close()
            yield near.fileno()


async def _tell(child: asyncio.subprocess.Process, env: Env) -> None:
    """Put what swtpm says on the bus, and that it ended badly: the guest has no TPM then."""
    assert child.stderr is not None
    said = ""
    async for raw in child.stderr:
        said = raw.decode(errors="replace").rstrip()
        env.emit(OutputLine("swtpm", said))
    if status := await child.wait():
        env.emit(Notice(f"the guest's TPM ended with status {status}: {said}", "warning"))


def copy_state(source: Path, destination: Path) -> None:
    """Copy what a TPM remembers from one place to another, each the folder of a TPM or the file of a layer.

    One that was never used remembers nothing: there is no file.
    """
    source, destination = (path / _PERMANENT if path.is_dir() else path for path in (source, destination))
    if source.is_file():
        shutil.copyfile(source, destination)
        destination.chmod(0o600)
    else:
        destination.unlink(missing_ok=True)
