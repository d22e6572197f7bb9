"""The keys of layers: every input of a stage makes it a miss and none before it; what cannot matter changes nothing.

The tables name each field of each type of the plan. One that is added later fails here until somebody says whether it
is an input (`Becomes` another value, and the key changes) or not (`NoInput`, and why).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from osimager.arch import Arch, Firmware
from osimager.build.lookups import HostLookups
from osimager.config.sections import DiskInterface, Rung, Target
from osimager.env import Env
from osimager.errors import Place
from osimager.events import Stage
from osimager.holes import ANSWER_URL, BUILD_PASSWORD_CRYPT, BUILD_PUBLIC_KEY, hole
from osimager.plan.boot import complete_boot
from osimager.plan.digests import Outside, PlanKeys, Protect, list_changes, make_keys, make_memory_key
from osimager.plan.facts import Accelerator, HostFacts, MediaFacts, MenuEntry
from osimager.plan.model import (
    Access,
    Answer,
    BootPlan,
    BuildPlan,
    Deadline,
    DefValue,
    DeviceOverride,
    DiskShape,
    InstallPlan,
    MachineShape,
    MediaPlan,
    NicShape,
    OutputPlan,
    SealMode,
    SealPlan,
    SeedPlan,
    Step,
    StepKind,
    UserNetwork,
)
from tests.unit.plan.test_argv import HOSTS

SHAPE = MachineShape(
    arch=Arch.X86_64,
    firmware=Firmware.BIOS,
    machine="q35",
    cpu="x86-64-v2",
    cpus=2,
    memory_mib=1024,
    disks=(DiskShape("disk0", 10 << 30),),
    nics=(NicShape("net0"),),
)
BOOT = BootPlan(
    rung=Rung.DIRECT,
    reason="the menu's own",
    menu="^install$",
    arguments=("auto=true", f"url={hole(ANSWER_URL)}/preseed.cfg"),
    drop=("vga=.*",),
    spare_command="<enter>",
)
ANSWERS = (
    Answer("preseed.cfg", f"key {hole(BUILD_PUBLIC_KEY)}\npassword {hole(BUILD_PASSWORD_CRYPT)}\n", "preseed"),
    Answer("late.sh", "echo late\n", "sh"),
)
INSTALL = InstallPlan(
    machine=SHAPE, boot=BOOT, answers=ANSWERS, seed=SeedPlan("CIDATA", ("preseed.cfg",)), serve=True, restarts=1
)


def make_step(number: int) -> Step:
    return Step(
        name=f"step-{number}",
        kind=StepKind.SCRIPT,
        content=f"echo {number}\n".encode(),
        origin=Place(Path(f"/steps/{number}.sh")),
        environment=(("A", "1"), ("B", "2")),
        inputs=("data/one:aa", "roles/web:bb"),
        arguments=("--tags", "web"),
    )


PLAN = BuildPlan(
    target=Target("qemu", "local", "debian", "12", "x86_64"),
    profile="default",
    hostname="debian-12",
    fqdn="debian-12.example",
    address="dhcp",
    defs=(DefValue("name", "debian-12", None),),
    media=MediaPlan(name="debian-12"),
    install=INSTALL,
    machine=SHAPE,
    access=Access(user="osimager"),
    steps=tuple(make_step(number) for number in (1, 2, 3)),
    seal=SealPlan(SealMode.TEMPLATE, "osimager"),
    verify=True,
    output=OutputPlan(folder=Path("/images"), stem="debian-12"),
    deadlines=(Deadline(Stage.INSTALL, 60.0),),
)
ENTRIES = (
    MenuEntry("Graphical", "gfx", "/gfx/vmlinuz", ("/gfx/initrd",), "quiet", True, "/menu.cfg", Firmware.BIOS),
    MenuEntry("Install", "install", "/vmlinuz", ("/initrd",), "vga=788 --- quiet", False, "/menu.cfg", Firmware.BIOS),
)
MEDIA = MediaFacts(path=Path("/a.iso"), sha256="ab" * 32, verified=True, volume_id="DEBIAN", entries=ENTRIES)
OUTSIDE = Outside(firmware="firmware", seal="seal", processor="processor")


def make_all(
    plan: BuildPlan = PLAN, media: MediaFacts = MEDIA, outside: Outside = OUTSIDE, protect: Protect | None = None
) -> PlanKeys:
    """Give the keys as a build makes them, after FETCH."""
    return make_keys(complete_boot(plan, media), media, outside, protect)


def digests(keys: PlanKeys) -> list[str]:
    """Give the digests of the installed disk, of each step, and of the image."""
    return [key.digest for key in (keys.install, *keys.steps, keys.image)]


INSTALLED, SECOND_STEP, IMAGE = 0, 2, 4
COUNT = 5


def assert_miss(keys: PlanKeys, first: int, *, of: PlanKeys | None = None) -> None:
    """Fail unless stage `first` is another one now, with all that stand on it, and none before it."""
    before, now = digests(of or make_all()), digests(keys)
    assert all(now)
    assert [old != new for old, new in zip(before, now, strict=True)] == [at >= first for at in range(COUNT)]


# What is an input and what is not, field by field ---------------------------------------------------------------------


@dataclass(frozen=True)
class Becomes:
    """The field is an input: with this value the key is another, and the miss is told by these inputs' names."""

    value: object
    named: tuple[str, ...]


@dataclass(frozen=True)
class NoInput:
    """The field is none, for a reason; with this value the key is the same."""

    value: object
    why: str


@dataclass(frozen=True)
class Elsewhere:
    """The field is a type with a table of its own."""

    table: str


Table = Mapping[str, Becomes | NoInput | Elsewhere]

STEP: Table = {
    "name": NoInput("renamed", "what a step is called changes nothing in the guest"),
    "kind": Becomes(StepKind.FILE, ("kind",)),
    "content": Becomes(b"echo two\n", ("content",)),
    "origin": NoInput(Place(Path("/elsewhere/2.sh"), 7), "the project may lie elsewhere"),
    "environment": Becomes((("A", "1"), ("B", "3")), ("environment.B",)),
    "destination": Becomes("/etc/motd", ("destination",)),
    "mode": Becomes(0o700, ("mode",)),
    "cache": NoInput(False, "says whether the layer may be kept at all: `cached`"),
    "inputs": Becomes(("data/one:cc", "roles/web:bb"), ("inputs.data/one",)),
    "arguments": Becomes(("--tags", "db"), ("arguments",)),
    "folder": NoInput(Path("/work"), "the project may lie elsewhere; what a step reads there are its `inputs`"),
    "program": Becomes(Path("/venv/bin/ansible-playbook"), ("program",)),
}
INSTALL_PLAN: Table = {
    "machine": Elsewhere("MACHINE"),
    "boot": Elsewhere("BOOT_PLAN"),
    "answers": Becomes((ANSWERS[0], Answer("late.sh", "echo later\n", "sh")), ("answers.late.sh",)),
    "seed": Becomes(SeedPlan("OEMDRV", ("preseed.cfg",)), ("answers by",)),
    "serve": Becomes(False, ("answers by",)),
    "inject": Becomes(True, ("answers by",)),
    "restarts": Becomes(2, ("restarts",)),
}
BOOT_PLAN: Table = {
    "rung": Becomes(Rung.MENU, ("boot.command_line", "boot.initrds", "boot.kernel", "boot.rung")),
    "reason": NoInput("another", "a text for people"),
    "menu": NoInput("^(install|setup)$", "only the entry that it finds counts: `kernel`, `initrds`, `command_line`"),
    "arguments": Becomes(("auto=true",), ("boot.command_line",)),
    "drop": Becomes((), ("boot.command_line",)),
    "kernel": NoInput("/other", "FETCH fills it in from the ISO's menu; then it is an input"),
    "initrds": NoInput(("/other",), "FETCH fills it in from the ISO's menu; then it is an input"),
    "command_line": NoInput("other", "FETCH fills it in from the ISO's menu; then it is an input"),
    "boot_command": NoInput("<f6>", "nothing is typed on this rung"),
    "boot_wait_s": NoInput(9.0, "nothing is typed on this rung"),
    "spare_command": NoInput("<f6>", "nothing is typed on this rung"),
}
MACHINE: Table = {
    "arch": Becomes(Arch.AARCH64, ("machine.arch",)),
    "firmware": Becomes(Firmware.UEFI, ("machine.firmware",)),
    "machine": Becomes("pc", ("machine.machine",)),
    "cpu": Becomes("x86-64-v3", ("machine.cpu",)),
    "cpus": Becomes(4, ("machine.cpus",)),
    "memory_mib": Becomes(2048, ("machine.memory_mib",)),
    "disks": Becomes((DiskShape("disk0", 20 << 30),), ("machine.disks",)),
    "nics": Becomes((NicShape("net0", UserNetwork(restricted=True)),), ("machine.nics",)),
    "cdrom_interface": Becomes(DiskInterface.SCSI, ("machine.cdrom_interface",)),
    "tpm": Becomes(True, ("machine.tpm",)),
    "overrides": Becomes((DeviceOverride("vga", None),), ("machine.overrides",)),
}
SEAL: Table = {
    "mode": Becomes(SealMode.MACHINE, ("seal",)),
    "build_user": Becomes("builder", ("seal",)),
    "remove_build_user": Becomes(False, ("seal",)),
}
BUILD: Table = {
    "target": NoInput(Target("qemu", "lab", "debian", "12", "x86_64"), "two targets may share their layers"),
    "profile": NoInput("developer", "what it changes are steps and answers"),
    "hostname": NoInput("web", "an answer file that does not hold it does not know it"),
    "fqdn": NoInput("web.example", "an answer file that does not hold it does not know it"),
    "address": NoInput("192.0.2.7", "an answer file that does not hold it does not know it"),
    "defs": NoInput((), "what they change are steps, answers and the machine"),
    "media": NoInput(MediaPlan(name="mine", path=Path("/b.iso")), "the ISO's own digest counts, wherever it is from"),
    "install": Elsewhere("INSTALL_PLAN"),
    "machine": NoInput(dataclasses.replace(SHAPE, cpus=8), "`install.machine` counts: resolve makes one of the other"),
    "access": NoInput(Access(user="root"), "how the runner gets in leaves nothing"),
    "steps": Elsewhere("STEP"),
    "seal": Elsewhere("SEAL"),
    "verify": NoInput(False, "VERIFY boots an overlay: the image is the same"),
    "output": NoInput(OutputPlan(folder=Path("/b"), stem="b", replace=True, label="mine"), "where the image goes"),
    "deadlines": NoInput((Deadline(Stage.INSTALL, 90.0),), "how long it may take"),
    "notes": NoInput(("look here",), "texts for people"),
}
BY_TYPE: Mapping[type, Table] = {
    Step: STEP,
    InstallPlan: INSTALL_PLAN,
    BootPlan: BOOT_PLAN,
    MachineShape: MACHINE,
    SealPlan: SEAL,
    BuildPlan: BUILD,
}


def with_install(**changes: Any) -> BuildPlan:
    return dataclasses.replace(PLAN, install=dataclasses.replace(INSTALL, **changes))


def with_step(**changes: Any) -> BuildPlan:
    first, second, third = PLAN.steps
    return dataclasses.replace(PLAN, steps=(first, dataclasses.replace(second, **changes), third))


# How a field of each type is changed in a plan, and the stage that it belongs to.
INTO: Mapping[type, tuple[int, Callable[..., BuildPlan]]] = {
    Step: (SECOND_STEP, with_step),
    InstallPlan: (INSTALLED, with_install),
    BootPlan: (INSTALLED, lambda **changes: with_install(boot=dataclasses.replace(BOOT, **changes))),
    MachineShape: (INSTALLED, lambda **changes: with_install(machine=dataclasses.replace(SHAPE, **changes))),
    SealPlan: (IMAGE, lambda **changes: dataclasses.replace(PLAN, seal=dataclasses.replace(PLAN.seal, **changes))),
    BuildPlan: (INSTALLED, lambda **changes: dataclasses.replace(PLAN, **changes)),
}


def rows(kind: type) -> list[Any]:
    return [
        pytest.param(owner, name, said, id=f"{owner.__name__}.{name}")
        for owner, table in BY_TYPE.items()
        for name, said in table.items()
        if isinstance(said, kind)
    ]


@pytest.mark.parametrize("owner", BY_TYPE)
def test_somebody_has_said_of_each_field_whether_it_is_an_input(owner: type) -> None:
    assert list(BY_TYPE[owner]) == [field.name for field in dataclasses.fields(owner)]


@pytest.mark.parametrize(("owner", "name", "said"), rows(Becomes))
def test_input_makes_its_stage_a_miss_by_name_and_no_earlier_one(owner: type, name: str, said: Becomes) -> None:
    first, change = INTO[owner]
    keys = make_all(change(**{name: said.value}))
    assert_miss(keys, first)
    before, now = ([keys.install, *keys.steps, keys.image] for keys in (make_all(), keys))
    assert list_changes(now[first].inputs, before[first].inputs) == said.named
    assert all(now[at].inputs == before[at].inputs for at in range(COUNT) if at != first)


@pytest.mark.parametrize(("owner", "name", "said"), rows(NoInput))
def test_what_is_no_input_changes_nothing(owner: type, name: str, said: NoInput) -> None:
    keys = make_all(INTO[owner][1](**{name: said.value}))
    assert digests(keys) == digests(make_all())
    assert keys.cached == (1 if name == "cache" else 3)


# What lies deeper than a field ----------------------------------------------------------------------------------------

DISK, NIC = SHAPE.disks[0], SHAPE.nics[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"disks": (dataclasses.replace(DISK, id="system"),)},
        {"disks": (dataclasses.replace(DISK, interface=DiskInterface.SATA),)},
        {"disks": (DISK, DiskShape("disk1", 1 << 30))},
        {"nics": (NIC, NicShape("net1"))},
        {"nics": (dataclasses.replace(NIC, model="e1000"),)},
        {"nics": (dataclasses.replace(NIC, mac="52:54:00:12:34:56"),)},
        {"nics": (dataclasses.replace(NIC, network=UserNetwork(cidr="192.0.2.0/24", guest="192.0.2.7")),)},
        {"overrides": (DeviceOverride("vga", "-device", "VGA"),)},
    ],
)
def test_every_part_of_the_hardware_counts(changes: dict[str, Any]) -> None:
    assert_miss(make_all(with_install(machine=dataclasses.replace(SHAPE, **changes))), INSTALLED)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"environment": (("A", "1"),)}, ("environment.B",)),
        ({"environment": (("A", "1"), ("B", "2"), ("C", ""))}, ("environment.C",)),
        ({"environment": (("A", "2"), ("B", "1"))}, ("environment.A", "environment.B")),
        ({"inputs": ("data/one:aa",)}, ("inputs.roles/web",)),
        ({"inputs": ("data/one:cc", "data/one:aa", "roles/web:bb")}, ("inputs.data/one",)),
        ({"inputs": ("data/one:aa", "data/two:aa", "roles/web:bb")}, ("inputs.data/two",)),
        ({"content": b""}, ("content",)),
        ({"content": b"echo 2"}, ("content",)),
        ({"content": b"echo 2\n\xff"}, ("content",)),
        ({"mode": 0o644}, ("mode",)),
    ],
)
def test_every_part_of_a_step_counts_by_its_own_name(changes: dict[str, Any], named: tuple[str, ...]) -> None:
    keys = make_all(with_step(**changes))
    assert_miss(keys, SECOND_STEP)
    assert list_changes(keys.steps[1].inputs, make_all().steps[1].inputs) == named


def test_order_and_number_of_steps_count_from_the_first_that_differs() -> None:
    first, second, third = PLAN.steps
    now = make_all(dataclasses.replace(PLAN, steps=(first, third, second)))
    assert_miss(now, SECOND_STEP)
    more = make_all(dataclasses.replace(PLAN, steps=(*PLAN.steps, make_step(4))))
    assert digests(more)[:4] == digests(make_all())[:4]
    assert more.image.digest != make_all().image.digest
    twice = make_all(dataclasses.replace(PLAN, steps=(first, first)))
    assert len(set(digests(twice))) == 4


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        (ANSWERS[:1], ("answers.late.sh",)),
        ((*ANSWERS, Answer("more", "", "sh")), ("answers.more",)),
        ((Answer("ks.cfg", ANSWERS[0].text, "preseed"), ANSWERS[1]), ("answers.ks.cfg", "answers.preseed.cfg")),
        ((Answer("preseed.cfg", f"key {hole(BUILD_PUBLIC_KEY)}\n", "preseed"), ANSWERS[1]), ("answers.preseed.cfg",)),
    ],
)
def test_each_answer_file_counts_by_its_name(answers: tuple[Answer, ...], named: tuple[str, ...]) -> None:
    keys = make_all(with_install(answers=answers))
    assert_miss(keys, INSTALLED)
    assert list_changes(keys.install.inputs, make_all().install.inputs) == named


@pytest.mark.parametrize("seed", [None, SeedPlan("CIDATA", ("late.sh",)), SeedPlan("CIDATA", ())])
def test_what_is_on_the_seed_counts(seed: SeedPlan | None) -> None:
    assert_miss(make_all(with_install(seed=seed)), INSTALLED)


# The boot, rung by rung -----------------------------------------------------------------------------------------------


def boot_keys(**changes: Any) -> PlanKeys:
    return make_all(with_install(boot=dataclasses.replace(BOOT, **changes)))


@pytest.mark.parametrize(
    ("rung", "field", "value", "counts"),
    [
        (Rung.TYPED, "boot_command", "<f6>", True),
        (Rung.TYPED, "boot_wait_s", 9.0, True),
        (Rung.TYPED, "arguments", ("quiet",), False),
        (Rung.TYPED, "drop", (), False),
        (Rung.TYPED, "menu", "", False),
        (Rung.TYPED, "spare_command", "", False),
        (Rung.TYPED, "reason", "", False),
        (Rung.MENU, "boot_command", "<f6>", False),
        (Rung.MENU, "arguments", ("quiet",), False),
        (Rung.MENU, "menu", "", False),
        (Rung.MENU, "reason", "", False),
        (Rung.DIRECT, "menu", "", True),  # the default entry is another one
        (Rung.DIRECT, "menu", "nothing matches", True),
    ],
)
def test_a_rung_counts_what_the_installer_sees_of_it(rung: Rung, field: str, value: object, counts: bool) -> None:
    before, now = boot_keys(rung=rung), boot_keys(rung=rung, **{field: value})
    if counts:
        assert_miss(now, INSTALLED, of=before)
    else:
        assert digests(now) == digests(before)


def with_entry(**changes: Any) -> MediaFacts:
    return dataclasses.replace(MEDIA, entries=(ENTRIES[0], dataclasses.replace(ENTRIES[1], **changes)))


@pytest.mark.parametrize(
    ("media", "named"),
    [
        (dataclasses.replace(MEDIA, sha256="cd" * 32), ("iso",)),
        (with_entry(kernel="/other"), ("boot.kernel",)),
        (with_entry(initrds=("/initrd", "/more")), ("boot.initrds",)),
        (with_entry(arguments="vga=788 quiet"), ("boot.command_line",)),
    ],
)
def test_what_the_iso_brings_counts(media: MediaFacts, named: tuple[str, ...]) -> None:
    keys = make_all(media=media)
    assert_miss(keys, INSTALLED)
    assert list_changes(keys.install.inputs, make_all().install.inputs) == named


@pytest.mark.parametrize(
    "media",
    [
        dataclasses.replace(MEDIA, path=Path("/elsewhere.iso")),
        dataclasses.replace(MEDIA, verified=False),
        dataclasses.replace(MEDIA, volume_id="MINE"),
        with_entry(title="install", menu_file="/other.cfg"),
        with_entry(arguments="vga=1 --- quiet"),
    ],
)
def test_where_the_iso_lies_and_how_its_entry_is_called_change_nothing(media: MediaFacts) -> None:
    assert digests(make_all(media=media)) == digests(make_all())


def test_before_fetch_what_stands_on_the_iso_is_unknown_and_its_known_inputs_are_the_same() -> None:
    keys, known = make_keys(PLAN, None, OUTSIDE), make_all()
    assert digests(keys) == [""] * COUNT
    unknown = {name for name, digest in keys.install.inputs.items() if not digest}
    assert unknown == {"iso", "boot.kernel", "boot.initrds", "boot.command_line"}
    assert set(list_changes(keys.install.inputs, known.install.inputs)) == unknown
    assert [step.inputs for step in keys.steps] == [step.inputs for step in known.steps]


def test_checksum_that_the_plan_knows_and_a_boot_that_needs_no_menu_are_known_before_fetch() -> None:
    boot = dataclasses.replace(BOOT, rung=Rung.TYPED, boot_command="<enter>")
    plan = dataclasses.replace(with_install(boot=boot), media=MediaPlan(name="a", sha256=MEDIA.sha256))
    assert digests(make_keys(plan, None, OUTSIDE)) == digests(make_all(plan))


# Outside of the plan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "first"), [("firmware", INSTALLED), ("seal", IMAGE)])
def test_what_is_outside_of_the_plan_counts(name: str, first: int) -> None:
    assert_miss(make_all(outside=dataclasses.replace(OUTSIDE, **{name: "other"})), first)


def test_the_hosts_processor_changes_no_disk() -> None:
    assert digests(make_all(outside=dataclasses.replace(OUTSIDE, processor="other"))) == digests(make_all())


@pytest.mark.parametrize(
    ("name", "first"), [("INSTALL_SCHEMA", INSTALLED), ("STEP_SCHEMA", 1), ("IMAGE_SCHEMA", IMAGE)]
)
def test_code_that_makes_layers_otherwise_counts(name: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_all()
    monkeypatch.setattr(f"osimager.plan.digests.{name}", 1_000)
    assert_miss(make_all(), first, of=before)


def test_this_builds_own_values_are_holes_and_change_nothing() -> None:
    """A plan is keyed with its holes in it; what fills them is never seen."""
    filled = with_install(answers=(Answer("preseed.cfg", "key ssh-ed25519 AAAA\n", "preseed"), ANSWERS[1]))
    assert_miss(make_all(filled), INSTALLED)
    assert hole(ANSWER_URL) in complete_boot(PLAN, MEDIA).install.boot.command_line


# Secrets --------------------------------------------------------------------------------------------------------------

SECRET = "correct horse battery"


def with_secret(secret: str) -> BuildPlan:
    answers = (Answer("preseed.cfg", f"password {secret}\n", "preseed"),)
    step = dataclasses.replace(PLAN.steps[1], environment=(("TOKEN", secret),), content=f"# {secret}\n".encode())
    plan = with_install(answers=answers)
    return dataclasses.replace(plan, steps=(plan.steps[0], step, plan.steps[2]))


def secret_keys(secret: str, env: Env) -> PlanKeys:
    env.masker.register(secret)
    return make_all(with_secret(secret), protect=HostLookups(env.places, env.masker, offline=True).protect)


def test_secret_enters_as_a_keyed_hash_and_another_one_is_a_miss(env: Env) -> None:
    keys, again = secret_keys(SECRET, env), secret_keys(SECRET, env)
    assert digests(again) == digests(keys)
    assert_miss(secret_keys("another secret", env), INSTALLED, of=keys)
    names = ("content", "environment.TOKEN")
    assert list_changes(keys.steps[1].inputs, secret_keys("another secret", env).steps[1].inputs) == names
    plain = make_all(with_secret(SECRET))
    assert keys.install.inputs["answers.preseed.cfg"] != plain.install.inputs["answers.preseed.cfg"]
    assert all(keys.steps[1].inputs[name] != plain.steps[1].inputs[name] for name in names)
    (env.places.data / "digest.key").unlink()
    assert_miss(secret_keys(SECRET, env), INSTALLED, of=keys)


# Memory ---------------------------------------------------------------------------------------------------------------


def memory_key(shape: MachineShape = SHAPE, host: HostFacts = HOSTS["linux-tcg"], outside: Outside = OUTSIDE) -> str:
    return make_memory_key(shape, host, outside)


def test_memory_loads_only_into_the_same_machine() -> None:
    tcg, kvm = HOSTS["linux-tcg"], HOSTS["linux-kvm"]
    other_qemu = dataclasses.replace(tcg, qemu=dataclasses.replace(tcg.qemu, digest="another"))
    others = [
        memory_key(dataclasses.replace(SHAPE, memory_mib=2048)),
        memory_key(dataclasses.replace(SHAPE, cpus=1)),
        memory_key(dataclasses.replace(SHAPE, cpu="Haswell")),
        memory_key(dataclasses.replace(SHAPE, machine="pc")),
        memory_key(dataclasses.replace(SHAPE, nics=(NicShape("net0", model="e1000"),))),
        memory_key(dataclasses.replace(SHAPE, disks=(DISK, DiskShape("disk1", 1 << 30)))),
        memory_key(host=kvm),
        memory_key(host=other_qemu),
        memory_key(outside=dataclasses.replace(OUTSIDE, firmware="other")),
    ]
    assert len({memory_key(), *others}) == len(others) + 1


def test_processor_counts_where_the_guest_sees_it() -> None:
    other = dataclasses.replace(OUTSIDE, processor="other")
    assert memory_key(outside=other) == memory_key()
    assert HOSTS["linux-kvm"].accelerator.accelerator is Accelerator.KVM
    assert memory_key(host=HOSTS["linux-kvm"], outside=other) != memory_key(host=HOSTS["linux-kvm"])


def test_memory_schema_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = memory_key()
    monkeypatch.setattr("osimager.plan.digests.MEMORY_SCHEMA", 1_000)
    assert memory_key() != before
