"""Who has the guest's processor, by its registers: firmware and boot loaders run in low memory, kernels do not.

Read from the monitor's `info registers` (QEMU has no QMP command for it); formats: target/i386/cpu-dump.c and
target/arm/cpu.c in QEMU's tree. An installer that says nothing, on no console and as no text, is told by this alone.
"""

from __future__ import annotations

import re

_PC = re.compile(r"\b(?:[RE]IP|PC)=([0-9a-fA-F]+)")
_USER = re.compile(r"\bCPL=3\b|\bEL0t\b")
_CR0 = re.compile(r"\bCR0=([0-9a-fA-F]+)")
_PAGING = 1 << 31
_HIGH_64 = 1 << 47  # the kernel's half of the addresses, x86-64 and AArch64
_HIGH_32, _FLASH_32 = 0x8000_0000, 0xFF00_0000  # Linux has the last gigabyte, Windows the last two; firmware the end


def is_beyond_loader(registers: str) -> bool:
    """Tell whether a kernel, or a program under one, has the first processor. False where nothing can be read."""
    if _USER.search(registers):
        return True
    found = _PC.search(registers)
    if found is None:
        return False
    at = int(found[1], 16)
    if len(found[1]) > 8:
        return at >= _HIGH_64
    control = _CR0.search(registers)
    has_paging = control is not None and bool(int(control[1], 16) & _PAGING)
    return has_paging and _HIGH_32 <= at < _FLASH_32
