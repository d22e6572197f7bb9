"""Where a PC keeps the keys that its guest has not read yet, by QEMU's human monitor: what has no room is forgotten.

There are two places: the queue of the keyboard (16 bytes; hw/input/ps2.c), and behind it, for a loader that a BIOS
started, the BIOS's own (15 keys). A loader that draws by the BIOS fills the second while it looks at neither.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from osimager.machine.processor import is_beyond_loader

READ_STATUS = "i /1bx 0x64"  # of the keyboard's controller, an 8042; reading changes nothing
READ_BIOS_QUEUE = "xp /2hx 0x41a"  # the next key to take, and the next free place
READ_REGISTERS = "info registers"
_OUTPUT_BUFFER_FULL = 1  # of the status: a byte waits to be read
_PORT_VALUE = re.compile(r"=\s*0x([0-9a-f]+)", re.IGNORECASE)
_TWO_WORDS = re.compile(r":\s*0x([0-9a-f]{4})\s+0x([0-9a-f]{4})\b", re.IGNORECASE)
_BIOS_PLACES = range(0x1E, 0x3E, 2)  # of the BIOS's data area; one stays free
_BURST_KEYS = 5  # what the keyboard's queue brings at most: three bytes for each key


async def are_keys_taken(ask: Callable[[str], Awaitable[str]], *, has_bios: bool) -> bool:
    """Tell whether as many keys as the keyboard holds can be typed and none be lost; true where nobody knows.

    What a BIOS's queue still holds under a kernel is nobody's any more.
    """
    # In this order: keys go from the first to the second.
    if not _is_status_empty(await ask(READ_STATUS)):
        return False
    if not has_bios or _has_room(await ask(READ_BIOS_QUEUE)):
        return True
    return is_beyond_loader(await ask(READ_REGISTERS))


def _is_status_empty(said: str) -> bool:
    value = _PORT_VALUE.search(said)
    return value is None or not int(value[1], 16) & _OUTPUT_BUFFER_FULL


def _has_room(said: str) -> bool:
    words = _TWO_WORDS.search(said)
    if words is None:
        return True
    head, tail = int(words[1], 16), int(words[2], 16)
    if head not in _BIOS_PLACES or tail not in _BIOS_PLACES:
        return True
    held = (tail - head) // 2 % len(_BIOS_PLACES)
    return held + _BURST_KEYS < len(_BIOS_PLACES)
