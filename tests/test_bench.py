"""What the pages say of osimager's speed is what was measured; the tables are made of the data rightly."""

from __future__ import annotations

from bench import results
from bench.results import Series

SERIES = Series(
    conditions="one machine",
    notes=["- a note"],
    seconds={
        "floor": [50.0, 70.0, 60.0],
        "packer": [100.0, 90.0, 120.0],
        "packer-tuned": [80.0],
        "no-layers": [50.0, 50.0, 50.0],
        "cold": [51.0, 50.0, 52.0],
        "last": [],
        "unchanged": [0.5],
    },
    stages={"cold": {"INSTALL": 30.04, "SEED": 0.01}},
    layers_mib=900,
    failed={"last": "no image"},
)


def test_pages_say_what_the_data_say() -> None:
    everything = results.load()
    assert results.RESULTS.read_text() == results.render_results(everything)
    between = results.README.read_text().partition(results.BEGIN)[2].partition(results.END)[0]
    assert between == results.render_short(everything)


def test_table_has_extremes_medians_and_ratios_of_medians() -> None:
    lines = results.render_table(SERIES).splitlines()
    assert "| floor | 50.0 | 60.0 | 70.0 | 0.600 | 0.750 | 1.000 |" in lines
    assert "| cold | 50.0 | 51.0 | 52.0 | 0.510 | 0.637 | 0.850 |" in lines


def test_contestant_that_failed_is_named_with_its_reason() -> None:
    assert "| last | failed: no image | | | | | |" in results.render_table(SERIES)
    assert "| last step changed | failed |" in results.render_short({"x86_64 bios": SERIES})


def test_cost_of_storing_layers_is_taken_run_by_run() -> None:
    assert "costs a cold build 2.0 % (0.0 to 4.0, run by run)" in results.render_table(SERIES)


def test_stages_below_what_is_shown_are_left_out() -> None:
    assert "- cold: INSTALL 30.0 s\n" in results.render_table(SERIES)


def test_short_table_has_a_column_for_each_configuration() -> None:
    short = results.render_short({"x86_64 bios": SERIES, "aarch64 uefi": SERIES})
    assert short.startswith("| | x86_64 bios | aarch64 uefi |\n|---|---|---|\n")
    assert "| nothing changed | 0.5 s (0.005) | 0.5 s (0.005) |\n" in short
