"""What a PC's keyboard and its BIOS still hold."""

from __future__ import annotations

import pytest

from osimager.machine.ps2 import READ_BIOS_QUEUE, READ_REGISTERS, READ_STATUS, are_keys_taken

EMPTY, FULL = "portb[0x0064] = 0x1c\r\n", "portb[0x0064] = 0x1d\r\n"
LOADER = "EAX=00000000\r\nEIP=0000a3f1 EFL=00000046 [---Z-P-] CPL=0\r\nCR0=00000011 CR2=00000000\r\n"
KERNEL = "RIP=ffffffff81a00a0b RFL=00000246 [---Z-P-] CPL=0\r\n"


async def ask_pc(status: str, queue: str, registers: str = LOADER, *, has_bios: bool = True) -> bool:
    async def ask(line: str) -> str:
        return {READ_STATUS: status, READ_BIOS_QUEUE: queue, READ_REGISTERS: registers}[line]

    return await are_keys_taken(ask, has_bios=has_bios)


def queue_of(head: int, tail: int) -> str:
    return f"000000000000041a: {head:#06x} {tail:#06x}\r\n"


@pytest.mark.parametrize(("said", "taken"), [(EMPTY, True), (FULL, False), ("unknown command: 'i'\r\n", True)])
async def test_keyboard_is_asked_for_its_status(said: str, taken: bool) -> None:
    assert await ask_pc(said, queue_of(0x1E, 0x1E)) == taken


@pytest.mark.parametrize(
    ("head", "tail", "taken"),
    [
        (0x1E, 0x1E, True),
        (0x1E, 0x32, True),  # ten keys wait: five more are fifteen
        (0x1E, 0x34, False),
        (0x1E, 0x3C, False),  # full
        (0x20, 0x1E, False),  # full, and round its end
        (0x3C, 0x20, True),
        (0x0000, 0x0034, True),  # no queue of a BIOS
        (0x1F, 0x35, True),
    ],
)
async def test_loader_that_lets_its_bios_collect_keys_is_waited_for(head: int, tail: int, taken: bool) -> None:
    """GRUB, where it draws a wrapped line anew: the keyboard is empty all the while, and the sixteenth key was lost."""
    assert await ask_pc(EMPTY, queue_of(head, tail)) == taken


async def test_what_a_bios_holds_is_nothing_to_a_kernel_or_to_uefi() -> None:
    assert await ask_pc(EMPTY, queue_of(0x1E, 0x3C), KERNEL)
    assert await ask_pc(EMPTY, queue_of(0x1E, 0x3C), has_bios=False)
    assert await ask_pc(EMPTY, "unknown command: 'xp'\r\n")
