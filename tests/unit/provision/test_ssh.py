"""The communicator against a real sshd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from osimager.env import Env
from osimager.errors import ProvisionError
from osimager.events import ConnectionTried, QmpEvent
from osimager.plan.model import Access
from osimager.ports import Communicator, Endpoint
from osimager.provision.keys import make_key
from osimager.provision.ssh import ConnectionLost, has_login, open_ssh
from tests.unit.provision.conftest import PASSWORD, USER, Seen, Sshd, free_port, open_sshd


def test_a_build_carries_nothing_of_paramiko_that_it_does_not_use() -> None:
    program = (
        "import sys; from osimager.provision.ssh import load_ssh; load_ssh(); import paramiko; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "paramiko.transport" in loaded
    assert not {"invoke", "unittest"} & set(loaded)


async def test_runs_a_script_as_root_directly_and_through_sudo(sshd: Sshd, env: Env) -> None:
    for access in (sshd.root, sshd.user):
        async with open_ssh(sshd.endpoint, access, sshd.key, env) as guest:
            lines: list[str] = []
            status = await guest.run("id -u; echo oops >&2; exit 3", on_line=lines.append, deadline_s=20)
            assert (status, lines) == (3, ["0", "oops"])


async def test_communicator_fits_the_seam(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        seam: Communicator = guest
        assert await seam.read("printf 'a\\nb'", deadline_s=20) == "a\nb"


async def test_neither_script_nor_environment_reaches_argv(sshd: Sshd, env: Env) -> None:
    script = "tr '\\0' ' ' </proc/$PPID/cmdline; tr '\\0' ' ' </proc/$$/cmdline; echo; echo $TOKEN; # needle-in-script"
    lines: list[str] = []
    async with open_ssh(sshd.endpoint, sshd.user, sshd.key, env) as guest:
        await guest.run(script, on_line=lines.append, environment={"TOKEN": "it's\n secret"}, deadline_s=20)
    assert lines[-2:] == ["it's secret"] or lines[-1] == "it's secret"
    assert "needle" not in lines[0]
    assert "secret" not in lines[0]


async def test_script_runs_under_its_own_interpreter_with_empty_stdin(sshd: Sshd, env: Env) -> None:
    lines: list[str] = []
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        script = "#!/usr/bin/env bash\nset -o pipefail\ncat\n[[ a == a ]] && echo bash\n"
        assert await guest.run(script, on_line=lines.append, deadline_s=20) == 0
    assert lines == ["bash"]


async def test_shell_that_was_started_ahead_runs_the_next_script(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.user, sshd.key, env) as guest:
        await guest.get_ready()
        await guest.get_ready()
        lines: list[str] = []
        for _ in range(3):  # two that were started ahead, and one that was not
            assert await guest.run("id -u; echo oops >&2; exit 3", on_line=lines.append, deadline_s=20) == 3
        assert lines == ["0", "oops"] * 3
        await guest.get_ready()
        assert await guest.read("cat; echo out; echo err >&2", deadline_s=20) == "out\n"


async def test_shell_that_was_started_ahead_and_died_is_replaced(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        # Its siblings are all that the session's sshd has: the shell that waits, and the one of this script.
        kill = """
            sshd=$(ps -o ppid= -p $PPID)
            for each in $(pgrep -P $sshd); do [ $each = $PPID ] || { kill $each; echo killed; }; done
        """
        await guest.get_ready()
        await guest.get_ready()
        assert await guest.read(kill, deadline_s=20) == "killed\n"
        assert await guest.read("echo here", deadline_s=20) == "here\n"


async def test_shell_that_waits_goes_with_the_connection(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.user, sshd.key, env) as guest:
        await guest.get_ready()


async def test_no_script_is_left_in_the_guest(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.user, sshd.key, env) as guest:
        name = await guest.read('echo "$0"; stat -c %a "$0"', deadline_s=20)
        path, mode = name.split()
        assert mode == "600"
        assert await guest.run(f"test ! -e {path}", deadline_s=20) == 0


async def test_process_left_behind_does_not_hold_the_step_up(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        pid = await guest.read("sleep 100 & echo $!", deadline_s=20)
    os.kill(int(pid), signal.SIGTERM)


async def test_large_output_comes_whole_and_in_order(sshd: Sshd, env: Env) -> None:
    lines: list[str] = []
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        await guest.run("seq 1 100000", on_line=lines.append, deadline_s=60)
    assert lines == [str(number) for number in range(1, 100001)]


async def test_error_of_the_line_sink_ends_the_run(sshd: Sshd, env: Env) -> None:
    def refuse(_line: str) -> None:
        raise ValueError("no more")

    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        with pytest.raises(ValueError, match="no more"):
            await guest.run("echo a", on_line=refuse, deadline_s=20)


async def test_user_without_sudo_is_told_apart_from_a_failing_script(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, Access(user="nosudo"), sshd.key, env) as guest:
        with pytest.raises(ProvisionError, match=r"nosudo cannot become root.*password"):
            await guest.run("true", deadline_s=20)


async def test_failing_read_says_what_stderr_said(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        with pytest.raises(ProvisionError, match="status 7: broken thing"):
            await guest.read("echo fine; echo broken thing >&2; exit 7", deadline_s=20)


async def test_put_and_get_keep_bytes_and_mode(sshd: Sshd, env: Env, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    target = tmp_path / "new folder" / "it's a file"
    async with open_ssh(sshd.endpoint, sshd.user, sshd.key, env) as guest:
        await guest.put(content, str(target), mode=0o4750, deadline_s=30)
        assert await guest.get(str(target), deadline_s=30, limit_bytes=len(content)) == content
        with pytest.raises(ProvisionError, match="larger than 10 bytes"):
            await guest.get(str(target), deadline_s=30, limit_bytes=10)
    assert stat.S_IMODE(target.stat().st_mode) == 0o4750
    assert target.stat().st_uid == 0
    assert [path.name for path in target.parent.iterdir()] == ["it's a file"]


async def test_put_that_fails_leaves_the_old_file(sshd: Sshd, env: Env, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        with pytest.raises(ProvisionError, match="is a folder"):
            await guest.put(b"x", str(tmp_path / "folder"), mode=0o600, deadline_s=30)
        with pytest.raises(ProvisionError, match="cannot read"):
            await guest.get("/nonexistent", deadline_s=30, limit_bytes=10)
    assert list((tmp_path / "folder").iterdir()) == []


async def test_deadline_ends_the_script_and_is_told(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        with pytest.raises(ProvisionError, match="for more than"):
            await guest.run("sleep 60", deadline_s=0.3)


async def test_lost_connection_is_told_at_once(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.user, sshd.key, env) as guest:
        # The session's sshd is what a guest that restarts ends: sh, sudo, user's sshd, its monitor.
        script = """p=$PPID
            while ! grep -q '^Name:.*sshd' /proc/$p/status; do p=$(awk '/^PPid/{print $2}' /proc/$p/status); done
            kill $p; sleep 60"""
        with pytest.raises(ConnectionLost, match="restarts or switches off"):
            await guest.run(script, deadline_s=20)
        with pytest.raises(ConnectionLost):
            await guest.read("true", deadline_s=20)


async def test_cancel_ends_a_run_at_once_and_leaves_no_thread(sshd: Sshd, env: Env) -> None:
    async with open_ssh(sshd.endpoint, sshd.root, sshd.key, env) as guest:
        running = asyncio.Event()
        task = asyncio.ensure_future(
            guest.run("echo on; sleep 60", on_line=lambda _line: running.set(), deadline_s=100)
        )
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_waits_until_sshd_listens_and_accepts_this_key(env: Env, seen: Seen, tmp_path: Path) -> None:
    """First nothing listens, then another build's sshd does (as a live installer's), then ours."""
    port, key, other = free_port(), make_key(env), make_key(env)
    endpoint, access = Endpoint("127.0.0.1", port), Access(user=USER)

    async def wait_outcome(outcome: str) -> None:
        await env.bus.wait_for(ConnectionTried, lambda tried: tried.outcome == outcome)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:

        async def connect() -> str:
            async with open_ssh(endpoint, access, key, env) as guest:
                return guest.host_key

        task = group.create_task(connect())
        await wait_outcome("refused")
        refused = group.create_task(wait_outcome("key-refused"))
        with open_sshd(tmp_path, port=port, key=other):
            await refused
        with open_sshd(tmp_path, port=port, key=key):
            assert (await task).startswith("ssh-ed25519 ")
    outcomes = [event.outcome for event in seen.of(ConnectionTried) if isinstance(event, ConnectionTried)]
    assert outcomes[-1] == "open"
    assert set(outcomes) >= {"refused", "key-refused", "open"}


@pytest.mark.parametrize("said", [b"SSH-2.0-none\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
async def test_server_that_breaks_off_is_told_from_one_that_is_not_there(said: bytes, env: Env) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    endpoint = Endpoint(*server.sockets[0].getsockname())

    async def connect() -> None:
        async with open_ssh(endpoint, Access(user="x"), make_key(env), env):
            raise AssertionError

    async with server, asyncio.timeout(20), asyncio.TaskGroup() as group:
        tried = group.create_task(env.bus.wait_for(ConnectionTried, lambda _tried: True))
        await asyncio.sleep(0)
        task = group.create_task(connect())
        assert (await tried).outcome == "broken-off"
        task.cancel()


async def test_logins_are_told_apart(sshd: Sshd, env: Env) -> None:
    assert await has_login(sshd.endpoint, USER, sshd.key)
    assert await has_login(sshd.endpoint, USER, PASSWORD)
    assert not await has_login(sshd.endpoint, USER, make_key(env))
    assert not await has_login(sshd.endpoint, USER, "wrong")
    assert not await has_login(sshd.endpoint, "root", PASSWORD)


async def test_silent_forward_is_tried_again_beside_the_silence(sshd: Sshd, env: Env, seen: Seen) -> None:
    """A forward that accepts and says nothing, as QEMU's does while the guest's network is down; then it works."""
    silent: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(silent) < 4:
            silent.append(writer)
            env.emit(QmpEvent("NIC_RX_FILTER_CHANGED"))  # from here on the guest may listen at any moment
            return
        there, back = await asyncio.open_connection(sshd.endpoint.host, sshd.endpoint.port)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, back))
            group.create_task(_pump(there, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        async with asyncio.timeout(20), open_ssh(Endpoint(host, port), sshd.root, sshd.key, env) as guest:
            assert await guest.read("echo in", deadline_s=20) == "in\n"
    finally:
        server.close()
        for writer in silent:
            writer.close()
            await writer.wait_closed()
    assert [event.outcome for event in seen.of(ConnectionTried) if isinstance(event, ConnectionTried)] == [
        "no-banner",
        "open",
    ]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_cancelled_wait_leaves_no_socket(env: Env) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = Endpoint(*server.getsockname())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0), open_ssh(endpoint, Access(user="x"), make_key(env), env):
                raise AssertionError
