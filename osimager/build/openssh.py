"""The user's own OpenSSH, in a guest whose host key is new each time: none is asked about, none is remembered."""

from __future__ import annotations

from pathlib import Path

from osimager.ports import Endpoint
from osimager.proc import find_tool, run_foreground

_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


def ssh_words(user: str, endpoint: Endpoint, private_key: Path | None) -> list[str]:
    """Give the command that logs in, with this key (None: with what OpenSSH finds), as one can type it too."""
    return [
        "ssh",
        *(word for option in _OPTIONS for word in ("-o", option)),
        *(["-i", str(private_key)] if private_key is not None else []),
        *("-p", str(endpoint.port)),
        f"{user}@{endpoint.host}",
    ]


async def run_ssh(words: list[str]) -> int:
    """Run that command on this terminal, and give its exit status. Raises PrerequisiteError."""
    return await run_foreground([find_tool("ssh", package="openssh-client"), *words[1:]])
