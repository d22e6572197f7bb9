"""SEED and INSTALL: from an ISO and the answers to a disk that holds an installed system."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from osimager.aio import in_thread
from osimager.build.credentials import Credentials
from osimager.build.evidence import witnessed, write_answers
from osimager.build.machines import Rig
from osimager.build.validating import validate_plan
from osimager.config.sections import Rung
from osimager.env import Env
from osimager.holes import ANSWER_URL, fill_holes
from osimager.machine.causes import StuckGuest, Weight, find_last_word
from osimager.machine.ladder import CONTINUED, installer_ladder
from osimager.machine.qemu import DirectBoot, MachineRun, start_machine
from osimager.machine.tpm import STATE, copy_state
from osimager.media.answer_server import AnswerServer, open_answer_server
from osimager.media.initrd import append_files
from osimager.media.iso import extract_boot_files
from osimager.media.seed import make_seed
from osimager.plan.facts import MediaFacts
from osimager.plan.model import BuildPlan, UserNetwork
from osimager.ports import EndReason
from osimager.qemu_img import create_disk

# Where QEMU's user network puts this host, unless a static network says otherwise (qemu(1), -netdev user).
_HOST_IN_GUEST = "10.0.2.2"
_LEAST_INSTALLED_BYTES = 1 << 20  # on the host: an empty qcow2 has a fifth of that
_LAST_WORDS_LINES = 60
# An installer that has ended waits for nobody: what it met before that is why.
_LAST_WEIGHTS = frozenset(Weight) - {Weight.LOADER}


@dataclass(frozen=True, slots=True)
class Seed:
    """The answers, ready for the guest: on a seed ISO, on a server, or on both; and what fills the plan's holes."""

    credentials: Credentials
    answers: Mapping[str, bytes]
    iso: Path | None
    server: AnswerServer | None
    holes: Mapping[str, str]


@contextlib.asynccontextmanager
async def open_seed(plan: BuildPlan, credentials: Credentials, env: Env) -> AsyncIterator[Seed]:
    """Fill the answers with this build's values, write the seed ISO and open the answer server, as planned.

    Raises ConfigErrors where the answers' own validators refuse them.
    """
    await validate_plan(plan, env)
    answers = {answer.name: fill_holes(answer.text, credentials.holes) for answer in plan.install.answers}
    write_answers(answers, env)
    async with contextlib.AsyncExitStack() as up:
        holes, server, iso = dict(credentials.holes), None, None
        content = {name: text.encode() for name, text in answers.items()}
        if plan.install.serve:
            server = await up.enter_async_context(open_answer_server(content, env))
            network = plan.install.machine.nics[0].network
            host = network.host if isinstance(network, UserNetwork) and network.host else _HOST_IN_GUEST
            holes[ANSWER_URL] = server.url_for_guest(host)
        if plan.install.seed is not None:
            iso = env.workspace / "seed.iso"
            label, names = plan.install.seed.label, plan.install.seed.files
            await in_thread(lambda: make_seed(iso, label, {name: content[name] for name in names}))
        yield Seed(credentials, content, iso, server, holes)


async def install(plan: BuildPlan, media: MediaFacts, seed: Seed, rig: Rig, env: Env, *, into: Path) -> None:
    """Run the installer's machine to its end, as often as it restarts; its drives, and what its TPM remembers, are in
    the folder `into`.

    Raises MachineError, GuestGone, StageTimeout.
    """
    shape = plan.install.machine
    drives = {disk.id: await create_disk(into / f"{disk.id}.qcow2", disk.size_bytes) for disk in shape.disks}
    drives |= await rig.clean_variables(into)
    direct = await _direct_boot(plan, media, seed, env)
    base = dataclasses.replace(
        rig.make_run("installer", shape, env, drives),
        cds=tuple(path for path in (media.path, seed.iso) if path is not None),
        ends_on_reset=True,
        end_expected=True,
    )
    for turn in range(plan.install.restarts + 1):
        run = dataclasses.replace(base, direct=direct if turn == 0 else None)
        ended = await _run_installer(run, plan, seed, rig, env, first=turn == 0)
        if ended is EndReason.GUEST_SHUTDOWN:
            break
    if base.tpm is not None:
        copy_state(base.tpm, into / STATE)


async def _run_installer(run: MachineRun, plan: BuildPlan, seed: Seed, rig: Rig, env: Env, *, first: bool) -> EndReason:
    """Boot the installer once and wait for its end. Raises StuckGuest where that left the disk as it was."""
    boot = plan.install.boot
    ladder = installer_ladder(serves_answers=seed.server is not None) if first else CONTINUED
    async with (
        start_machine(run, env) as machine,
        witnessed(machine, env, role=run.role, ladder=ladder, failing=rig.failing),
    ):
        if first and boot.rung is Rung.TYPED:
            command = f"<wait{boot.boot_wait_s * 1000:.0f}ms>{fill_holes(boot.boot_command, seed.holes)}"
            await machine.type_keys(command, shown=seed.holes.get(ANSWER_URL, ""))
        ended = await machine.wait_end()
        said, shown = machine.serial_tail(_LAST_WORDS_LINES), machine.sight.tail(_LAST_WORDS_LINES)
        await in_thread(lambda: _check_written(run.disks[0], ended, said, shown))
        return ended


def _check_written(disk: Path, ended: EndReason, said: str, shown: str) -> None:
    """Raise StuckGuest for an installer that ended and had written next to nothing: it did not install."""
    if disk.stat().st_blocks * 512 >= _LEAST_INSTALLED_BYTES:
        return
    how = "restarted" if ended is EndReason.GUEST_RESET else "switched itself off"
    what = f"the installer {how} and had not written to its disk"
    if found := find_last_word([*shown.splitlines(), *said.splitlines()], proving=_LAST_WEIGHTS):
        rule, line = found
        raise StuckGuest(rule.cause, f"{rule.what}: {line}; then it {how}", hint=rule.hint, seen=said or shown)
    if ended is EndReason.GUEST_RESET:
        hint = "it would restart into itself for ever: the console's last lines and the screenshot say why"
        raise StuckGuest("loop", what, hint=hint, seen=said or shown)
    hint = "the console's last lines and the screenshot say why"
    raise StuckGuest("nothing-installed", what, hint=hint, seen=said or shown)


async def _direct_boot(plan: BuildPlan, media: MediaFacts, seed: Seed, env: Env) -> DirectBoot | None:
    """Take kernel and initrd out of the ISO for a direct boot, and fill the command line's holes."""
    boot = plan.install.boot
    if boot.rung is not Rung.DIRECT:
        return None

    def extract() -> tuple[Path, Path | None]:
        kernel, initrd = extract_boot_files(media.path, kernel=boot.kernel, initrds=boot.initrds, folder=env.workspace)
        if plan.install.inject and initrd is not None:
            append_files(initrd, {answer.name: seed.answers[answer.name] for answer in plan.install.answers})
        return kernel, initrd

    kernel, initrd = await in_thread(extract)
    return DirectBoot(kernel=kernel, initrd=initrd, command_line=fill_holes(boot.command_line, seed.holes))
