"""Rules over the bus that name why a guest is stuck, long before a deadline would.

A rule is a text on the console or on the text screen, with its patience: how long nothing else may happen before it
is the cause. A guest that does nothing at all (console, disk, screen and CPU at rest) is stuck without a rule too.
`Diagnostician` only thinks; `watch_machine` looks at the machine at a gentle rhythm and raises what is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Never, Protocol

from osimager.env import Env
from osimager.errors import MachineError
from osimager.events import (
    AnswerFetched,
    AnswerRefused,
    ConnectionTried,
    DiskActivity,
    Event,
    OutputLine,
    QmpEvent,
    ScreenChanged,
    Stamped,
)

LOOK_S = 5.0
_THINK_S = 1.0
_SETTLED_S = 3.0  # a panic's last words are still coming
_WAITING_S = 45.0
_IDLE_S = 100.0
_IDLE_UNSEEN_S = 300.0  # where the CPU's use is not known
_IDLE_CPU = 0.1
_KEY_REFUSED_S = 60.0
_MANY_RESETS = 4
_DISK_NOISE_BYTES = 65536
# A guest has moved on from a text when, later than the picture it belongs to, so much has followed.
_SAME_PICTURE_S = 10.0
_MOVED_ON_LINES = 5
_MOVED_ON_BYTES = 4 << 20


class StuckGuest(MachineError):
    """A guest that will not get on by itself; `cause` is the rule's name."""

    def __init__(self, cause: str, what: str, *, hint: str, seen: str = "") -> None:
        super().__init__(what, hint=hint)
        self.cause = cause
        self.seen = seen


@dataclass(frozen=True, slots=True)
class Rule:
    """A text that names a cause once `patience_s` have passed. `final`: what follows it cannot mend it."""

    cause: str
    pattern: re.Pattern[str]
    what: str
    hint: str
    patience_s: float = _WAITING_S
    final: bool = False


def _final(cause: str, pattern: str, what: str, hint: str) -> Rule:
    return Rule(cause, re.compile(pattern), what, hint, _SETTLED_S, final=True)


def _waiting(cause: str, pattern: str, what: str, hint: str) -> Rule:
    return Rule(cause, re.compile(pattern), what, hint)


# The telling ones first: an earlier rule wins over a later one.
RULES: tuple[Rule, ...] = (
    _final(
        "no-root",
        r"VFS: Unable to mount root fs|VFS: Cannot open root device",
        "the guest's kernel found no root file system",
        "the initrd is missing or lacks the disk's driver: look at kernel and initrd of the boot entry",
    ),
    _final(
        "kernel-panic",
        r"Kernel panic - not syncing|kernel BUG at |Unable to handle kernel NULL pointer",
        "the guest's kernel panicked",
        "try another CPU model or more memory (--memory); the console's last lines tell more",
    ),
    _waiting(
        "disk-full",
        r"No space left on device|not enough free space|is too small to hold|You do not have enough disk space",
        "the guest's disk is full",
        "give it a larger one with --disk, or make the partitions in the answer file larger",
    ),
    _waiting(
        "guest-out-of-memory",
        r"Out of memory: Killed process|Out of memory and no killable processes|System is deadlocked on memory",
        "the guest ran out of memory",
        "give it more with --memory",
    ),
    _waiting(
        "answer-not-fetched",
        r"(?i)could not be retrieved|failed to retrieve the preconfiguration|failed to fetch kickstart|"
        r"error (?:downloading|fetching).*(?:ks|kickstart|preseed)|Warning:.*failed to download.*(?:ks|kickstart)",
        "the installer could not fetch its answer file",
        "it has no network, or the address in its boot arguments is wrong",
    ),
    _waiting(
        "answer-refused",
        r"(?i)failed to process the preconfiguration file|problem occurred on line \d+ of the kickstart|"
        r"unknown command: .*kickstart|kickstart.*(?:parse|syntax) error|autoinstall.*(?:invalid|failed validation)|"
        r"Malformed autoinstall",
        "the installer refused its answer file",
        "check the answer file: `osimager plan` shows it as the guest gets it",
    ),
    _final(
        "no-bootable-medium",
        # SeaBIOS says "Boot failed: …" of each device in turn, an empty disk before the CD too; this comes last.
        r"No bootable (?:device|option or device)|No boot device|Operating System not found|Missing operating system",
        "the firmware found nothing to boot",
        "the ISO is not bootable with this firmware (try --firmware uefi or bios), or the disk holds no system",
    ),
    _final(
        "uefi-shell",
        r"UEFI Interactive Shell|^Shell> ",
        "the firmware ended in its UEFI shell: nothing else could be booted",
        "the ISO or disk has no UEFI boot loader for this architecture",
    ),
    _final(
        "emergency-shell",
        r"Entering emergency mode|You are in emergency mode|dracut:/#|Give root password for maintenance|"
        r"Dropping to a shell!|^\(initramfs\)|Generating \"/run/initramfs/rdsosreport",
        "the guest ended in an emergency shell",
        "it did not find its root or its installer's image: look at root=, inst.stage2= and the disk's interface",
    ),
    _final(
        "grub-shell",
        r"^grub rescue>|^grub>|GNU GRUB.*minimal BASH-like",
        "the boot loader ended in its own shell",
        "it did not find its configuration or kernel",
    ),
    _waiting(
        "boot-menu",
        r"Press enter to boot the selected|Use the .* keys to (?:select|change)|Automatic boot in|^boot: ?$|"
        r"Press \[Tab\] to edit|Press Tab for full configuration",
        "a boot menu waits for a choice",
        "say which entry to take (the spec's menu), or type one with --boot typed",
    ),
    _waiting(
        "no-network",
        r"(?i)network autoconfiguration failed|no DHCP (?:offers|lease)|Network is unreachable|"
        r"Temporary failure in name resolution|bad archive mirror|Failed to download package",
        "the guest has no network, or does not reach what it needs there",
        "check the mirror and proxy in the configuration; with --offline everything must be on the ISO",
    ),
    _waiting(
        "question",
        r"\[!!?\]|Please make a selection|Continue with autoinstall|Press (?:Enter|any key) to continue|"
        r"Please respond 'yes' or 'no'|<Go Back>|Prompt: '\?' for help",
        "the installer asks a question",
        "the answer file leaves it open: the screenshot and the console show which one",
    ),
)


@dataclass(slots=True)
class _Suspicion:
    """A rule that matched, and what has happened since."""

    rule: Rule
    line: str
    since: float
    disk_bytes: int | None = None  # at the first look after it: earlier ones lag behind the console
    lines_after: int = 0


class Diagnostician:
    """Fed with events and times, says what the guest is stuck in. `started` and `now` are monotonic seconds.

    With `unattended` the guest has to get on by itself (an installer, a system that boots): waiting and idleness are
    causes too. Else only what is final counts: a guest under provisioning may well be idle.
    """

    def __init__(self, started: float, *, unattended: bool = True) -> None:
        self._unattended = unattended
        self._progress_at = started
        self._suspicion: _Suspicion | None = None
        self._read = self._written = 0
        self._refused_since: float | None = None
        self._refused_path = ""
        self._resets = 0
        self._written_at_reset = 0
        self._last_lines: deque[str] = deque(maxlen=3)

    def feed(self, event: Event, now: float) -> None:
        """Take one event."""
        match event:
            case OutputLine(source, text) if source in ("serial", "screen"):
                self._take_line(text, now)
            case DiskActivity(read, written):
                self._take_disk(read, written, now)
            case AnswerFetched() | ScreenChanged():
                self._go_on(now)
            case AnswerRefused(path):
                self._refused_path = path
            case ConnectionTried(outcome):
                if outcome != "key-refused":
                    self._refused_since = None
                elif self._refused_since is None:
                    self._refused_since = now
            case QmpEvent(name, detail):
                self._take_qmp(name, detail, now)
            case _:
                pass

    def diagnose(self, now: float, *, cpu: float | None) -> StuckGuest | None:
        """Give the cause, if there is one by now. `cpu`: how busy QEMU was lately (1.0: one core), where known."""
        if found := self._suspicion:
            quiet_since = found.since if found.rule.final else max(found.since, self._progress_at)
            if now - quiet_since >= found.rule.patience_s:
                return self._stuck(found.rule.cause, f"{found.rule.what}: {found.line}", found.rule.hint)
        if self._refused_since is not None and now - self._refused_since >= _KEY_REFUSED_S:
            return self._stuck(
                "key-refused",
                f"SSH answers, but refused this build's key for {_KEY_REFUSED_S:.0f} s",
                "another system or account answers: the answer file did not plant the key, or it was never obeyed",
            )
        if self._resets >= _MANY_RESETS:
            return self._stuck(
                "loop",
                f"the guest restarted {self._resets} times without writing to its disk",
                "it boots the same thing again and again: look at the boot order and the boot loader",
            )
        return self._diagnose_idle(now, cpu) if self._unattended else None

    def _diagnose_idle(self, now: float, cpu: float | None) -> StuckGuest | None:
        idle_s = now - self._progress_at
        if cpu is None and idle_s < _IDLE_UNSEEN_S:
            return None
        if idle_s < _IDLE_S or (cpu is not None and cpu > _IDLE_CPU):
            return None
        last = f"; its console's last line: {self._last_lines[-1]}" if self._last_lines else "; it never said a word"
        return self._stuck(
            "idle",
            f"the guest has done nothing for {idle_s:.0f} s: console, screen, disk and CPU are at rest{last}",
            "it waits for something: the screenshot shows what",
        )

    def _stuck(self, cause: str, what: str, hint: str) -> StuckGuest:
        if self._refused_path and cause in ("answer-not-fetched", "question", "idle"):
            what += f" (it asked the answer server for {self._refused_path}, which is not there)"
        return StuckGuest(cause, what, hint=hint, seen="\n".join(self._last_lines))

    def _take_line(self, text: str, now: float) -> None:
        """Hold a suspicion against the first rule that matches, and let go of it when the guest has moved on."""
        self._last_lines.append(text)
        self._go_on(now)
        held = self._suspicion
        rule = next((rule for rule in RULES if rule.pattern.search(text)), None)
        if rule is not None and not (rule.final or self._unattended):
            rule = None
        if rule is not None and (held is None or RULES.index(rule) < RULES.index(held.rule)):
            self._suspicion = _Suspicion(rule, text.strip()[:200], now)
        elif held is not None and not held.rule.final and now - held.since > _SAME_PICTURE_S:
            held.lines_after += rule is not held.rule
            if held.lines_after >= _MOVED_ON_LINES:
                self._suspicion = None

    def _take_disk(self, read: int, written: int, now: float) -> None:
        if read + written - self._read - self._written > _DISK_NOISE_BYTES:
            self._read, self._written = read, written
            self._go_on(now)
        held = self._suspicion
        if held is None or held.rule.final:
            return
        if held.disk_bytes is None:
            held.disk_bytes = read + written
        elif read + written - held.disk_bytes > _MOVED_ON_BYTES:
            self._suspicion = None

    def _go_on(self, now: float) -> None:
        """Take note that something happens."""
        self._progress_at = now

    def _take_qmp(self, name: str, detail: str, now: float) -> None:
        if name == "RESET" and "guest" in detail:
            self._resets = self._resets + 1 if self._written <= self._written_at_reset + _DISK_NOISE_BYTES else 1
            self._written_at_reset = self._written
            self._suspicion = None
            self._go_on(now)
        elif name == "GUEST_PANICKED":
            rule = next(rule for rule in RULES if rule.cause == "kernel-panic")
            self._suspicion = self._suspicion or _Suspicion(rule, "the guest said so itself (pvpanic)", now)


class Watched(Protocol):
    """What the watcher needs of a machine."""

    @property
    def pid(self) -> int:
        """Give QEMU's process id."""
        ...

    async def observe(self) -> None:
        """Put the disk's counters and what is new on the screen on the bus."""
        ...


async def watch_machine(machine: Watched, env: Env, *, unattended: bool = True) -> Never:
    """Watch until the guest is stuck, and raise that as StuckGuest. To be cancelled when the stage is done.

    `unattended`: see Diagnostician; true for INSTALL, START, CONNECT and VERIFY, false for PROVISION to STOP.
    """
    started = env.clock.monotonic()
    thinker = Diagnostician(started, unattended=unattended)

    def take(stamped: Stamped) -> None:
        thinker.feed(stamped.event, env.clock.monotonic())

    cpu = _CpuMeter(machine.pid)
    next_look = started
    with env.bus.listening(take):
        while True:
            now = env.clock.monotonic()
            if now >= next_look:
                await machine.observe()
                cpu.measure(now)
                next_look = now + LOOK_S
            if found := thinker.diagnose(now, cpu=cpu.share):
                raise found
            await asyncio.sleep(_THINK_S)


class _CpuMeter:
    """How much of one core a process has used over the last half minute, by proc(5); None where that is not known."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/stat")
        self._samples: deque[tuple[float, float]] = deque(maxlen=int(30 / LOOK_S) + 1)
        self.share: float | None = None

    def measure(self, now: float) -> None:
        self.share = None
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = self._file.read_text("ascii").rsplit(")", 1)[1].split()
            used_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            self._samples.append((now, used_s))
            first_at, first_used_s = self._samples[0]
            if now > first_at:
                self.share = (used_s - first_used_s) / (now - first_at)
