"""Made media: when a recipe must run, what this host must have, and that a run leaves nothing but its ISO."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.env import Env
from osimager.errors import MediaError, PrerequisiteError
from osimager.events import Event, OutputLine
from osimager.media import made as made_module
from osimager.media.made import make_iso, recipe_digest, recipe_packages
from osimager.paths import shipped
from osimager.plan.model import MadeMedium

RECIPES = shipped("isos.d") / "made"
GOOD = 'echo "said on the way" >&2\nprintf %s "$ARCH" >"$OUT"\n'


def make_recipe(folder: Path, script: str, **files: str) -> MadeMedium:
    """Give a recipe of its own whose `make` is `script`; it holds no packages, so any host can run it."""
    recipe = folder / "made" / "toy"
    recipe.mkdir(parents=True)
    (folder / "made" / "common").mkdir()
    for name, text in {"make": script, **files}.items():
        (recipe / name).write_text(text)
    return MadeMedium(recipe="toy", folder=recipe)


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a toy recipe run where only apt is installed: it needs nothing of what real ones do."""
    monkeypatch.setattr(made_module, "_check_host", lambda made, arch: None)


def left_in(env: Env) -> list[str]:
    return sorted(path.name for path in (env.places.isos / "made").iterdir())


@pytest.mark.needs("apt-get", "unshare")
async def test_recipe_runs_once_and_leaves_only_its_iso(
    tmp_path: Path, env: Env, events: list[Event], ready: None
) -> None:
    toy = make_recipe(tmp_path, GOOD)
    first = await make_iso(toy, env, arch=Arch.AARCH64)
    assert first.read_text() == "arm64"
    assert left_in(env) == [first.name]
    assert OutputLine("make toy", "said on the way") in events
    events.clear()
    assert await make_iso(toy, env, arch=Arch.AARCH64) == first
    assert not events


@pytest.mark.needs("apt-get", "unshare")
async def test_changed_recipe_is_made_anew(tmp_path: Path, env: Env, ready: None) -> None:
    toy = make_recipe(tmp_path, GOOD)
    first = await make_iso(toy, env, arch=Arch.X86_64)
    (toy.folder.parent / "common" / "lib.sh").write_text("# new\n")
    assert await make_iso(toy, env, arch=Arch.X86_64) != first


@pytest.mark.needs("apt-get", "unshare")
async def test_failed_recipe_says_why_and_leaves_nothing(tmp_path: Path, env: Env, ready: None) -> None:
    toy = make_recipe(tmp_path, 'echo "E: no such package" >&2\necho half >"$OUT"\nexit 3\n')
    with pytest.raises(MediaError, match=r"status 3.*no such package"):
        await make_iso(toy, env, arch=Arch.X86_64)
    assert left_in(env) == []


@pytest.mark.needs("apt-get", "unshare")
async def test_leftovers_of_a_killed_run_are_swept(tmp_path: Path, env: Env, ready: None) -> None:
    toy = make_recipe(tmp_path, "kill -9 $PPID; sleep 60\n")
    with pytest.raises(MediaError):
        await make_iso(toy, env, arch=Arch.X86_64)
    (toy.folder / "make").write_text(GOOD)
    made = await make_iso(toy, env, arch=Arch.X86_64)
    assert left_in(env) == [made.name]


@pytest.mark.needs("apt-get")
async def test_offline_refuses_to_fetch_packages(tmp_path: Path, env: Env) -> None:
    toy = make_recipe(tmp_path, GOOD)
    with pytest.raises(MediaError, match="--offline"):
        await make_iso(toy, dataclasses.replace(env, offline=True), arch=Arch.X86_64)


async def test_host_without_apt_is_told_of_the_vendors_iso(
    tmp_path: Path, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError, match="apt") as caught:
        await make_iso(make_recipe(tmp_path, GOOD), env, arch=Arch.X86_64)
    assert caught.value.hint is not None
    assert "vendor" in caught.value.hint


@pytest.mark.needs("apt-get")
async def test_missing_tools_are_named_by_their_packages(
    tmp_path: Path, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made_module, "_TOOLS", {"no-such-tool-a": "package-a", "no-such-tool-b": "package-b"})
    with pytest.raises(PrerequisiteError, match="package-a package-b") as caught:
        await make_iso(make_recipe(tmp_path, GOOD), env, arch=Arch.X86_64)
    assert caught.value.hint == "sudo apt-get install package-a package-b"


def test_digest_covers_files_architecture_sources_and_versions(tmp_path: Path) -> None:
    folder = make_recipe(tmp_path, GOOD).folder
    digests = {recipe_digest(folder, Arch.X86_64, "deb x", "a 1")}
    digests.add(recipe_digest(folder, Arch.AARCH64, "deb x", "a 1"))
    digests.add(recipe_digest(folder, Arch.X86_64, "deb y", "a 1"))
    digests.add(recipe_digest(folder, Arch.X86_64, "deb x", "a 2"))
    (folder / "make").write_text(GOOD + "#")
    digests.add(recipe_digest(folder, Arch.X86_64, "deb x", "a 1"))
    assert len(digests) == 5


def test_package_lists_leave_out_comments_and_other_architectures(tmp_path: Path) -> None:
    lists = {"packages": "# why\nb\na:amd64\nc:arm64 # only there\n", "pool": "d\n"}
    folder = make_recipe(tmp_path, GOOD, **lists).folder
    assert recipe_packages(folder, Arch.X86_64) == ("a", "b", "d")
    assert recipe_packages(folder, Arch.AARCH64) == ("b", "c", "d")


# The shipped recipes' own programs ------------------------------------------------------------------------------------

SCRIPTS = [path for path in sorted(RECIPES.rglob("*")) if path.is_file() and path.suffix in ("", ".sh")]
SHELL = [path for path in SCRIPTS if path.suffix == ".sh" or path.read_text().startswith("#!")]


@pytest.mark.needs("sh")
@pytest.mark.parametrize(
    "script",
    [*SHELL, RECIPES / "debian-12/installer/lib", RECIPES / "common/installer/live"],
    ids=lambda path: path.name,
)
def test_shell_of_recipes_parses(script: Path) -> None:
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0


def run_awk(program: str, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    awk = shutil.which("awk")
    assert awk is not None
    given = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
    file = RECIPES / "debian-12" / "installer" / program
    return subprocess.run([awk, *given, "-f", file], input=text, capture_output=True, text=True, check=False)


PLAIN = (
    "osimager :: 1 1 1 free $iflabel{ gpt } method{ biosgrub } . "
    "1500 10000 -1 ext4 method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ / } ."
)


@pytest.mark.needs("awk")
def test_recipe_gives_the_root_file_system_what_is_left() -> None:
    done = run_awk("recipe.awk", PLAIN, size_mib="8192", label="gpt")
    assert done.stdout.splitlines() == ["1 1 1 biosgrub free -", "2 2 8189 format ext4 /"]


@pytest.mark.needs("awk")
def test_boot_partition_of_gpt_is_left_out_of_a_dos_label() -> None:
    assert run_awk("recipe.awk", PLAIN, size_mib="8192", label="dos").stdout.splitlines() == ["1 1 8190 format ext4 /"]


@pytest.mark.needs("awk")
@pytest.mark.parametrize(
    ("recipe", "size_mib", "why"),
    [
        (PLAIN, "1000", "too small"),
        (PLAIN.removesuffix("."), "8192", "does not end"),
        (PLAIN.replace("ext4 }", "xfs }"), "8192", "xfs"),
        ("x :: 1 1 1 free method{ biosgrub } .", "8192", "No root"),
        ("x :: a 1 1 ext4 .", "8192", "cannot be read"),
    ],
)
def test_bad_recipe_is_refused_in_words(recipe: str, size_mib: str, why: str) -> None:
    done = run_awk("recipe.awk", recipe, size_mib=size_mib, label="gpt")
    assert done.returncode == 1
    assert why in done.stdout


@pytest.mark.needs("awk")
def test_answers_become_shell_assignments() -> None:
    text = (
        "# said\nd-i a/b-c string it's \\\n  two lines\nd-i  d/e   boolean\ttrue \nx x/y string other\nd-i f/g string\n"
    )
    done = run_awk("preseed.awk", text.replace("x x/y string other\n", ""))
    assert done.stdout.splitlines() == ["A_a_b_c='it'\\''s   two lines'", "A_d_e='true'", "A_f_g=''"]


@pytest.mark.needs("awk")
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("d-i", "no question"),
        ("d-i a/b", "no type"),
        ("d-i a/b strnig x", "strnig"),
        ("d-i a/b boolean yes", "neither"),
    ],
)
def test_line_that_debconf_would_refuse_is_named(line: str, why: str) -> None:
    done = run_awk("preseed.awk", f"d-i ok/ok string 1\n\n{line}\n")
    assert done.returncode == 1
    assert "line 3" in done.stderr
    assert why in done.stderr
