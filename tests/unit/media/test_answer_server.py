"""The answer server, spoken to by a real client over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import aiohttp
import pytest

from osimager.env import Env
from osimager.errors import ConfigError
from osimager.events import AnswerFetched, AnswerRefused, Event
from osimager.media.answer_server import AnswerServer, open_answer_server

ANSWERS = {"preseed.cfg": b"d-i x/y string z\n" * 10_000, "late/a.sh": b"#!/bin/sh\n", "empty": b""}


async def get(server: AnswerServer, path: str, **options: str) -> tuple[int, bytes, dict[str, str]]:
    method = options.pop("method", "GET")
    url = f"{server.url_for_guest('127.0.0.1')}/{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=options) as response:
        return response.status, await response.read(), dict(response.headers)


async def test_each_answer_is_served_and_its_fetching_is_told(env: Env, events: list[Event]) -> None:
    async with open_answer_server(ANSWERS, env) as server:
        for name, content in ANSWERS.items():
            status, body, _headers = await get(server, name)
            assert (status, body) == (200, content)
    assert events == [AnswerFetched(name) for name in ANSWERS]


async def test_the_guest_is_given_its_own_address_of_this_host(env: Env) -> None:
    async with open_answer_server(ANSWERS, env) as server:
        assert server.url_for_guest().startswith(f"http://10.0.2.2:{server.port}/")
        assert server.url_for_guest("192.168.77.1").startswith(f"http://192.168.77.1:{server.port}/")


async def test_the_random_path_is_long_new_each_time_and_in_no_event(env: Env, events: list[Event]) -> None:
    secrets = set()
    for _time in range(2):
        async with open_answer_server(ANSWERS, env) as server:
            secret = server.url_for_guest().split("/")[3]
            secrets.add(secret)
            await get(server, "absent")
            await get(server, f"../{secret}x/{secret}")
            assert len(secret) * 4 >= 128
            assert secret not in env.masker.mask(server.url_for_guest())
    assert len(secrets) == 2
    assert len(events) == 4
    assert not any(secret in repr(event) for event in events for secret in secrets)


@pytest.mark.parametrize("path", ["", "/", "/preseed.cfg", "/x/preseed.cfg", "/%2e%2e/etc/passwd"])
async def test_anything_else_is_refused_without_a_listing(env: Env, events: list[Event], path: str) -> None:
    async with (
        open_answer_server(ANSWERS, env) as server,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.port}{path}") as response,
    ):
        assert response.status == 404
        assert b"preseed" not in await response.read()
    assert isinstance(events[0], AnswerRefused)


async def test_the_folder_itself_lists_nothing(env: Env, events: list[Event]) -> None:
    async with open_answer_server(ANSWERS, env) as server:
        status, body, _headers = await get(server, "")
        assert status == 404
        assert b"preseed" not in body
    assert events == [AnswerRefused("/…/")]


async def test_head_tells_the_length_and_counts_as_no_fetch(env: Env, events: list[Event]) -> None:
    async with open_answer_server(ANSWERS, env) as server:
        status, body, headers = await get(server, "preseed.cfg", method="HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(ANSWERS["preseed.cfg"])))
        assert (await get(server, "preseed.cfg", method="POST"))[0] == 405
    assert events == [AnswerRefused("/…/preseed.cfg")]


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-3", 206, 0, 4),
        ("bytes=6-", 206, 6, 10),
        ("bytes=-2", 206, 8, 10),
        ("bytes=4-99", 206, 4, 10),
        ("bytes=10-", 416, 0, 0),
        ("bytes=-", 200, 0, 10),
        ("bytes=5-3", 200, 0, 10),
        ("lines=1-2", 200, 0, 10),
        ("bytes=0-1,4-5", 200, 0, 10),
    ],
)
async def test_a_range_is_served_alone_and_what_is_none_as_the_whole(
    env: Env, asked: str, status: int, start: int, end: int
) -> None:
    async with open_answer_server({"a": b"0123456789"}, env) as server:
        got, body, headers = await get(server, "a", Range=asked)
        assert (got, body) == (status, b"0123456789"[start:end])
        if got == 206:
            assert headers["Content-Range"] == f"bytes {start}-{end - 1}/10"


async def test_a_guest_that_goes_away_in_the_middle_has_not_fetched(env: Env) -> None:
    async with open_answer_server({"a": bytes(64 << 20)}, env) as server:
        waiting = asyncio.create_task(env.bus.wait_for(AnswerFetched))
        await asyncio.sleep(0)
        path = server.url_for_guest().split("/")[3] + "/a"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
        await reader.read(1000)
        writer.transport.abort()
        async with asyncio.timeout(10):
            assert await waiting == AnswerFetched("a", whole=False)


async def test_the_port_is_free_again_afterwards_even_with_a_client_hanging_on(env: Env) -> None:
    async with open_answer_server(ANSWERS, env) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /")
        await writer.drain()
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):  # where its words had not been read yet
            assert await reader.read() == b""
    writer.close()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", server.port))


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /{path} HTTP/1.0", 200),
        ("GET http://10.0.2.2:80/{path} HTTP/1.1", 200),  # as to a proxy
        ("GET /{path}?from=installer#top HTTP/1.1", 200),
        ("\r\nGET /{path} HTTP/1.1", 200),
        ("POST /{path} HTTP/1.1", 405),
        ("GET /{path}", 400),
        ("GET /{path} HTTP/2", 400),
        ("\x16\x03\x01 hello", 400),  # TLS
        ("GET /" + "x" * 100_000 + " HTTP/1.1", 400),
    ],
)
async def test_request_lines_of_old_and_odd_clients(env: Env, request_line: str, status: int) -> None:
    async with asyncio.timeout(30), open_answer_server({"a": b"0123456789"}, env) as server:
        path = server.url_for_guest().split("/")[3] + "/a"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"{request_line.format(path=path)}\r\nUser-Agent: odd\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert answer.split(b" ")[1] == str(status).encode()
    assert (answer.rpartition(b"\r\n\r\n")[2] == b"0123456789") is (status == 200)


@pytest.mark.parametrize("name", ["", "a b", "../x", "/x", "a?b", "ä"])
async def test_a_name_that_no_url_holds_plainly_is_refused(env: Env, name: str) -> None:
    with pytest.raises(ConfigError, match="answer's name"):
        async with open_answer_server({name: b""}, env):
            pass
