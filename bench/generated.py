"""How long a generated text of the configuration's language takes to resolve: the slowest of many, in milliseconds.

`python -m bench.generated [--count 1000000] [--seed 1]`; the texts are the tests' own, hostile ones among them.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time

from tests.unit.config.generated import make_renderer, make_text, resolve

MOST_MS = 50
SHOWN = 5


def main() -> int:
    """Print the slowest texts, and give 1 where one takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice, renderer = random.Random(options.seed), make_renderer()

    def milliseconds(text: str) -> float:
        started = time.thread_time()
        resolve(renderer, text)
        return (time.thread_time() - started) * 1000

    texts = (make_text(dice) for _ in range(options.count))
    slow = heapq.nlargest(SHOWN * 4, ((milliseconds(text), text) for text in texts))
    # A neighbour may have struck once: of the slow ones the best of three counts.
    slowest = sorted(((min(milliseconds(text) for _ in range(3)), text) for _, text in slow), reverse=True)
    for taken_ms, text in slowest[:SHOWN]:
        print(f"{taken_ms:6.1f} ms  {text[:80]!r}")
    print(f"{options.count} texts; at most {MOST_MS} ms is asked")
    return int(slowest[0][0] > MOST_MS)


if __name__ == "__main__":
    raise SystemExit(main())
