"""Processes that share a download: twenty take one, and the next one goes on with what a killed one left."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

from osimager.arch import Arch
from osimager.env import Env
from osimager.media.fetch import fetch
from osimager.media.seed import make_seed
from osimager.media.store import IsoStore
from osimager.plan.model import MediaPlan
from tests.unit.media.hostile import Act, iso_of, serving

FETCHER = """
import asyncio, os, sys
from datetime import UTC, datetime
from pathlib import Path
from osimager.arch import Arch
from osimager.env import Env
from osimager.events import Bus
from osimager.media.fetch import fetch
from osimager.paths import Places
from osimager.plan.model import MediaPlan
from osimager.redact import Masker

masker = Masker()
bus = Bus(now=lambda: datetime.now(UTC), masker=masker)
bus._sinks.append(lambda stamped: print(stamped.event, flush=True))
env = Env(places=Places.from_environment(os.environ), workspace=Path("."), bus=bus, masker=masker)
media = MediaPlan(name="x", filename="x.iso", urls=(sys.argv[1],), sha256=sys.argv[2])
asyncio.run(fetch(media, env, arch=Arch.X86_64))
"""


async def test_the_next_process_fetches_the_rest_only(env: Env, tmp_path: Path) -> None:
    make_seed(tmp_path / "x.iso", "TEST", {"filler": iso_of(16 << 20)})
    content = (tmp_path / "x.iso").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    async with serving(content, [Act.STALL]) as server:
        url = f"{server.url}/x.iso"
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FETCHER, url, digest, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
        )
        assert child.stdout is not None
        async with asyncio.timeout(60):
            await child.stdout.readline()  # its first Progress: a mebibyte is on the disk
            partial = IsoStore(env.places).partial(digest)
            while partial.stat().st_size < 7 << 20:
                await asyncio.sleep(0.01)
            child.kill()
            await child.wait()
            media = MediaPlan(name="x", filename="x.iso", urls=(url,), sha256=digest)
            facts = await fetch(media, env, arch=Arch.X86_64)
        assert facts.path.read_bytes() == content
        assert server.requests == 2
        assert server.sent_bytes <= 1.1 * len(content)


async def test_twenty_processes_share_one_download(env: Env, tmp_path: Path) -> None:
    make_seed(tmp_path / "x.iso", "TEST", {"filler": iso_of(4 << 20)})
    content = (tmp_path / "x.iso").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    async with serving(content, [Act.HELD]) as server:
        command = (sys.executable, "-c", FETCHER, f"{server.url}/x.iso", digest)
        pipe = asyncio.subprocess.PIPE
        children = [
            await asyncio.create_subprocess_exec(*command, stdout=pipe, env=dict(os.environ)) for _number in range(20)
        ]
        async with asyncio.timeout(300):
            # The first is served when the other nineteen have said that they wait for it.
            waiting = 0
            outputs = {child: child.stdout for child in children}
            first = {asyncio.ensure_future(out.readline()): child for child, out in outputs.items() if out is not None}
            while waiting < 19:
                done, _pending = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                waiting += sum(b"another build downloads" in line.result() for line in done)
                first = {line: child for line, child in first.items() if line not in done}
            server.released.set()
            await asyncio.gather(*first, *(child.communicate() for child in children if child not in first.values()))
            assert [await child.wait() for child in children] == [0] * 20
        assert (server.requests, server.sent_bytes) == (1, len(content))
    assert IsoStore(env.places).path_of(digest).read_bytes() == content
