"""Answer files, checked before anything is booted by the validators of their own formats: the door to this package.

One validator process for a batch of one format and version. It knows nothing of specs, plans or how a file was made;
a validator that this host lacks is named in the report, and stops nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from osimager.check import (
    agama,
    autoinstall,
    esxi,
    forms,
    ignition,
    kickstart,
    markup,
    openbsd,
    preseed,
    proxmox,
    shell,
)
from osimager.check.problem import Finding, NotAtHand
from osimager.errors import PrerequisiteError
from osimager.holes import ANSWER_URL, BUILD_PASSWORD, BUILD_PASSWORD_CRYPT, BUILD_PUBLIC_KEY, fill_holes

# What stands for this build's own values while a text is checked.
_SAMPLES: Final = {
    ANSWER_URL: "http://192.0.2.1:8000/0123456789abcdef",
    BUILD_PUBLIC_KEY: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB00000000000000000000000000000000000000000 osimager-build",
    BUILD_PASSWORD: "Sample-passw0rd",
    BUILD_PASSWORD_CRYPT: "$6$saltsaltsaltsalt$" + "a" * 86,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFile:
    """One file to check: its `name` for the guest, its text (holes and all), its format, and the target it is for."""

    name: str
    text: str
    format: str
    dist: str
    version: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a validator says of `file`. `line` is None where it does not tell; a warning lets a build go on."""

    file: AnswerFile
    line: int | None
    what: str
    hint: str | None = None
    is_warning: bool = False

    def __str__(self) -> str:
        where = ":".join(filter(None, (self.file.target, self.file.name, str(self.line or ""))))
        return f"{where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a check. `checked` counts files by validator, `not_at_hand` says which validators were missing and
    why, `unknown` names formats that no validator is known for.
    """

    problems: tuple[Problem, ...] = ()
    checked: Mapping[str, int] = field(default_factory=dict)
    not_at_hand: Mapping[str, str] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Give the problems that stop a build."""
        return tuple(problem for problem in self.problems if not problem.is_warning)


Check = Callable[[str, Sequence[tuple[str, str]]], Awaitable[Sequence[Finding]]]


@dataclass(frozen=True, slots=True)
class _Validator:
    """`version_of` gives what files must share to be checked together, such as pykickstart's RHEL9."""

    name: str
    check: Check
    version_of: Callable[[str, str], str] = lambda _dist, _version: ""


# The validators of each format; every one of them sees the file.
_VALIDATORS: Final[Mapping[str, tuple[_Validator, ...]]] = {
    "kickstart": (_Validator("ksvalidator", kickstart.check, kickstart.syntax_version),),
    "preseed": (
        _Validator("debconf-set-selections", preseed.check_syntax),
        _Validator("known d-i questions", preseed.check_questions),
    ),
    "autoinstall": (
        _Validator("cloud-init schema", autoinstall.check_cloud_config),
        _Validator("autoinstall keys", autoinstall.check_keys),
    ),
    "cloud-config": (_Validator("cloud-init schema", autoinstall.check_cloud_config),),
    "autoyast": (_Validator("AutoYaST elements", markup.check_autoyast, markup.autoyast_form),),
    "unattend": (_Validator("unattend elements", markup.check_unattend),),
    "xcpng": (_Validator("XCP-ng elements", markup.check_xcpng),),
    "xml": (_Validator("XML", markup.check_xml),),
    "esx": (_Validator("ESX commands", esxi.check_esx),),
    "esxi": (_Validator("ESXi commands", esxi.check_esxi),),
    "ignition": (_Validator("ignition-validate", ignition.check),),
    "installerconfig": (_Validator("sh -n", shell.check),),
    "openbsd": (_Validator("OpenBSD questions", openbsd.check),),
    "proxmox": (_Validator("Proxmox keys", proxmox.check),),
    "vyos": (_Validator("YAML", forms.check_yaml),),
    "agama": (_Validator("Agama keys", agama.check_agama, lambda _dist, version: version),),
    "json": (_Validator("JSON", forms.check_json),),
    "photon": (_Validator("JSON", forms.check_json),),
    "shell": (_Validator("sh -n", shell.check),),
    "toml": (_Validator("TOML", forms.check_toml),),
}


# The files of each distinct (name, text).
_Group = dict[tuple[str, str], list[AnswerFile]]
# Files beside the answer file proper: NoCloud's own, which are YAML and no cloud-config.
_BESIDE: Final = frozenset(("meta-data", "network-config"))
_YAML: Final = _Validator("YAML", forms.check_yaml)


def _validators_of(file: AnswerFile) -> tuple[_Validator, ...]:
    if file.name in _BESIDE and file.format in ("autoinstall", "cloud-config", "vyos"):
        return (_YAML,)
    if file.name.endswith(".sh"):  # a script beside the answer file
        return _VALIDATORS["shell"]
    return _VALIDATORS.get(file.format, ())


def validator_names(format: str, dist: str, version: str) -> tuple[str, ...]:
    """Give the validators, by the names of reports, that see an answer file of `format` for `dist` `version`."""
    found = _VALIDATORS.get(format, ())
    return tuple(f"{validator.name} {validator.version_of(dist, version)}".strip() for validator in found)


async def check_answers(files: Iterable[AnswerFile]) -> Report:
    """Check `files`, each distinct text once. Raises nothing for a bad file: see the report."""
    groups: dict[tuple[str, str, str], _Group] = {}
    validators: dict[tuple[str, str, str], _Validator] = {}
    unknown: set[str] = set()
    for file in files:
        found = _validators_of(file)
        if not found:
            unknown.add(file.format)
        for validator in found:
            key = (file.format, validator.name, validator.version_of(file.dist, file.version))
            validators[key] = validator
            text = fill_holes(file.text, _SAMPLES)
            groups.setdefault(key, {}).setdefault((file.name, text), []).append(file)
    reports: dict[tuple[str, str, str], Report] = {}
    free = asyncio.Semaphore(os.cpu_count() or 1)

    async def check(key: tuple[str, str, str]) -> None:
        async with free:
            reports[key] = await _check_group(validators[key], key[2], groups[key])

    async with asyncio.TaskGroup() as tasks:
        for key in groups:
            tasks.create_task(check(key))
    found_reports = [reports[key] for key in groups]
    return Report(
        problems=tuple(problem for report in found_reports for problem in report.problems),
        checked={name: count for report in found_reports for name, count in report.checked.items()},
        not_at_hand={name: why for report in found_reports for name, why in report.not_at_hand.items()},
        unknown=frozenset(unknown),
    )


async def _check_group(validator: _Validator, version: str, group: _Group) -> Report:
    """Check the distinct texts of one format and version, and tell what is found for each file that has the text."""
    name = f"{validator.name} {version}".strip()
    try:
        findings = await validator.check(version, list(group))
    except NotAtHand as exc:
        return Report(not_at_hand={name: str(exc)})
    except PrerequisiteError as exc:
        return Report(not_at_hand={name: f"{exc.what}; {exc.hint}"})
    owners = list(group.values())
    problems = tuple(
        Problem(file, finding.line, finding.what, finding.hint, finding.is_warning)
        for finding in findings
        for file in owners[finding.index]
    )
    return Report(problems=problems, checked={name: len(group)})


def run_check(files: Iterable[AnswerFile]) -> Report:
    """Do the same for callers outside an event loop."""
    return asyncio.run(check_answers(files))
