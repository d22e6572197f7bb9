"""A process that is killed in the middle of a download leaves what the next one goes on with."""

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
