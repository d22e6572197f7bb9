"""Quoting, framing and line splitting, without a guest."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.plan.model import Access
from osimager.provision.remote import (
    MOST_LINE_BYTES,
    LineSplitter,
    interpreter_of,
    render_command,
    render_program,
)


def _split(*chunks: bytes) -> list[str]:
    lines: list[str] = []
    splitter = LineSplitter(lines.append)
    for chunk in chunks:
        splitter.feed(chunk)
    splitter.end()
    return lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a\nb", ["a", "b"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        (b"1%\r2%\r3%\nend", ["3%", "end"]),
        (b"half\rwhole", ["whole"]),
        (b"\xff\xc3\xa9\x00\tx\n", ["\ufffd\u00e9\ufffd\tx"]),
        (b"\x1b[1;32mok\x1b[0m\x1b]0;title\x07!\n", ["ok!"]),
        (b"x" * (MOST_LINE_BYTES + 1), ["x" * MOST_LINE_BYTES, "x"]),
    ],
)
def test_lines_are_clean(data: bytes, lines: list[str]) -> None:
    assert _split(data) == lines


@given(st.lists(st.text("ab\r\n", max_size=6)))
def test_chunks_do_not_matter(pieces: list[str]) -> None:
    chunks = [piece.encode() for piece in pieces]
    assert _split(*chunks) == _split(b"".join(chunks))


def test_endless_progress_takes_no_memory() -> None:
    splitter = LineSplitter(lambda _line: None)
    for number in range(1000):
        splitter.feed(f"{number}%\r".encode())
    assert len(splitter._rest) < 10


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo", ("sh",)),
        ("#!\necho", ("sh",)),
        ("#!/bin/bash\n", ("/bin/bash",)),
        ("#! /usr/bin/env -S a b\n", ("/usr/bin/env", "-S a b")),
    ],
)
def test_interpreter_is_read_as_the_kernel_does(script: str, words: tuple[str, ...]) -> None:
    assert interpreter_of(script) == words


@given(
    st.dictionaries(
        st.from_regex(r"OS_[A-Z]{1,5}", fullmatch=True), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    )
)
def test_environment_arrives_as_it_is(environment: dict[str, str]) -> None:
    program = render_program("env -0", environment, token="c0ffee", merge=True)
    done = subprocess.run(["sh", "-s"], input=program.encode(), capture_output=True, check=True)
    mark, _, output = done.stdout.partition(b"\n")
    assert mark == b"c0ffee"
    got = dict(item.split(b"=", 1) for item in output.split(b"\0") if item.startswith(b"OS_"))
    assert got == {name.encode(): value.encode() for name, value in environment.items()}


@pytest.mark.parametrize("cut", [10, 60, 200, -3])
def test_program_cut_off_on_its_way_does_nothing(tmp_path: Path, cut: int) -> None:
    program = render_program(f"touch {tmp_path}/done", {}, token="c0ffee", merge=False)
    subprocess.run(["sh", "-s"], input=program[:cut].encode(), capture_output=True, check=False)
    assert list(tmp_path.iterdir()) == []


def test_what_no_shell_can_hold_is_refused() -> None:
    for script, environment in (("a\0b", {}), ("", {"A": "\0"}), ("", {"A B": "c"})):
        with pytest.raises(ValueError, match="cannot"):
            render_program(script, environment, token="t", merge=False)


def test_root_needs_no_sudo() -> None:
    assert render_command(Access(user="root"), ("sh", "-c", "a b")) == "sh -c 'a b'"
    assert render_command(Access(user="x"), ("sh", "-s")) == "sudo -n -- sh -s"
    assert render_command(Access(user="x", become="doas"), ("sh", "-s")) == "doas -n sh -s"
