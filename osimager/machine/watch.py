"""Rules over the bus that name why a guest is stuck, long before a deadline would.

Three kinds of evidence: what the guest says (`causes`), how far up its ladder of life signs it has come (`ladder`), and
whether anything moves: console, screen, disk, processor. Silence alone is no failure while one of them does.
`Diagnostician` only thinks; `watch_machine` looks at the machine at a gentle rhythm and raises what is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Never, Protocol

from osimager.env import Env
from osimager.errors import GuestGone
from osimager.events import (
    AnswerFetched,
    AnswerRefused,
    ConnectionTried,
    DiskActivity,
    Event,
    OutputLine,
    ProofOfLife,
    QmpEvent,
    ScreenChanged,
    Stamped,
)
from osimager.machine.causes import PANIC, Rule, StuckGuest, Weight, find_rule, find_title, join_framed, outranks
from osimager.machine.ladder import CONTINUED, Ladder, Proof, Rung, deadline_s
from osimager.machine.load import LOOK_S, CpuMeter, Load
from osimager.plan.facts import Accelerator
from osimager.units import format_duration

FIRST_LOOKS_S = 1.0  # a guest that dies at once leaves a picture too
_QUICK_LOOKS = 10
_THINK_S = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long nothing may happen, in seconds; none of it reaches `most_s`, the promise, but `unseen_s`."""

    settled_s: float = 3.0  # a panic's last words are still coming
    waiting_s: float = 45.0  # a text that waits for someone, and a guest at rest
    busy_s: float = 100.0  # the same, and its processor is busy: an installer's clock, or work that says nothing
    rest_s: float = 100.0  # no text that tells, and a guest at rest
    loader_s: float = 90.0  # no text, and no kernel yet: firmware and boot loaders wait with a busy processor
    refused_s: float = 60.0  # SSH refuses the key, which a system that still starts may do
    unseen_s: float = 300.0  # where the processor's use is not known
    most_s: float = 120.0


PATIENCE = Patience()
_MANY_RESETS = 3  # without a byte written between them
_TOO_MANY_RESETS = 6
_DISK_NOISE_BYTES = 65536
# An installed system whose SSH port answers and lets nobody in: what our own knocking costs it is no progress.
_KNOCKED_BYTES, _KNOCKED_CPU, _KNOCKED_WITHIN_S = 1 << 20, 0.5, 30.0
_WRITTEN_BYTES = 1 << 20  # of a disk that is being installed to: more than a partition table
_LOADED_BYTES = 100 << 10  # a boot loader and its menu; what firmware reads of a medium is less
_KERNEL_BYTES = 8 << 20  # a kernel and its RAM disk, read from a medium
_CLOCK_CELLS = 8  # a clock or a counter on a screen; before a kernel runs, a menu's countdown is all that moves
_REPEATS = 3  # of what failed before: it is the same again and again
_MANY_REPEATS = 10  # and nothing else, whatever its processor does meanwhile
_REPEATS_WITHIN_S = 30.0
# A guest has moved on from a text when, later than the picture it belongs to, so much has followed.
_SAME_PICTURE_S = 10.0
_MOVED_ON_LINES = 5
_MOVED_ON_BYTES = 4 << 20
_MOVED_ON_WRITES = 4  # looks: a kernel writes what is still in its memory half a minute later, and all at once
_LEFT_BEHIND = frozenset({Weight.DIALOG, Weight.DOUBT})  # by lines; a loader's error stands though its menu comes back
_TAIL_LINES = 40
_REMEMBERED_LINES = 400
_SHOWN = 200

_BREAKS_OFF = "SSH answers, but breaks off before a login: "
_BREAKS_OFF_HINT = "its server has no algorithm that is known here, or ends at once: the guest's own log says why"

# What only a kernel or what it started says: its clock before a line, its first line, its service manager.
_KERNEL_SAYS = re.compile(
    r"^\[ *\d+\.\d{6}\]|Linux version \d|Run /\S+ as init process|systemd\[1\]:|^Copyright \(c\) .*FreeBSD"
)
# What waits for its own limit, and goes on after it: a service manager's job, a boot menu.
_COUNTS_DOWN = re.compile(
    r"A (?:start|stop) job is running for (?!.*/ no limit)|"
    r"(?:automatically|boot) in \d+|\bin \d+ ?s(?:ec|\b)|\[\d+/\d+s\]"
)
_NUMBERS = re.compile(r"\d+")
_CLOCK = re.compile(r"^\[ *\d+\.\d+\] *")
# What is said of a step that is to be tried again.
_FAILS = re.compile(
    r"(?i:retry|again|attempt|fail|error|timed? ?out|refused|unreachable|can(?:no|')t|could ?n[o']t|unable)"
)


@dataclass(slots=True)
class _TurnedAway:
    """An SSH server that lets nobody in: since when, how it ended, and how often."""

    outcome: str
    since: float
    times: int = 0
    detail: str = ""


@dataclass(slots=True)
class _Suspicion:
    """A rule that matched, and what has happened since."""

    rule: Rule
    line: str
    since: float
    disk: tuple[int, int] | None = None  # read and written by the first look after it: earlier ones lag behind
    writes_after: int = 0
    lines_after: int = 0


class Diagnostician:
    """Fed with events and times, says what the guest is stuck in. `started` and `now` are monotonic seconds.

    Until the last rung of its ladder the guest has to get on by itself: waiting and resting are causes too. Beyond it
    only what is final counts: a guest that is being provisioned may well rest.
    """

    def __init__(self, started: float, ladder: Ladder, accelerator: Accelerator = Accelerator.TCG) -> None:
        self._ladder = ladder
        self._accelerator = accelerator
        self._started = self._progress_at = started
        self._seen: dict[Proof, float] = {}
        self._suspicion: _Suspicion | None = None
        self._read = self._written = 0
        self._turned_away: _TurnedAway | None = None
        self._answered_at: float | None = None
        self._refused_path = ""
        self._tries: set[str] = set()
        self._again = ""
        self._resets = self._idle_resets = 0
        self._written_at_reset = 0
        self._last_lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._framed = ""
        self._known_lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._known_kinds: dict[str, str] = {}  # each with its first source
        self._repeats = 0
        self._repeated_at = started

    @property
    def seen(self) -> tuple[Proof, ...]:
        """Give the signs of life that were seen, in their order."""
        return tuple(self._seen)

    def feed(self, event: Event, now: float) -> None:
        """Take one event."""
        match event:
            case OutputLine(source, text) if source in ("serial", "screen"):
                self._take_line(text, source, now)
            case DiskActivity(read, written, medium):
                self._take_disk(read, written, now)
                if self._ladder is CONTINUED and Proof.KERNEL not in self._seen and medium >= _KERNEL_BYTES:
                    self._again = "it loads its kernel from the medium once more"
            case ScreenChanged(cells=cells, is_text=is_text):
                self._climb(Proof.FIRMWARE, now)
                if Proof.KERNEL not in self._seen or (cells > _CLOCK_CELLS and not is_text):  # lines tell themselves
                    self._go_on(now)
            case ProofOfLife(of):
                self._climb(Proof(of), now)
            case AnswerFetched(name):
                if self._ladder is CONTINUED:
                    self._again = f"it fetched {name} once more"
                self._climb(Proof.ANSWER, now)
                self._go_on(now)
            case AnswerRefused(path):
                self._refused_path = path
            case ConnectionTried(outcome, detail):
                self._take_try(outcome, detail, now)
            case QmpEvent(name, detail):
                self._take_qmp(name, detail, now)
            case _:
                pass

    def hold(self, now: float) -> None:
        """Count a moment as progress: something of ours is at work (keys are being typed)."""
        self._go_on(now)

    def diagnose(self, now: float, load: Load) -> StuckGuest | None:
        """Give the cause, if there is one by now."""
        awaited = self._ladder.next_after(self.seen)
        found = self._diagnose_text(now, load) or self._diagnose_loop()
        if found or awaited is None:
            return found
        return self._diagnose_door(now) or self._diagnose_rest(awaited, now, load) or self._diagnose_late(awaited, now)

    # What it says.

    def _diagnose_text(self, now: float, load: Load) -> StuckGuest | None:
        held = self._suspicion
        if held is None:
            return None
        quiet_s = now - (held.since if held.rule.weight is Weight.FINAL else max(held.since, self._progress_at))
        if quiet_s < self._patience_for(held.rule, now, load):
            return None
        title = find_title(tuple(self._last_lines)) if held.rule.weight is Weight.DIALOG else ""
        said = title if title and held.rule.cause == "question" else held.line
        if title and title not in said:
            said = f"{said} (in {title!r})"
        return self._stuck(held.rule.cause, f"{held.rule.what}: {said}", held.rule.hint)

    def _patience_for(self, rule: Rule, now: float, load: Load) -> float:
        """Give how long `rule`'s text may stand while nothing else happens."""
        if rule.weight is Weight.FINAL:
            return PATIENCE.settled_s
        if rule.weight is Weight.LOADER:  # old menus wait for a minute, and do not say so
            return PATIENCE.loader_s if rule.cause == "boot-menu" else PATIENCE.waiting_s
        if load.is_rest:
            return PATIENCE.waiting_s
        return PATIENCE.busy_s if rule.weight is Weight.DIALOG or self._only_repeats(now) else float("inf")

    def _is_expected(self, rule: Rule) -> bool:
        """Tell whether `rule` may be a cause where the guest stands now."""
        if rule.weight is Weight.LOADER:
            return Proof.KERNEL not in self._seen
        return rule.weight is Weight.FINAL or self._ladder.next_after(self.seen) is not None

    # What it does over and over.

    def _diagnose_loop(self) -> StuckGuest | None:
        if self._again:
            return self._stuck(
                "loop",
                f"the installer restarted into itself: {self._again}",
                "the disk that it installed to does not boot, so the medium does: look at the boot loader's step",
            )
        if self._idle_resets >= _MANY_RESETS or self._resets >= _TOO_MANY_RESETS:
            how = "without writing to its disk" if self._idle_resets >= _MANY_RESETS else "and never got any further"
            return self._stuck(
                "loop",
                f"the guest restarted {self._resets} times {how}{self._last_words()}",
                "it boots the same thing again and again: look at the boot order and the boot loader",
            )
        return None

    def _only_repeats(self, now: float) -> bool:
        """Tell whether all that the guest still does is to say again what has failed."""
        return self._repeats >= _MANY_REPEATS and now - self._repeated_at < _REPEATS_WITHIN_S

    def _is_knocked_at(self, now: float) -> bool:
        """Tell whether the guest is busy with turning us away."""
        return self._answered_at is not None and now - self._answered_at < _KNOCKED_WITHIN_S

    def _diagnose_door(self, now: float) -> StuckGuest | None:
        """Give the cause where SSH answers and lets nobody in."""
        held = self._turned_away
        if held is None or held.times < _REPEATS:
            return None
        passed_s = now - held.since
        if held.outcome == "key-refused" and passed_s >= PATIENCE.refused_s:
            return self._stuck(
                "key-refused",
                f"SSH answers, but refused this build's key for {passed_s:.0f} s",
                "another system or account answers: the answer file did not plant the key, or it was never obeyed",
            )
        if held.outcome == "broken-off" and passed_s >= PATIENCE.busy_s:
            return self._stuck("no-ssh", _BREAKS_OFF + held.detail, _BREAKS_OFF_HINT)
        return None

    # How far it came.

    def _diagnose_rest(self, awaited: Rung, now: float, load: Load) -> StuckGuest | None:
        rest_s = now - self._progress_at
        if Proof.KERNEL not in self._seen:
            patience_s = PATIENCE.loader_s
        elif load.is_busy and not (self._is_knocked_at(now) and (load.cpu or 0.0) < _KNOCKED_CPU):
            patience_s = PATIENCE.busy_s if self._only_repeats(now) else float("inf")
        else:
            patience_s = PATIENCE.unseen_s if load.cpu is None or load.is_fetching else PATIENCE.rest_s
        if rest_s < patience_s:
            return None
        cause, what, hint = self._name_rest(awaited)
        return self._stuck(cause, f"{what}: nothing has moved for {rest_s:.0f} s; {self._standing(now)}", hint)

    def _name_rest(self, awaited: Rung) -> tuple[str, str, str]:
        """Give cause, meaning and hint of a guest that rests before `awaited`."""
        cause, what, hint = awaited.cause, awaited.rests, awaited.hint
        if awaited.proof is Proof.KERNEL and self._read < _LOADED_BYTES:
            cause, what = "firmware", "the machine is stuck in its firmware: nothing was loaded from its media"
        elif awaited.proof is Proof.BANNER and self._tries == {"no-banner"}:  # nobody even refused
            cause, what = "no-network", "the installed system has no network: its SSH port cannot be reached"
        elif awaited.proof is Proof.LOGIN and "key-refused" not in self._tries:
            detail = self._turned_away.detail if self._turned_away else "it closes the connection"
            cause, what, hint = "no-ssh", _BREAKS_OFF + detail, _BREAKS_OFF_HINT
        elif awaited.proof in (Proof.DISK, Proof.END) and self._repeats >= _REPEATS:
            cause, what = "loop", "the installer tries the same again and again, and gets no further"
        return cause, what, hint

    def _diagnose_late(self, awaited: Rung, now: float) -> StuckGuest | None:
        allowed_s = deadline_s(awaited, self._accelerator)
        last = self._ladder.last_of(self.seen)
        since = self._started if last is None else self._seen[last.proof]
        if allowed_s is None or now - since < allowed_s:
            return None
        what = f"{awaited.awaited} did not come within {format_duration(allowed_s)}, though the guest is busy"
        return self._stuck(awaited.cause, f"waited for {what}; {self._standing(now)}", awaited.hint)

    def _standing(self, now: float) -> str:
        """Say how far the guest came and what it said last."""
        last = self._ladder.last_of(self.seen)
        if last is None:
            return f"it gave no sign of life{self._last_words()}"
        ago = format_duration(now - self._seen[last.proof])
        return f"its last sign of life was {last.proof}, {ago} ago{self._last_words()}"

    def _last_words(self) -> str:
        return f"; its console's last line: {self._last_lines[-1].strip()[:_SHOWN]}" if self._last_lines else ""

    def _stuck(self, cause: str, what: str, hint: str) -> StuckGuest:
        if self._refused_path and cause in ("answer-not-fetched", "question"):
            what += f" (it asked the answer server for {self._refused_path}, which is not there)"
        return StuckGuest(cause, what, hint=hint, seen="\n".join(self._last_lines))

    # What happens.

    def _climb(self, proof: Proof, now: float) -> None:
        self._seen.setdefault(proof, now)
        held = self._suspicion
        if held is not None and not self._is_expected(held.rule):
            self._suspicion = None

    def _take_line(self, text: str, source: str, now: float) -> None:
        """Hold a suspicion against the first rule that matches, and let go of it when the guest has moved on."""
        self._last_lines.append(text)
        self._climb(Proof.FIRMWARE, now)
        if _KERNEL_SAYS.search(text):
            self._climb(Proof.KERNEL, now)
        is_new = self._note_news(text, source, now)
        held, (rule, said) = self._suspicion, self._read_line(text)
        if rule is not None and not self._is_expected(rule):
            rule = None
        if rule is not None and (held is None or outranks(rule, held.rule)):
            self._suspicion = _Suspicion(rule, said.strip()[:_SHOWN], now)
        elif held is not None and held.rule.weight in _LEFT_BEHIND and now - held.since > _SAME_PICTURE_S:
            held.lines_after += is_new and rule is not held.rule
            if held.lines_after >= _MOVED_ON_LINES:
                self._suspicion = None

    def _read_line(self, text: str) -> tuple[Rule | None, str]:
        """Give the rule that a line matches, by itself or as what a dialog's frame has broken in two, and its text."""
        joined, self._framed = join_framed(self._framed, text)
        rule = find_rule(text)
        if rule is None and joined and (rule := find_rule(joined)):
            return rule, joined
        return rule, text

    def _note_news(self, text: str, source: str, now: float) -> bool:
        """Count a line as progress unless its like was said before: clocks, status bars and warnings come again and
        again. Tell whether the very same was not.
        """
        line = _CLOCK.sub("", text).strip()
        kind = _NUMBERS.sub("#", line)
        is_new = line not in self._known_lines
        if is_new:
            self._known_lines.append(line)
        first = self._known_kinds.setdefault(kind, "")
        if not first:
            self._known_kinds[kind] = source
            if len(self._known_kinds) > _REMEMBERED_LINES:
                del self._known_kinds[next(iter(self._known_kinds))]
        if not first or (is_new and _COUNTS_DOWN.search(line)):
            self._go_on(now)
        elif first == source and _FAILS.search(line):  # a kernel says the same on both of its consoles
            self._repeats, self._repeated_at = self._repeats + 1, now
        return is_new

    def _take_disk(self, read: int, written: int, now: float) -> None:
        if written >= _WRITTEN_BYTES:
            self._climb(Proof.DISK, now)
        is_writing = written - self._written > _DISK_NOISE_BYTES
        is_knocked = self._is_knocked_at(now)
        noise_bytes = _KNOCKED_BYTES if is_knocked else _DISK_NOISE_BYTES  # of writes: it keeps a log
        has_moved = read - self._read > _DISK_NOISE_BYTES or written - self._written > noise_bytes
        if has_moved or is_knocked:
            self._read, self._written = read, written
        if has_moved:
            self._go_on(now)
        held = self._suspicion
        if held is None or held.rule.weight is Weight.FINAL:
            return
        if held.disk is None:
            held.disk = read, written
            return
        held.writes_after += is_writing
        has_written = held.writes_after >= _MOVED_ON_WRITES and written - held.disk[1] > _MOVED_ON_BYTES
        if has_written or read - held.disk[0] > _MOVED_ON_BYTES:
            self._suspicion = None

    def _take_try(self, outcome: str, detail: str, now: float) -> None:
        """Take how an attempt at SSH ended. The first of a kind is progress: attempts overlap, and kinds alternate.

        A server that has refused a key too often says nothing for a while (OpenSSH's PerSourcePenalties): that it does
        not let us in is forgotten where nothing listens any more.
        """
        if outcome not in self._tries:
            self._tries.add(outcome)
            self._go_on(now)
        if outcome != "no-banner":
            self._answered_at = now
        if outcome in ("key-refused", "broken-off"):
            self._climb(Proof.BANNER, now)
            held = self._turned_away
            if held is None or (held.outcome, outcome) == ("broken-off", "key-refused"):
                held = self._turned_away = _TurnedAway(outcome, now)
            held.times += 1
            held.detail = detail  # the first may be of a queue that was full (MaxStartups)
        elif outcome == "refused":
            self._turned_away = None
        elif outcome == "open":
            self._turned_away = None
            self._climb(Proof.BANNER, now)
            self._climb(Proof.LOGIN, now)
            self._resets = self._idle_resets = 0

    def _take_qmp(self, name: str, detail: str, now: float) -> None:
        if name == "RESET" and "guest" in detail:
            self._resets += 1
            is_idle = self._written <= self._written_at_reset + _DISK_NOISE_BYTES
            self._idle_resets = self._idle_resets + 1 if is_idle else 1
            self._written_at_reset = self._written
            self._suspicion = self._turned_away = self._answered_at = None
            self._tries.clear()
            for proof in (Proof.FIRMWARE, Proof.KERNEL, Proof.BANNER):
                self._seen.pop(proof, None)
            self._go_on(now)
        elif name == "GUEST_PANICKED":
            self._suspicion = self._suspicion or _Suspicion(PANIC, "the guest said so itself (pvpanic)", now)

    def _go_on(self, now: float) -> None:
        """Take note that something happens."""
        self._progress_at = now
        self._repeats = 0


class Watched(Protocol):
    """What the watcher needs of a machine."""

    @property
    def pid(self) -> int:
        """Give QEMU's process id."""
        ...

    @property
    def accelerator(self) -> Accelerator:
        """Give what runs its instructions."""
        ...

    @property
    def is_typing(self) -> bool:
        """Tell whether keys are being typed into the guest."""
        ...

    @property
    def awaits(self) -> str:
        """Give what the guest has to do or say before more is typed; empty: nothing."""
        ...

    async def observe(self) -> None:
        """Put the disk's counters and what is new on the screen on the bus."""
        ...

    async def runs_kernel(self) -> bool:
        """Tell whether the processor is beyond firmware and boot loader."""
        ...

    async def is_fetching(self) -> bool:
        """Tell whether the guest holds a connection to the outside."""
        ...


async def watch_machine(machine: Watched, env: Env, ladder: Ladder) -> Never:
    """Watch until the guest is stuck, and raise that as StuckGuest. To be cancelled when the stage is done."""
    watch = _Watch(machine, env, ladder)
    with env.bus.listening(watch.take), contextlib.suppress(GuestGone):
        while True:
            await watch.step()
            await asyncio.sleep(_THINK_S)
    await asyncio.Event().wait()  # how QEMU ended is its supervisor's to say, who also ends this
    raise AssertionError("nobody sets it")


class _Watch:
    """One machine under observation: looked at now and then, thought about every second."""

    def __init__(self, machine: Watched, env: Env, ladder: Ladder) -> None:
        self._machine = machine
        self._env = env
        self._thinker = Diagnostician(env.clock.monotonic(), ladder, machine.accelerator)
        self._cpu = CpuMeter(Path(f"/proc/{machine.pid}"))
        self._load = Load(None)
        self._looks = 0
        self._next_look = env.clock.monotonic()
        self._told: set[Proof] = set()

    def take(self, stamped: Stamped) -> None:
        """Take an event of the bus."""
        self._thinker.feed(stamped.event, self._env.clock.monotonic())

    async def step(self) -> None:
        """Look if it is time, tell of new signs of life, and raise StuckGuest where there is a cause."""
        now = self._env.clock.monotonic()
        if now >= self._next_look:
            await self._look(now)
        if self._machine.is_typing:
            self._thinker.hold(now)
        for proof in self._thinker.seen:
            self._tell(proof)
        if found := self._thinker.diagnose(now, self._load):
            if awaits := self._machine.awaits:
                found.what += f"; its boot command waits at {awaits}"
            raise found

    async def _look(self, now: float) -> None:
        self._looks += 1
        self._next_look = now + (FIRST_LOOKS_S if self._looks < _QUICK_LOOKS else LOOK_S)
        await self._machine.observe()
        if Proof.KERNEL not in self._thinker.seen and await self._machine.runs_kernel():
            self._tell(Proof.KERNEL)
        # Where a guest is emulated, whatever it fetches keeps the processor busy.
        is_fetching = self._machine.accelerator is not Accelerator.TCG and await self._machine.is_fetching()
        self._load = Load(self._cpu.measure(now), is_fetching)

    def _tell(self, proof: Proof) -> None:
        """Put a sign of life on the bus, once; from there the thinker has it too."""
        if proof not in self._told:
            self._told.add(proof)
            self._env.emit(ProofOfLife(proof))
        elif proof not in self._thinker.seen:  # after a restart
            self._thinker.feed(ProofOfLife(proof), self._env.clock.monotonic())
