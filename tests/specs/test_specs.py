"""Every shipped spec, BIOS and UEFI, static and DHCP, with and without proxy: resolves, renders, passes its validator.

All variants of a format and version go through one validator process; one that is not at hand is skipped by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from osimager.build.isos import check_entries
from osimager.check.answers import AnswerFile, Report, check_answers
from osimager.config.catalog import Catalog, Roots, TargetEntry
from osimager.config.configuration import Configuration
from osimager.config.lookups import Lookups
from osimager.config.request import Request
from osimager.config.sections import Rung
from osimager.errors import ConfigError
from osimager.holes import ANSWER_URL, BUILD_PASSWORD, BUILD_PASSWORD_CRYPT, BUILD_PUBLIC_KEY, find_holes
from osimager.plan.resolve import render_answers

REPOSITORY = Path(__file__).parent.parent.parent
LAB = """
description: A network of its own, as a location has it.
defs:
  cidr: 192.168.77.0/24
  gateway: 192.168.77.1
  domain: example.org
  dns: [192.168.77.1, 192.168.77.2]
  ntp: [192.168.77.1, ntp.example.org]
"""
# Somebody who keeps a login of their own, and asks for more packages.
KEPT = """
username: keeper
authorized_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0 keeper@example.org", "ssh-ed25519 AAAAC3Nza second"]
packages: [tmux, vim]
"""
PROXY = "http://user:p$w%40x@proxy.example.org:3128"
ACCESS = {BUILD_PUBLIC_KEY, BUILD_PASSWORD, BUILD_PASSWORD_CRYPT}
# What OSImager 1.11.1 lists: `mkosimage --list`. Ours may have more, never fewer.
PEERS = Path(__file__).parent / "osimager-1.11.1-targets.txt"
# Those whose vendor has no answer file: their installer asks on a screen. Nothing of them can be rendered or validated.
NO_ANSWERS = "dragonfly esxi35 mxlinux netbsd openindiana opnsense pfsense proxmox-ve sco sysvr4 truenas unixware"


@dataclass(frozen=True)
class Variant:
    """One way to ask for a target."""

    firmware: str
    ip: str
    proxy: str
    defines: tuple[str, ...] = ()
    profile: str = "default"

    def __str__(self) -> str:
        words = (self.firmware, self.ip, "proxy" if self.proxy else "", *self.defines, self.profile)
        return "/".join(filter(None, words))


VARIANTS = [Variant(*each) for each in itertools.product(("bios", "uefi"), ("dhcp", "192.168.77.10"), ("", PROXY))]
# Theirs is the disk layout that their installer makes, with no LVM.
WITHOUT_LVM = ("esxi", "freebsd", "openbsd", "windows-desktop", "windows-server")
# For the newest of each major version only.
MORE_VARIANTS = [
    *(Variant(firmware, "dhcp", "", ("disk_layout=lvm",)) for firmware in ("bios", "uefi")),
    *(Variant("uefi", ip, "", ("answers=http",)) for ip in ("dhcp", "192.168.77.10")),
    Variant("bios", "192.168.77.10", PROXY, ("locale=de_DE.UTF-8", "keyboard=de", "timezone=Europe/Berlin")),
    Variant("uefi", "dhcp", "", profile="kept"),
    Variant("bios", "dhcp", "", profile="developer"),
    Variant("uefi", "dhcp", "", ("password=$6$saltsaltsaltsalt$hash",), profile="kept"),
]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Give the shipped catalogue, with a location and a profile of ours before it."""
    root = tmp_path_factory.mktemp("project")
    for name, text in (("locations/lab.yml", LAB), ("profiles/kept.yml", KEPT)):
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return Catalog.open(
        Roots(specs=(root, REPOSITORY / "specs"), files=(REPOSITORY / "files",), isos=(REPOSITORY / "isos.d",))
    )


def resolve(catalog: Catalog, entry: TargetEntry, variant: Variant, lookups: Lookups) -> Configuration:
    """Resolve one variant of one target. Its name is always the same, so that minor versions give the same text."""
    defines = (*variant.defines, *((f"proxy={variant.proxy}",) if variant.proxy else ()))
    request = Request(
        target=f"qemu/lab/{entry}",
        name="image",
        ip=variant.ip,
        firmware=variant.firmware,
        profile=variant.profile,
        defines=defines,
    )
    return catalog.resolve(request, lookups)


def make_answers(configuration: Configuration, entry: TargetEntry, variant: Variant) -> Iterator[AnswerFile]:
    """Render the answer files of one variant, as the plan does."""
    for answer in render_answers(configuration):
        yield AnswerFile(
            name=answer.name,
            text=answer.text,
            format=answer.format,
            dist=entry.dist,
            version=entry.version,
            target=f"{entry} {variant}",
        )


@dataclass(frozen=True)
class Rendered:
    """All of the catalogue: configurations and answers of every variant, and what went wrong."""

    configurations: tuple[tuple[TargetEntry, Variant, Configuration], ...]
    answers: tuple[AnswerFile, ...]
    failures: tuple[str, ...]


@pytest.fixture(scope="module")
def rendered(catalog: Catalog, lookups: Lookups) -> Rendered:
    """Resolve and render everything once."""
    configurations: list[tuple[TargetEntry, Variant, Configuration]] = []
    answers: list[AnswerFile] = []
    failures: list[str] = []
    newest = {(entry.dist, entry.version.partition(".")[0], entry.arch): entry for entry in catalog.targets()}
    for entry in catalog.targets():
        is_newest = entry in newest.values()
        for variant in [*VARIANTS, *(MORE_VARIANTS if is_newest else [])]:
            if "disk_layout=lvm" in variant.defines and entry.dist in WITHOUT_LVM:
                continue
            try:
                configuration = resolve(catalog, entry, variant, lookups)
                configurations.append((entry, variant, configuration))
                answers += make_answers(configuration, entry, variant)
            except ConfigError as exc:
                failures.append(f"{entry} {variant}: {[str(error) for error in getattr(exc, 'errors', (exc,))]}")
    return Rendered(tuple(configurations), tuple(answers), tuple(failures))


def test_every_target_resolves_and_renders_in_every_variant(catalog: Catalog, rendered: Rendered) -> None:
    assert not catalog.problems
    assert not rendered.failures, "\n".join(rendered.failures[:20])
    assert len(rendered.configurations) >= len(catalog.targets()) * len(VARIANTS)


async def test_every_answer_file_passes_its_own_validator(rendered: Rendered) -> None:
    report: Report = await check_answers(rendered.answers)
    assert not report.unknown, f"no validator is known for {sorted(report.unknown)}"
    assert not report.errors, "\n".join(str(problem) for problem in report.errors[:20])
    if report.not_at_hand:
        pytest.skip("; ".join(f"{name}: {why}" for name, why in report.not_at_hand.items()))


def test_every_target_of_the_old_tool_is_one_of_ours_by_its_own_name(catalog: Catalog) -> None:
    names = PEERS.read_text().split()
    assert len(names) >= 700
    for name in names:
        _platform, _location, entry = catalog.find_target(Request(target=name))
        assert name in (str(entry), str(entry).replace("-x86_64", "-amd64"))


def test_what_renders_nothing_is_a_known_few_and_says_what_it_needs(rendered: Rendered) -> None:
    nothing = [(entry, found) for entry, _, found in rendered.configurations if not found.sections.files]
    assert {entry.dist for entry, _ in nothing} == {*NO_ANSWERS.split()}
    assert all(found.sections.needs and found.sections.status is None for _, found in nothing)
    renders = {found.sections.status for _, _, found in rendered.configurations if found.sections.files}
    assert renders == {"installed", "boots", "renders"}
    assert len({str(entry) for entry, _ in nothing}) < 25


def test_a_target_says_what_it_needs_or_has_all_of_a_build(catalog: Catalog, rendered: Rendered) -> None:
    lacking = []
    for entry, variant, configuration in rendered.configurations:
        sections = configuration.sections
        if sections.needs or variant.defines:
            continue
        has_rung = {
            Rung.DIRECT: True,
            Rung.MENU: sections.installer.seed is not None,
            Rung.TYPED: bool(sections.installer.boot_command),
        }
        rungs_fit = all(has_rung[rung] for rung in sections.installer.boot) and bool(sections.installer.boot)
        if not (sections.installer.format and sections.files and rungs_fit and configuration.iso):
            lacking.append(f"{entry} {variant}")
    assert not lacking, "\n".join(lacking[:20])


def test_a_seed_names_only_files_that_are_made(rendered: Rendered) -> None:
    wrong = [
        f"{entry}: {name}"
        for entry, _, configuration in rendered.configurations
        if configuration.sections.installer.seed is not None
        for name in configuration.sections.installer.seed.files
        if name not in {file.dest for file in configuration.sections.files}
    ]
    assert not wrong


def test_every_iso_that_a_spec_names_is_in_the_catalogue(catalog: Catalog, rendered: Rendered) -> None:
    missing = {
        f"{entry}: {configuration.iso}"
        for entry, _, configuration in rendered.configurations
        if configuration.iso and not configuration.sections.needs
        if catalog.find_iso(configuration.iso, entry.arch) is None
    }
    assert not missing, "\n".join(sorted(missing))


def test_every_kernel_argument_and_every_way_to_start_names_its_source(rendered: Rendered) -> None:
    lacking: dict[str, set[str]] = {}
    for entry, _, configuration in rendered.configurations:
        installer = configuration.sections.installer
        used = {argument.partition("=")[0].strip('"') for argument in installer.kernel_arguments}
        for name in ("menu", "drop_arguments", "seed", "boot_command"):
            used |= {name} if getattr(installer, name) else set()
        for name in used - {*installer.sources}:
            lacking.setdefault(f"{entry.dist}-{entry.version}", set()).add(name)
    assert not lacking


def test_every_entry_of_the_iso_catalogue_is_whole_and_names_its_sources(catalog: Catalog) -> None:
    entries, problems = check_entries(catalog, ())
    assert len(entries) > 700
    assert [problem for problem in problems if not problem.is_lack] == []


def test_what_lets_the_build_in_is_its_own_and_made_for_it(rendered: Rendered) -> None:
    """No password and no key of ours is in an answer file: only the build's, as holes."""
    holes: dict[str, set[str]] = {}
    for answer in rendered.answers:
        holes.setdefault(answer.target, set()).update(find_holes(answer.text))
    without = [target for target, found in holes.items() if not found & ACCESS]
    assert not without


def test_the_answer_url_is_asked_for_only_over_http(rendered: Rendered) -> None:
    """A seed alone must do: no kernel argument may wait for a server."""
    for entry, variant, configuration in rendered.configurations:
        installer = configuration.sections.installer
        if installer.seed is not None and installer.format in ("kickstart", "autoinstall"):
            wants = any(
                ANSWER_URL in find_holes(text) for text in (*installer.kernel_arguments, *installer.boot_command)
            )
            assert wants == ("answers=http" in variant.defines), f"{entry} {variant}"
