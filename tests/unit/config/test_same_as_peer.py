"""Every target of OSImager 1.11.1's data tree comes out as the peer's own, but for the mended bugs.

`OSIMAGER_PEER` names a virtual environment with `osimager==1.11.1` in it; bench/compare_peer.py does the work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PEER = os.environ.get("OSIMAGER_PEER", "")
HARNESS = Path(__file__).parents[3] / "bench/compare_peer.py"


@pytest.mark.full
@pytest.mark.skipif(not PEER, reason="OSIMAGER_PEER names no virtual environment with OSImager 1.11.1")
@pytest.mark.parametrize("host", [[], ["web.example.org", "192.168.1.50"]], ids=["dhcp", "static"])
def test_every_difference_is_a_mended_bug(host: list[str]) -> None:
    done = subprocess.run([sys.executable, str(HARNESS), PEER, *host], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
