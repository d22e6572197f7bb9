"""Records of builds: found by id, beginning, target and `last`; what was expected of a plan."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from osimager.build.records import BuildFolder, BuildRecord, find_expected, find_record, is_target, list_records
from osimager.errors import UsageError
from osimager.events import Stage, State
from osimager.kept import write_kept
from osimager.paths import Places

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def keep(places: Places, build: str, **fields: object) -> None:
    given = {"target": "qemu/local/debian-12-x86_64", "pid": 1, "pid_started": "1", "started": NOON, "status": 0}
    BuildFolder(places, BuildRecord(build=build, **{**given, **fields})).close()  # type: ignore[arg-type]


def test_build_is_found_by_id_beginning_target_and_last(places: Places) -> None:
    keep(places, "20261121T120000Z-debian-12-aaaa")
    keep(places, "20261121T120000Z-debian-12-bbbb", started=NOON + timedelta(seconds=1))
    keep(places, "20261121T120002Z-rhel-9.5-cccc", started=NOON + timedelta(seconds=2), target="qemu/lab/rhel-9.5")

    def found(text: str) -> str:
        return find_record(text, places).build[-4:]

    assert found("20261121T120000Z-debian-12-aaaa") == "aaaa"
    assert found("20261121T120002") == found("last") == found("lab/rhel-9.5"[4:]) == "cccc"
    assert found("debian-12") == found("debian-12-x86_64") == found("qemu/local/debian-12") == "bbbb"


@pytest.mark.parametrize("text", ["20261121T12", "20261121T120000Z-debian-12-"])
def test_beginning_of_several_ids_is_refused_with_the_candidates(places: Places, text: str) -> None:
    for end in ("aaaa", "bbbb"):
        keep(places, f"20261121T120000Z-debian-12-{end}")
    with pytest.raises(UsageError, match="could be 2 builds") as caught:
        find_record(text, places)
    assert caught.value.hint == "give more of it: 20261121T120000Z-debian-12-aaaa, 20261121T120000Z-debian-12-bbbb"


def test_no_such_build_is_a_usage_error(places: Places) -> None:
    for text in ("last", "", "debian-12"):
        with pytest.raises(UsageError, match="there is no build"):
            find_record(text, places)


@pytest.mark.parametrize(
    ("text", "is_meant"),
    [
        ("debian-12", True),
        ("debian-12-x86_64", True),
        ("debian-12-amd64", True),
        ("debian-12-arm64", False),
        ("qemu/debian-12", True),
        ("qemu/local/debian-12-x86_64", True),
        ("debian-1", False),
        ("debian", False),
        ("debian-12-aarch64", False),
        ("libvirt/debian-12", False),
        ("", False),
    ],
)
def test_target_is_meant_by_its_forms_only(text: str, is_meant: bool) -> None:
    assert is_target("qemu/local/debian-12-x86_64", text) is is_meant


def test_damaged_record_is_left_out(places: Places) -> None:
    keep(places, "good")
    for name, text in {"half": '{"v": 1', "list": "[]", "empty": "", "other": '{"stages": {"NONE": {}}}'}.items():
        write_kept(places.builds / name / "record.json", text)
    assert [record.build for record in list_records(places)] == ["good"]


def test_expected_times_are_those_of_the_last_good_build_of_the_same_plan(places: Places) -> None:
    def stages(**seconds: float | None) -> dict[Stage, tuple[State, float | None]]:
        return {Stage(name): (State.SUCCEEDED if took else State.SKIPPED, took) for name, took in seconds.items()}

    keep(places, "1", plan="p", stages=stages(INSTALL=30, VERIFY=9))
    keep(places, "2", plan="p", stages=stages(INSTALL=20, VERIFY=8))
    keep(places, "3", plan="p", stages=stages(INSTALL=None, VERIFY=7))  # its layer was found
    keep(places, "4", plan="p", stages=stages(INSTALL=1, VERIFY=1), status=6)
    keep(places, "5", plan="q", stages=stages(INSTALL=2, VERIFY=2))
    assert find_expected(places, "p") == {Stage.INSTALL: 20, Stage.VERIFY: 7}
    assert find_expected(places, "") == {}
