"""`osimager plan`: everything that a build will do, no secret in it, and the same tomorrow."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pycdlib
import pytest

from osimager.build.layers import LayerStore
from osimager.events import Stage
from osimager.paths import Places
from osimager.plan.digests import make_digest
from osimager.redact import MASK
from osimager.registry.entry import StageRecord, Status
from osimager.registry.store import Registry
from tests.unit.build.layer_lab import publish_layer
from tests.unit.cli.conftest import Run
from tests.unit.registry.test_store import make_entry

Write = Callable[[str, str], Path]
pytestmark = pytest.mark.needs("qemu-system-x86_64")

GOLDEN = Path(__file__).parents[2] / "golden/plans"
QUOTED = "pa\"ss\\word, and' <more>"
WEB = """
provides: {dist: web, versions: ["1"], arches: [x86_64]}
include: linux
installer: {format: preseed, boot: [typed], boot_command: ["<enter>url=>>answer_url<</web.cfg<enter>"]}
machine: {cpus: 1}
defs: {secret: "|>web/app:password<|"}
files:
  - {dest: web.cfg, sources: [web.cfg]}
steps:
  - {inline: ["echo hello"], environment: {TOKEN: "|>web/app:password<|"}, cache: false}
  - {script: tool, inputs: [data/*]}
  - {file: motd, dest: /etc/motd, mode: "0600"}
  - {file: web.cfg, dest: /root/web.cfg}
  - {shell-local: "echo here"}
"""


@pytest.fixture
def web(write: Write, project: Path, places: Places) -> Path:
    write("specs/web/spec.yml", WEB)
    write("specs/web/motd", "welcome\n")
    write("specs/web/data/one", "1\n")
    write("scripts.d/tool.sh", "#!/bin/sh\necho tool\n")
    write("files/web.cfg", "password %>secret<% 6 6>web/app:password<6 on >>name<<\n")
    write("web.iso", "an ISO\n")
    places.config.mkdir(parents=True)
    secrets = places.config / "secrets"
    secrets.touch(0o600)
    secrets.write_text(f"web/app password='{QUOTED.replace(chr(39), '')}'\n")
    return project


def plan(run: Run, web: Path, *words: str) -> dict[str, object]:
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--json", "--project", web, *words)
    assert said.status == 0, said.err
    found: dict[str, object] = said.json()
    return found


def test_plan_holds_everything_and_no_secret_in_any_form(run: Run, web: Path) -> None:
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--json", "--project", web)
    secret = QUOTED.replace("'", "")
    for form in (secret, json.dumps(secret)[1:-1], secret.encode().hex()):
        assert form not in said.out + said.err
    assert "$6$" not in said.out
    found = said.json()
    assert found["install"]["answers"] == [
        {"name": "web.cfg", "text": f"password {MASK} 6 {MASK} on web-1\n", "format": "preseed"}
    ]
    assert {
        key: value
        for each in found["defs"]
        if each["name"] == "secret"
        for key, value in each.items()
        if key != "origin"
    } == {"name": "secret", "value": MASK}
    assert set(found) >= {"target", "defs", "machine", "media", "install", "steps", "digests", "seal", "output"}
    assert found["install"]["boot"]["boot_command"] == "<enter>url={{answer_url}}/web.cfg<enter>"


def test_plan_for_people_masks_too(run: Run, web: Path) -> None:
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web)
    assert (said.status, f"password {MASK}" in said.out) == (0, True)
    assert QUOTED.replace("'", "") not in said.out


def test_steps_come_in_order_with_what_belongs_to_them(run: Run, web: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.sh"
    extra.write_text("true\n")
    found = plan(run, web)
    steps = found["steps"]
    assert isinstance(steps, list)
    assert [(step["name"], step["kind"]) for step in steps] == [
        ("base", "script"),
        ("default", "script"),
        ("spec.yml:9", "script"),
        ("tool", "script"),
        ("spec.yml:11", "file"),
        ("spec.yml:12", "file"),
        ("spec.yml:13", "local"),
    ]
    assert (steps[2]["environment"], steps[2]["cache"]) == ([["TOKEN", MASK]], False)
    assert re.fullmatch("data/one:[0-9a-f]{64}", steps[3]["inputs"][0])
    assert (steps[4]["destination"], steps[4]["mode"]) == ("/etc/motd", 0o600)


def test_digests_know_what_is_known_before_fetch(run: Run, web: Path, write: Write) -> None:
    before = plan(run, web)["digests"]
    assert isinstance(before, dict)
    install = before["install"]
    assert (install["inputs"]["iso"], install["digest"], before["image"]["digest"]) == ("", "", "")
    assert plan(run, web)["digests"] == before
    known = plan(run, web, "-D", "x=1")["digests"]
    assert known == before
    write("scripts.d/tool.sh", "#!/bin/sh\necho another\n")
    after = plan(run, web)["digests"]
    assert isinstance(after, dict)
    changed = [old != new for old, new in zip(before["steps"], after["steps"], strict=True)]
    assert changed == [False] * 3 + [True] + [False] * 3
    assert after["install"] == before["install"]


def test_changed_secret_changes_digests_that_nobody_can_guess_from(run: Run, web: Path, places: Places) -> None:
    before = plan(run, web)["digests"]
    (places.config / "secrets").write_text("web/app password=another\n")
    after = plan(run, web)["digests"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    name = next(name for name in before["install"]["inputs"] if name.startswith("answers."))
    assert before["install"]["inputs"][name] != after["install"]["inputs"][name]
    (places.data / "digest.key").unlink()
    other_user = plan(run, web)["digests"]
    assert isinstance(other_user, dict)
    theirs, ours = other_user["install"]["inputs"], after["install"]["inputs"]
    assert theirs[name] != ours[name]
    assert theirs["machine.disks"] == ours["machine.disks"]


def test_plan_is_as_it_was(run: Run, web: Path, check_golden: Callable[[Path, str], None]) -> None:
    found = plan(run, web)
    for key in ("host", "output", "layers", "image", "digests", "deadlines"):  # this host's, and now's
        del found[key]
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    shipped = Path(__file__).parents[3]
    text = text.replace(str(web), "PROJECT").replace(str(shipped), "SHIPPED")
    text = re.sub(r'("name": "base",\n\s*"kind": "script",\n\s*"content": )"sha256:\w+"', r'\1"sha256:…"', text)
    check_golden(GOLDEN / "web-1.json", re.sub(r"sha256:\w{64}", "sha256:…", text))


def test_missing_secret_stops_with_place_and_remedy(run: Run, web: Path, places: Places) -> None:
    (places.config / "secrets").unlink()
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web)
    assert said.status == 3
    assert "specs/web/spec.yml:5" in said.err
    assert "hint: export OSIMAGER_SECRET_WEB_APP_PASSWORD" in said.err


def test_settings_give_what_was_not_said(run: Run, web: Path, places: Places) -> None:
    (places.config / "config.yml").write_text("output: /images\nlocal_only: true\nnonsense: 1\n")
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--json", "--project", web)
    assert "'nonsense' is unknown" in said.err
    assert said.status == 3
    assert "offline guest cannot fetch its answer file" in said.err
    (places.config / "config.yml").write_text("output: /images\n")
    found = plan(run, web)["output"]
    assert isinstance(found, dict)
    assert found["folder"] == "/images"


def test_dry_run_of_build_shows_the_plan(run: Run, web: Path) -> None:
    said = run("build", "web-1", "--iso", str(web / "web.iso"), "--dry-run", "--project", web)
    assert (said.status, "qemu/local/web-1-x86_64" in said.out) == (0, True)


def test_boot_command_that_is_asked_for_stands_for_the_specs(run: Run, web: Path) -> None:
    words = ("build", "web-1", "--dry-run", "--json", "--iso", str(web / "web.iso"), "--project", web)
    said = run(*words, "--boot-command", "<esc><wait>linux host=>>name<< >>answer_url<<<enter>")
    assert said.status == 0, said.err
    boot = said.json()["install"]["boot"]
    assert boot["rung"] == "typed"
    assert boot["boot_command"] == "<esc><wait>linux host=web-1 {{answer_url}}<enter>"
    assert (run(*words, "--boot-command", "<entr>").status, run(*words, "--boot-command", ">>nobody<<").status) == (
        3,
        3,
    )
    assert run(*words, "--boot", "direct", "--boot-command", "x").status == 2


def test_boot_command_that_cannot_be_typed_is_refused_where_it_is_written(run: Run, web: Path, write: Write) -> None:
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web, "--boot-command", "<wait 5>")
    assert (said.status, "<wait 5> in a boot command" in said.err, "at --boot-command" in said.err) == (3, True, True)
    spec = write(
        "specs/web/spec.yml", WEB.replace("boot: [typed]", "boot: [direct, typed]").replace("<enter>", "<entr>")
    )
    line = WEB[: WEB.index("boot_command")].count("\n")
    for verb in (("plan", "web-1", "--iso", str(web / "web.iso")), ("spec", "check", "web-1")):
        said = run(*verb, "--project", web)
        assert (said.status, f"at {spec}:{line}" in said.err + said.out) == (3, True), said.err + said.out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("qemu/lab/web-1", "--ip", "300.1.1.1"), "--ip '300.1.1.1' is not an address"),
        (("qemu/lab/web-1", "--name", "bad_name"), "--name 'bad_name' is not a host name"),
        (("qemu/lab/web-1", "--name", "-x"), "--name '-x' is not a host name"),
        (("qemu/lab/web-1", "--fqdn", "a..b"), "--fqdn 'a..b' is not a host name"),
        (("qemu/lab/web-1", "--ip", "10.9.0.7"), "the ip 10.9.0.7 is not the address of a host in 10.1.0.0/24"),
        (("qemu/lab/web-1", "--ip", "10.1.0.255"), "write one from 10.1.0.1 to 10.1.0.254"),
        (("qemu/lab/web-1", "--ip", "10.1.0.254"), "10.1.0.254 is the gateway's own address"),
        (("qemu/lab/web-1", "-D", "ip=no"), "the ip no is not the address of a host"),
        (("qemu/small/web-1", "--ip", "10.2.0.1"), "no room for QEMU's own addresses"),
        (("qemu/six/web-1", "--ip", "2001:db8::7"), "IPv4 addresses only"),
        (("web-1", "--ip", "10.1.0.7"), "has no network for 10.1.0.7"),
    ],
)
def test_an_address_or_name_that_cannot_be_is_told_before_anything_is_fetched(
    run: Run, web: Path, write: Write, words: tuple[str, ...], what: str
) -> None:
    write("specs/locations/lab.yml", "defs: {cidr: 10.1.0.0/24}\n")
    write("specs/locations/small.yml", "defs: {cidr: 10.2.0.0/31}\n")
    write("specs/locations/six.yml", 'defs: {cidr: "2001:db8::/64"}\n')
    said = run("plan", *words, "--iso", str(web / "web.iso"), "--project", web)
    assert said.status in (2, 3)
    assert what in said.err
    assert "hint:" in said.err


@pytest.mark.parametrize(("key", "line"), [("machine", "pc-9000"), ("nic", "e2000"), ("cpu", "i586-mmx3")])
def test_what_this_host_s_qemu_does_not_have_is_told_with_its_line(
    run: Run, web: Path, write: Write, key: str, line: str
) -> None:
    write("specs/web/spec.yml", WEB.replace("{cpus: 1}", f"\n  {key}: {line}"))
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web)
    assert said.status == 4
    assert line in said.err
    assert "specs/web/spec.yml:5\n" in said.err


MACHINE = """
  disks: [{size: 1G, interface: scsi}, {size: 512M}]
  nics: [{model: e1000, mac: "52:54:00:00:00:07"}]
  overrides: {rng0: false, video0: "-device virtio-vga,id=video0", balloon0: "device virtio-balloon-pci,id=balloon0"}
"""


def test_spec_gives_more_disks_cards_and_overrides(run: Run, web: Path, write: Write) -> None:
    write("specs/web/spec.yml", WEB.replace("machine: {cpus: 1}", f"machine:\n  cpus: 1{MACHINE}"))
    shape = plan(run, web)["machine"]
    assert isinstance(shape, dict)
    assert [(disk["id"], disk["size_bytes"] >> 20, disk["interface"]) for disk in shape["disks"]][1:] == [
        ("disk1", 1024, "scsi"),
        ("disk2", 512, "virtio"),
    ]
    assert [(nic["id"], nic["model"], nic["mac"]) for nic in shape["nics"]] == [
        ("nic0", "virtio-net-pci", None),
        ("nic1", "e1000", "52:54:00:00:00:07"),
    ]
    assert [(each["id"], each["option"], each["argument"]) for each in shape["overrides"]] == [
        ("rng0", None, None),
        ("video0", "device", "virtio-vga,id=video0"),
        ("balloon0", "device", "virtio-balloon-pci,id=balloon0"),
    ]


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ("overrides: {vido0: false}", "no QEMU argument has the id 'vido0'"),
        ("overrides: {vido0: '-device virtio-vga,id=video0'}", "no QEMU argument has the id 'vido0'"),
        ("disks: [{interface: scsi}]", "machine.disks[0].size is missing"),
        ("disks: {size: 1G}", "a list of mappings is needed"),
        ("nics: [{mac: '52:54:00'}]", "is not a MAC address"),
        ("nics: [{modell: e1000}]", "modell"),
        ("bridge: a/b", "is not the name of a bridge"),
        ("disks: [" + "{size: 1G}, " * 14 + "]", "has room for"),
    ],
)
def test_machine_that_cannot_be_is_told_at_resolve(machine: str, said: str, run: Run, web: Path, write: Write) -> None:
    write("specs/web/spec.yml", WEB.replace("machine: {cpus: 1}", f"machine: {{{machine}}}"))
    refused = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web)
    assert (refused.status, said in refused.err) == (3, True), refused.err


def test_guest_on_a_bridge_gets_its_answers_by_seed(run: Run, web: Path, write: Write) -> None:
    bridged = WEB.replace("machine: {cpus: 1}", "machine: {bridge: br0}")
    write("specs/web/spec.yml", bridged)
    refused = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web)
    assert (refused.status, "a guest on a bridge cannot fetch its answer file" in refused.err) == (3, True)
    seeded = bridged.replace(
        'boot_command: ["<enter>url=>>answer_url<</web.cfg<enter>"]', "boot_command: [x], seed: {label: X}"
    )
    write("specs/web/spec.yml", seeded)
    found = plan(run, web, "--ip", "192.168.77.10", "-D", "cidr=192.168.77.0/24")
    assert found["install"]["serve"] is False  # type: ignore[index]
    assert found["machine"]["nics"][0]["network"] == {"bridge": "br0", "guest": "192.168.77.10"}  # type: ignore[index]
    words = ("--dry-run", "--offline", "--iso", str(web / "web.iso"), "--project", web)
    assert "a guest on the bridge br0 is not offline" in run("build", "web-1", *words).err


@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_secret_that_is_no_size_is_not_shown_with_what_is_wrong(run: Run, web: Path, verb: str) -> None:
    with (web / "specs/web/spec.yml").open("a") as spec:
        spec.write("version_specific: [{version: '.*', machine: {memory: '|>web/app:password<|'}}]\n")
    said = run(verb, "web-1", "--iso", str(web / "web.iso"), "--project", web)
    assert said.status == 3
    assert f"machine.memory: '{MASK}' is not a size" in said.err.replace('"', "'")
    assert QUOTED.replace("'", "") not in said.out + said.err


def test_inputs_are_patterns_wherever_they_begin(run: Run, web: Path, write: Write) -> None:
    write("specs/web/data/.hidden", "1\n")
    absolute = f"{web}/specs/web/data/*"
    for pattern in (absolute, "data/*", "data/**e*"):
        write("specs/web/spec.yml", WEB.replace("data/*", pattern))
        inputs = plan(run, web)["steps"][3]["inputs"]  # type: ignore[index]
        assert [text.rpartition(":")[0] for text in inputs] == ["data/.hidden", "data/one"]
    for pattern in (f"{web}/none*", "none*", "''"):
        write("specs/web/spec.yml", WEB.replace("data/*", pattern))
        said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web)
        assert (said.status, "no file is called" in said.err) == (3, True)


def test_step_to_begin_from_is_one_that_there_is(run: Run, web: Path) -> None:
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web, "--from", "step:7")
    assert (said.status, "step 7      spec.yml:13" in said.out) == (0, True)
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web, "--from", "step:9")
    assert (said.status, "no step 9 to make anew: this build has 7" in said.err) == (2, True)


@pytest.mark.parametrize(("words", "why"), [([], "there is none yet"), (["--force"], "made anew, as asked")])
def test_layer_that_is_not_there_or_not_wanted_says_which(run: Run, web: Path, words: list[str], why: str) -> None:
    checksum = ("--iso-checksum", f"sha256:{'a' * 64}")
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), *checksum, "--project", web, *words)
    found = [line for line in said.out.splitlines() if line.startswith("layer")]
    assert found[:2] == [f"layer       installed disk: miss: {why}", f"layer       base: miss: {why}"]


def layer_lines(run: Run, web: Path, *words: str) -> list[str]:
    """Give what `plan` says of the installed disk and of the image."""
    said = run("plan", "web-1", "--iso", str(web / "web.iso"), "--project", web, *words)
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    return [next(line[12:] for line in lines if line.startswith(kind)) for kind in ("layer", "image")]


def write_iso(path: Path, content: bytes) -> None:
    """Write an ISO with one file, over the one that was there."""
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident="WEB")
    iso.add_fp(io.BytesIO(content), len(content), "/FILE.;1")
    file = io.BytesIO()
    iso.write_fp(file)
    iso.close()
    path.write_bytes(file.getvalue())


def keep_installed(run: Run, web: Path, places: Places) -> None:
    """Publish the layer that this plan's INSTALL would leave."""
    found = plan(run, web)
    digests, layers = found["digests"], found["layers"]
    assert isinstance(digests, dict)
    assert isinstance(layers, list)
    iso = make_digest(hashlib.sha256((web / "web.iso").read_bytes()).hexdigest())
    inputs = {**digests["install"]["inputs"], "iso": iso}
    digest = make_digest({"before": None, "inputs": inputs})
    publish_layer(LayerStore(places), 1, inputs=inputs, digest=int(digest, 16), target="qemu/local/web-1-x86_64")


@pytest.mark.needs("qemu-img", "qemu-io")
def test_another_iso_under_the_same_name_is_told_apart(run: Run, web: Path, places: Places) -> None:
    iso = web / "web.iso"
    write_iso(iso, b"one")
    keep_installed(run, web, places)
    assert layer_lines(run, web)[0] == "installed disk: hit (1.0s)"
    first, before = iso.read_bytes(), iso.stat()
    write_iso(iso, b"two")
    os.utime(iso, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (iso.stat().st_size, iso.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert layer_lines(run, web)[0] == "installed disk: miss: the ISO changed"
    iso.write_bytes(first)
    assert layer_lines(run, web)[0] == "installed disk: hit (1.0s)"
    assert layer_lines(run, web, "--cpus", "3")[0] == "installed disk: miss: machine.cpus changed"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
@pytest.mark.needs("qemu-img", "qemu-io", "mount")
def test_who_only_looks_needs_no_right_to_write_to_the_layers(run: Run, web: Path, places: Places) -> None:
    write_iso(web / "web.iso", b"one")
    keep_installed(run, web, places)
    layers = str(places.layers)
    if subprocess.run(["mount", "--bind", "-o", "ro", layers, layers], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount on this host")
    try:
        assert layer_lines(run, web)[0] == "installed disk: hit (1.0s)"
        assert [row["in_use"] for row in run("layer", "list", "--json").json()] == [False]
    finally:
        subprocess.run(["umount", layers], check=True)


@pytest.mark.needs("qemu-img")
def test_firmware_counts_by_its_content_wherever_it_lies(
    run: Run, web: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user"
    descriptors = user / ".config/qemu/firmware"
    descriptors.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(user))

    def firmware(folder: str, code: bytes) -> str:
        (user / folder).mkdir(exist_ok=True)
        (user / folder / "code.fd").write_bytes(code)
        (user / folder / "vars.fd").write_bytes(b"variables")
        part = {name: {"filename": f"{user}/{folder}/{name}.fd", "format": "raw"} for name in ("code", "vars")}
        mapping = {"device": "flash", "executable": part["code"], "nvram-template": part["vars"]}
        targets = [{"architecture": "x86_64", "machines": ["pc-q35-*"]}]
        text = {"interface-types": ["uefi"], "mapping": mapping, "targets": targets, "features": []}
        (descriptors / "00-mine.json").write_text(json.dumps(text))
        digests = plan(run, web, "--firmware", "uefi")["digests"]
        assert isinstance(digests, dict)
        return str(digests["install"]["inputs"]["firmware"])

    first = firmware("one", b"code")
    os.utime(user / "one/code.fd", (1, 1))
    assert firmware("two", b"code") == first
    assert firmware("two", b"edoc") != first


def test_image_that_is_there_is_told_and_what_makes_it_another(
    run: Run, web: Path, write: Write, places: Places
) -> None:
    def image(*words: str) -> str:
        return layer_lines(run, web, "--iso-checksum", f"sha256:{'a' * 64}", *words)[1]

    assert image() == "never kept: a step before it, or it itself, says cache: false"
    write("specs/web/spec.yml", WEB.replace(", cache: false", ""))
    assert image() == "miss: the layers below are made anew"
    found = plan(run, web, "--iso-checksum", f"sha256:{'a' * 64}")
    digests, output = found["digests"], found["output"]
    assert isinstance(digests, dict)
    assert isinstance(output, dict)
    entry = make_entry("qemu/local/web-1-x86_64", folder=Path(output["folder"]))
    stages = {Stage.PROVISION: digests["steps"][-1]["digest"], Stage.PUBLISH: digests["image"]["digest"]}
    records = tuple(StageRecord(stage, digest, 1.0) for stage, digest in stages.items())
    entry = dataclasses.replace(entry, stages=records, label="", status=Status.VERIFIED)
    entry.path.parent.mkdir(parents=True)
    entry.path.write_bytes(bytes(entry.size_bytes))
    Registry.open(places.registry).add(entry)
    assert image() == "hit"
    assert image("--seal", "machine") == "miss: seal changed"
    assert image("--force") == "miss: made anew, as asked"
    write("scripts.d/tool.sh", "#!/bin/sh\necho another\n")
    assert image() == "miss: the layers below are made anew"
