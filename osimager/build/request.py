"""What somebody asks to have built, as one frozen value: the command line's or, later, an API's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from osimager.config.request import Request
from osimager.config.settings import Settings
from osimager.plan.options import BuildOptions


class OnError(StrEnum):
    """What to do with a build that failed: sweep it, keep its workspace, open a shell in its guest first, or ask.

    ABORT keeps the workspace and looks at nothing any more; a process stays with none of them.
    """

    CLEANUP = "cleanup"
    KEEP = "keep"
    SHELL = "shell"
    ASK = "ask"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One target with everything that was said about it. `iso_checksum` is `sha256:…`, `none` or not given.

    `settings` None: the user's files are read when they are needed. `strict`: a warning of the configuration's stops.
    `first_made`: layers of this index and later are made anew (0 is the installed disk, N what step N leaves); who
    `resumes` a build may have fewer steps by now.
    `cold`: the guest's memory is neither loaded nor saved. `layers` false: none is kept. `bundle`: evidence is put
    into one file too. `wait` false: a lock that is held is a LockedError.
    `words` are the command line's, for `osimager resume`.
    """

    request: Request
    options: BuildOptions = field(default_factory=BuildOptions)
    project: Path
    data_dir: Path | None = None
    iso_checksum: str | None = None
    steps: tuple[Path, ...] = ()
    accelerator: str = "auto"
    display: str = "none"
    force: bool = False
    first_made: int | None = None
    resumes: bool = False
    cold: bool = False
    layers: bool = True
    on_error: OnError = OnError.CLEANUP
    bundle: bool = False
    wait: bool = True
    settings: Settings | None = None
    strict: bool = False
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUse:
    """What a build makes of layers. `first_made`: those of this index and later are made anew (0: all of them).

    `keep`: what is made is kept. `warm`: the guest's memory is saved, and goes on from there.
    """

    first_made: int | None = None
    keep: bool = True
    warm: bool = True


def make_cache_use(asked: BuildRequest) -> CacheUse:
    """Give what was asked for."""
    return CacheUse(first_made=0 if asked.force else asked.first_made, keep=asked.layers, warm=not asked.cold)


def apply_settings(asked: BuildRequest, settings: Settings) -> BuildRequest:
    """Fill in from the user's settings what was not said."""
    options = dataclasses.replace(
        asked.options,
        offline=asked.options.offline or settings.local_only,
        output=asked.options.output or settings.output,
    )
    data_dir = asked.data_dir or settings.data_dir
    return dataclasses.replace(asked, options=options, data_dir=data_dir, settings=settings)
