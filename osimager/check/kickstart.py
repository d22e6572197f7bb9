"""Kickstart: pykickstart's ksvalidator of the target's own syntax version, as a program (GPL-2.0: never imported).

Source: pykickstart 3.78, tools/ksvalidator.py: it takes many files of one version, says "Unknown command" on stderr and
the rest on stdout without the file's name. A clean batch is one process; of a batch that is not, each file has its own.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from osimager.check.problem import Finding, NotAtHand, write_texts
from osimager.proc import Completed, find_tool, run_tool

DEADLINE_S: Final = 300.0
_DEPRECATED = re.compile(r"Ignoring deprecated option on line (\d+)")
_LINE = re.compile(r"occurred on line (\d+) of the kickstart file:\s*(.*)", re.DOTALL)


def syntax_version(dist: str, version: str) -> str:
    """Give pykickstart's name of the syntax that `dist` `version` reads: F43, RHEL9."""
    if dist == "fedora":
        return f"F{version.partition('.')[0]}"
    if dist == "amazon":  # Source: Amazon Linux 2 is of EL 7's kind, 2023 of Fedora 34's and EL 9's
        return "RHEL7" if version == "2" else "RHEL9"
    # pykickstart begins with EL 3; 2.1's commands are a part of those (RHEL AS 2.1, "Kickstart Options").
    return f"RHEL{version.partition('.')[0]}".replace("RHEL2", "RHEL3")


async def check(version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check a batch. Raises PrerequisiteError where ksvalidator is missing, NotAtHand for a `version` unknown to it."""
    tool = _find_validator()
    if version not in await _known_versions(str(tool)):
        raise NotAtHand(f"ksvalidator does not know the syntax {version}")
    with tempfile.TemporaryDirectory(prefix="osimager-check-") as folder:
        paths = write_texts(Path(folder), files)
        if (await _run(tool, version, paths)).status == 0:
            return ()
        return [
            finding
            for index, path in enumerate(paths)
            for finding in _findings(index, await _run(tool, version, [path]))
        ]


async def _run(tool: Path, version: str, paths: Sequence[Path]) -> Completed:
    return await run_tool([tool, "-v", version, *paths], deadline_s=DEADLINE_S, check=False)


def _find_validator() -> Path:
    """Find ksvalidator beside this Python, else on PATH."""
    own = Path(sys.executable).parent / "ksvalidator"
    return own if own.is_file() else find_tool("ksvalidator", package="pykickstart")


_versions: dict[str, frozenset[str]] = {}


async def _known_versions(tool: str) -> frozenset[str]:
    if tool not in _versions:
        done = await run_tool([tool, "-l"], deadline_s=60.0)
        _versions[tool] = frozenset(done.text.split())
    return _versions[tool]


def _findings(index: int, done: Completed) -> list[Finding]:
    if done.status == 0:
        return []
    text = "\n".join((done.text, done.stderr))
    parts = re.split(r"The following problem(?= occurred on line)", text)
    found = []
    for part in parts[1:]:
        match = _LINE.search(part)
        if match:
            found.append(Finding(index, int(match[1]), " ".join(match[2].split())))
    rest = [line for line in parts[0].splitlines() if line.strip() and not line.startswith("Checking kickstart file")]
    if len(rest) == 1 and (deprecated := _DEPRECATED.match(rest[0])):
        return [Finding(index, int(deprecated[1]), rest[0], is_warning=True)]
    return found or [Finding(index, None, " ".join(rest) or f"ksvalidator exited with status {done.status}")]
