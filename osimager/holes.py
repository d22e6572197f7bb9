"""Typed holes: values that are new in each build, named in a plan's texts and filled when the build knows them.

A hole is a token between two private-use characters, so that it travels through markers, escapes and merges as plain
text and can never be mistaken for content (documents that hold these characters are refused). Digests are taken over
the text with its holes *named*, so a new key or port does not change them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

OPEN, CLOSE = "\U000f0000", "\U000f0001"
_HOLE = re.compile(f"{OPEN}([a-z][a-z0-9_.]*){CLOSE}")

ANSWER_URL = "answer_url"
BUILD_PUBLIC_KEY = "build_public_key"
BUILD_PASSWORD = "build_password"  # noqa: S105  the hole's name, not a password
BUILD_PASSWORD_CRYPT = "build_password_crypt"  # noqa: S105
OF_BUILD = (ANSWER_URL, BUILD_PUBLIC_KEY, BUILD_PASSWORD, BUILD_PASSWORD_CRYPT)


def hole(name: str) -> str:
    """Make the token of the hole called `name`."""
    return f"{OPEN}{name}{CLOSE}"


def find_holes(text: str) -> frozenset[str]:
    """Give the names of the holes in `text`."""
    return frozenset(_HOLE.findall(text))


def is_whole(text: str) -> bool:
    """Tell whether no hole in `text` is cut or changed, so that a build will fill all of them."""
    if OPEN not in text and CLOSE not in text:
        return True
    left = _HOLE.sub("", text)
    return OPEN not in left and CLOSE not in left


def fill_holes(text: str, values: Mapping[str, str]) -> str:
    """Give `text` with every hole filled. Raises KeyError, naming the hole, for one that `values` lacks."""
    return _HOLE.sub(lambda match: values[match[1]], text)


def name_holes(text: str) -> str:
    """Give `text` with `{{name}}` for each hole: what digests are taken over and what people are shown."""
    return _HOLE.sub(lambda match: f"{{{{{match[1]}}}}}", text)
