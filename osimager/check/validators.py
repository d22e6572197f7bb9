"""Each answer format's own validator, as a subprocess: what it says of a rendered answer file."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from osimager.errors import OsimagerError
from osimager.holes import name_holes
from osimager.plan.model import Answer
from osimager.proc import run_tool

_DEADLINE_S = 60.0
_XML = ("xmllint", ("--noout", "--nonet"), "libxml2-utils")


@dataclass(frozen=True, slots=True)
class Validator:
    """A program that reads one file, after its `words`, and fails for a bad one; `package` is where to get it."""

    program: str
    words: tuple[str, ...]
    package: str


VALIDATORS = {
    "preseed": Validator("debconf-set-selections", ("--checkonly",), "debconf"),
    "kickstart": Validator("ksvalidator", (), "pykickstart"),
    "autoyast": Validator(*_XML),
    "unattend": Validator(*_XML),
    "xcpng": Validator(*_XML),
}


class NotValidated(OsimagerError):
    """There is no validator for this format, or not on this host."""


async def find_problems(answer: Answer) -> str:
    """Give what the format's validator has against `answer`; nothing where it is content. Raises NotValidated."""
    validator = VALIDATORS.get(answer.format)
    if validator is None:
        raise NotValidated(f"there is no validator for {answer.format or 'an unnamed format'} ({answer.name})")
    program = shutil.which(validator.program)
    if program is None:
        what = f"{validator.program} is not on this host ({answer.format})"
        raise NotValidated(what, hint=f"install {validator.package}")
    with tempfile.TemporaryDirectory(prefix="osimager-check-") as folder:
        file = Path(folder) / "answer"
        file.write_text(name_holes(answer.text), encoding="utf-8")
        done = await run_tool([program, *validator.words, file], deadline_s=_DEADLINE_S, check=False)
    said = (done.stderr or done.text).strip().replace(f"{file}", answer.name)
    return "" if done.status == 0 else said or f"{validator.program} exited with status {done.status}"
