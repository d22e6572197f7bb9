"""What the validators say of files that are wrong, and of hosts that lack them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from osimager.check.answers import AnswerFile, Report, check_answers
from osimager.check.kickstart import syntax_version
from osimager.holes import BUILD_PASSWORD_CRYPT, hole

KICKSTART = "lang en_US.UTF-8\nkeyboard us\nrootpw --lock\n%packages\n@core\n%end\n"
USER_DATA = """#cloud-config
autoinstall:
  version: 1
  identity: {hostname: a, username: u, password: "$6$x$y"}
"""


def kickstart(text: str, dist: str = "rhel", version: str = "9.5") -> AnswerFile:
    return AnswerFile(name="ks.cfg", text=text, format="kickstart", dist=dist, version=version, target="t")


def preseed(text: str) -> AnswerFile:
    return AnswerFile(name="preseed.cfg", text=text, format="preseed", dist="debian", version="12")


def autoinstall(text: str, name: str = "user-data") -> AnswerFile:
    return AnswerFile(name=name, text=text, format="autoinstall", dist="ubuntu", version="24.04")


def said(report: Report) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.what) for problem in report.problems]


@pytest.mark.parametrize(
    ("dist", "version", "expected"),
    [
        ("rhel", "9.5", "RHEL9"),
        ("centos-stream", "10", "RHEL10"),
        ("fedora", "43", "F43"),
        ("amazon", "2", "RHEL7"),
    ],
)
def test_the_syntax_version_is_the_targets_own(dist: str, version: str, expected: str) -> None:
    assert syntax_version(dist, version) == expected


@pytest.mark.needs("ksvalidator")
async def test_a_kickstart_problem_names_its_file_and_line() -> None:
    good, bad = kickstart(KICKSTART), kickstart(KICKSTART + "bogus --x\n")
    report = await check_answers([good, bad])
    assert report.checked == {"ksvalidator RHEL9": 2}
    assert [problem.file for problem in report.problems] == [bad]
    assert said(report) == [(7, "Unknown command: bogus")]


@pytest.mark.needs("ksvalidator")
async def test_a_section_without_end_is_found() -> None:
    report = await check_answers([kickstart("%packages\n@core\n")])
    assert "does not end" in report.problems[0].what


@pytest.mark.needs("ksvalidator")
async def test_an_option_of_a_later_version_is_refused_for_an_earlier() -> None:
    text = KICKSTART + "timesource --ntp-server=ntp.example.org\n"
    report = await check_answers([kickstart(text, version="8.10"), kickstart(text, version="9.5")])
    assert [problem.file.version for problem in report.problems] == ["8.10"]


@pytest.mark.needs("ksvalidator")
async def test_a_syntax_that_the_validator_lacks_is_named_and_stops_nothing() -> None:
    report = await check_answers([kickstart(KICKSTART, "fedora", "999")])
    assert not report.problems
    assert "F999" in report.not_at_hand["ksvalidator F999"]


@pytest.mark.needs("ksvalidator")
async def test_equal_texts_are_checked_once_and_told_for_each() -> None:
    report = await check_answers([kickstart("bogus\n"), kickstart("bogus\n", version="9.6")])
    assert report.checked == {"ksvalidator RHEL9": 1}
    assert [problem.file.version for problem in report.problems] == ["9.5", "9.6"]


async def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("osimager.proc.shutil.which", lambda *_args, **_kwargs: None)
    report = await check_answers([preseed("d-i netcfg/get_hostname string a\n"), autoinstall(USER_DATA)])
    assert report.not_at_hand == {
        "debconf-set-selections": "the program 'debconf-set-selections' is not on this host; install debconf",
        "cloud-init schema": "the program 'cloud-init' is not on this host; install cloud-init",
    }
    assert "known d-i questions" in report.checked


async def test_an_unknown_format_is_named() -> None:
    report = await check_answers([AnswerFile(name="x", text="", format="jumpstart", dist="a", version="1")])
    assert report.unknown == {"jumpstart"}


async def test_debconf_lines_are_mapped_back_to_their_file(needs: Callable[[str], Path]) -> None:
    needs("debconf-set-selections")
    report = await check_answers([preseed("# one\nd-i netcfg/get_hostname string a\n"), preseed("# two\n\nbla\n")])
    syntax = [problem for problem in report.problems if "parse error" in problem.what]
    assert [(problem.file.text, problem.line) for problem in syntax] == [("# two\n\nbla\n", 3)]


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ("d-i netcfg/get_hostnam string a", "no question", "did you mean netcfg/get_hostname?"),
        ("d-i clock-setup/utc string true", "is of type boolean, not string", None),
        ("d-i clock-setup/utc boolean yes", "must be true or false", None),
        ("d-i passwd/user-password-crypted password plain", "not a crypt hash", None),
        ("d-i netcfg/get_hostname strin a", "not a debconf type", "did you mean string?"),
    ],
)
async def test_a_wrong_preseed_answer_is_an_error(line: str, what: str, hint: str | None) -> None:
    report = await check_answers([preseed(f"# head\n{line}\n")])
    found = [problem for problem in report.errors if what in problem.what]
    assert [(problem.line, problem.hint) for problem in found] == [(2, hint)]


async def test_a_question_of_a_package_of_ones_own_is_a_warning() -> None:
    report = await check_answers([preseed("mypackage mypackage/zebra string a\n")])
    assert not report.errors
    assert [problem.is_warning for problem in report.problems] == [True]


async def test_an_answer_given_twice_is_a_warning_at_the_second() -> None:
    report = await check_answers([preseed("d-i netcfg/get_domain string a\nd-i netcfg/get_domain string b\n")])
    assert [(problem.line, problem.is_warning) for problem in report.problems] == [(2, True)]


async def test_holes_are_checked_as_what_they_will_be() -> None:
    report = await check_answers([preseed(f"d-i passwd/user-password-crypted password {hole(BUILD_PASSWORD_CRYPT)}\n")])
    assert not report.problems


@pytest.mark.parametrize(
    ("old", "new", "what", "hint"),
    [
        ("identity:", "identiy:", "the key 'identiy' is unknown in autoinstall", "did you mean identity?"),
        ("username:", "user:", "the key 'user' is unknown in autoinstall.identity", "did you mean username?"),
        ("version: 1", "version: 2", "version must be 1", None),
        ("version: 1", "version: 1\n  shutdown: power-off", "shutdown must be one of", "did you mean poweroff?"),
        ("version: 1", "version: 1\n  storage: {layout: {name: lvn}}", "storage.layout.name", "did you mean lvm?"),
        ("version: 1", "version: 1\n  packages: vim", "packages must be a list", None),
        (
            "version: 1",
            "version: 1\n  late-commands: [{a: b}]",
            "an item of late-commands",
            "quote what has a colon in it",
        ),
        ("#cloud-config", "#cloudconfig", "begins with #cloud-config", None),
    ],
)
async def test_a_slip_in_an_autoinstall_is_an_error(old: str, new: str, what: str, hint: str | None) -> None:
    report = await check_answers([autoinstall(USER_DATA.replace(old, new))])
    found = [problem for problem in report.errors if what in problem.what]
    assert [problem.hint for problem in found] == [hint]


async def test_cloud_init_checks_what_stands_beside_autoinstall(needs: Callable[[str], Path]) -> None:
    needs("cloud-init")
    report = await check_answers([autoinstall(USER_DATA), autoinstall(USER_DATA + "packages: 3\n")])
    assert [problem.file.text for problem in report.errors] == [USER_DATA + "packages: 3\n"]


async def test_the_files_beside_user_data_are_yaml_only() -> None:
    report = await check_answers([autoinstall("instance-id: a\n", "meta-data"), autoinstall("a: [\n", "meta-data")])
    assert [problem.file.text for problem in report.problems] == ["a: [\n"]


def xml(text: str, format: str = "autoyast", version: str = "15.6") -> AnswerFile:
    return AnswerFile(name="autoinst.xml", text=text, format=format, dist="sles", version=version)


PROFILE = (
    '<profile xmlns="http://www.suse.com/1.0/yast2ns" xmlns:config="http://www.suse.com/1.0/configns">{}</profile>'
)


@pytest.mark.parametrize(
    ("inner", "what", "hint"),
    [
        ("<usrs/>", "AutoYaST knows no section 'usrs'", "did you mean users?"),
        ("<general/><general/>", "given twice", None),
        ('<users config:type="list">x</users>', "users is a list, and has text in it", None),
        ('<kdump><add config:type="boolean">yes</add></kdump>', "must be true or false", None),
        ("<general>", "not well-formed", None),
    ],
)
async def test_a_wrong_profile_is_an_error(inner: str, what: str, hint: str | None) -> None:
    report = await check_answers([xml(PROFILE.format(inner))])
    assert report.problems
    assert what in report.problems[0].what
    assert report.problems[0].hint == hint


OF_NTPD = "<ntp-client><peers><peer><type>server</type><address>a</address>{}</peer></peers></ntp-client>"
OF_CHRONY = "<ntp-client><ntp_servers><ntp_server><address>a</address></ntp_server></ntp_servers></ntp-client>"


async def test_time_servers_are_told_in_the_form_of_their_release() -> None:
    texts = [PROFILE.format(inner) for inner in (OF_NTPD.format(""), OF_CHRONY)]
    report = await check_answers([xml(text, version=version) for text in texts for version in ("12.5", "15.6")])
    assert [(problem.file.version, problem.what) for problem in report.errors] == [
        ("12.5", "ntp-client has no 'ntp_servers' in the form of 12"),
        ("15.6", "ntp-client has no 'peers' in the form of 15"),
    ]
    [problem] = (await check_answers([xml(PROFILE.format(OF_NTPD.format("<adress/>")), version="12.5")])).errors
    assert problem.hint == "did you mean address?"


PROXMOX = """
[global]
keyboard = "en-us"
country = "us"
fqdn = "a.example.org"
mailto = "root@example.org"
timezone = "UTC"
root-password-hashed = "x"
[network]
source = "from-dhcp"
[disk-setup]
filesystem = "ext4"
disk-list = ["vda"]
"""
ESXI = "vmaccepteula\nrootpw --iscrypted x\ninstall --firstdisk\n"
UNATTEND = (
    '<unattend xmlns="urn:schemas-microsoft-com:unattend"><settings pass="{}"><component name="{}" '
    'processorArchitecture="amd64" publicKeyToken="x" language="neutral" versionScope="nonSxS">{}</component>'
    "</settings></unattend>"
)


@pytest.mark.parametrize(("format", "text"), [("proxmox", PROXMOX), ("esxi", ESXI), ("openbsd", "Setup a user = a\n")])
async def test_a_right_file_has_no_problem(format: str, text: str) -> None:
    report = await check_answers([AnswerFile(name="x", text=text, format=format, dist="a", version="1")])
    assert not report.problems


@pytest.mark.parametrize(
    ("where", "component", "inner", "hint"),
    [
        ("specialize", "Microsoft-Windows-Shell-Setup", "<ComputrName/>", "did you mean ComputerName?"),
        ("specialize", "Microsoft-Windows-Shell-Stup", "", "did you mean Microsoft-Windows-Shell-Setup?"),
        ("oobeSystem", "Microsoft-Windows-Setup", "", "it is read in windowsPE"),
    ],
)
async def test_a_wrong_component_of_windows_is_an_error(where: str, component: str, inner: str, hint: str) -> None:
    report = await check_answers([xml(UNATTEND.format(where, component, inner), "unattend")])
    assert [problem.hint for problem in report.errors] == [hint]


async def test_a_component_that_we_do_not_know_is_windows_own_affair() -> None:
    assert not (await check_answers([xml(UNATTEND.format("specialize", "Zebra", ""), "unattend")])).problems


async def test_ignition_says_what_it_does_not_know(needs: Callable[[str], Path]) -> None:
    needs("ignition-validate")
    text = (
        '{"ignition": {"version": "3.3.0"}, "passwd": {"users": [{"nam": "a"}]}, "storage": {"files": [{"path": "a"}]}}'
    )
    report = await check_answers([AnswerFile(name="x", text=text, format="ignition", dist="a", version="1")])
    assert [problem.what for problem in report.errors] == [
        "path not absolute at $.storage.files.0.path",
        "Unused key nam at $.passwd.users.0.nam",
    ]


async def test_a_windows_pass_that_does_not_exist_is_an_error() -> None:
    text = '<unattend xmlns="urn:schemas-microsoft-com:unattend"><settings pass="windowPE"/></unattend>'
    report = await check_answers([xml(text, "unattend")])
    assert [problem.hint for problem in report.problems] == ["did you mean windowsPE?"]


@pytest.mark.parametrize(
    ("format", "text", "what"),
    [
        ("agama", '{"prodct": {}}', "Agama knows no key 'prodct'"),
        ("agama", "[]", "one JSON object"),
        ("agama", '{"product": {}, "user": {"username": ""}}', "Agama knows no key 'username' in user"),
        ("agama", '{"product": {}, "bootloader": {"timeout": 1, "stopOnBootMenu": true}}', "exclude each other"),
        ("agama", '{"user": {}}', "product is missing"),
        ("shell", "A='\\n", "nterminated"),
        ("json", "{", "not JSON"),
        ("toml", "a = ", "not TOML"),
        ("xml", "<a>", "not well-formed"),
        ("proxmox", "[globl]", "there is no section [globl]"),
        ("proxmox", PROXMOX.replace("root-password-hashed", "root_password"), "has no key 'root_password'"),
        ("proxmox", PROXMOX.replace("ext4", "ext3"), "filesystem must be one of ext4"),
        ("proxmox", PROXMOX.replace("from-dhcp", "from-answer"), "needs cidr, dns, gateway and filter"),
        ("openbsd", "Sytem hostname = a\n", "not known to ask 'Sytem hostname'"),
        ("openbsd", "System hostname\n", "a line has a question"),
        ("openbsd", "System hostname =\n", "has no answer"),
        ("openbsd", "System hostname = a\nsystem hostname = b\n", "answered in line 1 already"),
        ("openbsd", "Password for root account = secret\n", "neither *************"),
        ("esxi", ESXI.replace("install ", "instal "), "there is no command 'instal'"),
        ("esxi", ESXI.replace("--firstdisk", "--firstdsk"), "install has no option --firstdsk"),
        ("esxi", ESXI.replace("vmaccepteula", ""), "vmaccepteula is missing"),
        ("esxi", ESXI + "%fistboot\n", "there is no section '%fistboot'"),
        ("esxi", ESXI + "autopart\n", "there is no command 'autopart'"),
        ("esx", "accepteula\nrootpw --iscrypted x\n", "nothing says where to"),
        ("xcpng", "<installation><primry-disk/></installation>", "knows no element 'primry-disk'"),
        ("xcpng", "<install/>", "the root is install, not installation"),
        ("vyos", "a: [", "expected"),
    ],
)
async def test_other_formats_are_checked_by_their_form(format: str, text: str, what: str) -> None:
    report = await check_answers([AnswerFile(name="x", text=text, format=format, dist="a", version="1")])
    assert what in report.problems[0].what


@pytest.mark.parametrize(("version", "whats"), [("16.0", ["Agama knows no key 'proxy'"]), ("16.1", [])])
async def test_agama_is_asked_for_the_keys_of_its_own_version(version: str, whats: list[str]) -> None:
    text = '{"product": {"id": "SLES"}, "proxy": {"enabled": true}}'
    answer = AnswerFile(name="x", text=text, format="agama", dist="sles", version=version)
    assert [problem.what for problem in (await check_answers([answer])).problems] == whats
