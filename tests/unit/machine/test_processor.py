"""Whose code the processor runs, by registers as QEMU 7.2 prints them."""

from __future__ import annotations

import pytest

from osimager.machine.processor import is_beyond_loader

BIOS = "EIP=0000e829 EFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\nCR0=00000010 CR2=00000000\nEFER=0"
ISOLINUX = "EIP=00103d90 EFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\nCR0=00000011 CR2=00000000\nEFER=0"
OVMF = "RIP=000000003e8d41f0 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\nCR0=80010033\nEFER=0000000000000500"
UNPACKING = "RIP=0000000004f39c40 RFL=00000246 CPL=0 HLT=0\nCR0=80050033\nEFER=0000000000000500"
KERNEL = "RIP=ffffffff81c0b2f6 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\nCR0=80050033\nEFER=0000000000000d01"
PROGRAM = "RIP=00007f0a3dfb7c95 RFL=00000246 CPL=3 HLT=0\nCR0=80050033\nEFER=0000000000000d01"
KERNEL_32 = "EIP=c1000000 EFL=00000246 CPL=0 HLT=0\nCR0=80050033\nEFER=0"
FLASH_32 = "EIP=fffcf000 EFL=00000246 CPL=0 HLT=0\nCR0=80000033\nEFER=0"
EDK2_ARM = " PC=000000007f5c1f44 X00=0000000000000000\nPSTATE=60000305 -ZC- EL1h"
KERNEL_ARM = " PC=ffffc39355fe24d4 X00=0000000000000000\nPSTATE=60000305 -ZC- EL1h"
PROGRAM_ARM = " PC=0000ffff9564b888 X00=0000000000000000\nPSTATE=60000000 -ZC- EL0t"


@pytest.mark.parametrize("registers", [KERNEL, PROGRAM, KERNEL_32, KERNEL_ARM, PROGRAM_ARM])
def test_kernel_and_what_it_runs_are_beyond_the_loader(registers: str) -> None:
    assert is_beyond_loader(registers)


@pytest.mark.parametrize("registers", [BIOS, ISOLINUX, OVMF, UNPACKING, FLASH_32, EDK2_ARM, "", "no registers here"])
def test_firmware_and_boot_loaders_are_not(registers: str) -> None:
    assert not is_beyond_loader(registers)
