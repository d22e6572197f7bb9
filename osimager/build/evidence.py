"""What a failed build leaves to read, all through the masker: one folder, and with `--bundle` one tar of it.

The screens, the serial log with times, the answers, QEMU's argv and last words, the installer's logs where SSH is up,
the plan and what this host is (docs/contracts.md). Screens are kept when they change: a dump stops QEMU's main loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shlex
import shutil
import tarfile
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Never

from osimager.aio import finish, in_thread, supervised
from osimager.build.failing import Failing
from osimager.build.prepare import Prepared, plan_to_json
from osimager.build.records import BuildFolder
from osimager.build.workspace import EVIDENCE, find_socket
from osimager.env import Env
from osimager.errors import OsimagerError
from osimager.events import MachineEnded, MachineStarted, OutputLine, ScreenChanged, Stamped
from osimager.kept import make_folder, publishing, write_kept
from osimager.machine.console import serving_console
from osimager.machine.host import doctor_report
from osimager.machine.ladder import Ladder
from osimager.machine.qemu import QemuMachine
from osimager.machine.watch import watch_machine
from osimager.plan.digests import to_plain
from osimager.ports import Communicator

_SCREEN_EVERY_S = 10.0
_LAST_SCREEN_S = 5.0
_MOST_SCREENS = 20
_STDERR_LINES = 200
_LOGS_S = 30.0
_HOST_S = 20.0
_MOST_LOG_CHARACTERS = 256 << 10

# The logs of an installation as the installers leave them in the system, and that system's own, by file name. The last
# part of each: why it failed stands at the end.
_LOGS = """
for file in /var/log/installer/* /var/log/anaconda/* /var/log/YaST2/y2log /var/log/YaST2/y2start.log \\
    /var/log/agama-installation/* /var/log/cloud-init.log /var/log/cloud-init-output.log /var/log/messages \\
    /var/log/syslog /root/install.log /root/anaconda-ks.cfg; do
  if [ -f "$file" ]; then echo "=== $file"; tail -c 20000 "$file"; echo; fi
done
for command in "dmesg" "journalctl -b -n 300 --no-pager" "df -k" "ip address" "ps aux"; do
  echo "=== $command"; $command 2>&1 | tail -n 300
done
"""


@contextlib.asynccontextmanager
async def witnessed(
    machine: QemuMachine, env: Env, *, role: str, ladder: Ladder, failing: Failing | None = None
) -> AsyncIterator[None]:
    """Watch the guest while the block runs, keep its screens, and serve its console to `osimager console`.

    A guest that is stuck ends the block with the cause's name (`machine/watch`); `ladder` is what it has to show before
    it may rest. What an error ends is attended to while the guest is still there.
    """
    screens = _Screens(machine, role, env)
    watch = watch_machine(machine, env, ladder)
    async with serving_console(machine.serial, find_socket(env.places, env.workspace.name, "console")):
        try:
            async with supervised(screens.keep(), watch):
                yield
        except BaseException as error:
            await finish(screens.take(), _LAST_SCREEN_S)
            if failing is not None:
                await failing.attend(machine.failure or error, None if machine.has_ended else failing.console_shell)
                if failing.keeps_workspace:
                    _keep_disks(machine.disks, env)
            raise


def _keep_disks(disks: tuple[Path, ...], env: Env) -> None:
    """Name the disks in the workspace too: those of a layer that failed go with it."""
    for disk in disks:
        with contextlib.suppress(OSError):  # it lies there already
            (env.workspace / disk.name).hardlink_to(disk)


class _Screens:
    """The pictures of one guest: `screen-ROLE.png` is the last, `screens/` has those before it."""

    def __init__(self, machine: QemuMachine, role: str, env: Env) -> None:
        self._machine = machine
        self._role = role
        self._env = env
        self._last = make_folder(env.workspace / EVIDENCE, private=True) / f"screen-{role}.png"
        self._folder = make_folder(env.workspace / EVIDENCE / "screens", private=True)

    async def keep(self) -> Never:
        """Take a picture whenever the screen has changed, at a gentle rhythm."""
        changed = asyncio.Event()

        def look(stamped: Stamped) -> None:
            if isinstance(stamped.event, ScreenChanged):
                changed.set()

        with self._env.bus.listening(look):
            while True:
                await changed.wait()
                changed.clear()
                await self.take()
                await asyncio.sleep(_SCREEN_EVERY_S)

    async def take(self) -> None:
        """Take a picture, or keep the last that was seen; having none is not what the build should end with."""
        with contextlib.suppress(OsimagerError, OSError, TimeoutError):
            async with asyncio.timeout(_LAST_SCREEN_S):
                await self._machine.keep_screen(self._last)
            stamp = self._env.clock.now().strftime("%H%M%S")
            shutil.copyfile(self._last, self._folder / f"{self._role}-{stamp}.png")
            for old in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-_MOST_SCREENS]:
                old.unlink()


class QemuNotes:
    """A sink that remembers how each QEMU was started and how it ended, and the last of what it said."""

    def __init__(self) -> None:
        self._life: dict[str, list[str]] = {}
        self._said: dict[str, deque[str]] = {}
        self._role = ""

    def __call__(self, stamped: Stamped) -> None:
        """Take an event, masked by now."""
        match stamped.event:
            case MachineStarted(role, pid, argv):
                self._role = role
                self._said.setdefault(role, deque(maxlen=_STDERR_LINES))
                self._life.setdefault(role, []).append(
                    f"# {stamped.time:%H:%M:%S} started as process {pid}\n{_shell_words(argv)}"
                )
            case OutputLine("qemu", text) if self._role:
                self._said[self._role].append(f"{stamped.time:%H:%M:%S} {text}")
            case MachineEnded(role, returncode, reason) if role in self._life:
                self._life[role].append(f"# {stamped.time:%H:%M:%S} ended: {reason}, status {returncode}")

    def write(self, folder: Path) -> None:
        """Write `qemu-ROLE.txt` for each."""
        for role, life in self._life.items():
            said = [*(["# on stderr"] if self._said[role] else []), *self._said[role]]
            write_kept(folder / f"qemu-{role}.txt", "\n".join([*life, *said]) + "\n", mode=0o600)


def _shell_words(argv: tuple[str, ...]) -> str:
    """Give a command line one option a line, to be read and to be run."""
    return " ".join(f"\\\n  {shlex.quote(word)}" if word.startswith("-") else shlex.quote(word) for word in argv)


def write_answers(answers: Mapping[str, str], env: Env) -> None:
    """Keep the answer files as the guest got them, masked."""
    for name, text in answers.items():
        write_kept(env.workspace / EVIDENCE / "answers" / name.replace("/", "_"), env.masker.mask(text), mode=0o600)


async def fetch_logs(guest: Communicator, env: Env) -> None:
    """Keep the installer's and the system's logs, masked, as `guest-logs.txt`, if the guest still answers."""
    with contextlib.suppress(OsimagerError, OSError, TimeoutError):
        async with asyncio.timeout(_LOGS_S):
            text = env.masker.mask(await guest.read(_LOGS, deadline_s=_LOGS_S))  # whole: a cut could halve a secret
        write_kept(env.workspace / EVIDENCE / "guest-logs.txt", text[-_MOST_LOG_CHARACTERS:], mode=0o600)


async def keep_evidence(folder: BuildFolder, notes: QemuNotes, prepared: Prepared | None, env: Env) -> Path | None:
    """Complete the evidence and copy it to the build's folder, since the workspace goes. None: no plan yet."""
    if prepared is None:
        return None
    found = make_folder(env.workspace / EVIDENCE, private=True)
    with contextlib.suppress(OsimagerError, OSError):
        notes.write(found)
        plan = json.dumps(plan_to_json(prepared, env.masker.mask), indent=1, ensure_ascii=False)
        write_kept(found / "plan.json", plan + "\n", mode=0o600)
        await _write_host(found / "host.json", env)
        await in_thread(lambda: shutil.copytree(found, folder.evidence, dirs_exist_ok=True))
        (folder.evidence / folder.events.name).hardlink_to(folder.events)  # with what is still to come
    return folder.evidence


async def _write_host(file: Path, env: Env) -> None:
    """Write what `osimager doctor --json` says."""
    with contextlib.suppress(OsimagerError, TimeoutError):
        async with asyncio.timeout(_HOST_S):
            host = to_plain(await doctor_report(env.places), env.masker.mask)
        write_kept(file, json.dumps(host, indent=1, ensure_ascii=False) + "\n", mode=0o600)


def write_bundle(folder: BuildFolder) -> Path:
    """Write the build's whole folder as `BUILD_ID.tar.gz` beside what is in it, and give its path."""
    target = folder.path / f"{folder.path.name}.tar.gz"
    with publishing(target, mode=0o600) as partial, tarfile.open(partial, "w:gz") as bundle:
        for path in sorted(folder.path.rglob("*")):
            if path.is_file() and path not in (target, partial):
                _add(bundle, path, f"{folder.path.name}/{path.relative_to(folder.path)}")
    return target


def _add(bundle: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file by its content: no owner, no link, and whole though it grows meanwhile."""
    content = path.read_bytes()
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o600, int(path.stat().st_mtime)
    bundle.addfile(member, io.BytesIO(content))
