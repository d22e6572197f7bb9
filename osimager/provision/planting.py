"""This build's key put into a guest whose answer file planted none (a tree of OSImager 1.x): the password opened it."""

from __future__ import annotations

from osimager.errors import ProvisionError
from osimager.plan.model import Access
from osimager.ports import Communicator
from osimager.provision.keys import BuildKey

_DEADLINE_S = 120.0
_SCRIPT = """set -eu
umask 077
home=$(awk -F: -v name="$OSIMAGER_USER" '$1 == name { print $6 }' /etc/passwd)
mkdir -p "$home/.ssh"
printf '%s\\n' "$OSIMAGER_LINE" >>"$home/.ssh/authorized_keys"
chown -R "$OSIMAGER_USER" "$home/.ssh"
! command -v restorecon >/dev/null 2>&1 || restorecon -R "$home/.ssh"
"""


async def plant_key(guest: Communicator, access: Access, key: BuildKey) -> None:
    """Let the build's key in, for programs on this host that know keys only. The seal takes it out again.

    Raises ProvisionError where the guest does not take it.
    """
    environment = {"OSIMAGER_USER": access.user, "OSIMAGER_LINE": key.public_line}
    status = await guest.run(_SCRIPT, environment=environment, deadline_s=_DEADLINE_S)
    if status != 0:
        raise ProvisionError(f"the build's key could not be put into the guest (status {status})", hint="see its log")
