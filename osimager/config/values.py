"""A configuration value as plain Python: what YAML, JSON and TOML have in common."""

from __future__ import annotations

import math
import re
from typing import Final

from osimager.holes import CLOSE, OPEN

Scalar = str | int | float | bool | None
Value = Scalar | list["Value"] | dict[str, "Value"]

MOST_DIGITS: Final = 400
MOST_SIZE: Final = 4 << 20
_REFUSED: Final = re.compile(f"[{OPEN}{CLOSE}\ud800-\udfff]")


def scalar_problem(value: object) -> str:
    """Say why `value` cannot be a scalar of ours, nothing where it can.

    An escape (`"\\ud800"`), an expression or bytes that are not UTF-8 can make text that no file can hold, or that
    would be taken for a hole; JSON has no word for a number that is not finite.
    """
    if isinstance(value, str):
        found = _REFUSED.search(value)
        return f"the character U+{ord(found[0]):04X} is reserved" if found else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value} is no number to count with"
    if isinstance(value, int) and value.bit_length() > MOST_DIGITS * 4:
        return f"a number has at most {MOST_DIGITS} digits"
    return ""


def is_too_large(value: Value) -> bool:
    """Tell whether a value, written out, has more than MOST_SIZE characters and items."""
    size, left = 0, [value]
    while left and size <= MOST_SIZE:
        size += 1
        match left.pop():
            case str() as text:
                size += len(text)
            case list() as items:
                left += items
            case dict() as table:
                size += sum(map(len, table))
                left += table.values()
    return size > MOST_SIZE
