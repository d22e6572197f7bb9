"""How lines of keys are typed into guests that are slow, stall, or do not listen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext

import pytest

from osimager.machine.boot_command import parse_lines
from osimager.machine.keyboard import Console, run_keys
from osimager.machine.screen import Frame


class FakeGuest:
    """A guest's keyboard and screen: shows what it takes from the `deaf`-th line on."""

    def __init__(self, *, deaf: int = 0) -> None:
        self.sent: list[tuple[str, bool]] = []
        self.looks = 0
        self._deaf = deaf
        self._shown = 0

    def console(self) -> Console:
        return Console(
            send=self.send,
            look=self.look,
            wait_serial=self.wait_serial,
            is_taken=self.is_taken,
            covered=nullcontext,
            waiting=lambda _text: nullcontext(),
        )

    async def is_taken(self) -> bool:
        return True  # nobody knows

    async def send(self, keys: Sequence[tuple[str, bool]]) -> None:
        self.sent += keys
        self._shown += sum(key == "ret" and down for key, down in keys)

    async def look(self) -> Frame:
        self.looks += 1
        return Frame(80, 16, tuple([max(0, self._shown - self._deaf)] * 10))

    async def wait_serial(self, text: str) -> None:
        raise AssertionError(text)

    def lines(self) -> int:
        return self.sent.count(("ret", True))


class SlowGuest(FakeGuest):
    """A keyboard that holds 16 bytes, and a guest that takes a key from it every third look; it has a cursor."""

    CELLS, HOLDS_BYTES = 100, 16

    def __init__(self) -> None:
        super().__init__()
        self.shown = ""
        self._queue: list[tuple[str, int]] = []
        self._shift = False

    async def send(self, keys: Sequence[tuple[str, bool]]) -> None:
        for key, down in keys:
            size = 1 if down else 2
            if sum(size for _, size in self._queue) + size > self.HOLDS_BYTES:
                continue
            self._queue.append((f"{'+' if down else '-'}{key}", size))

    async def look(self) -> Frame:
        self.looks += 1
        while self._queue and self.looks % 3 == 0:
            (event, key), _ = (self._queue[0][0][0], self._queue[0][0][1:]), self._queue.pop(0)
            if key == "shift":
                self._shift = event == "+"
            elif event == "+":
                self.shown += key.upper() if self._shift else {"spc": " "}.get(key, key)
                break
        cells = [ord(character) if character != " " else 0 for character in self.shown] + [1]
        return Frame(8 * self.CELLS, 16, tuple(cells + [0] * (self.CELLS - len(cells))))

    async def wait_serial(self, text: str) -> None:
        raise AssertionError(text)


class StallingGuest(SlowGuest):
    """A PC that draws everything anew after each tenth key, stands still then for a while, and can be asked."""

    STILL_LOOKS = 12

    def __init__(self) -> None:
        super().__init__()
        self._still = 0
        self._frame = Frame(0, 0, ())

    async def look(self) -> Frame:
        drawn = len(self.shown) // 10
        if self._still:
            self._still -= 1
            frame = self._frame
        else:
            frame = self._frame = await super().look()
            if len(self.shown) // 10 != drawn:
                self._still = self.STILL_LOOKS
        moved = 1000 * (len(self.shown) // 10)  # no cell is what it was
        return dataclasses.replace(frame, cells=tuple(cell + moved for cell in frame.cells))

    async def is_taken(self) -> bool:
        await self.look()  # its time goes on
        return not self._queue


class DeadGuest(FakeGuest):
    """It never reads its keyboard."""

    async def is_taken(self) -> bool:
        return not self.sent


async def type_into(guest: FakeGuest, command: str, *, secret: str = "?") -> int:
    return await run_keys(parse_lines(command), guest.console(), is_secret=lambda text: secret in text)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osimager.machine.keyboard.KEY_S", 0.0)
    monkeypatch.setattr("osimager.machine.keyboard._ECHO_S", 0.05)


async def test_line_that_shows_is_typed_once() -> None:
    guest = FakeGuest()
    assert await type_into(guest, "ab<enter>cd<enter>") == 0
    assert guest.lines() == 2


async def test_line_that_was_lost_is_typed_again() -> None:
    guest = FakeGuest(deaf=1)
    assert await type_into(guest, "ab<enter>") == 0
    assert guest.lines() == 2


async def test_slow_guest_loses_no_key_of_its_queue() -> None:
    guest = SlowGuest()
    text = "aBcDEFGHiJKLmnopQRSTUVWxyzABCd eabc def gh ijkl mnop"
    assert await type_into(guest, text) == 0
    for _ in range(10):  # what is left in the queue at the end
        await guest.look()
    assert guest.shown == text


async def test_guest_that_stalls_while_it_draws_loses_no_key() -> None:
    """GRUB, where a line is wrapped: the screen is drawn anew and stands still while keys wait in the queue."""
    guest = StallingGuest()
    text = "ABcdefgHIJklmnopqrstUVWxyz abcDEFghijk lmnopqrstuvwxyz"
    assert await type_into(guest, text) == 0
    while not await guest.is_taken():
        pass
    assert guest.shown == text


async def test_guest_that_never_reads_its_keyboard_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osimager.machine.keyboard._STALLED_S", 0.05)
    guest = DeadGuest(deaf=99)
    assert await type_into(guest, "ab<enter>cd<enter>") == 2
    assert guest.lines() == 3  # the first line was given up before its Enter, the second tried


async def test_line_that_never_shows_is_counted() -> None:
    guest = FakeGuest(deaf=99)
    assert await type_into(guest, "ab<enter>") == 1


async def test_secret_is_typed_once_and_the_screen_not_looked_at() -> None:
    guest = FakeGuest(deaf=99)
    assert await type_into(guest, "ab<enter>", secret="ab") == 0
    assert guest.lines() == 1
    assert guest.looks == 0


async def test_only_the_line_with_the_secret_is_typed_blindly() -> None:
    guest = FakeGuest(deaf=1)
    assert await type_into(guest, "root<enter>ab<enter>", secret="ab") == 0
    assert guest.lines() == 3


async def test_modifiers_go_down_first_and_up_last() -> None:
    guest = FakeGuest()
    await type_into(guest, "<leftCtrl+leftAlt+del>")
    assert guest.sent == [
        *(("ctrl", True), ("alt", True), ("delete", True)),
        *(("delete", False), ("alt", False), ("ctrl", False)),
    ]
