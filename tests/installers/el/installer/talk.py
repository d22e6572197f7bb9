"""What the installer says, and how it stops: on every console, in words like Anaconda's."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import NoReturn


class Stopped(Exception):
    """The installation cannot go on; the text is for a person."""


def say(text: str) -> None:
    """Say a line, with the seconds since the machine started."""
    print(f"[{float(Path('/proc/uptime').read_text().split()[0]):7.2f}] {text}")


def wait_forever() -> NoReturn:
    """Wait as an installer does whose question nobody answers."""
    while True:
        time.sleep(3600)


def run(*words: str | Path, told: str | None = None) -> str:
    """Run a program to its end and give what it printed; `told` goes to its input. Raises Stopped."""
    done = subprocess.run(list(map(str, words)), input=told, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Stopped(f"{' '.join(map(str, words))} failed with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout
