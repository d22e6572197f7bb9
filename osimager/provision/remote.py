"""What is sent to the guest's shell, as text: pure, so that quoting and framing can be tested without a guest.

A script never reaches argv: a fixed command (`sudo -n sh -s`) reads a program from its standard input, the program
puts the script into a file of root's, exports the environment, runs the file with an empty standard input and removes
it. The program is one brace group: cut off on its way it is a syntax error, and nothing of it runs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping

from osimager.plan.model import Access

# A line longer than this comes in pieces.
MOST_LINE_BYTES = 8192

_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_=>])")
_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), 127), "\N{REPLACEMENT CHARACTER}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

PUT = """set -eu
umask 077
[ ! -d "$1" ] || { echo "$1 is a folder" >&2; exit 21; }
case $1 in */*) mkdir -p -m 755 "${1%/*}/" ;; esac
trap 'rm -f "$1.$4"' EXIT
cat >"$1.$4"
[ "$(wc -c <"$1.$4")" -eq "$3" ]
chmod "$2" "$1.$4"
mv -f "$1.$4" "$1"
"""
GET = 'exec head -c "$2" <"$1"'


def render_command(access: Access, words: tuple[str, ...]) -> str:
    """Give the command line that runs `words` as root. SSH knows no argument lists, so it is quoted for a shell."""
    if access.user == "root":
        return shlex.join(words)
    end = ["--"] if access.become == "sudo" else []
    return shlex.join((access.become, "-n", *end, *words))


def render_program(
    script: str, environment: Mapping[str, str], *, token: str, merge: bool, settle: bool = False
) -> str:
    """Give the program that runs `script` under its own `#!` interpreter, else under sh.

    It prints `token` on a line before anything else: what comes before it is not the script's (sudo's refusal, say).
    `merge` sends standard error to standard output; `settle` ends with what was written being on the disk. Raises
    ValueError for what no shell can hold.
    """
    if "\0" in script or any("\0" in value for value in environment.values()):
        raise ValueError("a script and its environment cannot hold NUL characters")
    if bad := [name for name in environment if not _NAME.fullmatch(name)]:
        raise ValueError(f"{bad[0]!r} cannot be the name of an environment variable")
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    run = shlex.join(interpreter_of(script))
    body = script if script.endswith("\n") or not script else script + "\n"
    return f"""{{
echo {token}
{"exec 2>&1" if merge else ":"}
cd /
umask 077
f=/run/osimager-{token}
[ -d /run ] || f=/tmp/osimager-{token}
trap 'rm -f "$f"; exit 143' HUP TERM INT
set -C
cat >"$f" <<'{token}' || exit 126
{body}{token}
set +C
umask 022
{exports}{run} "$f" </dev/null
s=$?
rm -f "$f"
{"sync" if settle else ":"}
exit "$s"
}}
"""


def interpreter_of(script: str) -> tuple[str, ...]:
    """Give the words of a script's `#!` line as the kernel reads it (execve(2): one argument at most), else sh."""
    first = script.split("\n", 1)[0]
    if not first.startswith("#!") or not first[2:].strip():
        return ("sh",)
    return tuple(first[2:].strip().split(None, 1))


class LineSplitter:
    """Cut a stream of bytes into lines of clean text.

    A carriage return overwrites, as on a terminal: of a progress bar its last state is told. Invalid UTF-8 and control
    characters are replaced, escape sequences left out, lines over MOST_LINE_BYTES come in pieces.
    """

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take more of the stream; tell every line that is whole."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._tell(line)
        if b"\r" in rest:
            # Returns that end what we have may belong to a line end to come: the text before them is still needed.
            text = rest.rstrip(b"\r")
            rest = text.rsplit(b"\r", 1)[-1] + (b"\r" if len(text) < len(rest) else b"")
        while len(rest) > MOST_LINE_BYTES:
            self._tell(rest[:MOST_LINE_BYTES])
            rest = rest[MOST_LINE_BYTES:]
        self._rest = rest

    def end(self) -> None:
        """Tell the last line, where it had no end."""
        if self._rest:
            self._tell(self._rest)
            self._rest = b""

    def _tell(self, raw: bytes) -> None:
        line = raw.rstrip(b"\r").rsplit(b"\r", 1)[-1]
        for start in range(0, len(line) or 1, MOST_LINE_BYTES):
            piece = _ESCAPES.sub(b"", line[start : start + MOST_LINE_BYTES])
            self._on_line(piece.decode(errors="replace").translate(_CONTROLS))
