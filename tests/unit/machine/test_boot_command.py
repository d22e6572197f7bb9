"""Packer's boot command language, as actions and as lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.errors import ConfigError
from osimager.machine.boot_command import Action, Hold, Pause, Press, Wait, WaitKind, parse_keys, parse_lines

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
