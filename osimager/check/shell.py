"""Answer files that a shell reads (Alpine, FreeBSD): their syntax, by the shell's own -n."""

from __future__ import annotations

import re
from collections.abc import Sequence

from osimager.check.problem import Finding
from osimager.proc import find_tool, run_tool

_LINE = re.compile(r"(?:sh|dash|bash|ash|busybox)?:? ?(?:line )?(\d+): (.*)")


async def check(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Let `sh -n` read each text. Raises PrerequisiteError where there is no shell."""
    tool = find_tool("sh")
    found = []
    for index, (_, text) in enumerate(files):
        done = await run_tool([tool, "-n"], deadline_s=30.0, input_data=text.encode(), check=False)
        if done.status != 0:
            said = done.stderr.strip().splitlines()
            match = _LINE.search(said[0]) if said else None
            what = match[2] if match else " ".join(said)
            found.append(Finding(index, int(match[1]) if match else None, what or f"sh -n gave {done.status}"))
    return found
