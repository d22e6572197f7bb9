"""Why a QEMU process died: what its status, its last words and the host's kernel tell, as an error with a hint."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from osimager.errors import GuestGone, MachineError, PrerequisiteError
from osimager.machine.memory import count_oom_kills

_FEWER = "this machine holds fewer processors under this accelerator: give the guest fewer with --cpus"
# What QEMU says on stderr, and what a user can do about it; the flag: the host lacks something (status 4).
_HINTS: tuple[tuple[str, str, bool], ...] = (
    ("Cannot allocate memory", "close something, or give the guest less with --memory", True),
    ("cannot set up guest memory", "close something, or give the guest less with --memory", True),
    ("No space left on device", "free some space, or set OSIMAGER_HOME to a folder on a larger disk", True),
    ("Failed to get", "another process has this disk image open: end it, or build under another name", False),
    ("Could not open", "check that the file is there and readable", False),
    ("could not open kernel file", "check that the file is there and readable", False),
    ("Could not access KVM", "add yourself to the group kvm, or use --accel tcg", True),
    ("failed to initialize kvm", "use --accel tcg", True),
    ("HV_ERROR", "use --accel tcg; `osimager doctor` tells what Hypervisor.framework misses", True),
    ("is not a valid device model name", "this QEMU lacks that device: install its full package", True),
    ("SMP CPUs", _FEWER, True),
    ("-smp configuration requires", _FEWER, True),
    ("unsupported machine type", "this QEMU lacks that machine: install its full package", True),
    ("Display '", "this QEMU has no windows (Debian: qemu-system-gui): use --display vnc or none", True),
    ("gtk initialization failed", "use --display none or vnc", True),
)
_HOST_CAUSES = {
    "Cannot allocate memory": "host-out-of-memory",
    "cannot set up guest memory": "host-out-of-memory",
    "No space left on device": "host-disk-full",
}


def explain_death(
    returncode: int, shutdown_reason: str, stderr: Sequence[str], *, oom_kills_before: int | None
) -> MachineError | PrerequisiteError:
    """Say what is known of a death: the signal or status, the end of stderr, and a hint where we know one.

    `shutdown_reason` is QMP's (empty: it said none). PrerequisiteError: this host lacks something.
    """
    how = _how(returncode, shutdown_reason)
    said = "\n".join(stderr)
    for text, hint, is_host in _HINTS:
        if line := next((line for line in stderr if text in line), ""):
            if is_host:
                return PrerequisiteError(f"{how}: {line}", hint=hint, cause=_HOST_CAUSES.get(text, ""))
            return GuestGone(f"{how}: {line}", returncode=returncode, stderr=said, hint=hint)
    what = f"{how}: {stderr[-1]}" if stderr else how
    if returncode != -signal.SIGKILL:
        return GuestGone(what, returncode=returncode, stderr=said)
    if oom_kills_before is not None and (count_oom_kills() or 0) > oom_kills_before:
        hint = "close something, build fewer at once, or give the guest less with --memory"
        return PrerequisiteError(f"this host ran out of memory: {how}", hint=hint, cause="host-out-of-memory")
    hint = "somebody killed it, or the host ran out of memory (see the kernel's log)"
    return GuestGone(what, returncode=returncode, stderr=said, hint=hint)


def _how(returncode: int, shutdown_reason: str) -> str:
    if returncode < 0:
        return f"QEMU was killed by {signal.Signals(-returncode).name}"
    if shutdown_reason == "host-signal":
        return "QEMU was ended by a signal"
    if shutdown_reason == "host-ui":
        return "QEMU's window was closed"
    return f"QEMU exited with status {returncode}"
