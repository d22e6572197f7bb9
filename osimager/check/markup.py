"""XML answer files: well-formed, the right root, and elements that their reader knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError

from osimager.check.problem import Finding, suggest

AUTOYAST: Final = "{http://www.suse.com/1.0/yast2ns}"
UNATTEND: Final = "{urn:schemas-microsoft-com:unattend}"
# The sections of a profile. Source: SUSE, "AutoYaST Guide" for SLES 12 and 15, part II.
_SECTIONS: Final = """
    add-on audit-laf auth-client bootloader ca_mgm classes configuration_management deploy_image dhcp-server
    dns-server fcoe-client files firewall firstboot ftp-server general groups groups_list host http-server inetd
    iscsi-client kdump keyboard language login_settings mail networking nfs nfs_server nis nis_server ntp-client
    partitioning printer proxy report rules runlevel samba-client scripts security services-manager software
    sound squid ssh_import suse_register sysconfig tftp-server timezone upgrade user_defaults users xen
    virtualization
"""
SECTIONS: Final = frozenset(_SECTIONS.split())
# Source: Microsoft, "Windows Setup configuration passes".
PASSES: Final = frozenset(
    ("windowsPE", "offlineServicing", "generalize", "specialize", "auditSystem", "auditUser", "oobeSystem")
)


async def check_xml(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check that each text is well-formed."""
    return [finding for index, (_, text) in enumerate(files) for finding in _parse(index, text)[1]]


async def check_autoyast(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check root, namespace and sections of AutoYaST profiles, and that what the build needs is in them."""
    found: list[Finding] = []
    for index, (_, text) in enumerate(files):
        root, problems = _parse(index, text)
        found += problems
        if root is not None:
            found += [Finding(index, None, what, hint) for what, hint in _autoyast_problems(root)]
    return found


def _autoyast_problems(root: ElementTree.Element) -> Iterator[tuple[str, str | None]]:
    if root.tag != f"{AUTOYAST}profile":
        yield f"the root is {root.tag}, not profile of {AUTOYAST[1:-1]}", None
        return
    names = [child.tag.removeprefix(AUTOYAST) for child in root]
    for name in names:
        if name not in SECTIONS:
            yield f"AutoYaST knows no section {name!r}", suggest(name, SECTIONS)
        if names.count(name) > 1:
            yield f"the section {name!r} is given twice", None
    for element in root.iter():
        kind = next((value for key, value in element.attrib.items() if key.rpartition("}")[2] in ("type", "t")), "")
        if kind == "boolean" and (element.text or "").strip() not in ("true", "false"):
            yield f"{element.tag.removeprefix(AUTOYAST)} must be true or false, not {element.text!r}", None
        if kind == "integer" and not (element.text or "").strip().lstrip("-").isdigit():
            yield f"{element.tag.removeprefix(AUTOYAST)} must be a number, not {element.text!r}", None
        if kind == "list" and (element.text or "").strip():
            yield f"{element.tag.removeprefix(AUTOYAST)} is a list, and has text in it", None


async def check_unattend(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check root, namespace, passes and components of Windows' answer files."""
    found: list[Finding] = []
    for index, (_, text) in enumerate(files):
        root, problems = _parse(index, text)
        found += problems
        if root is not None:
            found += [Finding(index, None, what, hint) for what, hint in _unattend_problems(root)]
    return found


def _unattend_problems(root: ElementTree.Element) -> Iterator[tuple[str, str | None]]:
    if root.tag != f"{UNATTEND}unattend":
        yield f"the root is {root.tag}, not unattend of {UNATTEND[1:-1]}", None
        return
    for settings in root.findall(f"{UNATTEND}settings"):
        name = settings.get("pass", "")
        if name not in PASSES:
            yield f"Windows Setup has no pass {name!r}", suggest(name, PASSES)
        for component in settings:
            missing = {"name", "processorArchitecture", "publicKeyToken", "language", "versionScope"} - {
                *component.attrib
            }
            if component.tag == f"{UNATTEND}component" and missing:
                yield f"a component of {name} lacks {', '.join(sorted(missing))}", None


def _parse(index: int, text: str) -> tuple[ElementTree.Element | None, list[Finding]]:
    try:
        return ElementTree.fromstring(text), []  # noqa: S314  our own text; expat fetches nothing
    except (ElementTree.ParseError, ExpatError) as exc:
        line = exc.position[0] if isinstance(exc, ElementTree.ParseError) else exc.lineno
        return None, [Finding(index, line, f"it is not well-formed XML: {exc}")]
