"""Guests of 512 bytes: boot sectors that print to the serial port and end in a way that the test chooses."""

from __future__ import annotations

import subprocess
from pathlib import Path

# x86 machine code, 16 bit; SeaBIOS puts the ACPI power management registers at 0x600 on both pc and q35.
HANG = bytes.fromhex("f4 ebfd")
RESET = bytes.fromhex("baf90c b006 ee") + HANG  # port 0xCF9: a full reset
SHUTDOWN = bytes.fromhex("ba0406 b80020 ef") + HANG  # PM1a control: S5
PANIC = bytes.fromhex("ba0505 b001 ee") + HANG  # pvpanic's port: the guest has panicked
# Enable the power button's event, wait until it is pressed, then S5.
OBEY_BUTTON = bytes.fromhex("ba0206 b80001 ef ba0006 ed f6c401 74fa") + SHUTDOWN
# Echo what comes in by the serial port: wait for its line status' data-ready bit, read, write back.
ECHO_SERIAL = bytes.fromhex("bafd03 ec a801 74fb baf803 ec ee ebf1")
# Keep what comes in by the serial port in memory, from 9000h, and write back all that came in so far.
REMEMBER_SERIAL = bytes.fromhex(
    "bf0090 1e07 bafd03 ec a801 74fb baf803 ec aa be0090 39fe 73ec ac 88c4 bafd03 ec a820 74fb baf803 88e0 ee ebe9"
)
# Echo what is typed to the screen, by BIOS call, and to the serial port; an Enter begins a new line on both.
ECHO_KEYS = bytes.fromhex("b400 cd16 b40e bb0700 cd10 baf803 ee 3c0d 75ed b00a b40e cd10 ee ebe4")
# Write 1.5 MiB to the first disk, 32 KiB a time, each beginning with this sector (INT 13h, AH=43h); then S5.
INSTALL = (
    bytes.fromhex(
        "be007e c7041000 c744024000 c74404007c c744060000 66c7440800000000 66c7440c00000000 b93000"
        "b80043 b280 cd13 83440840 e2f3"
    )
    + SHUTDOWN
)
# The same after three seconds (INT 15h, AH=86h): time to be killed in.
INSTALL_LATER = bytes.fromhex("b486 b92d00 bac0c6 cd15") + INSTALL


def make_boot_sector(text: str, ending: bytes) -> bytes:
    """Give a boot sector that prints `text` to COM1 and goes on with `ending`."""
    head = bytes.fromhex("31c0 8ed8 8ed0 bc007c fc")
    loop = bytes.fromhex("ac 84c0 7412 88c4 bafd03 ec a820 74fb baf803 88e0 ee ebe9")
    code_length = len(head) + 3 + len(loop) + len(ending)
    message = 0x7C00 + code_length
    code = head + b"\xbe" + message.to_bytes(2, "little") + loop + ending + text.encode() + b"\0"
    assert len(code) <= 510
    return code.ljust(510, b"\0") + b"\x55\xaa"


def make_disk(path: Path, sector: bytes, *, size: str = "1M") -> Path:
    """Make a qcow2 disk at `path` that boots `sector`."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(sector.ljust(1 << 20, b"\0"))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True, timeout=60)
    raw.unlink()
    return path
