"""Configuration, facts and options become a plan: logins, seals and answers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from osimager.config.catalog import Catalog, Roots
from osimager.config.checks import PlaceholderLookups
from osimager.config.configuration import Configuration
from osimager.config.request import Request
from osimager.errors import ConfigError, ConfigErrors
from osimager.paths import shipped
from osimager.plan.model import SealMode
from osimager.plan.options import BuildOptions
from osimager.plan.resolve import check_login, find_login, make_seal, render_answers

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ann@home, office 2"
Configure = Callable[..., Configuration]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Give a function that resolves shipped debian-12, or the project's, with a profile of this text."""

    def resolve(profile: str = "", *, target: str = "debian-12", spec: str = "", **files: str) -> Configuration:
        for name, text in {"specs/profiles/ann.yml": profile, "specs/web/spec.yml": spec}.items():
            if text:
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        (tmp_path / "files").mkdir(exist_ok=True)
        for name, text in files.items():
            (tmp_path / "files" / name).write_text(text)
        (tmp_path / "specs").mkdir(exist_ok=True)
        roots = Roots(
            specs=(tmp_path / "specs", shipped("specs")), files=(tmp_path / "files", shipped("files")), isos=()
        )
        request = Request(target=target, profile="ann" if profile else "default")
        return Catalog.open(roots).resolve(request, PlaceholderLookups())

    return resolve


def profile(*, username: str = "ann", keys: str = f'["{KEY}"]', password: str = "") -> str:
    hashed = f"password: '{password}'\n" if password else ""
    return f"username: '{username}'\nauthorized_keys: {keys}\n{hashed}"


def test_profile_with_a_key_or_a_password_keeps_its_login(configure: Configure) -> None:
    assert find_login(configure()) is None
    assert find_login(configure(profile())) == "ann"
    assert find_login(configure(profile(keys="[]", password="6>users/ann:password<6"))) == "ann"
    assert find_login(configure(profile(keys="[]"))) is None
    check_login(configure(profile(password="6>users/ann:password<6")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (profile(username="Ann Smith"), "cannot be the name of an account"),
        (profile(username="osimager"), "is the build's own"),
        (profile(username=""), "of no use without a username"),
        (profile(keys='["ssh-ed25519 AAAA it\'s"]'), "is not a public key"),
        (profile(keys='["ssh-ed25519 AAAA\\nssh-rsa BBBB"]'), "is not a public key"),
        (profile(keys="[no-key]"), "is not a public key"),
        (profile(keys=KEY.split(",", maxsplit=1)[0]), "must be a list"),
        (profile(password="hunter2"), "is not a crypt hash"),
        (profile(password="|>users/ann:password<|"), "is not a crypt hash"),
    ],
)
def test_login_that_no_installer_could_make_is_refused_with_its_place(
    configure: Configure, text: str, said: str
) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check_login(configure(text))
    [error] = [error for error in caught.value.errors if said in error.what]
    assert str(error.where[0].path).endswith("ann.yml")
    assert error.hint
    assert "hunter2" not in str(error)


def test_seal_is_as_asked_then_as_the_spec_wishes_then_by_the_name(configure: Configure) -> None:
    plain = configure()
    assert make_seal(plain, BuildOptions()).mode is SealMode.TEMPLATE
    assert make_seal(plain, BuildOptions(name="web")).mode is SealMode.MACHINE
    assert make_seal(plain, BuildOptions(ip="192.168.7.9")).mode is SealMode.MACHINE
    assert make_seal(plain, BuildOptions(ip="dhcp")).mode is SealMode.TEMPLATE
    assert make_seal(plain, BuildOptions(name="web", seal=SealMode.TEMPLATE)).mode is SealMode.TEMPLATE
    wished = configure("seal: {mode: machine}\n")
    assert make_seal(wished, BuildOptions()).mode is SealMode.MACHINE


def test_account_that_is_kept_is_not_removed_though_the_build_used_it(configure: Configure) -> None:
    assert make_seal(configure(), BuildOptions()).remove_build_user
    kept = configure("seal: {login: osimager}\n")
    assert not make_seal(kept, BuildOptions()).remove_build_user


@pytest.mark.parametrize("hash_there", [True, False])
def test_debians_late_command_is_a_script_that_makes_the_login(
    configure: Configure, tmp_path: Path, hash_there: bool
) -> None:
    text = profile(password="6>users/ann:password<6" if hash_there else "")
    [answer] = render_answers(configure(text))
    joined = answer.text.replace("\\\n", "")
    [command] = [line for line in joined.splitlines() if "preseed/late_command" in line]
    script = command.partition("string ")[2]
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    login = "set -e; " + script[script.index("login=") : script.index("mkdir -p /target/etc/cloud")]
    done = run_in_made_up_target(login, tmp_path)
    target = tmp_path / "target"
    assert (target / "home/ann/.ssh/authorized_keys").read_text() == KEY + "\n"
    assert "useradd --create-home --shell /bin/bash --groups sudo ann" in done
    assert ("chpasswd -e <ann:$6$placeholdersalt." in done) == hash_there
    assert (target / "etc/sudoers.d/90-ann").exists() != hash_there


def run_in_made_up_target(script: str, folder: Path) -> str:
    """Run a piece of late_command with `/target` in `folder` and a chroot that tells what it was asked for."""
    (folder / "target/etc/sudoers.d").mkdir(parents=True)
    (folder / "bin").mkdir()
    chroot = folder / "bin/chroot"
    chroot.write_text(
        "#!/bin/sh\nshift\ncase $1 in\nid) exit 1 ;;\nsh) echo /home/ann ;;\n"
        f'chpasswd) echo "$* <$(cat)" >>{folder}/log ;;\n*) echo "$*" >>{folder}/log ;;\nesac\n'
    )
    chroot.chmod(0o755)
    shell = shutil.which("sh") or "/bin/sh"
    script = script.replace("/target", f"{folder}/target")
    subprocess.run(
        [shell, "-c", script], env={"PATH": f"{folder}/bin:/usr/bin:/bin"}, check=True, cwd=folder, text=True
    )
    return (folder / "log").read_text()


def test_debian_without_a_login_makes_none(configure: Configure, tmp_path: Path) -> None:
    [answer] = render_answers(configure())
    script = answer.text.replace("\\\n", "")
    login = script[script.index("login=") : script.index("mkdir -p /target/etc/cloud")]
    (tmp_path / "log").touch()
    assert run_in_made_up_target(f"set -e; {login}", tmp_path) == ""


SPEC = """
provides: {{dist: web, versions: ["1"]}}
installer: {{format: "{format}"}}
defs: {{value: '{value}'}}
files: [{{dest: web.cfg, sources: [web.cfg]}}]
"""


def test_values_are_escaped_as_the_format_asks(configure: Configure) -> None:
    spec = SPEC.format(format="autoyast", value='a<b & "c"')
    [answer] = render_answers(configure(target="web-1", spec=spec, **{"web.cfg": "<v>>>value<<</v> %>value<%"}))
    assert answer.text == '<v>a&lt;b &amp; &quot;c&quot;</v> a<b & "c"'


def test_value_that_its_line_cannot_hold_is_refused_with_its_line(configure: Configure) -> None:
    spec = SPEC.format(format="preseed", value="one").replace("'one'", '"one\\ntwo"')
    with pytest.raises(ConfigError, match="line break") as caught:
        render_answers(configure(target="web-1", spec=spec, **{"web.cfg": "first\nd-i x string >>value<<\n"}))
    assert str(caught.value.where[0]).endswith("web.cfg:2")


def test_files_without_a_format_are_given_as_they_are(configure: Configure) -> None:
    spec = SPEC.format(format="", value="one").replace("'one'", '"one\\ntwo"')
    [answer] = render_answers(configure(target="web-1", spec=spec, **{"web.cfg": ">>value<<"}))
    assert answer.text == "one\ntwo"
