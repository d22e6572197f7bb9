"""The kickstart file: read by pykickstart in the syntax of the medium's product, its scripts run as they ask.

As Anaconda does: first only %pre is looked at and run, since what follows may %include what it writes.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pykickstart.constants import KS_SCRIPT_ONERROR, KS_SCRIPT_POST, KS_SCRIPT_PRE, KS_SCRIPT_PREINSTALL
from pykickstart.errors import KickstartError
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from .talk import Stopped, say

TARGET = Path("/mnt/sysroot")
PRE, PRE_INSTALL, POST, ON_ERROR = KS_SCRIPT_PRE, KS_SCRIPT_PREINSTALL, KS_SCRIPT_POST, KS_SCRIPT_ONERROR
_NAMES = {PRE: "%pre", PRE_INSTALL: "%pre-install", POST: "%post", ON_ERROR: "%onerror"}


@dataclass(frozen=True)
class Product:
    """What the medium's .treeinfo says that it installs."""

    name: str
    syntax: str


def read_product(medium: Path) -> Product:
    """Read .treeinfo; the kickstart's syntax is Fedora's own or that of the Enterprise Linux of that number."""
    info = configparser.ConfigParser()
    info.read(medium / ".treeinfo")
    general = info["general"]
    major = general["version"].partition(".")[0]
    return Product(general["name"], f"F{major}" if general["family"] == "Fedora" else f"RHEL{major}")


class _PreParser(KickstartParser):  # type: ignore[misc]
    """A parser that lets all commands pass: only the sections count."""

    def handleCommand(self, lineno: int, args: list[str]) -> None:  # noqa: N802
        """Do nothing."""


def read_scripts(text: str, product: Product, kind: int) -> list[Any]:
    """Give the scripts of one kind, before the commands are looked at."""
    handler = makeVersion(product.syntax)
    _parse(_PreParser(handler, missingIncludeIsFatal=False), text)
    return scripts_of(handler, kind)


def parse_kickstart(text: str, product: Product) -> Any:
    """Give pykickstart's handler, filled. Raises Stopped with pykickstart's own words."""
    handler = makeVersion(product.syntax)
    _parse(KickstartParser(handler), text)
    return handler


def _parse(parser: KickstartParser, text: str) -> None:
    try:
        parser.readKickstartFromString(text)
    except KickstartError as exc:
        raise Stopped(f"An error occurred during reading the kickstart file:\n{exc}") from exc


def scripts_of(handler: Any, kind: int) -> list[Any]:
    """Give the scripts of one kind in their order."""
    return [script for script in handler.scripts if script.type == kind]


def run_scripts(scripts: list[Any]) -> None:
    """Run scripts, each to its end. Raises Stopped where one fails that says --erroronfail."""
    for script in scripts:
        name = f"{_NAMES[script.type]} of line {script.lineno}"
        say(f"anaconda: running the kickstart script {name}")
        status = _run_script(script)
        if status != 0:
            say(f"anaconda: the kickstart script {name} ended with status {status}")
        if status != 0 and script.errorOnFail:
            raise Stopped(
                f"There was an error running the kickstart script at line {script.lineno}. "
                f"This is a fatal error and installation will be aborted. Its status is {status}."
            )


def _run_script(script: Any) -> int:
    root = TARGET if script.inChroot else Path("/")
    (root / "tmp").mkdir(exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix="ks-script-", dir=root / "tmp")
    with os.fdopen(descriptor, "w") as file:
        file.write(script.script)
    log = root / (script.logfile or f"{name}.log").removeprefix(str(root)).lstrip("/")
    log.parent.mkdir(parents=True, exist_ok=True)
    inner = ["/" + str(Path(name).relative_to(root))]
    chroot = ["chroot", str(TARGET)] if script.inChroot else []
    environment = {**os.environ, "ANA_INSTALL_PATH": str(TARGET)}
    with log.open("a") as out:
        done = subprocess.run(
            [*chroot, *script.interp.split(), *inner], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            env=environment, check=False,
        )  # fmt: skip
    Path(name).unlink()
    for line in log.read_text().splitlines():
        say(f"  {line}")
    return done.returncode
