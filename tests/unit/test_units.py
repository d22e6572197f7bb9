"""Sizes and durations, there and back; times as contracts.md writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osimager.units import format_duration, format_size, format_time, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("20G", 20 << 30),
        ("512MiB", 512 << 20),
        ("1.5g", 3 << 29),
        (" 7 kb ", 7168),
        ("0", 0),
        ("2T", 2 << 40),
        ("0.1K", 102),
    ],
)
def test_a_size_is_read_in_every_form(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


def test_a_plain_number_is_of_the_given_unit() -> None:
    assert parse_size("20", unit="G") == 20 << 30
    assert parse_size("20K", unit="G") == 20 << 10


@given(st.integers(0), st.sampled_from("KMGTP"))
def test_whole_sizes_are_exact_however_large(number: int, unit: str) -> None:
    assert parse_size(str(number)) == number
    assert parse_size(f"{number}{unit}") == number * 1024 ** (" KMGTP".index(unit))


def test_a_fraction_is_exact_beyond_what_a_float_holds() -> None:
    assert parse_size("9007199254740993.5K") == 9007199254740993 * 1024 + 512


@given(st.integers(0, 10**15))
def test_a_size_for_people_reads_back_to_within_a_twentieth(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == pytest.approx(size_bytes, rel=0.05)


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(days: int, hours: int, minutes: int, seconds: int, millis: int) -> None:
    expected = days * 86400 + hours * 3600 + minutes * 60 + seconds + millis / 1000
    assert parse_duration(f"{days}d{hours}h{minutes}m{seconds}s{millis}ms") == pytest.approx(expected)


@given(st.floats(0, 10**6))
def test_a_duration_for_people_reads_back_to_within_a_minute(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.06 if seconds < 9 else 60)


@given(st.text())
def test_other_texts_are_refused_with_a_sentence(text: str) -> None:
    for parse, example in ((parse_size, "20G"), (parse_duration, "5m")):
        try:
            assert parse(text) >= 0
        except ValueError as exc:
            assert example in str(exc)  # noqa: PT017  hypothesis finds texts of both sorts


def test_a_time_is_told_in_utc_whatever_zone_it_came_in() -> None:
    moment = datetime(2026, 8, 1, 12, 0, 0, 123456, tzinfo=UTC)
    assert format_time(moment) == "2026-08-01T12:00:00.123Z"
    assert format_time(moment.astimezone(timezone(timedelta(hours=2))), timespec="seconds") == "2026-08-01T12:00:00Z"
