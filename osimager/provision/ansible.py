"""A step that is an Ansible playbook: ansible-core as a program of its own, with an inventory of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from osimager.env import Env
from osimager.errors import ProvisionError
from osimager.plan.model import Step
from osimager.proc import find_tool
from osimager.provision.local import open_credentials, run_merged

if TYPE_CHECKING:
    from osimager.provision.steps import Way


async def run_playbook(step: Step, way: Way, env: Env, *, tell: Callable[[str], None], deadline_s: float) -> int:
    """Run the playbook `step.origin` (its roles lie beside it) against the guest; give ansible-playbook's status.

    Of the step's environment, ANSIBLE_* go to the program; all else are extra variables, handed over in a file. The
    guest is the host `guest`.
    """
    playbook = _unchanged_playbook(step)
    program = step.program or find_playbook_program()
    settings = {name: value for name, value in step.environment if name.startswith("ANSIBLE_")}
    with open_credentials(way, env) as folder:
        inventory = folder / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": {"guest": _host_variables(way, folder)}}}))
        extra = folder / "extra.json"
        extra.touch(0o600)
        extra.write_text(json.dumps({name: value for name, value in step.environment if name not in settings}))
        argv = (
            str(program),
            "--inventory",
            str(inventory),
            "--extra-vars",
            f"@{extra}",
            *step.arguments,
            str(playbook),
        )
        environment = settings | _program_environment(folder)
        return await run_merged(argv, step, environment=environment, tell=tell, deadline_s=deadline_s)


def _unchanged_playbook(step: Step) -> Path:
    playbook = Path(step.origin.path)
    if not playbook.is_file() or playbook.read_bytes() != step.content:
        raise ProvisionError(f"the playbook {playbook} has changed since the plan was made", hint="start again")
    return playbook


def find_playbook_program() -> Path:
    """Find ansible-playbook beside this Python (`pip install osimager[ansible]`), else on PATH.

    Raises PrerequisiteError where there is none.
    """
    import sys

    beside = Path(sys.executable).with_name("ansible-playbook")
    return (
        beside
        if beside.exists()
        else find_tool("ansible-playbook", package="ansible-core, or pip install 'osimager[ansible]'")
    )


def _host_variables(way: Way, folder: Path) -> dict[str, str | int | bool]:
    options = f"-o UserKnownHostsFile={folder / 'known_hosts'} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    become = way.access.user != "root"
    return {
        "ansible_host": way.endpoint.host,
        "ansible_port": way.endpoint.port,
        "ansible_user": way.access.user,
        "ansible_ssh_private_key_file": str(folder / "key"),
        "ansible_ssh_common_args": options,
        "ansible_become": become,
        "ansible_become_method": way.access.become,
    }


def _program_environment(folder: Path) -> dict[str, str]:
    return {
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder),
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",
        "PYTHONUNBUFFERED": "1",
    }
