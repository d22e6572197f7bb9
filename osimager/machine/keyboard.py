"""A boot command's actions, typed over QMP so that a slow guest loses no key.

Keys are typed in lines: what lies between two Enters or waits. Nothing of what is typed is ever told to anybody.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from enum import Enum

from osimager.aio import poll
from osimager.machine.boot_command import ECHOED, Action, Hold, Line, Pause, Press, Wait, WaitKind
from osimager.machine.screen import Frame, Look, count_changed, wait_change, wait_still

KEY_S = 0.02
_ECHO_S = 3.0
_TRIES = 3
_SLOWER = 4
_QUEUE_BYTES, _DOWN_BYTES, _UP_BYTES = 16, 1, 2  # of a PS/2 or USB keyboard (hw/input/ps2.c)
_CURSOR_CELLS = 2  # where a cursor was, and where it is
_STALLED_S = 30.0
_SILENT_HANDFULS = 2
_REACTION_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What typing needs of a machine: keys down (true) and up, a look at the screen, a wait for a text on serial.

    `is_taken` tells whether the guest has taken all that was typed from its keyboard; true where nobody knows. What is
    typed while `covered` is open, nobody is shown. `waiting` is told what is waited for, as the command says it.
    """

    send: Callable[[Sequence[tuple[str, bool]]], Awaitable[None]]
    look: Look
    wait_serial: Callable[[str], Awaitable[None]]
    is_taken: Callable[[], Awaitable[bool]]
    covered: Callable[[], AbstractAsyncContextManager[None]]
    waiting: Callable[[str], AbstractContextManager[None]]


class _NotTaken(Exception):
    """The guest does not read its keyboard."""


async def run_keys(lines: Iterable[Line], console: Console, *, is_secret: Callable[[str], bool]) -> int:
    """Type `lines`; give how many were never seen to change the screen.

    A line is typed again, more slowly, where the screen stayed as it was. One that holds a secret is typed once and
    slowly: nothing may be echoed of it, and a password that is typed twice is a wrong one.
    """
    unseen = 0
    for line in lines:
        try:
            match line.actions:
                case [Pause(seconds)]:
                    await asyncio.sleep(seconds)
                case [Wait() as wait]:
                    with console.waiting(line.text):
                        await _run_wait(wait, console)
                case keys if is_secret(line.text):
                    await _type_covered(keys, console)
                case keys:
                    unseen += not await _type_until_seen(keys, console)
        except _NotTaken:
            unseen += 1
            console = dataclasses.replace(console, is_taken=_assume_taken)
    return unseen


async def _type_covered(line: Sequence[Action], console: Console) -> None:
    """Type a line that holds a secret; its Enter when it is on the screen, and what to cover there is known."""
    at = len(line) - (line[-1] == Press(("ret",)))
    async with console.covered():
        await _type(line[:at], console, KEY_S * _SLOWER)
    await _type(line[at:], console, KEY_S * _SLOWER)


async def _assume_taken() -> bool:
    return True


async def _run_wait(wait: Wait, console: Console) -> None:
    match wait.kind:
        case WaitKind.STILL:
            await wait_still(console.look)
        case WaitKind.CHANGE:
            await wait_change(console.look, await console.look())
        case WaitKind.SERIAL:
            await console.wait_serial(wait.text)


async def _type_until_seen(line: Sequence[Action], console: Console) -> bool:
    """Type a line until the screen shows it. A single key is typed once: it may well change nothing."""
    key_s = KEY_S
    if sum(isinstance(action, Press) for action in line) <= 1:
        await _type(line, console, key_s)
        return True
    for _ in range(_TRIES):
        before = await console.look()
        await _type_echoed(line, console, key_s)
        try:
            async with asyncio.timeout(_ECHO_S):
                await wait_change(console.look, before)
        except TimeoutError:
            key_s *= _SLOWER
        else:
            return True
    return False


_SPACE = Press(("spc",))


class _Echo(Enum):
    """What the screen shows of keys: nothing in time; them, where they were typed; or more than them."""

    NONE = "none"
    IN_PLACE = "in place"
    REDRAWN = "redrawn"


async def _type_echoed(line: Sequence[Action], console: Console, key_s: float) -> None:
    """Type a few keys at a time, and wait for their echo: what a busy guest has not taken from its keyboard is lost.

    A PC's keyboard can be asked what waits there (`_type` does); of others the echo alone tells.

    Where nothing is echoed at all, the rest is typed slowly; where something was, a guest that stalls is waited for
    (GRUB's editor was seen to, for six seconds). The echo is counted from the line's beginning, or from where it was
    last drawn anew: counted by the handful, a key that is late each time would be one more each time.
    """
    silent, heard = 0, False
    since, cells = await console.look(), 0
    for keys in _handfuls(line):
        if silent >= _SILENT_HANDFULS and not heard:
            await _type(keys, console, key_s * _SLOWER)
            continue
        if isinstance(keys[0], Pause):
            await asyncio.sleep(keys[0].seconds)
            continue
        if all(action == _SPACE for action in keys):  # leaves no mark: its place in the queue is counted with the next
            await _type(keys, console, key_s / 4)
            continue
        text = sum(map(_is_echoed, keys))
        if not text:
            since, cells = await console.look(), 0
        await _type(keys, console, key_s / 4)  # its queue keeps them apart
        cells += text
        most_s = (_STALLED_S if heard else _ECHO_S) if text else _REACTION_S
        echo = await _wait_echo(console, since, max(1, cells), most_s)
        if echo is not _Echo.IN_PLACE:
            since, cells = await console.look(), 0
        heard = heard or (echo is not _Echo.NONE and text > 0)
        silent = silent + (text > 0) if echo is _Echo.NONE else 0


async def _wait_echo(console: Console, before: Frame, cells: int, most_s: float) -> _Echo:
    """Wait for `cells` cells to change. Where more have (a line is wrapped, a menu drawn anew), wait for its end."""
    seen = before

    async def attempt() -> _Echo | None:
        nonlocal seen
        last, seen = seen, await console.look()
        changed = count_changed(before, seen)
        if changed <= cells + _CURSOR_CELLS:
            return _Echo.IN_PLACE if changed >= cells else None
        return _Echo.REDRAWN if count_changed(last, seen) == 0 else None

    try:
        async with asyncio.timeout(most_s):
            return await poll(attempt, first_s=KEY_S / 2, most_s=KEY_S * 5)
    except TimeoutError:
        return _Echo.NONE


def _handfuls(line: Iterable[Action]) -> Iterator[list[Action]]:
    """Split keys so that each part fits into a keyboard's queue, beside what may be left there of the part before.

    An Enter waits for all that goes before it, and what does not fit beside the rest for a moment.
    """
    part: list[Action] = []
    typed: list[Action] = []
    room = _QUEUE_BYTES
    for action in line:
        ends = isinstance(action, Press) and action.keys[-1] == "ret"
        if part and (ends or _size([*part, action]) > room):
            yield part
            typed += part
            room = _QUEUE_BYTES - _size_left(typed)
            part = []
            if _size([action]) > room:
                yield [Pause(KEY_S * _SLOWER)]
        part.append(action)
    if part:
        yield part


def _size_left(typed: Sequence[Action]) -> int:
    """Give the bytes of what was typed that may not have been taken when its echo is seen.

    A cursor that moves looks like the echo of one key more: the last that shows, what follows it, and the one before it
    may not have come up.
    """
    last = max((at for at, action in enumerate(typed) if _is_echoed(action)), default=0)
    return _size(typed[last:]) + _size(typed[:last][-1:]) * _UP_BYTES // (_DOWN_BYTES + _UP_BYTES)


def _size(part: Iterable[Action]) -> int:
    return sum((len(action.keys) if isinstance(action, Press) else 1) * (_DOWN_BYTES + _UP_BYTES) for action in part)


async def _wait_taken(console: Console) -> None:
    """Wait while a guest stalls. Raises _NotTaken."""

    async def attempt() -> bool | None:
        return await console.is_taken() or None

    try:
        async with asyncio.timeout(_STALLED_S):
            await poll(attempt, first_s=KEY_S / 4, most_s=KEY_S * 5)
    except TimeoutError as exc:
        raise _NotTaken from exc


def _is_echoed(action: Action) -> bool:
    return isinstance(action, Press) and action.keys[-1] in ECHOED


async def _type(line: Iterable[Action], console: Console, key_s: float) -> None:
    """Send each key down and up, half of `key_s` each. What a keyboard cannot hold it forgets, so it is to be empty."""
    room = 0
    for action in line:
        if _size([action]) > room:
            await _wait_taken(console)
            room = _QUEUE_BYTES
        room -= _size([action])
        match action:
            case Press(keys):
                await console.send([(key, True) for key in keys])
                await asyncio.sleep(key_s / 2)
                await console.send([(key, False) for key in reversed(keys)])
            case Hold(key, down):
                await console.send([(key, down)])
            case _:
                continue
        await asyncio.sleep(key_s / 2)
