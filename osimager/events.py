"""What happens during a build, as typed events on one bus.

Emitting is synchronous and never fails: sinks (terminal, JSON lines, the build's log, `machine/watch`) get the event in
order. Every text passes the masker here, so no sink can leak. An event's JSON form is `{v, time, build, stage, state,
kind, …}` (docs/contracts.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from osimager.redact import Masker
from osimager.units import format_time

SCHEMA_VERSION = 1


class Stage(StrEnum):
    """The stages of a build, in their order."""

    RESOLVE = "RESOLVE"
    FETCH = "FETCH"
    SEED = "SEED"
    INSTALL = "INSTALL"
    START = "START"
    CONNECT = "CONNECT"
    PROVISION = "PROVISION"
    SEAL = "SEAL"
    STOP = "STOP"
    CONVERT = "CONVERT"
    VERIFY = "VERIFY"
    PUBLISH = "PUBLISH"


class State(StrEnum):
    """What has become of a stage. SKIPPED: its layer was found, or it was not asked for."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Event:
    """Anything that happened. The `kind` in JSON is the class's name in snake case."""


@dataclass(frozen=True, slots=True)
class StageChanged(Event):
    """A stage entered `to`; `detail` says why where there is a reason (a layer's digest, an error)."""

    of: Stage
    to: State
    detail: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something a person should read once; `level` is `info` or `warning`."""

    text: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Awaiting(Event):
    """The runner now waits for `what`, for at most `deadline_s` seconds from this event's time.

    In the last good build of the same plan it took `expected_s`, and from here to the end `left_s`.
    """

    what: str
    deadline_s: float
    expected_s: float | None = None
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """`done` of `total` bytes (0: unknown) of a download, a copy or a conversion."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class OutputLine(Event):
    """One line of text from `source`: a step's name, `serial`, `qemu`, or a tool's name."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class AnswerFetched(Event):
    """The guest fetched the answer called `name`; `whole` is false where it went away before the end."""

    name: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class AnswerRefused(Event):
    """Something asked the answer server for a path that it does not serve."""

    path: str


@dataclass(frozen=True, slots=True)
class MachineStarted(Event):
    """A QEMU process runs; `argv` is what it was started with, secrets never among it."""

    role: str
    pid: int
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MachineEnded(Event):
    """The QEMU process is gone; `reason` is `guest-reset`, `guest-shutdown`, `asked`, `died`, …"""

    role: str
    returncode: int
    reason: str


@dataclass(frozen=True, slots=True)
class QmpEvent(Event):
    """An event of QEMU's (qapi/run-state.json and others): RESET, SHUTDOWN, GUEST_PANICKED, BLOCK_IO_ERROR …"""

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DiskActivity(Event):
    """Bytes that the guest has read and written since it started, by QEMU's block counters; `medium_bytes` of those
    read are from its CDs."""

    read_bytes: int
    written_bytes: int
    medium_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ScreenChanged(Event):
    """The guest's screen shows something new in `cells` of its cells; `path` is the PNG that was kept, if any.

    `is_text`: it is a text screen, and what is new there comes as lines, too.
    """

    digest: str
    path: str = ""
    cells: int = 0
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class ProofOfLife(Event):
    """The guest has climbed a rung of its ladder: `firmware`, `kernel`, `answer`, `disk`, `banner`, `login`."""

    of: str


@dataclass(frozen=True, slots=True)
class ConnectionTried(Event):
    """One attempt at SSH; `outcome`: how far it came (`refused`, `no-banner`, `broken-off`, `key-refused`, `open`)."""

    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    """A provisioning step begins: number `index` of `total`, counted from 1."""

    name: str
    index: int
    total: int


@dataclass(frozen=True, slots=True)
class StepEnded(Event):
    """A provisioning step ended with the exit status `status`."""

    name: str
    status: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ImagePublished(Event):
    """The last event of a good build."""

    image: str
    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BuildFailed(Event):
    """The last event of a build that did not make it. `cause` is its name in a word, where it has one; `seen` is the
    end of the guest's console, where there was a guest."""

    error: str
    status: int
    hint: str = ""
    evidence: str = ""
    cause: str = ""
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event with its time (UTC), build and the stage it fell into."""

    time: datetime
    build: str
    stage: Stage | None
    state: State | None
    event: Event

    def to_json(self) -> dict[str, object]:
        """Give the event as `docs/contracts.md` defines it, ready for `json.dumps`."""
        return {
            "v": SCHEMA_VERSION,
            "time": format_time(self.time),
            "build": self.build,
            "stage": self.stage,
            "state": self.state,
            "kind": kind_of(self.event),
            **dataclasses.asdict(self.event),
        }


def kind_of(event: Event) -> str:
    """Give an event's kind: `StageChanged` → `stage_changed`."""
    return _kind(type(event))


def _kind(kind: type[Event]) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).lstrip("_")


def parse_stamped(data: Mapping[str, Any]) -> Stamped:
    """Read an event's JSON form. Raises ValueError, KeyError or TypeError for what is none, or is of a newer kind."""
    kind = {_kind(each): each for each in Event.__subclasses__()}[data["kind"]]
    fields = {field.name: data[field.name] for field in dataclasses.fields(kind) if field.name in data}
    if kind is StageChanged:
        fields |= {"of": Stage(fields["of"]), "to": State(fields["to"])}
    if kind is MachineStarted:
        fields["argv"] = tuple(fields["argv"])
    stage, state = data["stage"], data["state"]
    return Stamped(
        datetime.fromisoformat(data["time"]),
        str(data["build"]),
        Stage(stage) if stage else None,
        State(state) if state else None,
        kind(**fields),
    )


Sink = Callable[[Stamped], None]
E = TypeVar("E", bound=Event)


class Bus:
    """One build's stream of events. Owned by the runner; handed to workers through `Env`."""

    def __init__(self, *, now: Callable[[], datetime], masker: Masker, build: str = "") -> None:
        self._now = now
        self._masker = masker
        self._sinks: list[Sink] = []
        self.build = build
        self.stage: Stage | None = None
        self.state: State | None = None

    def emit(self, event: Event) -> None:
        """Give `event`, masked and stamped, to every sink in order. A sink that raises is left out from then on."""
        if isinstance(event, StageChanged):
            self.stage, self.state = event.of, event.to
        stamped = Stamped(self._now(), self.build, self.stage, self.state, _masked(event, self._masker))
        failures = []
        for sink in tuple(self._sinks):
            try:
                sink(stamped)
            except Exception as exc:  # a full disk under a log must not end the build that it tells of
                self._sinks.remove(sink)
                failures.append(exc)
        for failure in failures:
            self.emit(Notice(f"a reader of the build's events failed and is left out: {failure!r}", "warning"))

    @contextlib.contextmanager
    def listening(self, sink: Sink) -> Iterator[None]:
        """Call `sink` for every event while the block runs."""
        self._sinks.append(sink)
        try:
            yield
        finally:
            if sink in self._sinks:
                self._sinks.remove(sink)

    async def wait_for(self, kind: type[E], matches: Callable[[E], bool] = lambda _event: True) -> E:
        """Wait for the next event of class `kind` that `matches`. The deadline is the caller's."""
        found: asyncio.Future[E] = asyncio.get_running_loop().create_future()

        def look(stamped: Stamped) -> None:
            try:
                if isinstance(stamped.event, kind) and not found.done() and matches(stamped.event):
                    found.set_result(stamped.event)
            except Exception as exc:  # the waiter's own mistake, and not the bus's
                found.set_exception(exc)

        with self.listening(look):
            return await found


def _masked(event: E, masker: Masker) -> E:
    """Give `event` with every text in it masked."""
    changes: dict[str, object] = {}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if type(value) is str:
            clean: object = masker.mask(value)
        elif isinstance(value, tuple):
            clean = tuple(masker.mask(item) if isinstance(item, str) else item for item in value)
        else:
            continue
        if clean != value:
            changes[field.name] = clean
    return dataclasses.replace(event, **changes) if changes else event
