"""The answer files of many targets, shown to their formats' own validators in every way to ask that was left open.

Each firmware, DHCP and a static address, with and without a proxy: a slip in a line that only one of them has is found
too. Placeholders stand for the address and the proxy (RFC 5737); nothing is looked up.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from osimager.arch import Arch, Firmware
from osimager.build.checking import Checked, resolve_checked
from osimager.build.request import BuildRequest
from osimager.check.answers import AnswerFile, Problem, check_answers, run_check
from osimager.config.catalog import Catalog
from osimager.config.configuration import Configuration
from osimager.config.sections import Target
from osimager.env import Env
from osimager.errors import ConfigError, ConfigErrors, Place
from osimager.events import Notice
from osimager.plan.model import Answer, BuildPlan
from osimager.plan.resolve import render_answers

_ADDRESS: Final = "192.0.2.10"
_NETWORK: Final = "192.0.2.0/24"
_PROXY: Final = "http://192.0.2.2:3128"


async def validate_plan(plan: BuildPlan, env: Env) -> None:
    """Show a build's answers to their validators before anything is booted, but where the def `validate` is false.

    Raises ConfigErrors for what they refuse; one that is not at hand is named, and stops nothing.
    """
    if any(each.name == "validate" and each.value in (False, "false") for each in plan.defs):
        env.emit(Notice("the answers are not shown to their validators: validate is false", "warning"))
    else:
        await validate_answers(_read_by_installer(plan), plan.target, env)


def _read_by_installer(plan: BuildPlan) -> list[Answer]:
    """Give the files that a seed or the boot names; all, where they name none: others are made for steps."""
    names = plan.install.seed.files if plan.install.seed else ()
    said = " ".join((*plan.install.boot.arguments, plan.install.boot.boot_command))
    named = [each for each in plan.install.answers if each.name in names or f"/{each.name}" in said]
    return named or list(plan.install.answers)


async def validate_answers(answers: Sequence[Answer], target: Target, env: Env) -> None:
    """Do so with these `answers`."""
    files = [
        AnswerFile(name=each.name, text=each.text, format=each.format, dist=target.dist, version=target.version)
        for each in answers
        if each.format
    ]
    report = await check_answers(files)
    for name, why in report.not_at_hand.items():
        env.emit(Notice(f"the answers are not checked by {name}: {why}"))
    for problem in report.problems:
        if problem.is_warning:
            env.emit(Notice(env.masker.mask(str(problem)), "warning"))
    if report.errors:
        errors = _as_errors(report.errors)
        hint = "correct it; or, where the validator is wrong, -D validate=false"
        raise ConfigErrors(
            [ConfigError(env.masker.mask(each.what), where=each.where, hint=each.hint or hint) for each in errors]
        )


def validate(checked: Sequence[Checked], catalog: Catalog, asked: BuildRequest) -> list[Checked]:
    """Add what the validators say to what is known of each target; each distinct text is shown to them once."""
    files: dict[AnswerFile, None] = {}
    failures: dict[str, list[ConfigError]] = {}
    for each in checked:
        if each.errors:
            continue
        for variant in make_variants(asked, catalog, each.target):
            try:
                files |= dict.fromkeys(_answer_files(resolve_checked(catalog, variant, each.target), each.target))
            except ConfigErrors as exc:
                failures.setdefault(each.target, []).extend(exc.errors)
            except ConfigError as exc:
                failures.setdefault(each.target, []).append(exc)
    report = run_check(files)
    missing = [f"{name}: {why}" for name, why in report.not_at_hand.items()]
    missing += [f"there is no validator for {name or 'files without a format'}" for name in sorted(report.unknown)]
    said: dict[str, list[Problem]] = {}
    for problem in report.problems:
        said.setdefault(problem.file.target, []).append(problem)
    return [_with_problems(each, failures.get(each.target, ()), said.get(each.target, ()), missing) for each in checked]


def make_variants(asked: BuildRequest, catalog: Catalog, target: str) -> Iterator[BuildRequest]:
    """Give `asked` with each firmware, address and proxy that it does not name; an old tree's own way alone."""
    if catalog.roots.old_tree is not None:
        yield asked
        return
    plain = resolve_checked(catalog, asked, target)
    request, values = asked.request, plain.defs
    firmwares = (request.firmware,) if request.firmware else _firmwares(plain)
    addresses = (request.ip,) if request.ip else (None, _ADDRESS)
    proxies = ("",) if values.get("proxy") else ("", f"proxy={_PROXY}")
    network = () if values.get("cidr") or values.get("subnet") else (f"cidr={_NETWORK}",)
    for firmware, address, proxy in itertools.product(firmwares, addresses, proxies):
        defines = (*request.defines, *(network if address == _ADDRESS else ()), *filter(None, [proxy]))
        changed = dataclasses.replace(request, firmware=firmware, ip=address, defines=defines)
        yield dataclasses.replace(asked, request=changed)


def _firmwares(configuration: Configuration) -> tuple[str, ...]:
    return (Firmware.UEFI,) if configuration.target.arch == Arch.AARCH64 else tuple(Firmware)


def _answer_files(configuration: Configuration, target: str) -> Iterator[AnswerFile]:
    of = configuration.target
    for answer in render_answers(configuration):
        yield AnswerFile(
            name=answer.name, text=answer.text, format=answer.format, dist=of.dist, version=of.version, target=target
        )


def _as_errors(problems: Sequence[Problem]) -> list[ConfigError]:
    return [
        ConfigError(problem.what, where=Place(problem.file.name, problem.line), hint=problem.hint)
        for problem in problems
    ]


def _nameless(file: AnswerFile) -> AnswerFile:
    """Give the file without its target: what is said of many targets is said once."""
    return dataclasses.replace(file, target="")


def _with_problems(
    each: Checked, failures: Sequence[ConfigError], problems: Sequence[Problem], missing: Sequence[str]
) -> Checked:
    """Add problems to one target, each once: variants have most lines in common."""
    errors = (*each.errors, *failures, *_as_errors([problem for problem in problems if not problem.is_warning]))
    unique = {(error.what, error.where, error.hint): error for error in errors}
    warnings = [
        str(dataclasses.replace(problem, file=_nameless(problem.file))) for problem in problems if problem.is_warning
    ]
    return dataclasses.replace(
        each,
        errors=tuple(unique.values()),
        warnings=tuple(dict.fromkeys((*each.warnings, *warnings))),
        not_validated=tuple(missing),
    )
