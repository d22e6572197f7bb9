"""10,000 secrets in configuration, answer files and a step's output: none of them in anything that osimager writes."""

from __future__ import annotations

import asyncio
import json
import tarfile
from pathlib import Path

import pytest

from osimager.arch import host_arch
from osimager.build.evidence import QemuNotes, fetch_logs, keep_evidence, write_answers, write_bundle
from osimager.build.prepare import plan_to_json, prepare
from osimager.build.records import BuildFolder, BuildRecord
from osimager.build.request import BuildRequest
from osimager.build.workspace import EVIDENCE
from osimager.config.request import Request
from osimager.env import Env
from osimager.errors import Place, ProvisionError
from osimager.plan.model import Access, Step, StepKind
from osimager.ports import Communicator, Endpoint
from osimager.provision.keys import make_key
from osimager.provision.steps import Way, run_steps
from osimager.redact import MASK
from tests.cores import find_cores, forms, make_secrets, secrets_line

COUNT = 10_000


def write_project(folder: Path, places_config: Path, secrets: list[str]) -> None:
    (folder / "specs/many").mkdir(parents=True)
    (folder / "files").mkdir()
    defs = "".join(f'  s{at}: "|>many/of:k{at}<|"\n' for at in range(COUNT))
    (folder / "specs/many/spec.yml").write_text(
        f'provides: {{dist: many, versions: ["1"], arches: [x86_64]}}\ninclude: linux\niso: {folder}/some.iso\n'
        'installer: {boot: [typed], boot_command: ["<enter>%>s0<%"]}\n'
        "files: [{dest: a.cfg, sources: [a.cfg]}]\n"
        'steps: [{inline: ["echo %>s1<%"], environment: {TOKEN: ">>s2<<"}}]\n'
        f"defs:\n{defs}"
    )
    (folder / "files/a.cfg").write_text("".join(f"%>s{at}<% 6\n" for at in range(COUNT)) + "6>many/of:k0<6\n")
    (folder / "some.iso").touch()
    places_config.mkdir(parents=True)
    file = places_config / "secrets"
    file.touch(0o600)
    file.write_text(secrets_line("many/of", secrets))


class TellingGuest:
    """A guest whose logs hold every secret in every form; nothing else here goes into a guest."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = secrets[:1000]  # what is kept of logs is bounded

    async def get_ready(self) -> None:
        pass

    async def read(self, script: str, *, deadline_s: float) -> str:
        return "\n".join(form for secret in self._secrets for form in forms(secret))


def test_the_search_finds_every_form() -> None:
    for secret in make_secrets(200):
        for form in forms(secret):
            assert len(find_cores(f"before {form} after")) == 1, form


@pytest.mark.needs("qemu-system-x86_64")
async def test_none_of_ten_thousand_secrets_is_in_anything_that_is_written(env: Env, tmp_path: Path) -> None:
    secrets = make_secrets(COUNT)
    project = tmp_path / "project"
    write_project(project, env.places.config, secrets)
    now = env.clock.now()
    folder = BuildFolder(env.places, BuildRecord(build="b", target="many-1", pid=1, pid_started="", started=now))
    asked = BuildRequest(
        request=Request(target="many-1-x86_64", host_arch=str(host_arch())), project=project, accelerator="tcg"
    )
    with env.bus.listening(folder.log):
        prepared = await prepare(asked, env)
        assert find_cores(prepared.plan.install.answers[0].text) == {
            found for each in secrets for found in find_cores(each)
        }
        write_answers({each.name: each.text for each in prepared.plan.install.answers}, env)
        seen = await print_in_a_step(secrets, env, tmp_path)
        await fetch_logs(TellingGuest(secrets), env)  # type: ignore[arg-type]
    assert await keep_evidence(folder, QemuNotes(), prepared, env) == folder.evidence
    folder.close()
    bundle = write_bundle(folder)
    written = {
        "plan": json.dumps(plan_to_json(prepared, env.masker.mask)),
        "repr": repr(prepared.plan.access),
        "events": (folder.path / "events.jsonl").read_text(),
        "evidence": "".join(path.read_text() for path in (env.workspace / EVIDENCE).rglob("*") if path.is_file()),
        "kept": "".join(path.read_text() for path in folder.path.rglob("*") if path.is_file() and path != bundle),
        "bundle": read_tar(bundle),
        "processes": seen,
    }
    assert written["events"].count(MASK) >= 7 * COUNT
    assert "guest-logs.txt" in {path.name for path in folder.evidence.iterdir()}
    assert {name: len(find_cores(text)) for name, text in written.items()} == dict.fromkeys(written, 0)
    assert "$6$" not in written["plan"] + written["evidence"]


def read_tar(path: Path) -> str:
    with tarfile.open(path) as bundle:
        return "".join(file.read().decode() for member in bundle if (file := bundle.extractfile(member)))


async def print_in_a_step(secrets: list[str], env: Env, tmp_path: Path) -> str:
    """Let a step on this host print every form of every secret, fail, and tell what it sees of all processes."""
    lines = "\n".join(form for secret in secrets for form in forms(secret))
    script = (
        f"cat <<'THE-END'\n{lines}\nTHE-END\ncat /proc/[0-9]*/cmdline /proc/[0-9]*/environ >processes 2>&1\nexit 3\n"
    )
    origin = Place(tmp_path / "step.sh", 1)
    step = Step(name="print", kind=StepKind.LOCAL, content=script.encode(), origin=origin)
    way = Way(Endpoint("127.0.0.1", 9), Access(user="nobody"), make_key(env), "ssh-ed25519 AAAA")
    guest: Communicator = TellingGuest(secrets)  # type: ignore[assignment]
    with pytest.raises(ProvisionError, match="status 3") as caught:
        await run_steps([step], guest, env, deadline_s=300, way=way)
    told = await asyncio.to_thread((tmp_path / "processes").read_text, "latin-1")
    return told + env.masker.mask(str(caught.value))
