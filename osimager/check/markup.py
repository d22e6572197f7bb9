"""XML answer files: well-formed, the right root, and elements that their reader knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
# What tells of the time servers, up to SLES 12 (ntpd) and from 15 on (chrony): neither reads the other's, and both pass
# over what they do not know. Source: yast2-ntp-client, src/autoyast-rnc/ntpclient.rnc, branches SLE-12-SP5, SLE-15-SP6.
NTP: Final = {
    "12": {
        "ntp-client": "configure_dhcp ntp_policy peers restricts start_at_boot start_in_chroot sync_interval "
        "synchronize_time",
        "peer": "address comment create_symlink device fudge_comment fudge_options initial_sync options param type",
    },
    "15": {"ntp-client": "ntp_policy ntp_servers ntp_sync", "ntp_server": "address iburst offline"},
}
# Source: Microsoft Learn, "Unattended Windows Setup Reference": the settings of the components that images are made
# with, and the passes in which each is read. Windows has many more: one that is like none of these is passed over.
_RUN: Final = "RunAsynchronous RunSynchronous"
_LOCALES: Final = "InputLocale SystemLocale UILanguage UILanguageFallback UserLocale"
_COMPONENTS: Final = {
    "Microsoft-Windows-International-Core-WinPE": ("windowsPE", f"SetupUILanguage LayeredDriver {_LOCALES}"),
    "Microsoft-Windows-International-Core": ("specialize oobeSystem", _LOCALES),
    "Microsoft-Windows-Setup": (
        "windowsPE",
        "ComplianceCheck Diagnostics DiskConfiguration Display DynamicUpdate EnableFirewall EnableNetwork ImageInstall "
        f"LogPath PageFile Restart {_RUN} UpgradeData UseConfigurationSet UserData WindowsDeploymentServices",
    ),
    "Microsoft-Windows-PnpCustomizationsWinPE": ("windowsPE", "DriverPaths"),
    "Microsoft-Windows-PnpCustomizationsNonWinPE": ("offlineServicing auditSystem", "DriverPaths"),
    "Microsoft-Windows-Shell-Setup": (
        "offlineServicing generalize specialize auditSystem auditUser oobeSystem",
        "AutoLogon BluetoothTaskbarIconEnabled ComputerName ConvertibleSlateModePromptPreference CopyProfile "
        "DesktopOptimization DisableAutoDaylightTimeSet Display DoNotCleanTaskBar FirstLogonCommands FolderLocations "
        "LogonCommands NotificationArea OEMInformation OEMName OOBE ProductKey RegisteredOrganization RegisteredOwner "
        "ShowPowerButtonOnStartScreen ShowWindowsLive SignInMode StartPanelOff StartTiles StartLayout TaskbarLinks "
        "Themes TimeZone UserAccounts VisualEffects WindowsFeatures",
    ),
    "Microsoft-Windows-Deployment": (
        "generalize specialize auditSystem auditUser oobeSystem",
        f"ExtendOSPartition Generalize Reseal {_RUN}",
    ),
    "Microsoft-Windows-TCPIP": ("windowsPE specialize", "IcmpRedirectsEnabled Interfaces"),
    "Microsoft-Windows-DNS-Client": (
        "windowsPE specialize", "DNSDomain DNSSuffixSearchOrder Interfaces UseDomainNameDevolution",
    ),
    "Microsoft-Windows-Security-SPP-UX": ("specialize", "SkipAutoActivation"),
    "Microsoft-Windows-ServerManager-SvrMgrNc": ("specialize", "DoNotOpenServerManagerAtLogon"),
    "Microsoft-Windows-TerminalServices-LocalSessionManager": ("specialize", "fDenyTSConnections"),
    "Microsoft-Windows-UnattendedJoin": ("specialize", "Identification"),
    "Networking-MPSSVC-Svc": (
        "specialize", "FirewallGroups DomainProfile_EnableFirewall PrivateProfile_EnableFirewall "
        "PublicProfile_EnableFirewall",
    ),
}  # fmt: skip
COMPONENTS: Final = {name: (passes.split(), settings.split()) for name, (passes, settings) in _COMPONENTS.items()}
# Source: https://docs.xcp-ng.org/appendix/answerfile/, and host-installer's answerfile.py for names of before.
_XCPNG: Final = """
    admin-interface bond-mode bond driver-source fcoe-interface guest-disk hostname initiator-iqn keymap name-server
    nameserver network-backend ntp-server ntp-servers primary-disk repo-gpgcheck root-password script service source
    time-config-method timezone ui-confirmation-prompt vlan bootloader-location accept-eula
"""
XCPNG: Final = frozenset(_XCPNG.split())
# Source: Microsoft, "Windows Setup configuration passes".
PASSES: Final = frozenset(
    ("windowsPE", "offlineServicing", "generalize", "specialize", "auditSystem", "auditUser", "oobeSystem")
)


async def check_xml(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check that each text is well-formed."""
    return [finding for index, (_, text) in enumerate(files) for finding in _parse(index, text)[1]]


def autoyast_form(_dist: str, version: str) -> str:
    """Give the release whose form of a profile is read: 12 for SLES 12 and its kin (Leap 42), else 15."""
    return "12" if version.partition(".")[0] in ("12", "42") else "15"


async def check_autoyast(form: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check root, namespace, sections and time servers of AutoYaST profiles in the `form` of a release."""
    return _check_each(files, lambda root: _autoyast_problems(root, form))


def _autoyast_problems(root: ElementTree.Element, form: str) -> Iterator[tuple[str, str | None]]:
    if root.tag != f"{AUTOYAST}profile":
        yield f"the root is {root.tag}, not profile of {AUTOYAST[1:-1]}", None
        return
    names = [child.tag.removeprefix(AUTOYAST) for child in root]
    for name in names:
        if name not in SECTIONS:
            yield f"AutoYaST knows no section {name!r}", suggest(name, SECTIONS)
        if names.count(name) > 1:
            yield f"the section {name!r} is given twice", None
    yield from _ntp_problems(root, form)
    for element in root.iter():
        kind = next((value for key, value in element.attrib.items() if key.rpartition("}")[2] in ("type", "t")), "")
        if kind == "boolean" and (element.text or "").strip() not in ("true", "false"):
            yield f"{element.tag.removeprefix(AUTOYAST)} must be true or false, not {element.text!r}", None
        if kind == "integer" and not (element.text or "").strip().lstrip("-").isdigit():
            yield f"{element.tag.removeprefix(AUTOYAST)} must be a number, not {element.text!r}", None
        if kind == "list" and (element.text or "").strip():
            yield f"{element.tag.removeprefix(AUTOYAST)} is a list, and has text in it", None


def _ntp_problems(root: ElementTree.Element, form: str) -> Iterator[tuple[str, str | None]]:
    for section in root.findall(f"{AUTOYAST}ntp-client"):
        for element in section.iter():
            parent = element.tag.removeprefix(AUTOYAST)
            known = NTP[form].get(parent, "").split()
            for name in [child.tag.removeprefix(AUTOYAST) for child in element if known]:
                if name not in known:
                    yield f"{parent} has no {name!r} in the form of {form}", suggest(name, known)


async def check_unattend(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check root, namespace, passes and components of Windows' answer files."""
    return _check_each(files, _unattend_problems)


def _unattend_problems(root: ElementTree.Element) -> Iterator[tuple[str, str | None]]:
    if root.tag != f"{UNATTEND}unattend":
        yield f"the root is {root.tag}, not unattend of {UNATTEND[1:-1]}", None
        return
    for settings in root.findall(f"{UNATTEND}settings"):
        name = settings.get("pass", "")
        if name not in PASSES:
            yield f"Windows Setup has no pass {name!r}", suggest(name, PASSES)
        for component in settings.findall(f"{UNATTEND}component"):
            yield from _component_problems(component, name)


def _component_problems(component: ElementTree.Element, setup_pass: str) -> Iterator[tuple[str, str | None]]:
    name = component.get("name", "")
    missing = {"name", "processorArchitecture", "publicKeyToken", "language", "versionScope"} - {*component.attrib}
    if missing:
        yield f"the component {name} of {setup_pass} lacks {', '.join(sorted(missing))}", None
    if name not in COMPONENTS:
        if hint := suggest(name, COMPONENTS):
            yield f"Windows has no component {name!r}", hint
        return
    passes, known = COMPONENTS[name]
    if setup_pass not in passes:
        yield f"{name} is not read in the pass {setup_pass}", f"it is read in {', '.join(passes)}"
    for setting in component:
        if (said := setting.tag.removeprefix(UNATTEND)) not in known:
            yield f"{name} has no setting {said!r}", suggest(said, known)


async def check_xcpng(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check root and elements of XCP-ng's answer files, and that what it would ask for is in them."""
    return _check_each(files, _xcpng_problems)


def _xcpng_problems(root: ElementTree.Element) -> Iterator[tuple[str, str | None]]:
    if root.tag not in ("installation", "restore", "upgrade"):
        yield f"the root is {root.tag}, not installation", None
        return
    names = {element.tag for element in root}
    for name in sorted(names - XCPNG):
        yield f"XCP-ng's installer knows no element {name!r}", suggest(name, XCPNG)
    for name in ("primary-disk", "source", "root-password", "admin-interface", "keymap", "timezone"):
        if name not in names:
            yield f"{name} is missing", None


def _check_each(
    files: Sequence[tuple[str, str]], problems_of: Callable[[ElementTree.Element], Iterator[tuple[str, str | None]]]
) -> Sequence[Finding]:
    """Give what is wrong with each text: its form, or else what `problems_of` says of its root."""
    found: list[Finding] = []
    for index, (_, text) in enumerate(files):
        root, problems = _parse(index, text)
        found += problems
        if root is not None:
            found += [Finding(index, None, what, hint) for what, hint in problems_of(root)]
    return found


def _parse(index: int, text: str) -> tuple[ElementTree.Element | None, list[Finding]]:
    try:
        return ElementTree.fromstring(text), []  # noqa: S314  our own text; expat fetches nothing
    except (ElementTree.ParseError, ExpatError) as exc:
        line = exc.position[0] if isinstance(exc, ElementTree.ParseError) else exc.lineno
        return None, [Finding(index, line, f"it is not well-formed XML: {exc}")]
