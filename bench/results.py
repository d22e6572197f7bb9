"""The bench's results and the tables made of them: `results.json` -> RESULTS.md and the README's short table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA, RESULTS, README = ROOT / "bench/results.json", ROOT / "bench/RESULTS.md", ROOT / "README.md"
BEGIN, END = "<!-- bench: begin -->\n", "<!-- bench: end -->\n"
PEERS = ("packer", "packer-tuned", "floor")
_SHORT = {
    "packer": "Packer 1.6.6",
    "packer-tuned": "Packer, typing as fast as this menu bears",
    "floor": "QEMU by hand",
    "cold": "osimager, cold",
    "last": "last step changed",
    "last-disk": "the same, no memory saved",
    "first": "first of five steps changed",
    "unchanged": "nothing changed",
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One configuration, measured in one run. `seconds` has each contestant's times in turn; one that failed has none.

    `stages` are the median seconds of each stage; `layers_mib` what the layers of a cold build take on the disk.
    """

    conditions: str
    notes: list[str]
    seconds: dict[str, list[float]]
    stages: dict[str, dict[str, float]]
    layers_mib: int
    failed: dict[str, str]


def load() -> dict[str, Series]:
    """Give the series by configuration (`x86_64 bios`)."""
    return {name: Series(**said) for name, said in json.loads(DATA.read_text()).items()}


def write(name: str, series: Series) -> None:
    """Put a configuration's series in the place of its last one, and make the pages anew."""
    everything = {**load(), name: series}
    DATA.write_text(json.dumps({each: asdict(made) for each, made in everything.items()}, indent=1) + "\n")
    RESULTS.write_text(render_results(everything))
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + render_short(everything) + END + rest.partition(END)[2])


def render_results(everything: Mapping[str, Series]) -> str:
    """Give bench/RESULTS.md."""
    parts = ["# Results\n\nWritten by `python -m bench.compare --write` from [results.json](results.json).\n"]
    return "\n".join([*parts, *(f"## {name}\n\n{render_table(series)}" for name, series in everything.items())])


def render_short(everything: Mapping[str, Series]) -> str:
    """Give the README's table: medians, and what they are of Packer's."""
    if not everything:
        return "Not measured yet.\n"
    lines = [f"| | {' | '.join(everything)} |", "|---" * (len(everything) + 1) + "|"]
    for key, name in _SHORT.items():
        cells = [_short_cell(series, key) for series in everything.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def render_table(series: Series) -> str:
    """Give one configuration's table, its conditions before and what to know after it."""
    lines = [
        series.conditions,
        "",
        "| | min s | median s | max s | of Packer's | of Packer's, tuned | of the floor's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, values in series.seconds.items():
        if values:
            times = " | ".join(f"{value:.1f}" for value in (min(values), statistics.median(values), max(values)))
            lines.append(f"| {name} | {times} | {' | '.join(_ratio(series, name, peer) for peer in PEERS)} |")
        else:
            lines.append(f"| {name} | failed: {series.failed[name]} | | | | | |")
    lines += ["", *_facts(series), *series.notes]
    lines += [f"- {name}: {_render_stages(stages)}" for name, stages in series.stages.items()]
    return "\n".join(lines) + "\n"


def _facts(series: Series) -> list[str]:
    facts = []
    if series.layers_mib:
        facts.append(f"- The layers of a cold build take {series.layers_mib} MiB.")
    pairs = list(zip(series.seconds.get("cold", []), series.seconds.get("no-layers", []), strict=False))
    if pairs:
        costs = [100 * (cold / bare - 1) for cold, bare in pairs]
        low, middle, high = min(costs), statistics.median(costs), max(costs)
        facts.append(f"- Storing layers costs a cold build {middle:.1f} % ({low:.1f} to {high:.1f}, run by run).")
    return facts


def _ratio(series: Series, name: str, peer: str) -> str:
    """Give the ratio of the medians; nothing where there is no peer."""
    mine, theirs = series.seconds.get(name), series.seconds.get(peer)
    return f"{statistics.median(mine) / statistics.median(theirs):.3f}" if mine and theirs else ""


def _short_cell(series: Series, name: str) -> str:
    values = series.seconds.get(name)
    if not values:
        return "failed" if name in series.failed else ""
    ratio = _ratio(series, name, "packer")
    return f"{statistics.median(values):.1f} s" + (f" ({ratio})" if ratio and name != "packer" else "")


def _render_stages(stages: Mapping[str, float]) -> str:
    return " · ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items() if seconds >= 0.05)
