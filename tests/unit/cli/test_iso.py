"""The verbs of `osimager iso`, on an ISO and a catalogue of the test's own, and a web server on loopback."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from osimager.media.seed import make_seed
from osimager.paths import Places
from tests.unit.cli.conftest import Run
from tests.unit.media.hostile import iso_of

Write = Callable[[str, str], Path]
X86 = ("--arch", "x86_64")
TREEINFO = "[general]\nfamily = Rocky Linux\nversion = 9.5\narch = x86_64\n"


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    """Give an ISO that says that it is Rocky Linux 9.5."""
    path = tmp_path / "downloaded" / "Rocky-9.5-x86_64-dvd.iso"
    path.parent.mkdir()
    make_seed(path, "Rocky-9-5-x86_64-dvd", {".treeinfo": TREEINFO.encode(), "filler": iso_of(100_000)})
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def server(iso: Path) -> Iterator[str]:
    """Serve the ISO's folder, and give its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(iso.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def catalogue(project: Path, write: Write, server: str, iso: Path) -> Path:
    """Give a project whose catalogue has the ISO on the server."""
    (iso.parent / "CHECKSUM").write_text(f"SHA256 ({iso.name}) = {sha256(iso)}\n")
    write(
        "isos.d/own.yml",
        f"""
        sources: {{urls: the test, checksum_url: the test, volume_id: the test, patterns: the test}}
        own-1:
          arches:
            x86_64:
              urls: ["{server}/{iso.name}"]
              checksum_url: "{server}/CHECKSUM"
              volume_id: "Rocky-9-5-.*"
        own-2:
          needs_login: https://vendor.example.org/page
          notes: The other one is in German.
          arches:
            x86_64: {{patterns: ["own-2-*.iso"]}}
        """,
    )
    return project


def test_fetch_downloads_verifies_and_prints_the_path_alone(run: Run, catalogue: Path, iso: Path) -> None:
    said = run("iso", "fetch", "own-1", "--arch", "x86_64", "--project", catalogue)
    assert said.status == 0
    assert Path(said.out.strip()).read_bytes() == iso.read_bytes()
    facts = run("iso", "fetch", "own-1", "--arch", "x86_64", "--json", "--project", catalogue).json()
    assert (facts["sha256"], facts["verified"], facts["volume_id"]) == (sha256(iso), True, "Rocky-9-5-x86_64-dvd")


def test_list_says_what_is_here_already(run: Run, catalogue: Path, iso: Path, server: str) -> None:
    def row(name: str) -> dict[str, object]:
        rows = run("iso", "list", "--json", "--project", catalogue).json()
        [found] = [each for each in rows if each["name"] == name]
        return dict(found)

    assert (row("own-1")["source"], row("own-1")["path"]) == (f"{server}/{iso.name}", None)
    assert row("own-2")["source"] == "from https://vendor.example.org/page, as own-2-*.iso"
    path = run("iso", "fetch", "own-1", "--arch", "x86_64", "--project", catalogue).out.strip()
    assert (row("own-1")["path"], row("own-1")["verified"]) == (path, True)
    local = catalogue / "isos" / "own-2-dvd.iso"
    local.parent.mkdir()
    local.write_bytes(iso.read_bytes())
    assert (row("own-2")["path"], row("own-2")["verified"]) == (str(local), False)


def test_show_gives_every_value_with_its_source(run: Run, catalogue: Path) -> None:
    shown = run("iso", "show", "own-1", "--arch", "x86_64", "--project", catalogue).out
    assert "volume_id      Rocky-9-5-.*\n                 by the test\n" in shown
    fields = run("iso", "show", "own-1", "--arch", "x86_64", "--json", "--project", catalogue).json()
    assert fields["place"] == f"{catalogue}/isos.d/own.yml:3"
    assert (
        "notes          The other one is in German.\n" in run("iso", "show", "own-2", *X86, "--project", catalogue).out
    )
    unknown = run("iso", "show", "own-3", *X86, "--project", catalogue)
    assert (unknown.status, "own-2" in unknown.err) == (2, True)
    assert "iso list" in run("iso", "show", "something-else", *X86, "--project", catalogue).err


def test_an_iso_behind_a_login_says_the_page(run: Run, catalogue: Path) -> None:
    said = run("iso", "fetch", "own-2", "--arch", "x86_64", "--project", catalogue)
    assert (said.status, "https://vendor.example.org/page" in said.err, "in German" in said.err) == (5, True, True)


def test_verify_holds_a_file_against_the_catalogue(run: Run, catalogue: Path, iso: Path, tmp_path: Path) -> None:
    words = ("--as", "own-1", "--arch", "x86_64", "--project", catalogue)
    assert run("iso", "verify", iso, *words).out.startswith(f"sha256:{sha256(iso)}  verified\n")
    other = tmp_path / "other.iso"
    make_seed(other, "Rocky-9-5-x86_64-dvd", {"a": b"b"})
    assert run("iso", "verify", other, *words).status == 5
    make_seed(other, "Something", {"a": b"b"})
    assert run("iso", "verify", other).status == 0
    said = run("iso", "verify", other, "--iso-checksum", f"sha256:{sha256(other)}", *words)
    assert (said.status, "wrong ISO" in said.err) == (5, True)


def test_add_recognises_an_iso_and_builds_find_it(run: Run, project: Path, iso: Path, places: Places) -> None:
    added = run("iso", "add", iso, "--json", "--project", project).json()
    assert (added["name"], added["arch"], added["told_by"]) == ("rocky-9.5", "x86_64", ".treeinfo")
    assert added["file"] == str(places.config / "isos.d" / "added-rocky-9.5-x86_64.yml")
    fetched = run("iso", "fetch", "rocky-9.5", "--arch", "x86_64", "--json", "--project", project)
    assert (fetched.json()["sha256"], fetched.json()["verified"]) == (sha256(iso), True)
    # The shipped entry of the other architecture stays.
    assert run("iso", "show", "rocky-9.5", "--arch", "aarch64", "--project", project).status == 0
    # Twice is once, and another name is another entry.
    assert run("iso", "add", iso, "--project", project).out == "rocky-9.5\n"
    assert run("iso", "add", iso, "--name", "mine", "--project", project).out == "mine\n"
    iso.write_bytes(iso.read_bytes()[:-2048] + b"\xff" * 2048)
    assert run("iso", "fetch", "mine", "--arch", "x86_64", "--project", project).status == 5


def test_add_of_what_does_not_say_what_it_is_asks_for_a_name(run: Run, project: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.iso"
    make_seed(path, "PLAIN", {"a": b"b"})
    said = run("iso", "add", path, "--project", project)
    assert (said.status, "--name" in said.err) == (2, True)
    named = run("iso", "add", path, "--name", "plain", "--arch", "x86_64", "--project", project)
    assert (named.out, "build with --iso plain" in named.err) == ("plain\n", True)
    path.write_bytes(b"no ISO")
    assert run("iso", "add", path, "--name", "plain", "--arch", "x86_64", "--project", project).status == 5


@pytest.mark.parametrize("name", ["../outside", "a b", ".hidden", "mine.iso", "ä"])
def test_add_takes_no_name_that_is_none(run: Run, project: Path, iso: Path, places: Places, name: str) -> None:
    """It becomes a file's name, and --iso takes what has a slash, or ends in .iso, as a path."""
    said = run("iso", "add", iso, "--name", name, "--project", project)
    assert (said.status, f"{name!r} cannot be" in said.err) == (2, True)
    assert not list(places.config.rglob("*.yml"))


def test_an_added_iso_that_is_gone_is_told_as_the_users_own(run: Run, project: Path, iso: Path, places: Places) -> None:
    words = ("rocky-9.5", *X86, "--project", project)
    assert run("iso", "add", iso, "--project", project).status == 0
    away = iso.rename(iso.with_name("away"))
    said = run("iso", "fetch", *words)
    assert (said.status, "a file of your own, and no file Rocky-9.5-x86_64-dvd.iso was found" in said.err) == (5, True)
    assert str(places.config / "isos.d" / "added-rocky-9.5-x86_64.yml") in said.err
    away.rename(iso)
    assert run("iso", "fetch", *words).status == 0


def test_add_takes_no_name_from_another_file(run: Run, project: Path, iso: Path, tmp_path: Path) -> None:
    other = tmp_path / iso.name
    make_seed(other, "AlmaLinux-9-5-x86_64-dvd", {"a": b"b"})
    assert run("iso", "add", iso, "--project", project).status == 0
    said = run("iso", "add", other, "--project", project)
    assert (said.status, "is another file" in said.err) == (5, True)
    assert run("iso", "fetch", "rocky-9.5", *X86, "--project", project).status == 0


def test_add_of_a_file_with_a_patterns_signs_in_its_name_is_found(run: Run, project: Path, iso: Path) -> None:
    odd = iso.rename(iso.with_name("Rocky [9] * (1).iso"))
    assert run("iso", "add", odd, "--project", project).out == "rocky-9.5\n"
    fetched = run("iso", "fetch", "rocky-9.5", "--arch", "x86_64", "--json", "--project", project)
    assert (fetched.json()["sha256"], fetched.json()["verified"]) == (sha256(odd), True)


def test_check_names_what_is_not_whole_and_what_does_not_answer(
    run: Run, catalogue: Path, write: Write, server: str
) -> None:
    assert run("iso", "check", "own-1", "--project", catalogue).status == 0
    offline = run("iso", "check", "own-1", "own-2", "--offline", "--project", catalogue)
    assert (offline.status, "no address was asked" in offline.err) == (0, True)
    assert "own-2 x86_64: its volume id is not known" in offline.out
    write("isos.d/gone.yml", f"sources: {{urls: a}}\ngone:\n  arches: {{x86_64: {{urls: ['{server}/gone.iso']}}}}\n")
    gone = run("iso", "check", "gone", "--json", "--project", catalogue)
    assert (gone.status, [row["what"] for row in gone.json() if row["kind"] == "no answer"]) == (
        5,
        [f"{server}/gone.iso: HTTP status 404"],
    )
    write("isos.d/bad.yml", "bad:\n  arches: {x86_64: {urls: ['https://a.example.org/a.iso']}}\n")
    bad = run("iso", "check", "bad", "--offline", "--project", catalogue)
    assert (bad.status, "urls has no source" in bad.err) == (3, True)
    assert run("iso", "check", "no-such", "--offline", "--project", catalogue).status == 2


def test_gc_clears_what_is_not_used(run: Run, catalogue: Path) -> None:
    path = Path(run("iso", "fetch", "own-1", "--arch", "x86_64", "--project", catalogue).out.strip())
    assert run("iso", "gc", "--unused", "0", "--json").json() == []  # used within the hour
    old = time.time() - 40 * 86400
    for each in path.parent.iterdir():
        os.utime(each, (old, old))
    assert [row["path"] for row in run("iso", "gc", "--dry-run", "--json").json()] == [str(path)]
    assert path.exists()
    assert str(path) in run("iso", "gc").out
    assert not path.exists()


def test_a_terminal_has_a_bar_and_the_path_stays_alone_on_stdout(catalogue: Path, places: Places) -> None:
    main, secondary = pty.openpty()
    words = ("iso", "fetch", "own-1", "--arch", "x86_64", "--project", str(catalogue))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    child = subprocess.Popen(
        [sys.executable, "-m", "osimager", *words], stdout=subprocess.PIPE, stderr=secondary, env=environment
    )
    os.close(secondary)
    out, _err = child.communicate(timeout=120)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while part := os.read(main, 65536):
            shown += part
    os.close(main)
    assert child.returncode == 0
    assert out.decode() == f"{next((places.isos / 'sha256').glob('*.iso'))}\n"
    assert "━".encode() in shown
    assert b"own-1" in shown
