"""From a request to a Configuration, over files as people write them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from osimager.arch import Firmware
from osimager.config.catalog import Catalog, Roots
from osimager.config.configuration import Configuration
from osimager.config.request import Request
from osimager.config.resolve import parse_defines
from osimager.config.sections import Rung, StepKind
from osimager.config.values import Value
from osimager.errors import ConfigError, ConfigErrors, UsageError
from osimager.holes import find_holes, hole
from osimager.paths import shipped

from .conftest import TableLookups, Tree

WEB = 'provides: {dist: web, versions: ["1", "1.2", "1.10", "2"], arches: [x86_64, aarch64]}\n'


def resolve(tree: Tree, target: str = "web-1", **asked: object) -> Configuration:
    return tree.catalog().resolve(dataclasses.replace(Request(target=target), **asked), tree.lookups)  # type: ignore[arg-type]


def test_targets_sort_by_number_and_earlier_roots_hide_later_files(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB)
    tree.write("mine/web/spec.yml", 'provides: {dist: web, versions: ["9.[9-10]"], arches: [amd64]}\n')
    roots = Roots(specs=(tree.root / "mine", tree.root / "specs"))
    names = [str(entry) for entry in Catalog.open(roots).targets()]
    assert names == ["web-9.9-x86_64", "web-9.10-x86_64"]
    assert [str(entry) for entry in tree.catalog().targets()][:4] == [
        "web-1-aarch64", "web-1-x86_64", "web-1.2-aarch64", "web-1.2-x86_64",
    ]  # fmt: skip


def test_a_broken_spec_hides_no_other(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB)
    tree.write("specs/broken/spec.yml", "a: [\n")
    catalog = tree.catalog()
    assert len(catalog.targets()) == 8
    assert len(catalog.problems) == 1
    assert resolve(tree, "web-2").target.version == "2"
    with pytest.raises(UsageError, match="unheard") as caught:
        resolve(tree, "unheard-1")
    assert "1 spec files could not be read" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("target", "arch", "host", "expected"),
    [
        ("web-1", None, "x86_64", "qemu/local/web-1-x86_64"),
        ("web-1", None, "aarch64", "qemu/local/web-1-aarch64"),
        ("web-1-arm64", None, "x86_64", "qemu/local/web-1-aarch64"),
        ("web-1", "amd64", "aarch64", "qemu/local/web-1-x86_64"),
        ("qemu/web-1", None, "x86_64", "qemu/local/web-1-x86_64"),
        ("qemu/local/web-1.10", None, "x86_64", "qemu/local/web-1.10-x86_64"),
        ("web-latest", None, "x86_64", "qemu/local/web-2-x86_64"),
        ("web-1-latest", None, "x86_64", "qemu/local/web-1.10-x86_64"),
        ("web-1-latest-aarch64", None, "x86_64", "qemu/local/web-1.10-aarch64"),
        ("web-box-3", None, "x86_64", "qemu/local/web-box-3-aarch64"),
    ],
)
def test_targets_are_found_by_every_name(tree: Tree, target: str, arch: str | None, host: str, expected: str) -> None:
    tree.write("specs/web/spec.yml", WEB)
    tree.write("specs/box/spec.yml", 'provides: {dist: web-box, versions: ["3"], arches: [aarch64]}\n')
    assert str(resolve(tree, target, arch=arch, host_arch=host).target) == expected


@pytest.mark.parametrize("target", ["", "web", "a/b/c/web-1", "/web-1", "web-3", "wbe-1", "web-1-x86_65"])
def test_what_is_no_target_is_a_usage_error(tree: Tree, target: str) -> None:
    tree.write("specs/web/spec.yml", WEB)
    with pytest.raises(UsageError) as caught:
        resolve(tree, target)
    assert caught.value.hint


def test_two_architectures_and_neither_is_the_hosts(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB)
    with pytest.raises(UsageError, match="x86_64") as caught:
        resolve(tree, host_arch="i386")
    assert "--arch" in (caught.value.hint or "")


def test_a_version_may_have_fewer_arches(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB + 'version_specific: [{version: "1.*", arches: [x86_64]}]\n')
    assert [str(entry) for entry in tree.catalog().targets()] == [
        "web-1-x86_64", "web-1.2-x86_64", "web-1.10-x86_64", "web-2-aarch64", "web-2-x86_64",
    ]  # fmt: skip


def test_layers_from_platform_to_define(tree: Tree) -> None:
    tree.write("specs/platforms/qemu.yml", "defs: {a: platform, b: platform, c: platform, d: platform, e: platform}\n")
    tree.write("specs/locations/lab.yml", "defs: {b: location, c: location, d: location, e: location}\n")
    tree.write("specs/web/spec.yml", WEB + "defs: {c: spec, d: spec, e: spec}\n")
    tree.write("specs/profiles/dev.yml", "defs: {d: profile, e: profile}\n")
    configuration = resolve(tree, "qemu/lab/web-1", profile="dev", defines=("e=define",))
    assert [configuration.defs[key] for key in "abcde"] == ["platform", "location", "spec", "profile", "define"]
    places = [Path(str(origin.place.path)).name for origin in configuration.explain("d")]
    assert places == ["dev.yml", "spec.yml", "lab.yml", "qemu.yml"]
    assert [origin.value for origin in configuration.explain("defs.e")][:2] == ["define", "profile"]


def test_profiles_lie_over_the_default_one(tree: Tree) -> None:
    tree.write(
        "specs/profiles/default.yml",
        "packages: [vim]\nlocale: C\nbuild: {memory: 3G, cpus: 1}\ndefs: {t: {a: 1, b: 1}}\n",
    )
    tree.write(
        "specs/profiles/dev.yml", "packages: [gcc]\nscripts: [one, two]\nbuild: {memory: 4G}\ndefs: {t: {b: 2}}\n"
    )
    tree.write("specs/web/spec.yml", WEB + "defs: {locale: de}\nmachine: {cpus: 8}\n")
    default, dev = resolve(tree), resolve(tree, profile="dev")
    assert (default.defs["packages"], default.defs["locale"]) == (["vim"], "C")
    assert (dev.defs["packages"], dev.defs["scripts"], dev.defs["locale"]) == (["gcc"], ["one", "two"], "C")
    assert dev.defs["t"] == {"a": 1, "b": 2}
    assert (dev.sections.machine.memory_mib, dev.sections.machine.cpus) == (4096, 1)
    assert [Path(str(origin.place.path)).name for origin in dev.explain("locale")] == ["default.yml", "spec.yml"]
    with pytest.raises(UsageError, match="profile"):
        resolve(tree, profile="nobody")
    tree.write("specs/profiles/arm.yml", "description: for boards\narchitectures: [arm64]\n")
    assert resolve(tree, "web-1-aarch64", profile="arm").profile == "arm"
    with pytest.raises(ConfigError, match="not for x86_64") as caught:
        resolve(tree, profile="arm")
    assert caught.value.where[0].line == 2


def test_what_a_profile_says_of_one_distribution_is_like_what_it_says_of_all(tree: Tree) -> None:
    entry = '{dist: web, packages: [gcc], build: {memory: 4G}, version_specific: [{version: ".*", timezone: UTC}]}'
    tree.write("specs/web/spec.yml", WEB)
    tree.write("specs/profiles/dev.yml", f"packages: [git]\ndist_specific:\n  - {entry}\n")
    dev = resolve(tree, profile="dev")
    assert (dev.defs["packages"], dev.defs["timezone"]) == (["gcc"], "UTC")
    assert dev.sections.machine.memory_mib == 4096
    [origin, below, *_] = dev.explain("defs.packages")
    assert (origin.value, below.value) == (["gcc"], ["git"])


def test_files_named_after_a_profile_fall_back_to_default(tree: Tree) -> None:
    tree.write("specs/profiles/dev.yml", "packages: []\n")
    tree.write(
        "specs/web/spec.yml", WEB + 'files: [{dest: a, sources: ["web/>>profile<<.cfg", "web/end-default.cfg"]}]\n'
    )
    tree.write("files/web/default.cfg", "default >>name<<\n")
    tree.write("files/web/end-default.cfg", "end\n")

    def read_fragments() -> list[str]:
        return [fragment.text for fragment in resolve(tree, profile="dev").sections.files[0].fragments]

    assert read_fragments() == ["default >>name<<\n", "end\n"]
    tree.write("files/web/dev.cfg", "dev\n")
    assert read_fragments() == ["dev\n", "end\n"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("a=1", "b=x,y"), {"a": "1", "b": "x,y"}),
        (("a=1,b=2",), {"a": "1", "b": "2"}),
        (("url=http://x/?a=1,2",), {"url": "http://x/?a=1,2"}),
        (("a=",), {"a": ""}),
        (("a=b=c",), {"a": "b=c"}),
    ],
)
def test_defines_split_only_where_every_part_is_one(typed: tuple[str, ...], expected: dict[str, str]) -> None:
    assert parse_defines(typed) == expected


def test_defines_are_typed_seen_by_conditions_and_win(tree: Tree) -> None:
    tree.write(
        "specs/web/spec.yml",
        WEB
        + """\
defs: {port: "80", on: true, cidr: 10.0.0.0/24, path: a}
firmware_specific:
  - firmware: uefi
    defs: {boot: efi, port: "443"}
version_specific:
  - version: "1"
    defs: {path: b}
""",
    )
    defines = (
        "port=8080",
        "count=3",
        "on=no",
        "off=false",
        "firmware=uefi",
        "path=c",
        "domain=x.org",
        "twice=>>path<</d",
    )
    configuration = resolve(tree, defines=defines)
    expected: dict[str, Value] = {
        "port": "8080", "count": 3, "on": "no", "off": False, "boot": "efi", "path": "c", "fqdn": "web-1.x.org",
        "twice": "c/d",
    }  # fmt: skip
    assert {key: configuration.defs[key] for key in expected} == expected
    assert configuration.sections.machine.firmware is Firmware.UEFI


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("3", 3), ("no", "no"), ("true", True), ("~", None), ("1e3", 1000.0), ('"3"', "3"), ("'no: yes'", "no: yes"),
        (r'"a\nb"', "a\nb"), ("'it''s'", "it's"), ('"open', '"open'), ("'a' b", "'a' b"), ("0x10", 16), ("a,b", "a,b"),
    ],
)  # fmt: skip
def test_a_define_is_a_yaml_scalar(tree: Tree, typed: str, value: Value) -> None:
    tree.write("specs/web/spec.yml", WEB + "defs: {text: x}\n")
    defs = resolve(tree, defines=(f"new={typed}", f"text={typed}")).defs
    assert (defs["new"], type(defs["new"])) == (
        value,
        type(value) if not isinstance(value, float) else type(defs["new"]),
    )
    quoted = typed != value and isinstance(value, str)
    assert defs["text"] == (value if quoted else typed)


def test_a_quoted_define_is_seen_by_conditions_without_its_quotes(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB + "version_specific: [{version: '9.10', defs: {seen: true}}]\n")
    assert resolve(tree, defines=('version="9.10"',)).defs["seen"] is True


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ("web-1", "web-1.lab.org", "lab.org")),
        ({"name": "host"}, ("host", "host.lab.org", "lab.org")),
        ({"name": "host.x.net"}, ("host", "host.x.net", "x.net")),
        ({"fqdn": "a.b.c"}, ("a", "a.b.c", "b.c")),
        ({"name": "host", "fqdn": "a.b.c"}, ("host", "a.b.c", "b.c")),
        ({"fqdn": "alone"}, ("alone", "alone", "lab.org")),
        ({"fqdn": "a.b.c", "defines": ("domain=z",)}, ("a", "a.b.c", "z")),
    ],
)
def test_host_name_and_domain_are_those_of_the_full_name(
    tree: Tree, asked: dict[str, Any], expected: tuple[str, ...]
) -> None:
    tree.write("specs/web/spec.yml", WEB + "defs: {domain: lab.org}\n")
    defs = resolve(tree, **asked).defs
    assert tuple(defs[key] for key in ("hostname", "fqdn", "domain")) == expected


def test_markers_in_keys_are_replaced_everywhere(tree: Tree) -> None:
    tree.write(
        "specs/web/spec.yml",
        WEB + "defs: {k: web, '>>k<<_key': {'in_>>k<<': 1}, seen: '>>web_key.in_web<<'}\nevars: {'>>k<<_X': '1'}\n",
    )
    configuration = resolve(tree)
    assert configuration.defs["web_key"] == {"in_web": 1}
    assert configuration.defs["seen"] == 1
    assert configuration.sections.environment == {"web_X": "1"}
    assert configuration.explain("web_key")[0].place.line == 2


@pytest.mark.parametrize("pattern", ["x86_64", "amd64", "AMD64", "x64|none"])
def test_conditions_know_an_architecture_by_every_name(tree: Tree, pattern: str) -> None:
    tree.write("specs/web/spec.yml", WEB + f"arch_specific: [{{arch: '{pattern}', defs: {{seen: 1}}}}]\n")
    assert "seen" in resolve(tree, "web-1-x86_64").defs
    assert "seen" not in resolve(tree, "web-1-aarch64").defs


@pytest.mark.parametrize(
    "given",
    ["dns: 5", "dns: [5]", "dns: {server: [192.0.2.1]}", "dns: {servers: 5}", "ntp: true", "ntp: {servers: {a: b}}"],
)
def test_servers_that_are_none_are_refused(tree: Tree, given: str) -> None:
    tree.write("specs/web/spec.yml", WEB + f"defs:\n  {given}\n")
    with pytest.raises(ConfigError, match=given[:3]) as caught:
        resolve(tree)
    assert [place.line for place in caught.value.where] == [3]


def test_the_network_of_a_location(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB + 'defs: {base: 192.168.77, seen: ">>gateway<< via >>dns2<<"}\n')
    tree.write(
        "specs/locations/lab.toml",
        '[defs]\ndomain = "lab.org"\ncidr = ">>base<<.0/24"\n[defs.dns]\n'
        'servers = ["192.168.77.1", "9.9.9.9"]\nsearch = ["lab.org"]\n'
        '[defs.ntp]\nservers = ["pool"]\n',
    )
    defs = resolve(tree, "qemu/lab/web-1", name="host", ip="192.168.77.10").defs
    expected = {
        "subnet": "192.168.77.0", "prefix": "24", "netmask": "255.255.255.0", "gateway": "192.168.77.254",
        "gw": "192.168.77.254", "dns1": "192.168.77.1", "dns2": "9.9.9.9", "ntp1": "pool", "dns_search": "lab.org",
        "fqdn": "host.lab.org", "ip": "192.168.77.10", "seen": "192.168.77.254 via 9.9.9.9", "hostname": "host",
    }  # fmt: skip
    assert {key: defs[key] for key in expected} == expected
    assert resolve(tree, "qemu/lab/web-1", defines=("gateway=10.0.0.1",)).defs["gw"] == "10.0.0.1"
    assert resolve(tree, name="a.b.org").defs["fqdn"] == "a.b.org"
    assert resolve(tree, name="a.b.org", fqdn="c.d").defs["fqdn"] == "c.d"


def test_local_needs_no_file_and_has_no_network(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB)
    defs = resolve(tree).defs
    assert [defs[key] for key in ("ip", "cidr", "gateway", "dns1", "ntp1", "domain", "proxy") if key in defs] == [
        ""
    ] * 6


def test_sections_come_out_typed_and_rendered(tree: Tree) -> None:
    tree.write(
        "specs/web/spec.yml",
        WEB
        + r"""
iso: "web->>version<<"
status: boots
needs: "E>'winrm' if version == '2' else None<E"
defs: {disk: 20G, gone: "E>''<E", pass: "|>images/linux:password<|"}
installer:
  format: kickstart
  boot: [menu, typed]
  menu: ^Install
  kernel_arguments: ["inst.ks=>>answer_url<</ks.cfg", ">>gone<<", "name=>>name<<"]
  drop_arguments: [quiet, "rd\\.live\\.check"]
  seed: {label: OEMDRV, files: [ks.cfg]}
  boot_wait: 10s
  restarts: 1
machine: {memory: 512M, minimum_memory: 768M, disk_size: ">>disk<<", cpus: "3"}
access: {user: admin, port: 2222}
seal: {login: admin}
verify: {enabled: false}
steps:
  - script: base.sh
    environment: {PASS: ">>pass<<"}
  - file: motd
    dest: /etc/motd
    mode: "0644"
  - ansible: site.yml
    cache: false
    inputs: ["roles/**"]
""",
    )
    configuration = resolve(tree)
    sections = configuration.sections
    assert configuration.iso == "web-1"
    assert (sections.status, sections.needs) == ("boots", None)
    assert resolve(tree, "web-2").sections.needs == "winrm"
    installer = sections.installer
    assert installer.boot == (Rung.MENU, Rung.TYPED)
    assert [find_holes(argument) for argument in installer.kernel_arguments] == [{"answer_url"}, frozenset()]
    assert installer.seed is not None
    assert (installer.seed.files, installer.boot_wait_s, installer.restarts) == (("ks.cfg",), 10.0, 1)
    machine = sections.machine
    assert (machine.memory_mib, machine.cpus, machine.disk_size_bytes) == (768, 3, 20 << 30)
    assert (sections.access.user, sections.access.port, sections.seal.login) == ("admin", 2222, "admin")
    assert not sections.verify.enabled
    script, file, ansible = sections.steps
    assert (script.kind, script.environment) == (StepKind.SCRIPT, {"PASS": "s3cret"})
    assert (file.kind, file.dest, file.mode) == (StepKind.FILE, "/etc/motd", 0o644)
    assert (ansible.kind, ansible.cache, ansible.inputs) == (StepKind.ANSIBLE, False, ("roles/**",))
    assert ansible.place.line == 26


def test_packers_sections_are_read_and_never_skipped(tree: Tree) -> None:
    tree.write(
        "specs/web/spec.yml",
        WEB
        + """\
variables: {user: "{{vault `images/linux` `password`}}"}
evars: {LANG: "C-&gt;>>version<<"}
config: {memory: 4096, boot_command: ["<enter>"], headless: true}
machine: {cpus: 4}
pre_provisioners:
  - {type: shell, inline: ["echo {{user `user`}}"]}
steps: [{script: own.sh}]
post_provisioners:
  - {type: file, source: motd, destination: /etc/motd}
  - {type: puppet}
required_files:
  - {file: web/licence, url: "https://example.org/licence"}
""",
    )
    configuration = resolve(tree)
    sections = configuration.sections
    assert (sections.machine.memory_mib, sections.machine.cpus) == (4096, 4)
    assert sections.installer.boot_command == ("<enter>",)
    assert [(step.kind, step.place.line) for step in sections.steps] == [
        (StepKind.INLINE, 7), (StepKind.SCRIPT, 8), (StepKind.FILE, 10),
    ]  # fmt: skip
    assert sections.steps[0].argument == "echo s3cret\n"
    assert sections.steps[2].argument == str(tree.root / "specs/web/motd")
    assert sections.needs == "the provisioner puppet, the file web/licence from https://example.org/licence"
    assert sections.environment == {"LANG": "C-&gt;1"}
    assert [("headless" in warning, "spec.yml:4" in warning) for warning in configuration.warnings] == [(True, True)]


def test_secrets_are_asked_for_only_when_they_are_used(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB + "defs: {a: \"E>'x' if version == '1' else '|>no/such:thing<|'<E\"}\n")
    assert resolve(tree).defs["a"] == "x"
    assert tree.lookups.asked == []
    with pytest.raises(ConfigError, match="no/such"):
        resolve(tree, "web-2")


def test_text_from_a_secret_is_never_read_again(tree: Tree) -> None:
    tree.lookups.secrets["a:b"] = ">>version<< E>1+1<E |>images/linux:password<|"
    tree.write("specs/web/spec.yml", WEB + 'defs: {one: "|>a:b<|", two: ">>one<<!", three: "E>two.upper()<E"}\n')
    defs = resolve(tree).defs
    assert defs["two"] == tree.lookups.secrets["a:b"] + "!"
    assert defs["three"] == tree.lookups.secrets["a:b"].upper() + "!"


def test_all_errors_come_at_once(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB + 'defs: {a: ">>x<<", b: ">>y<<"}\nmachine: {cpus: none, disk: 1}\n')
    with pytest.raises(ConfigError, match="'disk' is unknown"):
        resolve(tree)
    tree.write("specs/web/spec.yml", WEB + 'defs: {a: ">>x<<", b: ">>y<<"}\nmachine: {cpus: none}\n')
    with pytest.raises(ConfigErrors) as caught:
        resolve(tree)
    assert [error.where[0].line for error in caught.value.errors] == [2, 2, 3]


def test_an_undefined_name_may_be_empty_where_the_spec_says_so(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB + 'undefined: empty\ndefs: {a: "x>>nothing<<y"}\n')
    configuration = resolve(tree)
    assert configuration.defs["a"] == "xy"
    assert "nothing" in configuration.warnings[0]


def test_rendering_names_the_line_of_a_fragment(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", WEB + "files: [{dest: a, sources: [web.cfg]}]\n")
    tree.write("files/web.cfg", "one >>name<<\ntwo\nthree >>nothing<<\n")
    configuration = resolve(tree)
    fragment = configuration.sections.files[0].fragments[0]
    with pytest.raises(ConfigError, match="nothing") as caught:
        configuration.render(fragment.text, fragment.place)
    assert caught.value.where[0].line == 3


def test_iso_entries_of_an_architecture(tree: Tree) -> None:
    tree.write(
        "isos.d/web.yml",
        f"""\
        web-1:
          url: https://example.org/web.iso
          volume_id: WEB.*
          arches:
            x86_64: {{sha256: "{"a" * 64}", size: 700M}}
            aarch64: {{url: https://example.org/arm.iso, urls: [https://mirror/arm.iso]}}
        made: {{make: web, arches: {{x86_64: {{}}}}}}
        nowhere: {{arches: {{x86_64: {{}}}}}}
        bad: {{sha: x, arches: {{x86_64: {{}}}}}}
        """,
    )
    catalog = tree.catalog()
    intel, arm = catalog.find_iso("web-1", "x86_64"), catalog.find_iso("web-1", "aarch64")
    assert intel is not None
    assert arm is not None
    assert (intel.urls, intel.sha256, intel.size_bytes) == (("https://example.org/web.iso",), "a" * 64, 700 << 20)
    assert (arm.urls, arm.sha256) == (("https://example.org/arm.iso", "https://mirror/arm.iso"), None)
    made = catalog.find_iso("made", "x86_64")
    assert made is not None
    assert made.make == "web"
    assert catalog.find_iso("web-1", "i386") is None
    assert catalog.find_iso("none", "x86_64") is None
    for name in ("nowhere", "bad"):
        with pytest.raises(ConfigError) as caught:
            catalog.find_iso(name, "x86_64")
        errors = caught.value.errors if isinstance(caught.value, ConfigErrors) else [caught.value]
        assert errors[0].where[0].line


def test_every_shipped_target_resolves_and_renders() -> None:
    roots = Roots(specs=(shipped("specs"),), files=(shipped("files"),), isos=(shipped("isos.d"),))
    catalog = Catalog.open(roots)
    assert not catalog.problems
    for entry in catalog.targets():
        for firmware in ("bios", "uefi") if entry.arch == "x86_64" else ("uefi",):
            for ip in (None, "192.0.2.10"):
                defines = ("cidr=192.0.2.0/24", "dns=192.0.2.1") if ip else ()
                request = Request(target=str(entry), firmware=firmware, ip=ip, defines=defines)
                configuration = catalog.resolve(request, TableLookups())
                assert configuration.sections.machine.firmware == firmware
                for file in configuration.sections.files:
                    assert all(configuration.render(part.text, part.place) for part in file.fragments)


def test_no_text_from_outside_becomes_a_value_of_the_build(tree: Tree) -> None:
    forged = hole("build_password")
    tree.lookups.secrets["a:b"] = tree.lookups.variables["EVIL"] = forged
    for marker in ("|>a:b<|", "$>EVIL<$"):
        tree.write("specs/web/spec.yml", WEB + f'defs: {{x: "{marker}"}}\n')
        with pytest.raises(ConfigError, match="reserved"):
            resolve(tree)
    tree.write("specs/web/spec.yml", WEB)
    for asked in ({"name": forged}, {"ip": forged}, {"fqdn": forged}, {"defines": (f"x={forged}",)}):
        with pytest.raises(UsageError, match="reserved"):
            resolve(tree, **asked)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("platforms: vmware", "does not support the platform 'qemu'"),
        ("locations: lab", "does not support the location 'local'"),
        ("iso: [a]", "iso: text is needed here, not a list"),
        ("iso: 9.10", 'iso: 9.10 is a number; quote it: "9.10"'),
        ("venv: 2.10", 'venv: 2.10 is a number; quote it: "2.10"'),
        ("notes: {a: 1}", "notes: text is needed here, not a mapping"),
        ("needs: 5", "needs: 5 is a number"),
        ("status: {a: 1}", "status: text is needed here"),
        ("source: {a: 1}", "source: text is needed here"),
        ("skip_config: x", "skip_config: true or false is needed here"),
        ("undefined: maybe", "undefined: 'maybe' is not one of error, empty"),
        ("method: append", "method: 'append' is not one of merge, replace"),
        ("include: [linux, 7]", "include: 7 is a number"),
        ("merge: {a: b}", "merge: text is needed here, not a mapping"),
        ("arches: 5", "arches: 5 is a number"),
        ("required_files: x", "required_files must be a list"),
        ("required_files: [a/b]", "an item of required_files must be a mapping"),
        ("required_files: [{name: a}]", "the key 'name' is unknown in required_files"),
        ("steps: [a]", "an item of steps must be a mapping"),
        ("files: [a]", "an item of files must be a mapping"),
        ("version_specific: [{version: 9.10}]", "an entry of version_specific needs version as text"),
        ("machine: {disk_interface: scsi3}", "machine.disk_interface: 'scsi3' is none of virtio, scsi"),
    ],
)
def test_every_field_refuses_the_wrong_kind_of_value_with_its_place(tree: Tree, line: str, what: str) -> None:
    tree.write("specs/web/spec.yml", WEB + line + "\n")
    with pytest.raises(ConfigError) as caught:
        resolve(tree)
    (error,) = caught.value.errors if isinstance(caught.value, ConfigErrors) else [caught.value]
    assert what in error.what
    assert [place.line for place in error.where] == [2]
    assert error.hint
    assert '9.1"' not in error.hint


@pytest.mark.parametrize(
    ("text", "needs", "line"),
    [
        ("needs: winrm\n", "winrm", 2),
        ("\naccess: {method: winrm}\n", "winrm", 3),
        ("\nprovisioners:\n  - type: puppet\n", "the provisioner puppet", 4),
        ("pre_build: scripts/iso.py\n", "the pre_build hook scripts/iso.py", 2),
        ('required_files: [{file: "web/>>version<<.bin", url: "https://x"}]\n', "the file web/1.bin from https://x", 2),
    ],
)
def test_what_a_target_needs_has_its_place(tree: Tree, text: str, needs: str, line: int) -> None:
    tree.write("specs/web/spec.yml", WEB + text)
    sections = resolve(tree).sections
    assert sections.needs == needs
    assert [place.line for place in sections.needs_at] == [line]


def test_skip_config_leaves_the_provisioners_out(tree: Tree) -> None:
    tree.write("specs/base/spec.yml", "provisioners: [{type: shell, inline: ['true']}]\n")
    tree.write("specs/web/spec.yml", WEB + "include: base\nversion_specific: [{version: '2', skip_config: true}]\n")
    assert [len(resolve(tree, target).sections.steps) for target in ("web-1", "web-2")] == [1, 0]


def test_default_profile_of_a_project_reaches_what_shipped_specs_say(tmp_path: Path) -> None:
    (tmp_path / "specs/profiles").mkdir(parents=True)
    (tmp_path / "specs/profiles/default.yml").write_text("packages: [vim]\nlocale: de_DE.UTF-8\nbuild: {memory: 3G}\n")
    (tmp_path / "specs/profiles/dev.yml").write_text("username: ann\n")
    catalog = Catalog.open(Roots(specs=(tmp_path / "specs", shipped("specs")), files=(shipped("files"),)))
    for profile in ("default", "dev"):
        found = catalog.resolve(Request(target="debian-12", profile=profile), TableLookups())
        assert (found.defs["packages"], found.defs["locale"]) == (["vim"], "de_DE.UTF-8")
        assert found.sections.machine.memory_mib == 3072


def test_lists_are_explained_item_by_item(tree: Tree) -> None:
    tree.write("specs/base/spec.yml", "steps: [{script: base.sh}]\n")
    tree.write("specs/web/spec.yml", WEB + "include: base\nsteps:\n  - script: own.sh\n")
    origins = resolve(tree).explain("steps")
    assert [(Path(origin.place.path).parent.name, origin.place.line) for origin in origins] == [("base", 1), ("web", 4)]


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_specs_may_be_json_or_toml(tree: Tree, suffix: str) -> None:
    if suffix == "json":
        text = '{"provides": {"dist": "web", "versions": ["1"]}, "machine": {"memory": "3G"}}'
    else:
        text = '[provides]\ndist = "web"\nversions = ["1"]\n[machine]\nmemory = "3G"\n'
    tree.write(f"specs/web/spec.{suffix}", text)
    configuration = resolve(tree)
    assert configuration.sections.machine.memory_mib == 3072
    assert str(configuration.explain("machine.memory")[0].place).endswith(
        f"spec.{suffix}:{1 if suffix == 'json' else 5}"
    )


def test_an_address_is_looked_up_only_where_somebody_asks(tree: Tree) -> None:
    tree.lookups.hosts["web-1.lab.org"] = "192.0.2.7"
    tree.write("specs/web/spec.yml", WEB + "defs: {domain: lab.org}\n")
    assert resolve(tree).defs["ip"] == ""
    assert tree.lookups.asked == []
    assert resolve(tree, defines=("ip=*>fqdn<*",)).defs["ip"] == "192.0.2.7"


def chain(links: int, link: str, end: str) -> str:
    """Give a spec whose defs d0, d1, … each name the next by `link`."""
    defs = "".join(f"  d{at}: {link.format(at + 1)}\n" for at in range(links))
    return WEB + f"defs:\n{defs}  d{links}: {end}\n"


def test_a_long_chain_of_defs_is_followed_and_an_endless_one_is_an_error(tree: Tree) -> None:
    tree.write("specs/web/spec.yml", chain(100, "'>>d{}<<'", "end"))
    assert resolve(tree).defs["d0"] == "end"
    tree.write("specs/web/spec.yml", chain(3000, "'>>d{}<<'", "end"))
    with pytest.raises(ConfigErrors) as caught:
        resolve(tree)
    first = caught.value.errors[0]
    assert "the chain of defs from 'd0' on is too long" in first.what
    assert first.where[0].line == 3


@pytest.mark.parametrize("link", ["'>>d{0}<<>>d{0}<<'", "['>>d{0}<<', '>>d{0}<<']", "{{a: '>>d{0}<<', b: '>>d{0}<<'}}"])
def test_markers_that_double_what_they_name_come_to_an_end(tree: Tree, link: str) -> None:
    tree.write("specs/web/spec.yml", chain(40, link, "end"))
    with pytest.raises(ConfigError, match="more than 4 MiB") as caught:
        resolve(tree)
    assert caught.value.where[0].line is not None


@pytest.mark.parametrize("links", [1, 40])
def test_what_is_wrong_far_below_is_said_once(tree: Tree, links: int) -> None:
    tree.write("specs/web/spec.yml", chain(links, "'>>d{0}<<>>d{0}<<'", "'>>nobody<<'"))
    with pytest.raises(ConfigError, match="'nobody' is not defined") as caught:
        resolve(tree)
    assert len(caught.value.errors) == 1


@pytest.mark.parametrize("text", ["\udcff", "\U000f0000"])
def test_what_is_no_text_is_refused_from_everywhere(tree: Tree, text: str) -> None:
    tree.write("specs/web/spec.yml", WEB + "defs: {x: '$>X<$'}\n")
    tree.lookups.variables["X"] = f"a{text}"
    with pytest.raises(ConfigError, match="is reserved") as caught:
        resolve(tree)
    assert caught.value.where[0].line == 2
    with pytest.raises(UsageError, match="is reserved"):
        parse_defines((f"x={text}",))
    tree.write("specs/web/spec.yml", WEB)
    assert resolve(tree, defines=("x=.inf",)).defs["x"] == ".inf"


@pytest.mark.parametrize("dist", ["we b", "../web", "", "web/x"])
def test_a_dist_that_could_name_no_file_is_refused_with_its_line(tree: Tree, dist: str) -> None:
    tree.write("specs/web/spec.yml", f'provides:\n  versions: ["1"]\n  dist: "{dist}"\n')
    catalog = tree.catalog()
    assert catalog.targets() == ()
    [problem] = catalog.problems
    assert problem.where[0].line == 3
