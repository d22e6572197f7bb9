"""Packer's boot command language, and how what it says is typed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.errors import ConfigError
from osimager.machine.keyboard import (
    Action,
    Console,
    Hold,
    Pause,
    Press,
    Wait,
    WaitKind,
    parse_keys,
    parse_lines,
    run_keys,
)
from osimager.machine.screen import Frame

ENTER = Press(("ret",))


@pytest.mark.parametrize(
    ("command", "actions"),
    [
        ("aZ1!", [Press(("a",)), Press(("shift", "z")), Press(("1",)), Press(("shift", "1"))]),
        ("<enter><RETURN>\n", [ENTER, ENTER, ENTER]),
        ("<f1><f12><esc>", [Press(("f1",)), Press(("f12",)), Press(("esc",))]),
        ("<wait><wait10>", [Pause(1), Pause(10)]),
        ("<wait1m30s><wait250ms>", [Pause(90), Pause(0.25)]),
        ("<leftCtrlOn>c<leftCtrlOff>", [Hold("ctrl", True), Press(("c",)), Hold("ctrl", False)]),
        ("<aOn><aOff>", [Hold("a", True), Hold("a", False)]),
        ("<leftCtrl+leftAlt+del>", [Press(("ctrl", "alt", "delete"))]),
        ("<leftAlt+x>", [Press(("alt", "x"))]),
        ("<right*3>", [Press(("right",))] * 3),
        ("<x*2>", [Press(("x",))] * 2),
        ("<waitStill><waitChange>", [Wait(WaitKind.STILL), Wait(WaitKind.CHANGE)]),
        ('<waitSerial "log in: \\"x\\"">', [Wait(WaitKind.SERIAL, 'log in: "x"')]),
        ("<spacebar><pageUp><leftSuper>", [Press(("spc",)), Press(("pgup",)), Press(("meta_l",))]),
        ("<right*1000>", [Press(("right",))] * 1000),
        ("a<b", [Press(("a",)), Press(("shift", "comma")), Press(("b",))]),
        ("", []),
    ],
)
def test_command_becomes_actions(command: str, actions: list[Action]) -> None:
    assert list(parse_keys(command)) == actions


@pytest.mark.parametrize(
    "command",
    [
        *("<entr>", "<waitt>", "<f13>", "é", "<wait5x>"),
        *(
            "<wait 5>",
            "<wait-5>",
            "<wait1.5>",
            "<waitSerial login:>",
            "<waitSerial 'x'>",
            '<waitSerial "">',
            "<waitSerialxyz>",
        ),
        *("<right*0>", "<right*1001>", "<right*>", "<right*x>", "<right * 3>", f"<x*{'9' * 5000}>"),
        "<leftCtrl+foo>",
    ],
)
def test_what_means_nothing_is_refused(command: str) -> None:
    with pytest.raises(ConfigError):
        parse_lines(command)


def test_what_begins_no_word_is_typed() -> None:
    for text in ("a < b > c", "<tag attribute=1>", "<<", "cat <a/b >c", "<enter", "<>"):
        assert len(parse_keys(text)) == len(text)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)).filter(lambda text: "<" not in text))
def test_every_printable_character_has_one_press(text: str) -> None:
    actions = parse_keys(text)
    assert len(actions) == len(text)
    assert all(isinstance(action, Press) for action in actions)


@given(st.text(alphabet='<>abwaitOnf1enter+*"5 ', max_size=40))
def test_parser_gives_actions_or_a_configuration_error(text: str) -> None:
    try:
        parse_keys(text)
    except ConfigError:
        return


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


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        ("ab<enter>c", ["ab<enter>", "c"]),
        ("a\nb<wait5><f10>", ["a\n", "b", "<wait5>", "<f10>"]),
        ("<enter*2>a", ["<enter*2>", "a"]),
        ("", []),
    ],
)
def test_lines_end_with_an_enter_or_before_a_wait(command: str, texts: list[str]) -> None:
    assert [line.text for line in parse_lines(command)] == texts


async def test_modifiers_go_down_first_and_up_last() -> None:
    guest = FakeGuest()
    await type_into(guest, "<leftCtrl+leftAlt+del>")
    assert guest.sent == [
        *(("ctrl", True), ("alt", True), ("delete", True)),
        *(("delete", False), ("alt", False), ("ctrl", False)),
    ]
