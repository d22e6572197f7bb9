"""A guest that goes on from saved memory: its clock stands where it was saved, and so does its random number generator.

Connections that were open then are dead; addresses stay, for QEMU's network is the same. What keeps time is told to
look again. Where the machine has a `vmgenid` device the kernel has mended its generator already.
"""

from __future__ import annotations

from osimager.env import Env
from osimager.errors import ProvisionError
from osimager.ports import Communicator

_DEADLINE_S = 120.0
# What nobody waits for goes on beside the steps: under TCG each of its processes takes a twentieth of a second.
_SCRIPT = """
printf %s "$OSIMAGER_ENTROPY" >/dev/urandom
date -u -s "@$OSIMAGER_NOW" >/dev/null || exit
{
    ! command -v ip || ip neigh flush all
    if command -v systemctl; then
        systemctl try-restart --no-block systemd-timesyncd.service chronyd.service chrony.service ntpd.service
    elif command -v rc-service; then
        for name in chronyd ntpd; do rc-service --ifstarted $name restart; done
    fi
} >/dev/null 2>&1 &
exit 0
"""


async def wake_up(guest: Communicator, env: Env) -> None:
    """Set the clock, add this host's entropy, and let time be kept. Raises ProvisionError."""
    environment = {"OSIMAGER_NOW": f"{env.clock.now().timestamp():.3f}", "OSIMAGER_ENTROPY": env.entropy(64).hex()}
    said: list[str] = []
    status = await guest.run(_SCRIPT, on_line=said.append, environment=environment, deadline_s=_DEADLINE_S)
    if status != 0:
        raise ProvisionError(f"the clock of the guest could not be set: {' / '.join(said) or f'status {status}'}")
