"""The kernel's command line: the menu's arguments and ours, quoted as the kernel reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.errors import MediaError
from osimager.plan.boot import make_command_line


@pytest.mark.parametrize(
    ("menu", "ours", "drop", "line"),
    [
        ("vga=788 --- quiet", ("auto=true", "url=http://h/x"), (), "vga=788 auto=true url=http://h/x --- quiet"),
        ("vga=788 --- quiet", ("a",), ("vga=.*", "quiet"), "a ---"),
        ("stage2=hd:LABEL=A rd.live.check quiet", ("ks=x",), (r"rd\.live\.check",), "stage2=hd:LABEL=A quiet ks=x"),
        ("", ("console=ttyS0",), (), "console=ttyS0"),
        ('"dyndbg=file a +p" quiet', ("b=c d",), ("quiet",), '"dyndbg=file a +p" b="c d"'),
        ("x -- single", ("y",), (), "x y -- single"),
        ("---", ("autoinstall", "ds=nocloud;s=/cdrom/"), (), "autoinstall ds=nocloud;s=/cdrom/ ---"),
    ],
)  # fmt: skip
def test_our_arguments_go_before_the_dashes(menu: str, ours: tuple[str, ...], drop: tuple[str, ...], line: str) -> None:
    assert make_command_line(menu, ours, drop) == line


@pytest.mark.parametrize("argument", ["", "a\nb", 'a"b', 'x y="z" "', 'a b="c d"'])
def test_an_argument_that_no_quoting_carries_is_refused(argument: str) -> None:
    with pytest.raises(MediaError, match="cannot be a kernel argument"):
        make_command_line("quiet", (argument,), ())


@given(st.text(), st.lists(st.from_regex(r"[a-z.]+=[^\x00-\x1f\"]*", fullmatch=True)))
def test_every_argument_of_ours_is_on_the_line_and_in_order(menu: str, ours: list[str]) -> None:
    line = make_command_line(menu, ours, ())
    assert "\n" not in line.replace(menu, "")
    at = 0
    for argument in ours:
        name = argument.partition("=")[0]
        at = line.index(name, at) + len(name)
