"""RESOLVE: from a request to a plan: reads configuration, looks at this host, and lets layer 2 decide."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from osimager.aio import in_thread
from osimager.arch import Arch, Firmware, parse_arch
from osimager.build.catalogues import open_catalog
from osimager.build.credentials import credential_defs
from osimager.build.lookups import HostLookups
from osimager.build.media_choice import choose_media, default_iso_path
from osimager.build.request import BuildRequest
from osimager.config.catalog import Catalog, Configuration
from osimager.env import Env
from osimager.events import Notice
from osimager.holes import ANSWER_URL, hole
from osimager.machine.host import inspect_host
from osimager.paths import Places, search_path
from osimager.plan.digests import to_plain
from osimager.plan.facts import HostFacts
from osimager.plan.model import BuildPlan, OutputPlan
from osimager.plan.resolve import resolve_plan
from osimager.provision.scripts import load_steps
from osimager.redact import Masker
from osimager.registry.entry import make_id

DEFAULT_PROFILE = "default"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What RESOLVE gives: the plan, the configuration it came from (for `explain`), and this host."""

    plan: BuildPlan
    configuration: Configuration
    host: HostFacts


def resolve_configuration(asked: BuildRequest, places: Places, masker: Masker) -> tuple[Catalog, Configuration]:
    """Resolve the target's configuration, this build's own values standing as holes."""
    catalog = open_catalog(asked.project, places, asked.data_dir)
    lookups = HostLookups(places, masker, offline=asked.options.offline)
    given = {**credential_defs(), ANSWER_URL: hole(ANSWER_URL), **asked.request.given}
    return catalog, catalog.resolve(dataclasses.replace(asked.request, given=given), lookups)


async def prepare(asked: BuildRequest, env: Env) -> Prepared:
    """Resolve `asked` to a plan. Raises ConfigError(s), UsageError, PrerequisiteError, MediaError."""
    catalog, configuration = await in_thread(lambda: resolve_configuration(asked, env.places, env.masker))
    for warning in configuration.warnings:
        env.emit(Notice(warning, "warning"))
    arch = parse_arch(configuration.target.arch)
    firmware = (
        Firmware.UEFI if arch is Arch.AARCH64 else asked.options.firmware or configuration.sections.machine.firmware
    )
    host = await inspect_host(arch, firmware, places=env.places, accel=asked.accelerator)
    media = choose_media(
        configuration,
        catalog,
        checksum=asked.iso_checksum,
        iso_path=default_iso_path(asked.project, env.places),
        project=asked.project,
        places=env.places,
    )
    target = configuration.target
    own_profile = [] if configuration.profile == DEFAULT_PROFILE else [configuration.profile]
    steps = load_steps(
        search_path("scripts.d", project=asked.project, places=env.places),
        names=(*own_profile, target.name, target.dist),
        files=asked.steps,
    )
    plan = resolve_plan(
        configuration,
        host=host,
        media=media,
        steps=steps,
        output=_output(asked, configuration, env),
        options=asked.options,
    )
    return Prepared(plan, configuration, host)


def _output(asked: BuildRequest, configuration: Configuration, env: Env) -> OutputPlan:
    """Every build its own file, but with `--replace`, where the name is the target's."""
    profile = "" if configuration.profile == DEFAULT_PROFILE else configuration.profile
    stem = make_id(configuration.target.short, profile, env.clock.now())
    if asked.options.replace:
        stem = stem.rpartition("-")[0]
    return OutputPlan(
        folder=asked.options.output or env.places.images,
        stem=stem,
        replace=asked.options.replace,
        label=asked.options.label,
    )


def plan_to_json(prepared: Prepared) -> object:
    """Give the plan as `docs/contracts.md` defines it: plain data, this build's values named, not filled."""
    return {"v": 1, **_as_mapping(to_plain(prepared.plan)), "host": to_plain(prepared.host.accelerator)}


def _as_mapping(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value
