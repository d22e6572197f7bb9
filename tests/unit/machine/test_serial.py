"""The console's log: lines, prompts, control sequences and secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.env import Env
from osimager.events import Event, OutputLine
from osimager.machine.serial import SerialLog, _plain


@pytest.fixture
def log(env: Env, tmp_path: Path) -> Iterator[SerialLog]:
    one = SerialLog(tmp_path / "serial.log", env)
    yield one
    one.close()


def lines(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, OutputLine)]


def test_bytes_in_pieces_are_whole_lines(log: SerialLog, events: list[Event]) -> None:
    for piece in (b"hel", b"lo\r", b"\nwor", b"ld\r\n", b"\r\n"):
        log.feed(piece)
    assert lines(events) == ["hello", "world"]


def test_open_line_is_in_the_tail(log: SerialLog, events: list[Event]) -> None:
    log.feed(b"one\ntwo\nlogin: ")
    assert log.tail(2) == "two\nlogin:"
    assert lines(events) == ["one", "two"]


async def test_prompt_is_given_after_a_moment_of_silence(log: SerialLog, env: Env) -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"login: ")
    reading = asyncio.create_task(log.read(stream))
    async with asyncio.timeout(30):
        event = await env.bus.wait_for(OutputLine)
        stream.feed_eof()
        await reading
    assert event.text == "login:"


def test_secret_in_two_pieces_is_masked_everywhere(
    log: SerialLog, env: Env, events: list[Event], tmp_path: Path
) -> None:
    env.masker.register("hunter2")
    log.feed(b"password hun")
    log.feed(b"ter2\r\n")
    assert lines(events) == ["password ********"]
    assert log.tail(1) == "password ********"
    assert "hunter2" not in (tmp_path / "serial.log").read_text()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x1b[2J\x1b[1;37mGNU GRUB\x1b[0m", "GNU GRUB"),
        (b"10%\r20%\r100%\r", "100%"),
        (b"\x1b(B\x1b)0text\x07", "text"),
        (b"\xff\xfe caf\xc3\xa9", "\ufffd\ufffd café"),
        (b"\x1b(0lqu\x1b[0m\x1b(B\x1b[30m [!!] quux \x1b(0tqk", "┌─┤ [!!] quux ├─┐"),
        (b"one\x1b[3Ctwo", "one   two"),
    ],
)
def test_line_reads_as_a_person_sees_it(raw: bytes, text: str) -> None:
    assert _plain(raw) == text


def test_dialog_that_is_drawn_row_by_row_is_read_row_by_row(log: SerialLog, events: list[Event]) -> None:
    """debian-installer's newt under GNU screen on a serial console, as QEMU 7.2 gave it; cut where bytes may come."""
    drawn = (
        b"\x1b[44m          \r\n        \x1b[24;79H \x08\x1b[2;1H\x1b[5;3H\x1b[0m\x1b(0\x1b[47mlqqu\x1b[0m\x1b(B"
        b"\x1b[30m\x1b[47m \x1b[31m[!!] Select a language\x1b[30m \x1b(0tqqk\x1b[6;3Hx\x1b[0m\x1b(B\x1b[47m Language:"
        b"    \x1b(0x\x1b[7;3Hx\x1b(B <Go Back>  \x1b[19;4H          \r\x1b[5B<Tab> moves"
    )
    for at in range(0, len(drawn), 7):
        log.feed(drawn[at : at + 7])
    log.feed(b"\x1b[2;1Hnext")
    log.flush()
    assert lines(events) == [
        "┌──┤ [!!] Select a language ├──┐",
        "│ Language:    │",
        "│ <Go Back>",
        "<Tab> moves",
        "next",
    ]


def test_line_that_is_edited_in_its_own_row_stays_one(log: SerialLog, events: list[Event]) -> None:
    """GRUB's shell on a serial console sends the cursor to its place after every key."""
    log.feed(b"\r\ngrub> \x1b[24;7Hl\x1b[24;8Hi\x1b[24;9Hnux\x1b[24;12H\r\n\x1b[24;1Hgrub> ")
    log.flush()
    assert lines(events) == ["grub> linux", "grub>"]


@given(st.binary(max_size=200))
def test_any_line_reads_without_control_characters(raw: bytes) -> None:
    assert not any(ord(character) < 32 and character != "\t" for character in _plain(raw.replace(b"\n", b"")))


def test_text_is_found_once_and_then_behind_it(log: SerialLog) -> None:
    log.feed(b"boot: one\nlogin: ")
    assert log.find("boot:")
    assert log.find("login:")
    log.feed(b"root\n")
    assert not log.find("boot:")


def test_secret_in_whose_middle_the_guest_stands_still_is_masked_everywhere(
    log: SerialLog, env: Env, events: list[Event], tmp_path: Path
) -> None:
    env.masker.register("hunter2hunter2")
    for piece in (b"grub> linux ks=hun", b"ter2hunt", b"er2 quiet\r\n", b"echo hunter2hu"):
        log.feed(piece)
        log.flush()
        assert "hun" not in log.tail(9)
    assert lines(events) == ["grub> linux ks=******** quiet"]
    log.close()
    assert lines(events)[1:] == ["echo ********"]
    assert "hun" not in (tmp_path / "serial.log").read_text()


def test_text_is_found_though_the_guest_stood_still_in_the_middle_of_it(log: SerialLog, events: list[Event]) -> None:
    log.feed(b"all ")
    log.flush()
    assert not log.find("all of it")
    log.feed(b"of")
    log.flush()
    log.feed(b" it\r\nnext\r\n")
    assert log.find("all of it")
    assert not log.find("all of it")
    assert log.find("next")
    assert lines(events) == ["all", "of", " it", "next"]


@pytest.mark.parametrize("is_flushed_first", [False, True])
def test_text_that_was_found_before_the_guest_stood_still_is_not_found_again(
    log: SerialLog, is_flushed_first: bool
) -> None:
    log.feed(b"login: ")
    if is_flushed_first:
        log.flush()
    assert log.find("login:")
    log.flush()
    log.feed(b"root\r\n")
    assert not log.find("login:")
    assert log.find("root")


def test_guest_that_never_ends_a_line_fills_no_memory(log: SerialLog, events: list[Event]) -> None:
    log.feed(b"x" * 10000)
    assert lines(events) == ["x" * 10000]
    assert log.tail(1000).count("\n") == 0
