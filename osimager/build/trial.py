"""A finished image on trial: VERIFY, and `osimager image run`. Always an overlay, always clean firmware variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from osimager.build.credentials import Credentials
from osimager.env import Env
from osimager.finalize.seal import Sealed
from osimager.plan.facts import HostFacts
from osimager.plan.model import BuildPlan


@dataclass(frozen=True, slots=True)
class Trial:
    """The image, and what must not work in it any more: the build's access, the sealed machine's identity."""

    image: Path
    credentials: Credentials
    sealed: Sealed


async def verify(plan: BuildPlan, trial: Trial, host: HostFacts, env: Env) -> None:
    """Boot the image and prove it."""
