"""The way into a running guest over SSH, with this build's key. The only import site of paramiko.

paramiko blocks, so it runs in threads; a cancel shuts its socket down, which ends whatever waits on it. It is imported
when first used: it costs 0.2 s.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import importlib
import io
import logging
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from osimager.aio import finish, in_thread
from osimager.env import Env
from osimager.errors import MachineError, ProvisionError
from osimager.events import ConnectionTried, OutputLine, QmpEvent, Stamped
from osimager.plan.model import Access
from osimager.ports import Endpoint
from osimager.provision.banner import Nudge, wait_banner
from osimager.provision.keys import BuildKey
from osimager.provision.remote import GET, PUT, LineSplitter, render_command, render_program
from osimager.units import format_duration

if TYPE_CHECKING:
    import paramiko

T = TypeVar("T")

# Under TCG a key exchange takes seconds; the stage's deadline is the real limit.
HANDSHAKE_S = 60.0
# Pauses after a login that was refused. OpenSSH 9.8's PerSourcePenalties shuts out for longer who fails three times
# in 15 s, so only the first retries are quick (a refusal while the guest still starts: pam_nologin, cloud-init).
REFUSED_PAUSES_S = (0.3, 0.6, 5.0)
MOST_OUTPUT_BYTES = 16 << 20
_SHELL = ("sh", "-s")
_ENDED_BY_SIGNAL = (-1, 129, 137, 143)

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else it prints its tracebacks on stderr


class ConnectionLost(ProvisionError):
    """The guest went away, or sshd did, while something ran there."""


@contextlib.asynccontextmanager
async def open_ssh(
    endpoint: Endpoint,
    access: Access,
    key: BuildKey,
    env: Env,
    *,
    sock: socket.socket | None = None,
) -> AsyncIterator[SshCommunicator]:
    """Try until the guest accepts `key`, then give the way in. The deadline is the caller's.

    `sock` is a first connection, of `wait_banner`'s: it is taken over.

    Whatever answers and refuses the key (a live installer's own sshd) is only another try. The host key is accepted as
    it is: `SshCommunicator.host_key`, for programs on this host that connect too.
    """
    transport = await _log_in_at_last(endpoint, access, key, env, first=sock)
    try:
        yield SshCommunicator(transport, access, env)
    finally:
        await finish(in_thread(functools.partial(_close, transport)), 5.0)


def load_ssh() -> None:
    """Import paramiko, blocking, for a thread: a tenth of a second, while a guest starts anyway.

    It does without `invoke`, 6 MB that only `Match exec` of an OpenSSH configuration asks for.
    """
    is_there = "invoke" in sys.modules
    if not is_there:
        sys.modules["invoke"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        importlib.import_module("paramiko")
    finally:
        if not is_there:
            del sys.modules["invoke"]


async def has_login(endpoint: Endpoint, user: str, credential: BuildKey | str) -> bool:
    """Tell whether sshd lets `user` in with a key or a password. Raises MachineError where it does not answer."""
    sock = await wait_banner(endpoint, lambda _tried: None, Nudge())  # slowly: the guest may still be starting
    try:
        transport = await in_thread(
            functools.partial(_log_in, sock, user, credential), on_cancel=functools.partial(_shut, sock)
        )
    except _Refused:
        return False
    except _HandshakeFailed as exc:
        raise MachineError(f"the guest's sshd does not talk: {exc}") from exc
    await finish(in_thread(functools.partial(_close, transport)), 5.0)
    return True


async def _log_in_at_last(
    endpoint: Endpoint, access: Access, key: BuildKey, env: Env, *, first: socket.socket | None
) -> paramiko.Transport:
    nudge = Nudge()

    def look(stamped: Stamped) -> None:
        match stamped.event:
            case QmpEvent("NIC_RX_FILTER_CHANGED"):  # the guest has set its network card up (qapi/net.json)
                nudge.give()
            case OutputLine("serial", text) if "login:" in text:
                nudge.give()

    refusals, clock = 0, asyncio.get_running_loop().time
    while True:
        sock, first = first, None
        if sock is None:
            with env.bus.listening(look):
                sock = await wait_banner(endpoint, env.emit, nudge)
        began = clock()
        try:
            transport = await in_thread(
                functools.partial(_log_in, sock, access.user, access.password or key),
                on_cancel=functools.partial(_shut, sock),
            )
        except _Refused as exc:
            env.emit(ConnectionTried("key-refused", str(exc)))
            pause_s = REFUSED_PAUSES_S[min(refusals, len(REFUSED_PAUSES_S) - 1)]
            refusals += 1
        except _HandshakeFailed as exc:
            is_slow = clock() - began >= HANDSHAKE_S
            env.emit(ConnectionTried("no-banner" if is_slow else "broken-off", str(exc)))
            pause_s = REFUSED_PAUSES_S[0]
        else:
            env.emit(ConnectionTried("open", f"{access.user}@{endpoint.host}:{endpoint.port}"))
            return transport
        nudge.give()
        await asyncio.sleep(pause_s)


class _Refused(Exception):
    """Sshd talked, and did not let us in."""


class _HandshakeFailed(Exception):
    """The peer went away, or is no SSH server."""


def _log_in(sock: socket.socket, user: str, credential: BuildKey | str) -> paramiko.Transport:
    """Shake hands and log in, blocking; close the socket unless that went well. For a thread."""
    import paramiko

    transport = paramiko.Transport(sock)
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = HANDSHAKE_S
    done = False
    try:
        transport.start_client(timeout=HANDSHAKE_S)
        if isinstance(credential, BuildKey):
            left = transport.auth_publickey(user, paramiko.Ed25519Key.from_private_key(io.StringIO(credential.private)))
        else:
            left = transport.auth_password(user, credential, fallback=True)
        done = transport.is_authenticated()
        if not done:
            raise _Refused(f"more is asked for: {', '.join(left)}")
    except paramiko.AuthenticationException as exc:
        raise _Refused(str(exc)) from exc
    except (paramiko.SSHException, OSError, EOFError) as exc:
        raise _HandshakeFailed(str(exc) or type(exc).__name__) from exc
    finally:
        if not done:
            _close(transport)
    transport.use_compression(False)
    return transport


def _host_key_line(transport: paramiko.Transport) -> str:
    key = transport.get_remote_server_key()
    return f"{key.get_name()} {key.get_base64()}"


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _close(transport: paramiko.Transport) -> None:
    """End the connection and its thread."""
    sock = transport.sock
    if isinstance(sock, socket.socket):
        _shut(sock)
    transport.close()
    transport.packetizer.complete_handshake()  # where it was broken off, a thread with its deadline would stay
    if transport.is_alive():
        transport.join(2.0)
    sock.close()


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a command in the guest ended: `status` -1 where sshd gave none; `stderr` unless it was merged."""

    status: int
    stderr: str


class SshCommunicator:
    """ports.Communicator over one SSH connection. Everything is done as root, through `access.become` if need be."""

    def __init__(self, transport: paramiko.Transport, access: Access, env: Env) -> None:
        self._transport = transport
        self._access = access
        self._env = env
        self._ready: deque[paramiko.Channel] = deque()
        self.host_key = _host_key_line(transport)

    async def run(
        self,
        script: str,
        *,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
        deadline_s: float,
        settle: bool = False,
    ) -> int:
        """Run `script` as root, under its own `#!` interpreter, and give its exit status."""
        splitter = LineSplitter(on_line or (lambda _line: None))
        output = _Output(self._token(), splitter.feed)
        program = _render(script, environment or {}, output, merge=True, settle=settle)
        ended = await self._run_program(program, output, merge=True, deadline_s=deadline_s)
        splitter.end()
        return ended.status

    async def get_ready(self) -> None:
        """Start the shell of the next script ahead: to become root takes a guest under TCG a quarter of a second."""
        import paramiko

        # No failure of it is anybody's: the script starts a shell of its own then, and its error tells more.
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            start = functools.partial(self._start, render_command(self._access, _SHELL))
            self._ready.append(await in_thread(start, on_cancel=self._shut))

    async def read(self, script: str, *, deadline_s: float) -> str:
        """Run `script` as root and give what it wrote to standard output."""
        collected = _Collected(MOST_OUTPUT_BYTES)
        output = _Output(self._token(), collected.add)
        program = _render(script, {}, output, merge=False)
        ended = await self._run_program(program, output, merge=False, deadline_s=deadline_s)
        if ended.status != 0:
            said = " / ".join(ended.stderr.strip().splitlines()[-5:]) or "it said nothing on stderr"
            raise ProvisionError(f"a script in the guest exited with status {ended.status}: {said}")
        return collected.data.decode(errors="replace")

    async def put(self, content: bytes, path: str, *, mode: int, deadline_s: float) -> None:
        """Write `content` to `path`, as root: beside it first, then renamed. Missing folders are made."""
        words = ("sh", "-c", PUT, "osimager", path, f"{mode:o}", str(len(content)), f"osimager-{self._token()}")
        what = f"{path} was written"
        ended = await self._converse(words, content, lambda _chunk: None, what=what, merge=False, deadline_s=deadline_s)
        if ended.status != 0:
            raise ProvisionError(f"cannot write {path} in the guest: {_last_line(ended)}")

    async def get(self, path: str, *, deadline_s: float, limit_bytes: int) -> bytes:
        """Read `path`, as root. Raises ProvisionError where it cannot be read or is larger than `limit_bytes`."""
        collected = _Collected(limit_bytes + 1)
        words = ("sh", "-c", GET, "osimager", path, str(limit_bytes + 1))
        what = f"{path} was read"
        ended = await self._converse(words, b"", collected.add, what=what, merge=False, deadline_s=deadline_s)
        if ended.status != 0:
            raise ProvisionError(f"cannot read {path} in the guest: {_last_line(ended)}")
        if len(collected.data) > limit_bytes:
            raise ProvisionError(f"{path} in the guest is larger than {limit_bytes} bytes")
        return bytes(collected.data)

    def _token(self) -> str:
        return self._env.entropy(8).hex()

    async def _run_program(self, program: str, output: _Output, *, merge: bool, deadline_s: float) -> _Ended:
        talk = functools.partial(
            self._converse,
            _SHELL,
            program.encode(errors="surrogateescape"),
            output.add,
            what="a script ran",
            merge=merge,
            deadline_s=deadline_s,
        )
        ready = self._ready.popleft() if self._ready else None
        ended = await talk(ready=ready)
        if ready is not None and not output.started:  # it had died, and nothing of the program ran
            ended = await talk()
        if not output.started:
            said = output.before.decode(errors="replace").strip() or _last_line(ended)
            raise ProvisionError(
                f"{self._access.user} cannot become root in the guest: {said}",
                hint=f"let it run {self._access.become} without a password, as the shipped answer files do",
            )
        return ended

    async def _converse(
        self,
        words: tuple[str, ...],
        stdin: bytes,
        on_chunk: Callable[[bytes], None],
        *,
        what: str,
        merge: bool,
        deadline_s: float,
        ready: paramiko.Channel | None = None,
    ) -> _Ended:
        """Run a command to its end; `ready` is it where it was started ahead.

        Raises ConnectionLost, and ProvisionError when the deadline passes.
        """
        import paramiko

        command = render_command(self._access, words)
        tell = _in_loop(asyncio.get_running_loop(), on_chunk)
        talk = functools.partial(self._talk, ready, command, stdin, tell, merge=merge)
        if not self._transport.is_active():
            raise self._lost(what, None)
        try:
            async with asyncio.timeout(deadline_s) as limit:
                ended = await in_thread(talk, on_cancel=self._shut)
        except TimeoutError as exc:
            if not limit.expired():
                raise self._lost(what, exc) from exc
            raise ProvisionError(f"{what} in the guest for more than {format_duration(deadline_s)}") from exc
        except (paramiko.SSHException, OSError, EOFError) as exc:
            raise self._lost(what, exc) from exc
        if ended.status in _ENDED_BY_SIGNAL and await in_thread(functools.partial(_has_ended, self._transport)):
            raise self._lost(what, None)
        return ended

    def _shut(self) -> None:
        if isinstance(self._transport.sock, socket.socket):
            _shut(self._transport.sock)

    def _lost(self, what: str, exc: Exception | None) -> ConnectionLost:
        """Tell a goodbye of sshd's (the guest restarts) from a connection that broke."""
        saved = exc or self._transport.get_exception()
        if saved is None or isinstance(saved, EOFError):
            return ConnectionLost(
                f"the guest's sshd closed the connection while {what}: the guest restarts or switches off",
                hint="a step must not restart the guest; what needs a restart takes effect when the image boots",
            )
        return ConnectionLost(f"the connection to the guest broke while {what}: {saved}")

    def _start(self, command: str) -> paramiko.Channel:
        """Start `command`, blocking, for a thread."""
        channel = self._transport.open_session(timeout=HANDSHAKE_S)
        try:
            channel.exec_command(command)
        except BaseException:
            channel.close()
            raise
        return channel

    def _talk(
        self,
        ready: paramiko.Channel | None,
        command: str,
        stdin: bytes,
        on_chunk: Callable[[bytes], None],
        *,
        merge: bool,
    ) -> _Ended:
        """Run `command` to its end, blocking, for a thread; `ready` is it where it was started ahead."""
        channel = ready or self._start(command)
        try:
            channel.set_combine_stderr(merge)
            with contextlib.suppress(OSError):  # it ended before it had read everything: its status tells why
                channel.sendall(stdin)
                channel.shutdown_write()
            channel.settimeout(1.0)
            while True:
                try:
                    chunk = channel.recv(1 << 16)
                except TimeoutError:
                    # Something that the command left running may hold its output open for ever.
                    if channel.exit_status_ready():
                        break
                    continue
                if not chunk:
                    break
                on_chunk(chunk)
            status = channel.recv_exit_status()
            stderr = b""
            while channel.recv_stderr_ready():
                stderr += channel.recv_stderr(1 << 16)
            return _Ended(status, stderr.decode(errors="replace"))
        finally:
            channel.close()


def _has_ended(transport: paramiko.Transport) -> bool:
    """Tell whether the connection ends within three seconds: a guest that stops kills its sessions one by one."""
    transport.join(3.0)
    return not transport.is_active()


def _last_line(ended: _Ended) -> str:
    return (ended.stderr.strip().splitlines() or [f"exit status {ended.status}"])[-1]


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Give `function` for use in a thread: it runs in the loop, and the thread waits for it (the guest is held up
    where we are slow, and memory is bounded)."""

    def call(chunk: bytes) -> None:
        done: concurrent.futures.Future[None] = concurrent.futures.Future()

        def run() -> None:
            try:
                function(chunk)
            except BaseException as exc:  # raised in the thread
                done.set_exception(exc)
            else:
                done.set_result(None)

        loop.call_soon_threadsafe(run)
        done.result()

    return call


class _Output:
    """Part a program's output at the line that holds `token`: what follows is the script's."""

    def __init__(self, token: str, on_chunk: Callable[[bytes], None]) -> None:
        self.token = token
        self.before = b""
        self.started = False
        self._on_chunk = on_chunk

    def add(self, chunk: bytes) -> None:
        """Take more output."""
        if self.started:
            self._on_chunk(chunk)
            return
        before, mark, rest = (self.before + chunk).partition(f"{self.token}\n".encode())
        self.before = before[-4096:]
        self.started = bool(mark)
        if rest:
            self._on_chunk(rest)


def _render(script: str, environment: Mapping[str, str], output: _Output, *, merge: bool, settle: bool = False) -> str:
    try:
        return render_program(script, environment, token=output.token, merge=merge, settle=settle)
    except ValueError as exc:
        raise ProvisionError(str(exc)) from exc


class _Collected:
    """Bytes up to a limit; what is more is dropped."""

    def __init__(self, limit_bytes: int) -> None:
        self.data = bytearray()
        self._limit_bytes = limit_bytes

    def add(self, chunk: bytes) -> None:
        """Take more output."""
        self.data += chunk[: self._limit_bytes - len(self.data)]
