"""The one place that starts a child process: argv lists only, with the parent's death tied to the child's.

A child goes down a ladder: TERM, KILL, waited for, drained. Who can ask it to end does so before that.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ctypes
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import finish, first_cause
from osimager.errors import OsimagerError, PrerequisiteError

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec nothing may allocate or import.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_LINE_END = re.compile(r"[\r\n]")
_MOST_FILES = 10_240  # macOS takes no more (OPEN_MAX)
# What a tool needs of our environment; the rest (tokens, proxies with passwords) stays here.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TERM",
    "USER",
    "LOGNAME",
    "XDG_RUNTIME_DIR",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "SSL_CERT_FILE",
)


@dataclass(frozen=True, slots=True)
class Completed:
    """How a tool ended, and what it said."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Its standard output as text."""
        return self.stdout.decode(errors="replace")


class ToolFailed(OsimagerError):
    """A tool exited with a status that its caller did not expect. Callers map it to their stage's error."""

    def __init__(self, done: Completed) -> None:
        tail = done.stderr.strip().splitlines()[-5:] or ["it said nothing on stderr"]
        super().__init__(f"{Path(done.argv[0]).name} exited with status {done.status}: {' / '.join(tail)}")
        self.done = done


def find_tool(name: str, *, package: str = "") -> Path:
    """Find a program on PATH. Raises PrerequisiteError that names the `package` to install."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        hint = f"install {package}" if package else "install it, or put it on PATH"
        raise PrerequisiteError(f"the program {name!r} is not on this host", hint=hint)
    return Path(found)


def allow_open_files() -> None:
    """Let this process and its children open as many files as the host allows, within reason: a build holds a few of
    each of its layers, and so does its QEMU.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def tool_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the environment of a child: the few variables that tools need, C.UTF-8 messages, and `extra`."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", **(extra or {})}


@contextlib.asynccontextmanager
async def open_child(
    argv: Sequence[str | Path],
    *,
    stdin: int | None = asyncio.subprocess.DEVNULL,
    stdout: int | None = asyncio.subprocess.DEVNULL,
    stderr: int | None = asyncio.subprocess.PIPE,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    term_s: float = 3.0,
    umask: int = -1,
    announce: int | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start `argv` in a session of its own and end it with the block, down the ladder: TERM, KILL.

    The child dies with this process (Linux: PR_SET_PDEATHSIG, prctl(2); it follows the *thread* that forked, which is
    the event loop's), and writes its process id as a line to the descriptor `announce` before it becomes the program.
    Raises PrerequisiteError where the program cannot be started.
    """
    words = [str(word) for word in argv]
    try:
        child = await asyncio.create_subprocess_exec(
            *words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            cwd=cwd,
            env=tool_environment(environment),
            start_new_session=True,
            preexec_fn=_before_exec(os.getpid(), announce),
            umask=umask,
            limit=1 << 20,
        )
    except OSError as exc:
        raise PrerequisiteError(
            f"cannot start {words[0]}: {exc.strerror}", hint="install it, or put it on PATH"
        ) from exc
    try:
        yield child
    finally:
        await finish(_end(child, term_s), term_s + 5, force=lambda: _signal(child, signal.SIGKILL))


async def run_tool(
    argv: Sequence[str | Path],
    *,
    deadline_s: float,
    input_data: bytes | None = None,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end and give what it said. `on_line` gets stderr's lines as they come, blank ones left out.

    Raises ToolFailed for an exit status but 0 (unless `check` is false), TimeoutError when `deadline_s` passes.
    """
    pipe = asyncio.subprocess.PIPE
    stdin = asyncio.subprocess.DEVNULL if input_data is None else pipe
    try:
        async with (
            asyncio.timeout(deadline_s),
            open_child(argv, stdin=stdin, stdout=pipe, pass_fds=pass_fds, cwd=cwd, environment=environment) as child,
            asyncio.TaskGroup() as group,
        ):
            assert child.stdout is not None
            assert child.stderr is not None
            if input_data is not None:
                group.create_task(_feed(child, input_data))
            out = group.create_task(child.stdout.read())
            err = group.create_task(_read_lines(child.stderr, on_line))
            status = await child.wait()
    except BaseExceptionGroup as group_error:
        raise first_cause(group_error) from group_error
    done = Completed(tuple(str(word) for word in argv), status, out.result(), err.result())
    if check and status != 0:
        raise ToolFailed(done)
    return done


async def run_foreground(argv: Sequence[str | Path]) -> int:
    """Run a program that talks to the user on this terminal, and give its exit status; a cancel ends it."""
    child = await asyncio.create_subprocess_exec(*(str(word) for word in argv))
    try:
        return await child.wait()
    finally:
        if child.returncode is None:
            _signal(child, signal.SIGTERM)
            await finish(child.wait(), 5, force=lambda: _signal(child, signal.SIGKILL))


async def _feed(child: asyncio.subprocess.Process, data: bytes) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        child.stdin.write(data)
        await child.stdin.drain()
    child.stdin.close()


async def _read_lines(stream: asyncio.StreamReader, on_line: Callable[[str], None] | None) -> str:
    """Read `stream` to its end; progress that is drawn with carriage returns gives a line each time too."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    parts = []
    rest = ""
    while chunk := await stream.read(1 << 16):
        text = decoder.decode(chunk)
        parts.append(text)
        if on_line is not None:
            *lines, rest = _LINE_END.split(rest + text)
            for line in filter(None, lines):
                on_line(line)
    if on_line is not None and rest:
        on_line(rest)
    return "".join(parts)


def _before_exec(parent: int, announce: int | None) -> Callable[[], None] | None:
    """Give what runs between fork and exec: ask for KILL at the parent's death, or have a watcher see to it.

    Whose parent is dead already leaves.
    """
    prctl, kill_signal = None if _LIBC is None else _LIBC.prctl, int(signal.SIGKILL)
    if prctl is None and announce is None:
        return None

    def prepare() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, kill_signal, 0, 0, 0)
        if announce is not None:
            os.write(announce, b"%d\n" % os.getpid())
        if os.getppid() != parent:
            os._exit(127)

    return prepare


async def _end(child: asyncio.subprocess.Process, term_s: float) -> None:
    """Take the child down the ladder. Its pipes are drained meanwhile: on Python 3.11 wait() waits for their ends."""
    async with asyncio.TaskGroup() as group:
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                group.create_task(_drain(stream))
        if child.returncode is None:
            _signal(child, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(term_s):
                    await child.wait()
        # Whatever the child started in its session goes with it, and only then are the pipes at their ends.
        _signal(child, signal.SIGKILL)
        await child.wait()


async def _drain(stream: asyncio.StreamReader) -> None:
    """Read what nobody read: a pipe that is not at its end keeps its transport open."""
    with contextlib.suppress(RuntimeError):  # somebody else reads it still, to its end
        while await stream.read(1 << 16):
            pass


def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to the child and to what it started: it leads a group of its own, which may outlive it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
