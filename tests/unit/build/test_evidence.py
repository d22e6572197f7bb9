"""What is noted of a build for its evidence and its watchers: QEMU's life, the logs' size, how long is left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from osimager.build.evidence import QemuNotes, fetch_logs
from osimager.build.stages import Recorder
from osimager.build.workspace import EVIDENCE
from osimager.cli.render import _BuildLines, describe
from osimager.env import Env
from osimager.events import Awaiting, Event, MachineEnded, MachineStarted, OutputLine, Stage, StageChanged, State
from osimager.redact import MASK


def test_a_chatty_qemu_pushes_out_neither_its_command_line_nor_its_end(env: Env, tmp_path: Path) -> None:
    notes = QemuNotes()
    with env.bus.listening(notes):
        env.emit(MachineStarted("target", 7, ("/usr/bin/qemu", "-m", "size=1G", "-append", "a b")))
        for number in range(1000):
            env.emit(OutputLine("qemu", f"line {number}"))
        env.emit(MachineEnded("target", 1, "died"))
    notes.write(tmp_path)
    lines = (tmp_path / "qemu-target.txt").read_text().splitlines()
    assert lines[1:4] == ["/usr/bin/qemu \\", "  -m size=1G \\", "  -append 'a b'"]
    assert lines[4].endswith("ended: died, status 1")
    assert (lines[5], lines[-1][9:], len(lines)) == ("# on stderr", "line 999", 206)


class Guest:
    """A guest whose logs are longer than what is kept, with a secret where they are cut."""

    async def read(self, script: str, *, deadline_s: float) -> str:
        return "x" * 1000 + "correct horse battery staple" + "y" * ((256 << 10) - 20)


async def test_logs_are_masked_before_they_are_cut(env: Env) -> None:
    env.masker.register("correct horse battery staple")
    await fetch_logs(Guest(), env)  # type: ignore[arg-type]
    text = (env.workspace / EVIDENCE / "guest-logs.txt").read_text()
    assert len(text) == 256 << 10
    assert "staple" not in text
    assert MASK in text


async def test_awaiting_says_what_the_last_such_build_took_and_what_is_left(env: Env, events: list[Event]) -> None:
    rec = Recorder(env, save=lambda rec: None, deadline_s=dict.fromkeys(Stage, 60.0))
    await rec.run(Stage.RESOLVE, asyncio.sleep(0))
    rec.expected_s = {Stage.FETCH: 1, Stage.INSTALL: 30, Stage.VERIFY: 100}
    await rec.run(Stage.FETCH, asyncio.sleep(0))
    rec.skip([Stage.VERIFY], "not asked for")
    await rec.run(Stage.INSTALL, asyncio.sleep(0))
    await rec.run(Stage.START, asyncio.sleep(0))
    awaited = [event for event in events if isinstance(event, Awaiting)]
    assert [(event.expected_s, event.left_s) for event in awaited] == [(None, None), (1, 131), (30, 30), (None, None)]


def test_what_is_left_is_shown() -> None:
    event = Awaiting("the installer to end", 3600, 33, 209)
    assert describe(event) == "  waiting for the installer to end (33s last time, at most 1h00m)"
    lines, now = _BuildLines(), time.monotonic()
    lines.take(StageChanged(Stage.INSTALL, State.RUNNING))
    lines.take(event)
    assert "about 3m" in lines.lines(now + 20)[-1]
    assert lines.lines(now + 3000)[-1].endswith("longer than the last time")
