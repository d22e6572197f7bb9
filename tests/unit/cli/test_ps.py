"""`ps`, `logs`, `stop`, `console` and `gc` over the folders that builds leave; running builds are tests/fault's."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from osimager.build.workspace import EVIDENCE, KEPT, find_socket, find_workspace, open_workspace
from osimager.env import Clock
from osimager.kept import make_folder, write_kept
from osimager.paths import Places
from osimager.units import format_time
from tests.unit.cli.conftest import Run

PAGE = (Path(__file__).parents[3] / "docs/contracts.md").read_text()


def example(label: str) -> Any:
    match = re.search(rf"```json {label}\n(.*?)\n```", PAGE, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def write_record(places: Places, build: str, **changes: object) -> Path:
    folder = places.builds / build
    write_kept(folder / "record.json", json.dumps({**example("record"), "build": build, **changes}))
    return folder


def test_example_of_a_listed_build_has_the_fields_that_ps_prints(places: Places, run: Run) -> None:
    write_record(places, example("record")["build"])
    [row] = run("ps", "--all", "--json").json()
    assert list(row) == list(example("ps")[0])
    assert (row["state"], row["seconds"], row["stage"]) == ("succeeded", 210.978, "FETCH")
    assert run("ps", "--json").json() == []


def test_only_a_build_whose_workspace_is_held_runs(places: Places, run: Run) -> None:
    with open_workspace(places, "tiny-1", Clock().now()) as workspace:
        write_record(places, workspace.name, status=None, ended=None, pid=os.getpid())
        write_record(places, "20200101T000000Z-tiny-1-dead", status=None, ended=None, pid=os.getpid())
        [row] = run("ps", "--json").json()
        assert (row["build"], row["state"], row["pid"]) == (workspace.name, "running", os.getpid())
        states = {row["build"]: row["state"] for row in run("ps", "-a", "--json").json()}
    assert states == {workspace.name: "running", "20200101T000000Z-tiny-1-dead": "killed"}
    assert run("ps").out == ""


def test_stop_never_signals_a_process_that_is_not_the_builds(places: Places, run: Run) -> None:
    """The signal would end this test's process, whose id the record has, but which started at another time."""
    with open_workspace(places, "tiny-1", Clock().now()) as workspace:
        write_record(places, workspace.name, status=None, ended=None, pid=os.getpid(), pid_started="1")
        said = run("stop", "last")
    assert said.status == 2
    assert "no process of this host" in said.err


@pytest.mark.parametrize("words", [("stop", "last"), ("console", "last"), ("console", "--vnc", "tiny-1")])
def test_what_needs_a_running_build_says_that_it_has_ended(places: Places, run: Run, words: tuple[str, ...]) -> None:
    write_record(places, "20261121T124723Z-tiny-1-0d8a", target="qemu/local/tiny-1-x86_64")
    said = run(*words)
    assert said.status == 2
    assert "the build 20261121T124723Z-tiny-1-0d8a has ended" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny-1", "--display", "vnc"], "no guest of {} is up: FETCH runs"),
        (["tiny-1", "--display=vnc"], "no guest of {} is up: FETCH runs"),
        (["tiny-1", "--label", "vnc"], "the guest of {} has no VNC server"),
        ([], "the guest of {} has no VNC server"),
    ],
)
def test_screen_that_comes_later_is_told_from_one_that_never_comes(
    places: Places, run: Run, words: list[str], said: str
) -> None:
    with open_workspace(places, "tiny-1", Clock().now()) as workspace:
        write_record(places, workspace.name, status=None, ended=None, words=words)
        told = run("console", "--vnc", "last")
    assert told.status == 2
    assert said.format(workspace.name) in told.err


def test_what_may_not_be_read_is_told_and_no_bug(places: Places, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root may read anything, the system's answer is given in its stead."""
    write_record(places, "20261121T124723Z-tiny-1-0d8a")

    def refuse(path: Path) -> list[Path]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    for words in (("ps", "--all"), ("logs", "last"), ("stop", "last")):
        said = run(*words)
        assert said.status == 4
        assert said.err.splitlines()[:2] == ["error: Permission denied", f"  at {places.builds}"]


def test_failed_builds_are_listed_with_what_failed(places: Places, run: Run) -> None:
    write_record(places, "20261121T124723Z-tiny-1-0d8a", status=6, error="the guest's kernel panicked\nand more")
    write_record(places, "20261121T124724Z-tiny-1-0d8b", status=130, error="interrupted")
    first, second = run("ps", "--all").out.splitlines()
    assert first.endswith("  the guest's kernel panicked")
    assert second.split()[1] == "interrupted"
    assert "interrupted" not in second.partition("interrupted")[2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full: a full disk")
def test_full_disk_behind_the_output_is_no_bug(places: Places) -> None:
    write_record(places, "20261121T124723Z-tiny-1-0d8a")
    argv = [sys.executable, "-m", "osimager", "ps", "--all"]
    home = {**os.environ, "OSIMAGER_HOME": str(places.data.parent)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, env=home, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (4, "error: cannot write what is to be shown: No space left on device\n")


def test_log_that_is_gone_or_half_destroyed_is_no_bug(places: Places, run: Run) -> None:
    [event, *_] = re.findall(r"```json event\n(.*?)\n```", PAGE, re.DOTALL)
    folder = write_record(places, "b")
    said = run("logs", "b")
    assert (said.status, "b has no log any more" in said.err) == (2, True)
    (folder / "events.jsonl").write_bytes(b"\0\xff\xfe\n[1]\n" + event.encode() + b"\n")
    assert run("logs", "b").out == "12:47:23 INSTALL\n"
    assert [json.loads(line) for line in run("logs", "b", "--json").out.splitlines()] == [[1], json.loads(event)]


def test_logs_end_with_the_consoles_last_words(places: Places, run: Run) -> None:
    events = [json.loads(text) for text in re.findall(r"```json event\n(.*?)\n```", PAGE, re.DOTALL)]
    [failed] = [event for event in events if event["kind"] == "build_failed"]
    failed["seen"] = "\n".join(["one", "two", " ", "three", "  four", "five", "s" * 500, ""])
    write_kept(write_record(places, "b") / "events.jsonl", json.dumps(failed) + "\n")
    shown = [line.removeprefix("  console: ") for line in run("logs", "b").out.splitlines() if "  console: " in line]
    assert shown == ["two", "three", "four", "five", "s" * 160]


def test_logs_are_rendered_as_the_build_shows_them_and_raw_with_json(places: Places, run: Run) -> None:
    event, *_, failed = [json.loads(text) for text in re.findall(r"```json event\n(.*?)\n```", PAGE, re.DOTALL)]
    unknown = {**event, "kind": "of_a_newer_osimager"}
    lines = "".join(json.dumps(each) + "\n" for each in (event, unknown, failed)) + '{"cut": '
    write_kept(write_record(places, "b") / "events.jsonl", lines)
    shown = run("logs", "b").out
    assert shown.splitlines()[0] == "12:47:23 INSTALL"
    assert "waiting for the installer to end" in shown
    assert run("logs", "b", "--json", "-f").out == lines.rpartition("\n")[0] + "\n"


def test_logs_of_a_failed_build_end_with_cause_hint_and_evidence(places: Places, run: Run) -> None:
    folder = write_record(places, "b", status=7)
    failed = next(each for each in re.findall(r"```json event\n(.*?)\n```", PAGE, re.DOTALL) if "build_failed" in each)
    write_kept(folder / "events.jsonl", json.dumps({**json.loads(failed), "hint": "mend it"}) + "\n")
    assert run("logs", "last").out.splitlines() == [
        "error: step mark exited with status 3 (status 7)",
        "  hint: mend it",
        f"  evidence: {json.loads(failed)['evidence']}",
    ]


@pytest.mark.needs("tail")
def test_gc_ends_a_guest_that_outlived_its_runner_and_no_other_process(places: Places, run: Run) -> None:
    """The second process has the id that another dead build's guest once had, and is not that guest."""
    file = make_folder(find_workspace(places, "dead")) / "disk"
    file.touch()
    make_folder(find_workspace(places, "reused"))
    argv = ["qemu-system-none", "-f", str(file)]
    with (
        subprocess.Popen(argv, executable=shutil.which("tail")) as orphan,
        subprocess.Popen([*argv, str(file)], executable=shutil.which("tail"), stdout=subprocess.DEVNULL) as other,
    ):
        for build, pid in (("dead", orphan.pid), ("reused", other.pid)):
            event = {"kind": "machine_started", "pid": pid, "argv": argv}
            write_kept(places.builds / build / "events.jsonl", json.dumps(event) + "\n")
        assert run("gc").err == "swept dead\nswept reused\n"
        assert orphan.wait(30) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


def test_gc_sweeps_the_dead_and_spares_the_living_and_the_kept(places: Places, run: Run) -> None:
    for name in ("dead", "kept"):
        make_folder(find_workspace(places, name) / "files")
    (find_workspace(places, "kept") / KEPT).touch()
    make_folder(places.runtime, private=True)
    find_socket(places, "dead", "console").touch()
    make_folder(places.images)
    (places.images / ".partial-half-0000.qcow2").touch()
    half = write_record(places, "dead") / ".partial-half.json"
    half.touch()
    with open_workspace(places, "living", Clock().now()) as workspace:
        assert run("gc").err == "swept dead\n"
        assert sorted(path.name for path in workspace.parent.iterdir()) == sorted(["kept", workspace.name])
    assert list(places.runtime.iterdir()) == list(places.images.iterdir()) == []
    assert not half.exists()
    assert run("gc").err == "nothing to sweep\n"
    assert run("gc", "--kept").err == "swept kept\n"


def test_gc_keeps_the_evidence_of_a_build_that_was_killed(places: Places, run: Run) -> None:
    """What is no build has no folder to keep it in, and half a picture is none."""
    for name in ("dead", "run-of-an-image"):
        evidence = make_folder(find_workspace(places, name) / EVIDENCE / "screens")
        (evidence / "target-120000.png").write_bytes(b"a picture")
        (evidence.parent / ".partial-screen-target.png").touch()
    folder = write_record(places, "dead", status=None, ended=None)
    (folder / "events.jsonl").touch()
    assert run("logs", "dead").err == "dead was killed; the next build, or osimager gc, sweeps what it left\n"
    assert run("gc").err == "swept dead\nswept run-of-an-image\n"
    assert run("logs", "dead").err == f"dead was killed; evidence: {folder / EVIDENCE}\n"
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert kept == ["events.jsonl", "evidence/screens/target-120000.png", "record.json"]
    assert list(places.builds.iterdir()) == [folder]


def test_gc_forgets_the_logs_of_old_builds_and_keeps_their_records(places: Places, run: Run) -> None:
    now = format_time(Clock().now())
    for name, ended in (("old", "2020-01-01T00:00:00.000Z"), ("new", now)):
        folder = write_record(places, name, ended=ended)
        (folder / "events.jsonl").write_bytes(b"x" * 5000)
        make_folder(folder / EVIDENCE)
        (folder / EVIDENCE / "events.jsonl").hardlink_to(folder / "events.jsonl")
        (folder / EVIDENCE / "plan.json").write_text("{}")
    with open_workspace(places, "tiny-1", Clock().now()) as workspace:
        living = write_record(places, workspace.name, status=None, ended=None, started="2020-01-01T00:00:00.000Z")
        (living / "events.jsonl").touch()
        assert run("gc").err == "nothing to sweep\n"
        said = run("gc", "--logs", "30").err
        assert run("gc", "--logs", "30").err == "nothing to sweep\n"
        assert (living / "events.jsonl").exists()
    assert re.fullmatch(r"removed the log and evidence of old: \d+\.\d KiB\n", said)
    assert [path.name for path in (places.builds / "old").iterdir()] == ["record.json"]
    assert (places.builds / "new" / EVIDENCE / "plan.json").exists()
    assert {row["build"] for row in run("ps", "--all", "--json").json()} == {"old", "new", workspace.name}
