"""Ignition configs (Fedora CoreOS, Flatcar): JSON, then Ignition's own ignition-validate.

Source: https://coreos.github.io/ignition/getting-started/; it takes one file a process and says
`error at $.PATH, line N`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from osimager.check.problem import Finding, write_texts
from osimager.proc import find_tool, run_tool

_SAID = re.compile(r"^(error|warning)(?: at (?P<path>\S+?),)?(?: line (?P<line>\d+))?.*?: (?P<what>.*)$", re.MULTILINE)


async def check(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Let ignition-validate read each text. Raises PrerequisiteError."""
    tool = find_tool("ignition-validate", package="ignition")
    found: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="osimager-check-") as folder:
        for index, path in enumerate(write_texts(Path(folder), files)):
            done = await run_tool([tool, path], deadline_s=30.0, check=False)
            said = f"{done.text}\n{done.stderr}"
            found += [
                Finding(
                    index,
                    int(match["line"]) if match["line"] else None,
                    f"{match['what']}" + (f" at {match['path']}" if match["path"] else ""),
                    is_warning=match[1] == "warning" and not match["what"].startswith("Unused key"),
                )
                for match in _SAID.finditer(said)
            ]
            if done.status != 0 and not any(finding.index == index and not finding.is_warning for finding in found):
                found.append(Finding(index, None, " ".join(said.split()) or f"it exited with {done.status}"))
    return found
