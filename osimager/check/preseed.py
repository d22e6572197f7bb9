"""Preseed: `debconf-set-selections -c` for the form, and our own list of questions and types for the sense.

The list is `preseed_questions`; a question of somebody's own package is a warning, one that is nearly a known one, or
whose type or value is wrong, an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from osimager.check.preseed_questions import OWNERS, QUESTIONS, TYPES
from osimager.check.problem import Finding, suggest
from osimager.proc import find_tool, run_tool

_PROBLEM = re.compile(r"(error|warning): (.*?) ?(?:on|skipping)? ?line (\d+)\.?:? ?(.*)")
_SECRET: Final = re.compile(r"password|passphrase|crypted")


async def check_syntax(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Feed the batch to one debconf-set-selections and map its lines back. Raises PrerequisiteError.

    It joins continued lines, yet counts each (Perl's `$.`): the line named is the last of them.
    """
    tool = find_tool("debconf-set-selections", package="debconf")
    starts, lines = [], 0
    parts = []
    for _, text in files:
        part = text.rstrip("\\\n") + "\n\n"
        starts.append(lines)
        lines += part.count("\n")
        parts.append(part)
    done = await run_tool([tool, "-c"], deadline_s=60.0, input_data="".join(parts).encode(), check=False)
    found = []
    for line in done.stderr.splitlines():
        match = _PROBLEM.match(line)
        if match:
            number = int(match[3])
            index = max(i for i, start in enumerate(starts) if start < number)
            what = f"{match[2].rstrip(', ')}: {match[4]}" if match[4] else match[2].rstrip(", ")
            found.append(Finding(index, number - starts[index], what))
    if done.status != 0 and not found:
        found.append(Finding(0, None, done.stderr.strip() or f"debconf-set-selections exited with {done.status}"))
    return found


async def check_questions(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check owners, questions, types and values against the list."""
    return [
        Finding(index, number, what, hint, is_warning)
        for index, (_, text) in enumerate(files)
        for number, what, hint, is_warning in _problems(text)
    ]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join lines that end in a backslash; give the first one's number."""
    joined, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first or number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            joined += line[:-1]
            continue
        yield first, joined + line
        joined, first = "", 0
    if joined:
        yield first, joined


def _problems(text: str) -> Iterator[tuple[int, str, str | None, bool]]:
    seen: dict[tuple[str, str], int] = {}
    for number, line in _logical_lines(text):
        words = line.split(None, 3)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 3:
            yield number, "a line has owner, question, type and value", None, False
            continue
        owner, question, kind = words[:3]
        value = words[3] if len(words) > 3 else ""
        if (first := seen.setdefault((owner, question), number)) != number:
            yield number, f"{question} was given in line {first} already; the last one counts", None, True
        yield from ((number, *problem) for problem in _problems_of(owner, question, kind, value))


def _problems_of(owner: str, question: str, kind: str, value: str) -> Iterator[tuple[str, str | None, bool]]:
    if kind == "seen":
        return
    if kind not in TYPES:
        yield f"{kind!r} is not a debconf type", suggest(kind, TYPES), False
        return
    known = QUESTIONS.get(question)
    if known is None:
        hint = suggest(question, QUESTIONS)
        yield f"{question} is no question that debian-installer is known to ask", hint, hint is None or owner != "d-i"
    elif kind != known and {kind, known} != {"select", "string"}:
        yield f"{question} is of type {known}, not {kind}", None, False
    if owner not in OWNERS and "/" in owner:
        yield f"the owner {owner!r} looks like a question", "write d-i before it", False
    if kind == "boolean" and value.strip() not in ("true", "false"):
        yield f"{question} must be true or false, not {value.strip()!r}", None, False
    if question.endswith("-crypted") and value and not value.startswith("$"):
        yield f"{question} is not a crypt hash", None, False
