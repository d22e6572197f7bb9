"""RESOLVE: from a request to a plan: reads configuration, looks at this host, and lets layer 2 decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from osimager.aio import in_thread
from osimager.arch import Arch, Firmware, parse_arch
from osimager.build.catalogues import open_catalog
from osimager.build.lookups import HostLookups
from osimager.build.media_choice import choose_media, default_iso_path
from osimager.build.request import BuildRequest
from osimager.build.steps import make_steps, needs_ansible
from osimager.config.catalog import Catalog
from osimager.config.configuration import Configuration
from osimager.config.lookups import Lookups
from osimager.config.request import own_profile
from osimager.config.settings import load_settings
from osimager.env import Env
from osimager.errors import ConfigError, ConfigErrors, Place, PrerequisiteError, UsageError
from osimager.events import Notice
from osimager.finalize.seal import read_seal_script
from osimager.holes import OF_BUILD, hole, name_holes
from osimager.machine.boot_command import check_keys
from osimager.machine.host import find_processor, inspect_host
from osimager.machine.tpm import find_swtpm
from osimager.media.store import IsoStore
from osimager.paths import Places
from osimager.plan.digests import Outside, Protect, make_digest, make_keys, to_plain
from osimager.plan.facts import HostFacts
from osimager.plan.model import BuildPlan, OutputPlan, Step, StepKind
from osimager.plan.resolve import check_needs, resolve_plan
from osimager.registry.names import make_id


@dataclass(frozen=True, slots=True)
class Prepared:
    """What RESOLVE gives: the plan, the configuration it came from, this host, how digests hold secrets, and what
    they cover beside the plan. `load_steps` reads the configuration's steps once more.
    """

    plan: BuildPlan
    configuration: Configuration
    host: HostFacts
    protect: Protect
    outside: Outside
    load_steps: Callable[[], tuple[Step, ...]]


def resolve_configuration(asked: BuildRequest, places: Places, lookups: Lookups) -> tuple[Catalog, Configuration]:
    """Resolve the target's configuration, this build's own values standing as holes."""
    catalog = open_catalog(asked.project, places, asked.data_dir, asked.settings)
    given = {**{name: hole(name) for name in OF_BUILD}, **asked.request.given}
    return catalog, catalog.resolve(dataclasses.replace(asked.request, given=given), lookups)


async def prepare(asked: BuildRequest, env: Env) -> Prepared:
    """Resolve `asked` to a plan. Raises ConfigError(s), UsageError, PrerequisiteError, MediaError."""
    settings = asked.settings or load_settings(env.places)
    lookups = HostLookups(env.places, env.masker, offline=asked.options.offline, secrets=settings.secrets)
    catalog, configuration = await in_thread(lambda: resolve_configuration(asked, env.places, lookups))
    if asked.strict and configuration.warnings:
        raise ConfigErrors([ConfigError(each, hint="without --strict this warns") for each in configuration.warnings])
    for warning in (*settings.warnings, *configuration.warnings):
        env.emit(Notice(warning, "warning"))
    check_needs(configuration)
    arch = parse_arch(configuration.target.arch)
    firmware = (
        Firmware.UEFI if arch is Arch.AARCH64 else asked.options.firmware or configuration.sections.machine.firmware
    )
    host = await inspect_host(arch, firmware, places=env.places, accel=asked.accelerator)
    media = choose_media(
        configuration,
        catalog,
        checksum=asked.iso_checksum,
        iso_path=(*settings.iso_path, *default_iso_path(asked.project, env.places)),
        project=asked.project,
        places=env.places,
    )

    def load_steps(asked: BuildRequest) -> tuple[Step, ...]:
        masked = env.masker.mask
        return make_steps(configuration, catalog, asked, env.places, is_secret=lambda text: masked(text) != text)

    steps = load_steps(asked)
    # One more than there are: all steps' layers are kept.
    if asked.first_made is not None and asked.first_made > len(steps) + 1 and not asked.resumes:
        what = f"there is no step {asked.first_made} to make anew: this build has {len(steps)}"
        raise UsageError(what, hint="`osimager plan` lists them")
    if needs_ansible(steps):
        steps = _with_ansible(steps, env, may_differ=catalog.roots.old_tree is not None)
    plan = resolve_plan(
        configuration,
        host=host,
        media=media,
        steps=steps,
        output=_output(asked, configuration, env),
        options=asked.options,
    )
    if plan.machine.tpm:
        find_swtpm()  # now, not after FETCH
    if asked.options.boot_command is not None:
        check_keys(name_holes(plan.install.boot.boot_command), Place("--boot-command"))
    else:
        check_boot_command(configuration)
    for answer in plan.install.answers:
        lookups.learn(answer.text)
    for value in plan.defs:
        lookups.learn(value.text)
    return Prepared(
        plan=plan,
        configuration=configuration,
        host=host,
        protect=lookups.protect,
        outside=await _look_outside(host, env),
        load_steps=lambda: load_steps(dataclasses.replace(asked, steps=())),
    )


def check_boot_command(configuration: Configuration) -> None:
    """Raise ConfigError for what a spec cannot have typed: now, not when the installer waits for its keys."""
    where = configuration.merged.place("installer", "boot_command")
    check_keys(name_holes("".join(configuration.sections.installer.boot_command)), where)


async def _look_outside(host: HostFacts, env: Env) -> Outside:
    """Describe the firmware's files, by their content wherever they lie, the seal's script and the processor."""
    files = () if host.firmware is None else (host.firmware.code, host.firmware.variables)
    store = IsoStore(env.places)  # it remembers what it has hashed: those of arm64 are large
    return Outside(
        firmware=make_digest([await store.digest_of(path) for path in files]),
        seal=make_digest(read_seal_script()),
        processor=make_digest(find_processor()),
    )


def _with_ansible(steps: tuple[Step, ...], env: Env, *, may_differ: bool) -> tuple[Step, ...]:
    """Make sure now, not after an hour of installing, that there is an Ansible for each playbook.

    `may_differ`: one that is not there is stood in for by ours, with a warning. Raises PrerequisiteError.
    """
    from osimager.provision.ansible import find_playbook_program

    missing = {step.program for step in steps if step.program is not None and not step.program.is_file()}
    for program in sorted(missing):
        what, venv = f"there is no {program}, which the spec asks for", program.parent.parent
        if not may_differ:
            hint = f"python3 -m venv {venv} && {venv}/bin/pip install ansible-core"
            raise PrerequisiteError(what, hint=hint)
        env.emit(Notice(f"{what}: osimager's own Ansible runs the playbooks", "warning"))
    steps = tuple(dataclasses.replace(step, program=None) if step.program in missing else step for step in steps)
    if any(step.kind is StepKind.ANSIBLE and step.program is None for step in steps):
        find_playbook_program()
    return steps


def _output(asked: BuildRequest, configuration: Configuration, env: Env) -> OutputPlan:
    """Every build its own file, but with `--replace`, where the name is the target's."""
    stem = make_id(configuration.target.short, own_profile(configuration.profile), env.clock.now())
    if asked.options.replace:
        stem = stem.rpartition("-")[0]
    return OutputPlan(
        folder=asked.options.output or env.places.images,
        stem=stem,
        replace=asked.options.replace,
        label=asked.options.label,
    )


def plan_to_json(prepared: Prepared, mask: Protect, layers: object = (), *, image: object = None) -> dict[str, object]:
    """Give the plan as `docs/contracts.md` defines it: plain data, each text masked, this build's values named.

    `layers` and `image` are what `forecast` gives. `digests` are what is known before FETCH: of each input of a stage
    (empty: FETCH brings it), and, where all inputs are known, the stage's own.
    """
    plan = to_plain(prepared.plan, mask)
    assert isinstance(plan, dict)
    return {
        "v": 1,
        **plan,
        "warnings": to_plain(prepared.configuration.warnings, mask),
        "host": to_plain(prepared.host.accelerator),
        "layers": to_plain(layers, mask),
        "image": to_plain(image, mask),
        "digests": to_plain(make_keys(prepared.plan, None, prepared.outside, prepared.protect)),
    }
