"""One guest as a QEMU process: started, watched by a supervisor, ended in good order (ports.Machine).

The supervisor is the only one who knows how the process ended: the reason of QMP's SHUTDOWN event tells a restart, a
power-off and our own `quit` from a death. A death that nobody awaits ends the block at once with GuestGone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import finish, in_thread, supervised
from osimager.arch import Arch, Firmware
from osimager.env import Env
from osimager.errors import GuestGone, MachineError, OsimagerError, PrerequisiteError, StageTimeout
from osimager.events import DiskActivity, MachineEnded, MachineStarted, Notice, OutputLine, QmpEvent
from osimager.machine.boot_command import parse_lines
from osimager.machine.causes import PANIC, StuckGuest, find_last_word
from osimager.machine.deaths import explain_death
from osimager.machine.endpoint import ask_endpoint, has_outgoing
from osimager.machine.keyboard import Console, run_keys
from osimager.machine.memory import count_oom_kills
from osimager.machine.orphan import ended_with_us
from osimager.machine.processor import is_beyond_loader
from osimager.machine.ps2 import are_keys_taken
from osimager.machine.qmp import Qmp, render_detail
from osimager.machine.ram import GuestRam, SavedMemory, open_ram
from osimager.machine.screen import Frame
from osimager.machine.serial import SerialLog
from osimager.machine.sight import Sight
from osimager.machine.snapshot import load_memory, save_memory
from osimager.machine.tap import Neighbour, open_taps, with_macs
from osimager.machine.tpm import copy_state, open_tpm
from osimager.plan.argv import Channels, Display, MachineFiles, render_argv, render_boot_config, render_overlay
from osimager.plan.facts import Accelerator, HostFacts
from osimager.plan.model import MachineShape
from osimager.ports import Endpoint, EndReason
from osimager.proc import open_child

VARIABLES = "variables"  # the drive of the firmware's variables, beside the disks' ids
_CONNECT_S = 20.0
_POWER_BUTTON_AGAIN_S = 20.0
_QUIT_S, _TERM_S, _DRAIN_S = 3.0, 2.0, 2.0
_LAST_WORDS_S = 1.0  # for what the console still says of a panic
_LAST_WORDS_LINES = 60
_STDERR_LINES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectBoot:
    """A kernel started without a boot loader. The command line may hold addresses and secrets."""

    kernel: Path
    initrd: Path | None
    command_line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRun:
    """One QEMU process to be. `role` is `installer`, `target`, `verify` or `run`; `disks` in the shape's order.

    `variables` is a qcow2 of this run's own (`firmware.make_variables`), `tpm` the folder of its TPM's state. With
    `ends_on_reset` a restart ends the process. `end_expected`: the guest may end by itself at any time (an installer);
    else that is a GuestGone unless someone awaits it. `savable`: the guest's memory may be saved; `saved`: it goes on
    from there instead of booting.
    """

    role: str
    shape: MachineShape
    host: HostFacts
    disks: tuple[Path, ...]
    serial_log: Path
    cds: tuple[Path, ...] = ()
    direct: DirectBoot | None = None
    variables: Path | None = None
    tpm: Path | None = None
    ssh_port: int = 22
    ends_on_reset: bool = False
    end_expected: bool = False
    display: Display = Display.NONE
    vnc_socket: Path | None = None
    savable: bool = False
    saved: SavedMemory | None = None


@contextlib.asynccontextmanager
async def start_machine(run: MachineRun, env: Env) -> AsyncIterator[QemuMachine]:
    """Start `run`'s QEMU and give the machine; with the block it is gone, whatever happened.

    Raises PrerequisiteError where this host cannot run it, GuestGone when QEMU ends unasked, now or later.
    """
    async with contextlib.AsyncExitStack() as up:
        stack = up.enter_context(contextlib.ExitStack())
        near_qmp, far_qmp = _socketpair(stack)
        near_serial, far_serial = _socketpair(stack)
        ram = open_ram(run.shape.memory_mib) if run.savable or run.saved else None
        if ram is not None:
            stack.callback(ram.close)
        shape = with_macs(run.shape, env.workspace.name)
        taps, neighbour = await open_taps(shape, stack)
        tpm_fd = await up.enter_async_context(open_tpm(run.tpm, env))
        channels = Channels(
            qmp_fd=far_qmp.fileno(),
            serial_fd=far_serial.fileno(),
            config_fd=_open_config(run.direct, stack),
            tpm_fd=tpm_fd,
            taps=taps,
            ssh_port=run.ssh_port,
            ends_on_reset=run.ends_on_reset,
            display=run.display,
            vnc_socket=run.vnc_socket,
            ram_fd=None if ram is None else ram.handle,
            incoming=run.saved is not None,
        )
        files = MachineFiles(disks=run.disks, cds=run.cds, variables=run.variables)
        argv = render_argv(shape, run.host, files=files, channels=channels)
        extra = [handle for handle in (channels.config_fd, channels.tpm_fd, channels.ram_fd) if handle is not None]
        passed = [channels.qmp_fd, channels.serial_fd, *taps, *extra]
        log = SerialLog(run.serial_log, env)
        stack.callback(log.close)
        async with (
            ended_with_us() as tie,
            open_child(argv, pass_fds=passed, umask=0o077, term_s=_TERM_S, announce=tie.descriptor) as child,
        ):
            tie.name(child.pid)
            far_qmp.close()
            far_serial.close()
            env.emit(MachineStarted(run.role, child.pid, argv))
            machine = QemuMachine(run, env, child, log, ram=ram, neighbour=neighbour)
            if ram is not None and run.saved is not None:
                await in_thread(functools.partial(ram.load, run.saved.ram))  # QEMU looks at it when it is told to load
            reader, writer = await asyncio.open_connection(sock=near_serial)
            log.connect(writer)
            try:
                async with machine.running(near_qmp, reader):
                    yield machine
            finally:
                writer.close()


def _socketpair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    stack.callback(near.close)
    stack.callback(far.close)
    return near, far


def _open_config(direct: DirectBoot | None, stack: contextlib.ExitStack) -> int | None:
    """Give a descriptor that QEMU reads the direct boot from: a pipe, so that nothing of it touches a disk."""
    if direct is None:
        return None
    text = render_boot_config(direct.kernel, direct.initrd, direct.command_line).encode()
    read_end, write_end = os.pipe()
    stack.callback(os.close, read_end)
    os.write(write_end, text)  # far below a pipe's 16 KiB (macOS) or 64 KiB
    os.close(write_end)
    return read_end


class QemuMachine:
    """A running guest. Made by `start_machine`; the state is written by the supervisor alone."""

    def __init__(
        self,
        run: MachineRun,
        env: Env,
        child: asyncio.subprocess.Process,
        log: SerialLog,
        *,
        ram: GuestRam | None = None,
        neighbour: Neighbour | None = None,
    ) -> None:
        self._run = run
        self._ram = ram
        self._nodes = {disk.id: f"{disk.id}-file" for disk in run.shape.disks}
        if run.variables is not None:
            self._nodes[VARIABLES] = "firmware-variables"
        self._env = env
        self._child = child
        self._log = log
        self._neighbour = neighbour
        self._qmp = Qmp(self._on_event)
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._ended: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        self._trouble: asyncio.Future[tuple[str, Mapping[str, object]]] = asyncio.get_running_loop().create_future()
        self._waiters = 0
        self._asked = False
        self.failure: OsimagerError | None = None
        """What stopped the guest, where that was the machine itself: those who use it then see a cancel only."""
        self._is_supervised = False
        self._shutdown_reason = ""
        self._endpoint: Endpoint | None = None
        self.sight = Sight(
            self._qmp, env, name=str(child.pid), has_vga=run.shape.arch is not Arch.AARCH64, qemu=run.host.qemu.path
        )
        self._oom_kills = count_oom_kills()
        self._typing = 0
        self.awaits = ""
        """What the guest has to do or say before more is typed, as the boot command has it; empty: nothing."""

    # What a caller does with it.

    @property
    def endpoint(self) -> Endpoint:
        """Give the forward to the guest's SSH port, or its own address on a bridge."""
        self._check_running()
        if self._neighbour is not None and self._neighbour.address:
            return Endpoint(self._neighbour.address, self._run.ssh_port)
        if self._endpoint is None:
            raise MachineError("this machine has no forward to its SSH port")
        return self._endpoint

    async def find_endpoint(self) -> Endpoint:
        """Give the endpoint as soon as there is one: on a bridge, when the guest has an address. Raises GuestGone."""
        if self._neighbour is not None:
            await self._neighbour.wait_address()
        return self.endpoint

    @property
    def disks(self) -> tuple[Path, ...]:
        """Give the files of the disks, in the shape's order."""
        return self._run.disks

    @property
    def pid(self) -> int:
        """Give QEMU's process id."""
        return self._child.pid

    @property
    def accelerator(self) -> Accelerator:
        """Give what runs the guest's instructions."""
        return self._run.host.accelerator.accelerator

    @property
    def qmp(self) -> Qmp:
        """Give the monitor, for the parts of this room."""
        self._check_running()
        return self._qmp

    @property
    def serial(self) -> SerialLog:
        """Give the console's log."""
        return self._log

    async def wait_end(self) -> EndReason:
        """Wait until the guest has restarted (where that ends it) or switched itself off. Raises GuestGone."""
        self._waiters += 1
        try:
            return await asyncio.shield(self._ended)
        finally:
            self._waiters -= 1

    async def shut_down(self, deadline_s: float) -> None:
        """Press the power button (ACPI) until the guest is off. Raises StageTimeout, GuestGone."""
        self._check_running()
        self._waiters += 1
        try:
            async with asyncio.timeout(deadline_s):
                while not self._ended.done():
                    with contextlib.suppress(GuestGone):  # `_ended` knows more
                        await self._qmp.execute("system_powerdown")
                    await asyncio.wait({self._ended}, timeout=_POWER_BUTTON_AGAIN_S)
            await asyncio.shield(self._ended)
        except TimeoutError as exc:
            raise StageTimeout(
                f"the guest was still running {deadline_s:.0f} s after its power button was pressed",
                seen=self.serial_tail(1),
                hint="look at the serial log and the screenshot; the guest may lack ACPI or be busy",
            ) from exc
        finally:
            self._waiters -= 1

    async def screenshot(self, path: Path) -> None:
        """Write what the guest's screen shows to `path` as PNG."""
        self._check_running()
        await self.sight.screenshot(path)

    async def keep_screen(self, path: Path) -> None:
        """Write what the screen shows to `path` as PNG, or what it was last seen to show. Raises where nothing was."""
        try:
            await self.screenshot(path)
        except MachineError:
            self.sight.keep_last(path)

    @property
    def has_ended(self) -> bool:
        """Tell whether there is no guest any more."""
        return self._ended.done() or self._child.returncode is not None

    @property
    def is_typing(self) -> bool:
        """Tell whether keys are being typed into the guest: by ourselves it is not waited for."""
        return self._typing > 0 and not self.awaits

    async def type_keys(self, command: str, *, shown: str = "") -> None:
        """Type `command`, in Packer's boot command language.

        A line that holds a secret is typed once, and never looked at; `shown` is one that the screen shows anyway.
        """
        self._check_running()
        lines = parse_lines(command)
        console = Console(
            send=self._send_keys,
            look=self.look,
            wait_serial=self._wait_serial,
            is_taken=self._are_keys_taken,
            covered=self.sight.covered,
            waiting=self._waiting,
        )
        mask = self._env.masker.mask

        def is_secret(text: str) -> bool:
            rest = text.replace(shown, "") if shown else text
            return mask(rest) != rest

        self._typing += 1
        try:
            unseen = await run_keys(lines, console, is_secret=is_secret)
        finally:
            self._typing -= 1
        if unseen:
            self._env.emit(Notice(f"{unseen} typed lines did not change the guest's screen", level="warning"))

    @contextlib.contextmanager
    def _waiting(self, text: str) -> Iterator[None]:
        self.awaits = text
        try:
            yield
        finally:
            self.awaits = ""

    async def look(self) -> Frame:
        """Look at the screen."""
        self._check_running()
        return await self.sight.look()

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Stop the guest while the block runs: its time stands still too."""
        self._check_running()
        await self._qmp.execute("stop")
        try:
            yield
        finally:
            await finish(self._go_on(), _CONNECT_S)

    async def move_drives(self, overlays: Mapping[str, Path]) -> None:
        """Let each drive of a paused guest go on in an overlay of what it has written; nothing writes to that again.

        `overlays` are by drive: a disk's id, or VARIABLES (UEFI).
        """
        for drive, path in overlays.items():
            before, after = self._nodes[drive], f"{drive}-{path.parent.name[-8:]}"
            await self._qmp.execute("blockdev-add", render_overlay(after, path))
            await self._qmp.execute("blockdev-snapshot", {"node": before, "overlay": after})
            self._nodes[drive] = after

    async def save(self, folder: Path) -> None:
        """Write the memory of a paused guest, or what of it has changed since the last time, as files in `folder`.

        Raises MachineError where this QEMU cannot, OSError.
        """
        await save_memory(self._qmp, self._ram, folder)

    def keep_tpm(self, path: Path) -> None:
        """Write what a paused guest's TPM remembers to `path`, where it has one."""
        if self._run.tpm is not None:
            copy_state(self._run.tpm, path)

    async def _go_on(self) -> None:
        with contextlib.suppress(GuestGone):  # the supervisor tells of it
            await self._qmp.execute("cont")

    def serial_tail(self, lines: int) -> str:
        """Give the last lines of the guest's serial console, masked."""
        return self._log.tail(lines)

    async def disk_activity(self) -> DiskActivity:
        """Ask QEMU's block counters what the guest has read and written since it started; firmware has no disks."""
        self._check_running()
        answer = await self._qmp.execute("query-blockstats")
        read = written = medium = 0
        for device in answer if isinstance(answer, list) else []:
            node, stats = str(device.get("node-name", "")), device.get("stats", {})
            if node.startswith("firmware-"):
                continue
            read += int(stats.get("rd_bytes", 0))
            written += int(stats.get("wr_bytes", 0))
            medium += int(stats.get("rd_bytes", 0)) if node.startswith("cd") else 0
        return DiskActivity(read, written, medium)

    async def runs_kernel(self) -> bool:
        """Tell by its processor's registers whether the guest is beyond firmware and boot loader."""
        self._check_running()
        return is_beyond_loader(await self._qmp.monitor("info registers"))

    async def is_fetching(self) -> bool:
        """Tell whether the guest holds a connection to the outside, as QEMU's user network knows."""
        self._check_running()
        return bool(self._run.shape.nics) and has_outgoing(await self._qmp.monitor("info usernet"))

    async def observe(self) -> None:
        """Put the disks' counters, and what is new on the screen, on the bus."""
        self._env.emit(await self.disk_activity())
        await self.sight.observe()

    async def _send_keys(self, keys: Sequence[tuple[str, bool]]) -> None:
        events = [{"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": key}}} for key, down in keys]
        await self._qmp.execute("input-send-event", {"events": events})

    async def _are_keys_taken(self) -> bool:
        """Ask a PC whether its guest has read what was typed; others cannot be asked."""
        shape = self._run.shape
        if shape.arch is not Arch.X86_64:
            return True
        return await are_keys_taken(self._qmp.monitor, has_bios=shape.firmware is Firmware.BIOS)

    async def _wait_serial(self, text: str) -> None:
        """Wait until the console says `text`, or has said so already since the last such wait."""
        while not self._log.find(text):
            await self._env.bus.wait_for(OutputLine, lambda line: line.source == "serial")

    # The process's life.

    @contextlib.asynccontextmanager
    async def running(self, near_qmp: socket.socket, serial: asyncio.StreamReader) -> AsyncIterator[None]:
        """Supervise the process while the block runs, then end it: QMP quit, TERM, KILL."""
        async with supervised(self._supervise(serial), self._raise_trouble()):
            try:
                await self._connect(near_qmp)
                yield
            finally:
                await finish(self._end(), _QUIT_S + _TERM_S + 5, force=self._kill)

    async def _connect(self, near_qmp: socket.socket) -> None:
        self._waiters += 1
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._qmp.connect(near_qmp)
                if self._run.saved is not None:
                    await load_memory(self._qmp, self._run.saved, shared=self._ram is not None)
                self._endpoint = await ask_endpoint(self._qmp, self._run.shape, self._run.ssh_port)
                await self._qmp.execute("cont")
        except GuestGone:
            await asyncio.shield(self._ended)  # raises what the supervisor found
            raise
        except TimeoutError as exc:
            raise MachineError(f"QEMU did not answer on its monitor within {_CONNECT_S:.0f} s") from exc
        finally:
            self._waiters -= 1

    async def _supervise(self, serial: asyncio.StreamReader) -> None:
        """Drain the process's streams and wait for its end; raise its death unless someone awaits that."""
        assert self._child.stderr is not None
        self._is_supervised = True
        try:
            returncode = await self._drain(serial, self._child.stderr)
        finally:
            self._is_supervised = False
        self._settle(returncode)

    async def _drain(self, serial: asyncio.StreamReader, stderr: asyncio.StreamReader) -> int:
        """Read what QEMU and the guest say until QEMU has ended, and what was still on its way then."""
        async with asyncio.TaskGroup() as group:
            streams = {
                group.create_task(self._log.read(serial)),
                group.create_task(self._read_stderr(stderr)),
            }
            returncode = await self._child.wait()
            streams.add(group.create_task(self._qmp.wait_closed()))
            _, late = await asyncio.wait(streams, timeout=_DRAIN_S)
            for task in late:
                task.cancel()
        return returncode

    async def _raise_trouble(self) -> None:
        """End the block when QEMU tells of something that stops the guest for good."""
        name, data = await self._trouble
        await asyncio.sleep(_LAST_WORDS_S)
        self.failure = _trouble_error(name, data, self.serial_tail(_LAST_WORDS_LINES))
        raise self.failure

    def _settle(self, returncode: int) -> None:
        """Decide what the process's end means, tell the bus, and wake those who wait."""
        reason = self._reason(returncode)
        if reason is None:
            self._env.emit(MachineEnded(self._run.role, returncode, "died"))
            error = explain_death(
                returncode, self._shutdown_reason, tuple(self._stderr), oom_kills_before=self._oom_kills
            )
            self.failure = error
            self._ended.set_exception(error)
            self._ended.exception()  # looked at: there may be no one else to do so
            if not self._waiters:
                raise error
            return
        self._env.emit(MachineEnded(self._run.role, returncode, str(reason)))
        self._ended.set_result(reason)
        if reason is not EndReason.ASKED and not self._waiters and not self._run.end_expected:
            self.failure = GuestGone(
                "the guest switched itself off" if reason is EndReason.GUEST_SHUTDOWN else "the guest restarted",
                returncode=returncode,
                seen=self.serial_tail(_LAST_WORDS_LINES),
                hint="the last lines of the serial console say why",
            )
            raise self.failure

    def _reason(self, returncode: int) -> EndReason | None:
        if self._asked:
            return EndReason.ASKED
        if returncode != 0:
            return None
        ends = {
            "guest-shutdown": EndReason.GUEST_SHUTDOWN,
            "guest-reset": EndReason.GUEST_RESET,
            "host-qmp-quit": EndReason.ASKED,
        }
        return ends.get(self._shutdown_reason)

    async def _read_stderr(self, stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            line = self._env.masker.mask(raw.decode(errors="replace").rstrip())
            self._stderr.append(line)
            self._env.emit(OutputLine("qemu", line))

    def _on_event(self, name: str, data: Mapping[str, object]) -> None:
        if name == "SHUTDOWN":
            self._shutdown_reason = str(data.get("reason", ""))
        self._env.emit(QmpEvent(name, render_detail(data)))
        if not self._trouble.done() and _is_trouble(name, data):
            self._trouble.set_result((name, data))

    async def _end(self) -> None:
        """Go down the ladder, then let go of the monitor. Never raises."""
        if not self._ended.done():
            self._asked = True
            if not (await self._ask_to_quit() and await self._wait_ended(_QUIT_S)):
                self._signal(signal.SIGTERM)
                if not await self._wait_ended(_TERM_S):
                    self._kill()
                    await self._wait_ended(5)
        await self._qmp.close()

    async def _ask_to_quit(self) -> bool:
        """Send `quit`; false where there is no one to hear it."""
        try:
            async with asyncio.timeout(1):
                await self._qmp.execute("quit")
        except (MachineError, TimeoutError):
            return self._child.returncode is not None
        return True

    async def _wait_ended(self, seconds: float) -> bool:
        """Wait for the process's end, then a moment for the supervisor's word on it."""
        try:
            async with asyncio.timeout(seconds):
                await self._child.wait()
        except TimeoutError:
            return False
        if self._is_supervised:
            await asyncio.wait({self._ended}, timeout=_DRAIN_S + 0.5)
        return True

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(number)

    def _check_running(self) -> None:
        if self.has_ended:
            raise GuestGone("the machine has ended", returncode=self._child.returncode)


def _is_trouble(name: str, data: Mapping[str, object]) -> bool:
    """Tell whether the guest stands still for good after an event (qapi/block-core.json, qapi/run-state.json)."""
    return name == "GUEST_PANICKED" or (name == "BLOCK_IO_ERROR" and data.get("action") == "stop")


def _trouble_error(name: str, data: Mapping[str, object], said: str) -> OsimagerError:
    """Give the error of such an event; why a kernel panicked is what the console `said` last."""
    if name == "GUEST_PANICKED":
        rule, line = find_last_word(said.splitlines()) or (PANIC, "")
        return StuckGuest(rule.cause, f"{rule.what}{line and ': ' + line}", hint=rule.hint, seen=said)
    what = f"the guest's disk cannot be written on this host: {data.get('reason', 'I/O error')}"
    hint = "free some space, or set OSIMAGER_HOME to a folder on a larger disk"
    return PrerequisiteError(what, hint=hint, cause="host-disk-full")
