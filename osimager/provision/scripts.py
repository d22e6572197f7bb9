"""Which scripts make a build's steps: `base.sh`, then the profile's or the distribution's, then each `--step FILE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from osimager.errors import ConfigError, Place, UsageError
from osimager.plan.model import Step, StepKind

BASE = "base"
DEFAULT = "default"


def load_steps(folders: Sequence[Path], *, names: Sequence[str], files: Sequence[Path] = ()) -> tuple[Step, ...]:
    """Read the scripts; in `folders` an earlier one wins (paths.search_path("scripts.d", …)).

    `names` are tried in order (the profile, then the dist with its version, then the dist); the first with a script
    wins, else `default.sh`. `files` come last, as given.
    """
    own = next((path for name in (*names, DEFAULT) if (path := find_script(folders, name)) is not None), None)
    base = find_script(folders, BASE)
    chosen = [path for path in (base, own) if path is not None]
    for file in files:
        if not file.is_file():
            raise UsageError(f"there is no step file {file}", hint="--step takes the path of a shell script")
    return tuple(load_script(path) for path in (*chosen, *files))


def find_script(folders: Sequence[Path], name: str) -> Path | None:
    """Find `NAME.sh` in the first folder that has it. A name with a slash in it names none."""
    if not name or "/" in name:
        return None
    return next((path for folder in folders if (path := folder / f"{name}.sh").is_file()), None)


def load_script(path: Path) -> Step:
    """Give the step of a script. Raises ConfigError where the file cannot be read, or is no text."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read the script: {exc.strerror}", where=Place(path)) from exc
    if b"\0" in content:
        raise ConfigError("a step must be a script, and this file is not text", where=Place(path))
    return Step(name=path.stem, kind=StepKind.SCRIPT, content=content, origin=Place(path))
