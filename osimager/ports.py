"""The seams: what `build` needs of a machine, of a way into it, and of an outside that gets the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the guest's SSH port can be reached from this host."""

    host: str
    port: int


class EndReason(StrEnum):
    """Why a machine's QEMU process ended in good order."""

    GUEST_RESET = "guest-reset"
    GUEST_SHUTDOWN = "guest-shutdown"
    ASKED = "asked"


class Machine(Protocol):
    """One running guest. Every method raises GuestGone when the QEMU process has died."""

    @property
    def endpoint(self) -> Endpoint:
        """Give the forward to the guest's SSH port, or its own address on a bridge."""
        ...

    async def find_endpoint(self) -> Endpoint:
        """Give the endpoint as soon as there is one: a guest on a bridge has to get an address first."""
        ...

    async def wait_end(self) -> EndReason:
        """Wait until the guest has restarted or switched itself off. The deadline is the caller's."""
        ...

    async def shut_down(self, deadline_s: float) -> None:
        """Press the power button (ACPI) and wait for the end. Raises StageTimeout when the guest does not obey."""
        ...

    async def screenshot(self, path: Path) -> None:
        """Write what the guest's screen shows to `path` as PNG."""
        ...

    async def type_keys(self, command: str, *, shown: str = "") -> None:
        """Type `command`, in Packer's boot command language; `shown` is a secret that the screen shows anyway."""
        ...

    def serial_tail(self, lines: int) -> str:
        """Give the last lines of the guest's serial console, masked."""
        ...


class Communicator(Protocol):
    """A way to act inside a running guest. Methods raise ProvisionError when the connection is lost."""

    async def run(
        self,
        script: str,
        *,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        deadline_s: float,
        settle: bool = False,
    ) -> int:
        """Run a POSIX shell script as root and give its exit status; output comes line by line.

        With `settle` all that the guest has written is on its disk afterwards.
        """
        ...

    async def get_ready(self) -> None:
        """Start the shell of the next script ahead: it sees what is set for new sessions now, not what is then."""
        ...

    async def read(self, script: str, *, deadline_s: float) -> str:
        """Run a script as root and give its output. Raises ProvisionError for an exit status but 0."""
        ...

    async def put(self, content: bytes, path: str, *, mode: int, deadline_s: float) -> None:
        """Write `content` to `path` in the guest, as root, whole or not at all."""
        ...

    async def get(self, path: str, *, deadline_s: float, limit_bytes: int) -> bytes:
        """Read the file `path` of the guest, as root."""
        ...


class Publisher(Protocol):
    """Somewhere that a finished image is given to."""

    async def publish(self, image: Path, name: str) -> str:
        """Hand the image over and give the place where it can be found now."""
        ...
