"""A hostile server never gets a bad ISO accepted, whatever it does in whatever order (issue 5, "Done when")."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.env import Env
from osimager.errors import MediaError
from osimager.media.download import Patience
from osimager.media.fetch import fetch
from osimager.media.seed import make_seed
from osimager.plan.model import MediaPlan
from tests.unit.media.hostile import Act, iso_of, serving

QUICK = Patience(connect_s=5, stall_s=0.05, tries=3, pause_s=0.0, redirects=4)


@pytest.mark.parametrize("tries", [100, pytest.param(1000, marks=pytest.mark.full)])
async def test_no_bad_iso_is_ever_accepted(env: Env, tmp_path: Path, tries: int) -> None:
    make_seed(tmp_path / "x.iso", "TEST", {"filler": iso_of(200_000)})
    content = (tmp_path / "x.iso").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    accepted = 0
    for number in range(tries):
        chance = random.Random(number)
        script = [chance.choice(list(Act)) for _step in range(chance.randrange(1, 9))]
        async with serving(content, script, after=chance.choice(list(Act))) as one, serving(content, script) as two:
            one.etag, one.cut_at, two.cut_at = chance.random() < 0.7, chance.random(), chance.random()
            urls = (f"{one.url}/x.iso", f"{two.url}/x.iso")[: chance.randrange(1, 3)]
            media = MediaPlan(name="x", filename="x.iso", urls=urls, sha256=digest)
            try:
                async with asyncio.timeout(30):
                    facts = await fetch(media, env, arch=Arch.X86_64, patience=QUICK)
                assert facts.path.read_bytes() == content, (number, script)
                accepted += 1
            except MediaError as exc:
                assert exc.what  # noqa: PT017  any MediaError will do
            for path in (env.places.isos / "sha256").glob("*.iso"):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem, (number, script)
            if chance.random() < 0.5:  # else what is left is what the next one goes on with
                shutil.rmtree(env.places.isos)
            else:
                shutil.rmtree(env.places.isos / "sha256", ignore_errors=True)
    assert 0 < accepted < tries
