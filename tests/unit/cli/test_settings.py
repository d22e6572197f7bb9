"""`osimager config`: our file is changed in place, OSImager's files are only read."""

from __future__ import annotations

from osimager.paths import Places
from tests.unit.cli.conftest import Run


def test_set_keeps_comments_order_and_what_else_stands_there(run: Run, places: Places) -> None:
    places.config.mkdir(parents=True)
    file = places.config / "config.yml"
    file.write_text("# mine\noutput: /old # why\nsecrets:\n  # who is asked\n  source:\n    - env\n    - file\n")
    assert run("config", "set", "output", "/images").status == 0
    assert run("config", "set", "secrets.vault.address", "https://vault:8200").status == 0
    assert run("config", "set", "secrets.source", "file").status == 0
    assert file.read_text() == (
        '# mine\noutput: "/images"\nsecrets:\n  # who is asked\n  source: "file"\n'
        '  vault:\n    address: "https://vault:8200"\n'
    )
    assert run("config", "get", "output").out == "/images\n"


def test_a_list_takes_several_values(run: Run) -> None:
    assert run("config", "set", "iso_path", "/a", "/b c").status == 0
    assert run("config", "get", "iso_path").out == "/a\n/b c\n"
    assert run("config", "set", "output", "/a", "/b").status == 2


def test_unknown_keys_and_wrong_values_change_nothing(run: Run, places: Places) -> None:
    said = run("config", "set", "outptu", "/a")
    assert (said.status, "did you mean 'output'?" in said.err) == (2, True)
    assert run("config", "set", "local_only", "perhaps").status == 2
    assert not (places.config / "config.yml").exists()
    assert run("config", "get", "outptu").status == 2


def test_mapping_in_one_line_is_left_to_its_author(run: Run, places: Places) -> None:
    places.config.mkdir(parents=True)
    (places.config / "config.yml").write_text("secrets: {source: env}\n")
    said = run("config", "set", "secrets.source", "file")
    assert (said.status, "left alone" in said.err) == (3, True)


def test_osimagers_files_are_read_and_never_written_and_its_token_is_not_shown(run: Run, places: Places) -> None:
    places.config.mkdir(parents=True)
    theirs = places.config / "osimager.conf"
    theirs.write_text("[osimager]\nvms_path = /vms\nvault_token = hvs.verysecret\n")
    said = run("config", "list", "--json")
    assert {"key": "output", "value": "/vms"} in said.json()
    assert "verysecret" not in said.out + said.err
    assert run("config", "set", "output", "/images").status == 0
    assert theirs.read_text() == "[osimager]\nvms_path = /vms\nvault_token = hvs.verysecret\n"
    assert run("config", "get", "output").out == "/images\n"
