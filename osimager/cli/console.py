"""`osimager console BUILD`: a running guest's serial console on this terminal, or the way to its screen."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from osimager.cli.options import build_argument
from osimager.errors import UsageError

if TYPE_CHECKING:
    from osimager.build.records import BuildRecord
    from osimager.paths import Places

ESCAPE = b"\x1d"  # Ctrl-], as telnet and virsh have it
_LOOK_S = 0.2


@click.command()
@build_argument
@click.option("--vnc", is_flag=True, help="Print the socket of the guest's screen, and how to view it.")
def command(build: str, vnc: bool) -> None:
    """Attach to the serial console of a running build's guest. Ctrl-] leaves it, and the build goes on."""
    from osimager.build.records import find_record
    from osimager.paths import Places

    places = Places.from_environment(os.environ)
    record = find_record(build, places, running=True)
    if vnc:
        _show_vnc(record, places)
    else:
        _attach(record, places)


def _show_vnc(record: BuildRecord, places: Places) -> None:
    from osimager.build.workspace import find_socket

    path = find_socket(places, record.build, "vnc")
    if not path.is_socket():
        raise _no_screen(record)
    click.echo(str(path))
    click.echo(f"view it with TigerVNC: vncviewer {path}", err=True)


def _no_screen(record: BuildRecord) -> UsageError:
    """Say why there is no socket: none was asked for, or no guest is up."""
    from osimager.cli.build import command as build_command

    said = build_command.make_context("build", list(record.words), resilient_parsing=True).params
    if said.get("display") == "vnc":
        hint = f"try again from INSTALL on; osimager logs -f {record.build} shows when that is"
        return UsageError(f"no guest of {record.build} is up: {record.stage or 'nothing'} runs", hint=hint)
    hint = "start it with --display vnc; its serial console: osimager console without --vnc"
    return UsageError(f"the guest of {record.build} has no VNC server", hint=hint)


def _attach(record: BuildRecord, places: Places) -> None:
    """Be the console of one guest after the other until the build ends, or the user leaves."""
    from osimager.build.workspace import find_socket, find_workspace, is_held

    path, workspace = find_socket(places, record.build, "console"), find_workspace(places, record.build)
    click.echo(f"the serial console of {record.build}; Ctrl-] leaves it", err=True)
    with _raw_terminal():
        while is_held(workspace):
            guest = _connect(path)
            if guest is None:
                time.sleep(_LOOK_S)
                continue
            with guest:
                if _talk(guest, sys.stdin.buffer.fileno(), _write):
                    break
    click.echo("left the console", err=True)


def _connect(path: Path) -> socket.socket | None:
    """Connect to the runner's fan-out; None while no guest is up."""
    guest = socket.socket(socket.AF_UNIX)
    try:
        guest.connect(str(path))
    except OSError:
        guest.close()
        return None
    return guest


def _talk(guest: socket.socket, keys: int, write: Callable[[bytes], None]) -> bool:
    """Pass bytes both ways until the guest's end (false) or the escape (true)."""
    with selectors.DefaultSelector() as ready:
        ready.register(guest, selectors.EVENT_READ)
        with contextlib.suppress(PermissionError):  # epoll takes no regular file
            ready.register(keys, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is guest:
                    try:
                        data = guest.recv(65536)
                    except ConnectionResetError:
                        data = b""
                    if not data:
                        return False
                    write(data)
                    continue
                typed = os.read(keys, 4096)
                before, escape, _ = typed.partition(ESCAPE)
                with contextlib.suppress(BrokenPipeError):
                    guest.sendall(before)
                if escape:
                    return True
                if not typed:  # no terminal: the input has ended, the guest's words have not
                    ready.unregister(keys)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Hand over every key as it is typed while the block runs, where there is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
