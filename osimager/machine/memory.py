"""Whether this host has run out of memory: how many processes its kernel has killed for that."""

from __future__ import annotations

import re
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")  # oom_kill since Linux 4.13, cgroups' own kills among them
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def count_oom_kills(vmstat: Path = _VMSTAT) -> int | None:
    """Give how many processes were killed since this host's start, or None where that is not counted."""
    try:
        found = _KILLS.search(vmstat.read_text("ascii"))
    except (OSError, ValueError):
        return None
    return int(found[1]) if found else None
