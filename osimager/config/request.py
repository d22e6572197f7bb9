"""What a person asked for, as far as configuration goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_PROFILE = "default"


def own_profile(profile: str) -> str:
    """Give the profile's name, empty for the default one: an image's name and record leave that out."""
    return "" if profile == DEFAULT_PROFILE else profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a person asked for. `defines` is `-D` as it was typed, each once; `given` are values that the caller adds
    to the defs over everything else (holes such as `answer_url`).
    """

    target: str
    host_arch: str = "x86_64"
    arch: str | None = None
    profile: str = DEFAULT_PROFILE
    name: str | None = None
    ip: str | None = None
    fqdn: str | None = None
    defines: tuple[str, ...] = ()
    firmware: str | None = None
    iso: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
