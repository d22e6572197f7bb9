"""Child processes, with real ones: how they are started, read, ended, and that they never outlive us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from osimager.errors import PrerequisiteError
from osimager.proc import ToolFailed, find_tool, open_child, run_tool, tool_environment

PYTHON = sys.executable
PIPE = asyncio.subprocess.PIPE
# Says that it is ready, and then does not obey TERM.
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)


def is_running(pid: int) -> bool:
    """Say whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def wait_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while is_running(pid):
            await asyncio.sleep(0.01)


async def read_line(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    return (await child.stdout.readline()).decode().strip()


# Running to the end ---------------------------------------------------------------------------------------------------


async def test_a_tool_gives_its_output_its_messages_and_its_status() -> None:
    lines: list[str] = []
    code = "import sys; print(sys.stdin.read().upper()); sys.stderr.write('10%\\r20%\\r\\n\\nlast'); sys.exit(3)"
    done = await run_tool([PYTHON, "-c", code], deadline_s=60, input_data=b"hi", on_line=lines.append, check=False)
    assert (done.status, done.text, done.stderr) == (3, "HI\n", "10%\r20%\r\n\nlast")
    assert lines == ["10%", "20%", "last"]


async def test_progress_comes_while_the_tool_still_runs() -> None:
    """The tool waits for an answer to what it drew with a carriage return, so a line that comes late hangs."""
    answer, write_end = os.pipe()

    def reply(line: str) -> None:
        os.write(write_end, line.encode())

    try:
        code = f"import os, sys; sys.stderr.write('half\\r'); sys.stderr.flush(); print(os.read({answer}, 9))"
        done = await run_tool([PYTHON, "-c", code], deadline_s=60, pass_fds=[answer], on_line=reply)
    finally:
        os.close(answer)
        os.close(write_end)
    assert done.text == "b'half'\n"


async def test_a_line_of_any_length_is_read() -> None:
    code = "import sys; sys.stderr.write('x' * (5 << 20))"
    lines: list[str] = []
    done = await run_tool([PYTHON, "-c", code], deadline_s=60, on_line=lines.append)
    assert len(done.stderr) == 5 << 20
    assert [len(line) for line in lines] == [5 << 20]


async def test_a_failing_tool_says_its_last_words() -> None:
    with pytest.raises(ToolFailed, match="exited with status 2: no such thing") as caught:
        await run_tool(["sh", "-c", "echo no such thing >&2; exit 2"], deadline_s=60)
    assert caught.value.done.status == 2


async def test_a_tool_that_does_not_read_its_input_is_no_error() -> None:
    done = await run_tool(["true"], deadline_s=60, input_data=b"x" * (1 << 20))
    assert done.status == 0


async def test_an_error_of_the_line_sink_comes_unwrapped_and_ends_the_tool() -> None:
    def refuse(line: str) -> None:
        raise LookupError(line)

    with pytest.raises(LookupError, match="hello"):
        await run_tool(["sh", "-c", "echo hello >&2; sleep 600"], deadline_s=60, on_line=refuse)


async def test_the_deadline_ends_the_tool() -> None:
    pids: list[str] = []
    with pytest.raises(TimeoutError):
        await run_tool(["sh", "-c", "echo $$ >&2; exec sleep 600"], deadline_s=0.5, on_line=pids.append)
    assert not is_running(int(pids[0]))


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(PrerequisiteError, match="no-such-program"):
        await run_tool(["no-such-program"], deadline_s=60)
    with pytest.raises(PrerequisiteError) as caught:
        find_tool("no-such-program", package="the-package")
    assert caught.value.hint == "install the-package"


def test_a_child_gets_no_token_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    environment = tool_environment({"EXTRA": "1"})
    assert "SOME_TOKEN" not in environment
    assert environment["EXTRA"] == "1"
    assert environment["LC_ALL"] == "C.UTF-8"


# The ladder -----------------------------------------------------------------------------------------------------------


async def test_a_child_is_terminated_with_the_block() -> None:
    async with open_child(["sleep", "600"]) as child:
        pass
    assert child.returncode == -signal.SIGTERM


async def test_a_child_that_ignores_term_is_killed() -> None:
    async with open_child([PYTHON, "-c", STUBBORN], stdout=PIPE, term_s=0.2) as child:
        assert await read_line(child) == "ready"
    assert child.returncode == -signal.SIGKILL


async def test_a_second_cancel_still_reaps_the_child() -> None:
    ready = asyncio.Event()
    children: list[asyncio.subprocess.Process] = []

    async def run() -> None:
        async with open_child([PYTHON, "-c", STUBBORN], stdout=PIPE, term_s=0.5) as child:
            children.append(child)
            await read_line(child)
            ready.set()
            await child.wait()

    task = asyncio.ensure_future(run())
    await ready.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children[0].returncode == -signal.SIGKILL


async def test_a_child_whose_output_nobody_reads_is_ended_and_drained() -> None:
    async with asyncio.timeout(60), open_child(["yes"], stdout=PIPE) as child:
        assert await read_line(child) == "y"
        assert child.stdout is not None
        while len(child.stdout._buffer) <= 1 << 20:  # type: ignore[attr-defined]  # until the pipe stands still
            await asyncio.sleep(0.01)
    assert child.returncode == -signal.SIGTERM


async def test_what_the_child_started_goes_with_it() -> None:
    async with open_child(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=PIPE) as child:
        grandchild = int(await read_line(child))
        assert is_running(grandchild)
    await wait_gone(grandchild)


# A parent that dies ---------------------------------------------------------------------------------------------------

_PARENT = """
import asyncio, sys
from osimager.proc import open_child

async def main():
    async with open_child([sys.executable, "-c", %r], stdout=asyncio.subprocess.PIPE) as child:
        await child.stdout.readline()
        print(child.pid, flush=True)
        await child.wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_the_child_of_a_killed_parent_dies() -> None:
    parent = subprocess.Popen([PYTHON, "-c", _PARENT % STUBBORN], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    await wait_gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_whose_parent_died_before_it_could_ask_leaves() -> None:
    from osimager.proc import _before_exec

    prepare = _before_exec(os.getpid() + 1, None)
    assert prepare is not None
    done = subprocess.run(["true"], preexec_fn=prepare, check=False)
    assert done.returncode == 127


def test_as_many_files_may_be_open_as_the_host_allows() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (40, 400)); from osimager.proc import allow_open_files;"
        "allow_open_files(); print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(400, 400)\n"
