"""The patterns of `*_specific`: regular expressions for a whole name, case aside."""

from __future__ import annotations

import re

from osimager.errors import ConfigError, Place


def compile_pattern(pattern: str, where: Place) -> re.Pattern[str]:
    """Read a pattern, to be matched with `fullmatch`. Raises ConfigError at `where` for one that is wrong."""
    try:
        return re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as exc:
        hint = "a plain name, or a Python regular expression"
        raise ConfigError(f"{pattern!r} is not a regular expression: {exc}", where=where, hint=hint) from None
