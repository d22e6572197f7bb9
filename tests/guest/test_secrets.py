"""10,000 secrets, placed in configuration and printed in every form by a step inside a real guest: none is written."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from osimager.machine.ram import CHANGES, MACHINE, MEMORY
from osimager.redact import MASK
from tests.cores import find_cores, make_secrets, secrets_line
from tests.guest.lab import ENVIRONMENT, HOME, OSIMAGER

pytestmark = [pytest.mark.guest, pytest.mark.full]

COUNT = 10_000
MULTI_LINE = 1_000
SPEC = """\
provides: {{dist: leaky, versions: ["12"], arches: [x86_64]}}
include: debian
iso: debian-12-made
files: [{{dest: secrets, sources: [secrets]}}]
steps:
  - {{file: secrets, dest: /root/secrets, mode: "0600"}}
  - {{script: print.pl, environment: {{STATUS: ">>status<<", TOKEN: ">>s1<<"}}}}
  - {{shell-local: "echo \\"$TOKEN\\"", environment: {{TOKEN: ">>s2<<"}}}}
defs:
  status: "0"
  from_environment: "|>many/env:key<|"
{defs}
"""
# Perl's own base64, since the guest's perl-base has no module for it.
PRINT = r"""#!/usr/bin/perl
use strict; use warnings;
$| = 1;  # whole lines: what the other stream cuts in two nobody can know
sub base64 {
    my ($text, $out) = (shift, '');
    while ($text =~ /(.{1,45})/gs) { $out .= substr(pack('u', $1), 1); chop $out }
    $out =~ tr|` -_|AA-Za-z0-9+/|;
    my $padding = (3 - length($text) % 3) % 3;
    $out =~ s/.{$padding}$/'=' x $padding/e if $padding;
    return $out;
}
sub json { my $text = shift; $text =~ s/(["\\])/\\$1/g; $text =~ s/\n/\\n/g; return "\"$text\"" }
sub shell { my $text = shift; $text =~ s/'/'"'"'/g; return "'$text'" }
sub url { my $text = shift; $text =~ s/([^A-Za-z0-9_.~-])/sprintf('%%%02X', ord $1)/ge; return $text }
open my $file, '<', '/root/secrets' or die;
open my $serial, '>', '/dev/ttyS0' or die;
local $/ = "\n--\n";
my $at = 0;
while (my $secret = <$file>) {
    chomp $secret;
    my @forms = ($secret, json($secret), json(json($secret)), shell($secret), quotemeta($secret), url($secret));
    push @forms, unpack('H*', $secret), uc unpack('H*', $secret), base64($secret), base64("user:$secret");
    push @forms, crypt($secret, '$1$abcdefgh$');
    push @forms, crypt($secret, '$6$rounds=1000$saltsalt$') if $at < 100;
    print STDOUT "$_\n" for @forms;
    next if $at++ % 10;
    for my $out (\*STDERR, $serial) { print $out "$_\n" for @forms }
}
print "TOKEN is $ENV{TOKEN}\n";
system('base64 /root/secrets');
exit $ENV{STATUS};
"""


def make_all() -> list[str]:
    """Give the secrets, some of them of two lines."""
    secrets = make_secrets(COUNT + MULTI_LINE)
    two = [f"{secrets[at]}\n{secrets[COUNT + at]}" for at in range(MULTI_LINE)]
    return [*two, *secrets[MULTI_LINE:COUNT]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a home with the secrets and the tests' ISOs, and a project beside it."""
    home = tmp_path_factory.mktemp("leaks")
    (home / "cache").mkdir()
    (HOME / "cache/isos").mkdir(parents=True, exist_ok=True)
    (home / "cache/isos").symlink_to(HOME / "cache/isos")
    (home / "config").mkdir()
    (home / "config/secrets").touch(0o600)
    (home / "config/secrets").write_text(secrets_line("many/of", make_all()))
    project = home / "project"
    (project / "specs/leaky").mkdir(parents=True)
    (project / "files").mkdir()
    defs = "".join(f'  s{at}: "|>many/of:k{at}<|"\n' for at in range(COUNT))
    (project / "specs/leaky/spec.yml").write_text(SPEC.format(defs=defs))
    (project / "specs/leaky/print.pl").write_text(PRINT)
    names = ("from_environment", *(f"s{at}" for at in range(COUNT)))
    (project / "files/secrets").write_text("".join(f"%>{name}<%\n--\n" for name in names))
    return home


class Processes:
    """What /proc tells of all processes while the block runs, but for osimager itself, started as `argv`."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.own = b"".join(word.encode() + b"\0" for word in argv)  # /proc does not tell it at once
        self.seen: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Processes:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    argv, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
                except OSError:
                    continue
                if argv != self.own:  # also a child that has not begun its program yet
                    self.seen |= {argv, environment}


def build(home: Path, *words: str) -> tuple[int, dict[str, str]]:
    """Build, and give the status and all that anybody could read of it."""
    environment = {**ENVIRONMENT, "OSIMAGER_HOME": str(home), "OSIMAGER_SECRET_MANY_ENV_KEY": "x<'\"KfromtheenvZ x"}
    argv = [*OSIMAGER, "build", "leaky-12", "--json", "--project", str(home / "project"), "--no-verify", *words]
    with (
        subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child,
        Processes(argv) as processes,
    ):
        out, err = child.communicate(timeout=3600)
    found = {"stdout": out, "stderr": err, "processes": b"\n".join(processes.seen).decode("latin-1")}
    return child.returncode, {**found, **dict(kept_files(home))}


def kept_files(home: Path) -> Iterator[tuple[str, str]]:
    """Give every file that is kept, but for guests' disks and memory, ISOs and the user's own configuration."""
    for folder in ("data", "cache"):
        for path in (home / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".qcow2", ".iso") and path.name not in (MACHINE, MEMORY, CHANGES):
                yield str(path.relative_to(home)), path.read_bytes().decode("latin-1")


def test_none_of_ten_thousand_secrets_is_in_what_a_failed_build_leaves(home: Path) -> None:
    status, found = build(home, "-D", "status=3")
    assert status == 7, found["stderr"][-2000:]
    evidence = [name for name in found if "evidence" in name]
    assert any("serial" in name for name in evidence)
    assert found["stdout"].count(MASK) >= 10 * COUNT
    assert {name: len(find_cores(text)) for name, text in found.items()} == dict.fromkeys(found, 0)
    # An installed disk's layer keeps the build's own password for who goes on from it, read by its owner alone.
    assert not [name for name, text in found.items() if "$6$" in text and not name.startswith("cache/layers/")]


def test_none_is_in_the_registry_or_the_plan(home: Path) -> None:
    status, found = build(home)
    assert status == 0, found["stderr"][-2000:]
    assert "leaky-12" in found["data/registry.yml"]
    argv = [*OSIMAGER, "plan", "leaky-12", "--json", "--project", str(home / "project")]
    environment = {**os.environ, "OSIMAGER_HOME": str(home), "OSIMAGER_SECRET_MANY_ENV_KEY": "x<'\"KfromtheenvZ x"}
    found["plan"] = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
    assert found["plan"].count(MASK) >= 2 * COUNT
    assert {name: len(find_cores(text)) for name, text in found.items()} == dict.fromkeys(found, 0)
