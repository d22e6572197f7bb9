"""docs/targets.md says what the data says: rewritten with `pytest tests/specs/test_targets_page.py --update-golden`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from osimager.check.answers import validator_names
from osimager.check.kickstart import syntax_version
from osimager.config.catalog import Catalog, Roots, TargetEntry
from osimager.config.configuration import Configuration
from osimager.config.lookups import Lookups
from osimager.config.request import Request
from osimager.config.sections import IsoEntry
from osimager.holes import ANSWER_URL, find_holes, hole

REPOSITORY = Path(__file__).parent.parent.parent
HEAD = """# What can be built

Made from `specs/` and `isos.d/` by `pytest tests/specs/test_targets_page.py --update-golden`; a test proves that it is
up to date. `osimager spec list` shows every target, `osimager explain TARGET` where each value comes from.

How a target was verified:

* **installed**: a whole image was made of it here, from a medium that is named in its spec.
* **boots**: an image was made of it here from a medium with the vendor's menus and the vendor's own reader of the
  answer file: the boot, the seed or server, partitions, accounts, scripts. Its payload was Debian's: see
  [installers.md](installers.md).
* **validator**: its answer file renders with BIOS and UEFI, static and DHCP, with and without a proxy, on plain disks
  and LVM, and the format's own validators accept it. The installer itself has not been seen to take it.
* **needs**: what osimager lacks yet; a build stops at RESOLVE and says so. Where no validator stands beside it, the
  vendor's installer reads no answer file at all: it asks on a screen.

An ISO is *downloaded* (and compared with the vendor's checksum list, where there is one), or *yours*: the vendor wants
a login, or has no fixed address. Vendors move their files: `osimager iso show NAME` says from where it would come.

| dist | versions | architectures | installer | answers by | ISO | verified |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """What versions have in common that stand in one line of the table."""

    dist: str
    installer: str
    answers: str
    iso: str
    verified: str
    arches: str = ""


def describe(entry: TargetEntry, configuration: Configuration, iso: IsoEntry | None) -> Row:
    """Give the row of one target."""
    sections, installer = configuration.sections, configuration.sections.installer
    names = [
        name.removesuffix(f" {syntax_version(entry.dist, entry.version)}") for name in validators_of(configuration)
    ]
    said = [sections.status] if sections.status in ("installed", "boots") else []
    said += [f"validator: {', '.join(names)}"] if names else []
    said += [f"needs {sections.needs}"] if sections.needs else []
    over_http = any(ANSWER_URL in find_holes(text) for text in (*installer.kernel_arguments, *installer.boot_command))
    ways = ["HTTP"] if over_http else [f"seed {installer.seed.label}"] if installer.seed else []
    ways += ["HTTP"] if "answers" in configuration.defs else []
    return Row(
        dist=entry.dist,
        installer=installer.format,
        answers=" or ".join(dict.fromkeys(ways)),
        iso="" if iso is None else "downloaded" if iso.urls else "yours",
        verified="; ".join(said),
    )


def validators_of(configuration: Configuration) -> tuple[str, ...]:
    """Give the names of the validators that see this target's answers."""
    target = configuration.target
    return validator_names(configuration.sections.installer.format, target.dist, target.version)


def describe_versions(versions: list[str]) -> str:
    """Give the versions shortly: a run of them as first to last, and how many."""
    return ", ".join(versions) if len(versions) < 4 else f"{versions[0]} to {versions[-1]} ({len(versions)})"


def make_rows(catalog: Catalog, lookups: Lookups) -> Iterator[str]:
    """Give the table's lines: the versions of one distribution that have all in common, as one."""
    arches: dict[tuple[Row, str], list[str]] = {}
    for entry in catalog.targets():
        configuration = catalog.resolve(Request(target=str(entry), given={ANSWER_URL: hole(ANSWER_URL)}), lookups)
        iso = catalog.find_iso(configuration.iso, entry.arch) if configuration.iso else None
        arches.setdefault((describe(entry, configuration, iso), entry.version), []).append(entry.arch)
    versions: dict[Row, list[str]] = {}
    for (row, version), found in arches.items():
        ordered = ", ".join(sorted(found, key=("x86_64", "aarch64", "i386").index))
        versions.setdefault(replace(row, arches=ordered), []).append(version)
    for row, own in versions.items():
        cells = (row.dist, describe_versions(own), row.arches, row.installer, row.answers, row.iso, row.verified)
        yield f"| {' | '.join(cells)} |\n"


def test_the_page_of_targets_is_up_to_date(lookups: Lookups, check_golden: Callable[[Path, str], None]) -> None:
    catalog = Catalog.open(
        Roots(specs=(REPOSITORY / "specs",), files=(REPOSITORY / "files",), isos=(REPOSITORY / "isos.d",))
    )
    text = HEAD + "".join(make_rows(catalog, lookups))
    text += f"\n{len(catalog.targets())} targets, {len(catalog.iso_tables())} entries in the ISO catalogue.\n"
    check_golden(REPOSITORY / "docs" / "targets.md", text)
