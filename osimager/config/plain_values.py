"""Values that end up in answer files of every format: each is one line, and a package's name is a name.

Every format could carry more than that somewhere, and none everywhere: a line break in a time zone would begin a line
of its own in a kickstart. It is refused once, where the value was given, and not by each format in its own words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from osimager.config.values import Value
from osimager.errors import ConfigError, Place

ONE_LINE: Final = ("locale", "keyboard", "timezone", "mirror", "proxy", "domain", "build_user")
_BREAK: Final = re.compile(r"[\0-\x08\n-\x1f\x7f\x85\u2028\u2029]")
# Names, groups (@core), patterns, versions (=1.2), left out ones (-foo) and pkg:/ URIs, of any package manager.
_PACKAGE: Final = re.compile(r"[\w@^+.:~=/*-]+")


def value_problems(values: Mapping[str, Value], place_of: Callable[[str], Place | None]) -> Iterator[ConfigError]:
    """Give what is wrong with the values of a target's defs."""
    for name in ONE_LINE:
        if isinstance(value := values.get(name), str) and _BREAK.search(value):
            what = f"{name} holds a line break, or another control character"
            yield ConfigError(what, where=place_of(name), hint="write it in one line")
    packages = values.get("packages")
    for package in packages if isinstance(packages, list) else ():
        if not isinstance(package, str) or not _PACKAGE.fullmatch(package):
            what = f"{package!r} is not the name of a package"
            yield ConfigError(what, where=place_of("packages"), hint="one package, group or pattern an item")
