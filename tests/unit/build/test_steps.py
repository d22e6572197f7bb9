"""What profile, spec and command line name as steps becomes the plan's steps, or errors with their places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from osimager.build.catalogues import open_catalog
from osimager.build.prepare import prepare
from osimager.build.request import BuildRequest
from osimager.build.runner import _Keeping
from osimager.build.steps import make_steps, split_arguments
from osimager.config.checks import PlaceholderLookups
from osimager.config.request import Request
from osimager.env import Env
from osimager.errors import ConfigError, ConfigErrors, Place
from osimager.events import Event, Notice
from osimager.holes import BUILD_PUBLIC_KEY, hole
from osimager.paths import Places
from osimager.plan.model import Step, StepKind

SPEC = 'provides: {dist: web, versions: ["1"]}\n'
Make = Callable[..., tuple[Step, ...]]


@pytest.fixture
def make(tmp_path: Path, places: Places) -> Make:
    """Give a function that makes the steps of `web-1` in a project with these files."""

    def make_in_project(
        files: dict[str, str], *, profile: str = "default", steps: tuple[Path, ...] = ()
    ) -> tuple[Step, ...]:
        for name, text in {"specs/web/spec.yml": SPEC, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        given = {BUILD_PUBLIC_KEY: hole(BUILD_PUBLIC_KEY)}
        request = Request(target="web-1-x86_64", profile=profile, given=given)
        asked = BuildRequest(request=request, project=tmp_path, steps=steps)
        catalog = open_catalog(tmp_path, places)
        configuration = catalog.resolve(request, PlaceholderLookups())
        return make_steps(configuration, catalog, asked, places, is_secret=lambda text: "placeholder" in text)

    return make_in_project


def names(steps: tuple[Step, ...]) -> list[str]:
    return [step.name for step in steps]


def test_order_is_base_own_script_profiles_scripts_specs_steps_and_the_command_lines(
    make: Make, tmp_path: Path
) -> None:
    last = tmp_path / "last.sh"
    last.write_text("true\n")
    files = {
        "scripts.d/web.sh": "echo web\n",
        "scripts.d/one.sh": "echo 1\n",
        "specs/profiles/mine.yml": "scripts: [two.sh, one, web]\n",
        "specs/profiles/two.sh": "echo 2\n",
        "specs/web/spec.yml": SPEC + "steps: [{inline: [echo 3]}]\n",
    }
    made = make(files, profile="mine", steps=(last,))
    assert names(made) == ["base", "web", "two", "one", "spec.yml:2", "last"]
    assert made[2].origin == Place(tmp_path / "specs/profiles/two.sh")


def test_profiles_own_script_goes_before_the_dists(make: Make) -> None:
    files = {"scripts.d/web.sh": "", "scripts.d/mine.sh": "", "specs/profiles/mine.yml": "username: ''\n"}
    assert names(make(files, profile="mine")) == ["base", "mine"]


def test_everything_that_does_not_exist_is_told_at_once(make: Make) -> None:
    steps = "steps:\n  - {script: no.sh}\n  - {file: no, dest: /x}\n  - {inline: ['true'], inputs: ['no/*']}\n"
    with pytest.raises(ConfigErrors) as caught:
        make({"specs/web/spec.yml": SPEC + steps})
    assert [error.where[0].line for error in caught.value.errors] == [3, 4, 5]


def test_what_only_the_installer_gets_cannot_stand_in_a_step(make: Make) -> None:
    for step in ('inline: ["echo >>build_public_key<<"]', 'inline: ["true"], environment: {A: ">>build_public_key<<"}'):
        with pytest.raises(ConfigError, match="cannot hold build_public_key"):
            make({"specs/web/spec.yml": SPEC + f"steps: [{{{step}}}]\n"})


def test_inputs_are_digests_of_files_and_folders(make: Make) -> None:
    steps = "steps: [{inline: ['true'], inputs: [data, 'x.*']}]\n"
    files = {"specs/web/spec.yml": SPEC + steps, "specs/web/data/a": "1", "specs/web/x.txt": "2"}
    before = make(files)[-1].inputs
    assert [each.partition(":")[0] for each in before] == ["data", "x.txt"]
    after = make({**files, "specs/web/data/b": "3"})[-1].inputs
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)


def test_playbook_depends_on_the_roles_beside_it(make: Make) -> None:
    steps = "steps: [{ansible: play.yml, environment: {a: b}}]\n"
    files = {"specs/web/spec.yml": SPEC + steps, "specs/web/play.yml": "- hosts: all\n"}
    step = make({**files, "specs/web/roles/r/tasks/main.yml": "[]\n"})[-1]
    assert (step.kind, step.name, step.environment[0]) == (StepKind.ANSIBLE, "play", ("a", "b"))
    assert ("packer_build_name", "qemu") in step.environment
    assert step.inputs[0].startswith("roles:")
    changed = make({**files, "specs/web/roles/r/tasks/main.yml": "[1]\n"})[-1]
    assert changed.inputs != step.inputs


def test_playbook_depends_on_what_it_reads_beside_it(make: Make) -> None:
    files = {
        "specs/web/spec.yml": SPEC + "steps: [{ansible: play.yml}]\n",
        "specs/web/play.yml": "- import_playbook: other.yml\n",
        "specs/web/other.yml": "- hosts: all\n  vars_files: [vars.yml]\n  tasks: [{copy: {src: motd.conf}}]\n",
        "specs/web/files/issue": "1\n",
        "specs/web/filter_plugins/mine.py": "",
        "specs/web/vars.yml": "a: 1\n",
        "specs/web/motd.conf": "welcome\n",
        "specs/web/ansible.cfg": "[defaults]\n",
        "specs/web/unread.yml": "a: 1\n",
    }
    before = make(files)[-1].inputs
    read = ["ansible.cfg", "files", "filter_plugins", "other.yml", "motd.conf", "vars.yml"]
    assert [each.partition(":")[0] for each in before] == read
    for name in ("files/issue", "filter_plugins/mine.py", "vars.yml", "motd.conf", "ansible.cfg", "other.yml"):
        path = f"specs/web/{name}"
        assert make({**files, path: files[path] + "# changed\n"})[-1].inputs != before
    assert make({**files, "specs/web/unread.yml": "a: 2\n", "specs/web/new.yml": ""})[-1].inputs == before


SETTINGS = (
    "[defaults]\ninventory = hosts.ini\nroles_path=../shared/roles:~/roles\nvault_identity_list = a@.vault, b@.vault\n"
)
PLAYBOOK = """
- hosts: web
  vars: {key: "LONG", title: the extra words, folder: "{{ playbook_dir }}/../shared/conf"}
  tasks:
    - include_tasks: install/main.yml
    - copy: {src: payload, dest: /srv/web/}
    - copy: {dest: /srv/web, src: ../web/words/}
""".replace("LONG", "a/" * 3000)
NAMED = ("hosts.ini", "../shared/roles/r/tasks/main.yml", "../shared/conf/a", "install/main.yml", "install/sub.yml")
BESIDES = ("payload/deep/b", "words/c", "more.yml", "requirements.yml", "ansible.cfg", "play.yml")


def test_playbook_depends_on_what_it_or_its_settings_name_by_a_path(make: Make) -> None:
    provisioner = "{type: ansible, playbook_file: play.yml, extra_arguments: [-e, '@more.yml', --vault-id, x@../key]}"
    files = {
        "specs/web/spec.yml": SPEC + f"provisioners: [{provisioner}]\n",
        **{f"specs/web/{name}": "a: 1\n" for name in (*NAMED, *BESIDES, ".vault", "extra/d", "unread.yml", "../key")},
        "specs/web/play.yml": PLAYBOOK,
        "specs/web/ansible.cfg": SETTINGS,
        "specs/web/install/main.yml": "- import_tasks: ./sub.yml\n",
    }
    before = make(files)[-1]
    for name in (*NAMED, *BESIDES):
        path = f"specs/web/{name}"
        changed = make({**files, path: files[path] + "# changed\n"})[-1]
        assert (changed.inputs, changed.content) != (before.inputs, before.content), name
    for name in (".vault", "extra/d", "unread.yml", "../key"):  # a word, nobody's name, and what opens a vault
        assert make({**files, f"specs/web/{name}": "another"})[-1].inputs == before.inputs, name
    assert not any(str(each).startswith("/") for each in before.inputs)


def test_links_in_a_folder_are_followed_and_one_that_leads_back_ends(make: Make, tmp_path: Path) -> None:
    files = {
        "specs/web/spec.yml": SPEC + "steps: [{ansible: play.yml, inputs: [data]}]\n",
        "specs/web/play.yml": "- hosts: all\n",
        "specs/web/data/one": "1\n",
        "shared/r/tasks/main.yml": "1\n",
        "shared/s/tasks/main.yml": "2\n",
    }
    make(files)
    roles = tmp_path / "specs/web/roles"
    roles.mkdir()
    (roles / "r").symlink_to(tmp_path / "shared/r")
    (tmp_path / "specs/web/data/back").symlink_to(tmp_path / "specs/web")
    before = make(files)[-1].inputs
    changed = make({**files, "shared/r/tasks/main.yml": "3\n"})[-1].inputs
    assert [old != new for old, new in zip(before, changed, strict=True)] == [True, True]
    make(files)
    (roles / "r").unlink()
    (roles / "r").symlink_to(tmp_path / "shared/s")
    assert make(files)[-1].inputs[1] != before[1]


def test_input_that_becomes_a_program_is_another(make: Make, tmp_path: Path) -> None:
    files = {"specs/web/spec.yml": SPEC + "steps: [{inline: ['true'], inputs: [tool]}]\n", "specs/web/tool": "1\n"}
    before = make(files)[-1].inputs
    (tmp_path / "specs/web/tool").chmod(0o755)
    assert make(files)[-1].inputs != before


@pytest.mark.parametrize("key", ["venv", "ansible_version"])
def test_playbook_is_run_by_the_ansible_that_the_spec_names(make: Make, places: Places, key: str) -> None:
    files = {"specs/web/spec.yml": SPEC + f'{key}: "2.16"\nsteps: [{{ansible: play.yml}}]\n', "specs/web/play.yml": ""}
    assert make(files)[-1].program == places.data / "venvs/2.16/bin/ansible-playbook"
    places.config.mkdir(parents=True)
    (places.config / "config.json").write_text('{"venv_dir": "/venvs"}')
    assert make(files)[-1].program == Path("/venvs/2.16/bin/ansible-playbook")


def test_extra_variables_never_reach_argv() -> None:
    words = ["-v", "-e", "a='b c' d=e", "--extra-vars", '{"f": "g\'", "n": [1]}', "--extra-vars=h=i", "-e", "@file.yml"]
    variables, kept = split_arguments(words, Place("spec.yml", 1))
    assert variables == {"a": "b c", "d": "e", "f": "g'", "n": "[1]", "h": "i"}
    assert kept == ("-v", "-e", "@file.yml")
    with pytest.raises(ConfigError, match="cannot be read"):
        split_arguments(["-e", "a='b"], Place("spec.yml", 1))


def test_secret_in_another_argument_of_ansible_is_refused(make: Make) -> None:
    provisioner = "provisioners: [{type: ansible, playbook_file: play.yml, extra_arguments: ['--vault=|>a/b:c<|']}]\n"
    files = {"specs/web/spec.yml": SPEC + provisioner, "specs/web/play.yml": "", "play.yml": ""}
    with pytest.raises(ConfigError, match="holds a secret"):
        make(files)


@pytest.mark.needs("qemu-system-x86_64")
async def test_what_a_step_left_is_not_kept_where_its_inputs_changed_meanwhile(
    env: Env, tmp_path: Path, events: list[Event]
) -> None:
    steps = "steps: [{inline: ['true']}, {inline: ['true'], inputs: [data]}]\n"
    files = {"spec.yml": SPEC + "installer: {boot: [menu]}\n" + steps, "data": "1\n", "web.iso": "an ISO\n"}
    for name, text in files.items():
        (tmp_path / "specs/web").mkdir(parents=True, exist_ok=True)
        (tmp_path / "specs/web" / name).write_text(text)
    request = Request(target="web-1-x86_64", iso=str(tmp_path / "specs/web/web.iso"))
    prepared = await prepare(BuildRequest(request=request, project=tmp_path, accelerator="tcg"), env)
    last = len(prepared.plan.steps)
    kept: list[int] = []

    async def keep(done: int) -> None:
        kept.append(done)

    ran, found = (_Keeping(keep, prepared, env, after=after) for after in (last - 2, last))
    await ran.keep(last)
    (tmp_path / "specs/web/data").write_text("2\n")
    await ran.keep(last - 1)  # depends on nothing
    assert (ran.is_true, kept) == (True, [last, last - 1])
    await ran.keep(last)
    await ran.keep(last - 1)  # and nothing more
    assert (ran.is_true, kept) == (False, [last, last - 1])
    told = [event for event in events if isinstance(event, Notice) and "data changed" in event.text]
    assert [event.level for event in told] == ["warning"]
    await found.keep(last)  # it was there before
    assert (found.is_true, kept) == (True, [last, last - 1, last])
    (tmp_path / "specs/web/data").unlink()
    gone = _Keeping(keep, prepared, env, after=last - 1)
    await gone.keep(last)
    assert not gone.is_true
