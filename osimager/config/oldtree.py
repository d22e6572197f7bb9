"""A data tree of OSImager 1.x (`--data-dir`): its targets, its defs and the Packer build that it stands for.

The rules are the peer's, but for its bugs; `docs/osimager-1.x.md` lists those that are mended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlparse

from osimager.config.configuration import Defs, make_renderer, render_keys
from osimager.config.documents import Table
from osimager.config.lookups import Lookups
from osimager.config.markers import Renderer, as_text
from osimager.config.merge import Merged, Merger
from osimager.config.network import cidr_values, qualified_name, search_list, server_list, server_values
from osimager.config.provisioners import without_vault
from osimager.config.request import Request
from osimager.config.resolve import (
    check_asked,
    check_support,
    checked,
    find_included,
    parse_define,
    parse_defines,
    required,
)
from osimager.config.sections import Origin, Target
from osimager.config.values import Value
from osimager.errors import ConfigError, Place

if TYPE_CHECKING:
    from osimager.config.catalog import Catalog

_SETTINGS: Final = Place("(settings)")
_BUILT_IN: Final = Place("(built in)")
# Names that OSImager's own platforms ask for though only some specs have them.
_OPTIONAL: Final = frozenset(
    ("ansible_extra_args", "ansible_extra_vars", "cd_files", "cd_label", "iso_checksum", "iso_name", "iso_url")
)
_EVARS: Final = {
    "ANSIBLE_RETRY_FILES_ENABLED": "False",
    "ANSIBLE_WARNINGS": "False",
    "ANSIBLE_NOCOWS": "1",
    "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "False",
    "ANSIBLE_STDOUT_CALLBACK": "minimal",
}
_EXTRA_VARS: Final = (
    "platform={{user `platform-name`}} location_name={{user `location-name`}} spec_name={{user `spec-name`}}"
    ' spec_config={{user `spec-config`}} install_dir=">>install_path<<" {{user `ansible-opts`}} >>ansible_extra_vars<<'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OldSettings:
    """OSImager's settings file, the keys that configuration depends on, and the folders of this build."""

    user_dir: Path
    values: Mapping[str, Value] = field(default_factory=dict)
    temp_dir: str = "/tmp"  # noqa: S108  only a text in defs: nothing is written there
    build_id: str = "packer-000000000000"
    home: Path = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class OldBuild:
    """What OSImager 1.x would hand to Packer: `config` is the one builder, `render_files` gives the generated files."""

    target: Target
    spec: Path
    defs: Mapping[str, Value]
    variables: Mapping[str, Value]
    evars: Mapping[str, Value]
    config: Mapping[str, Value]
    provisioners: tuple[tuple[Value, Place], ...]
    fields: Mapping[str, Value]
    merged: Merged
    renderer: Renderer
    names: Defs
    render_files: Callable[[], dict[str, str]]
    warnings: tuple[str, ...] = ()

    def packer(self) -> dict[str, Value]:
        """Give the build as `mkosimage -u` prints it."""
        return {
            "variables": dict(self.variables),
            "provisioners": [value for value, _ in self.provisioners],
            "builders": [dict(self.config)],
        }


def resolve_old(catalog: Catalog, request: Request, lookups: Lookups, settings: OldSettings) -> OldBuild:
    """Resolve a target of an old tree. Raises UsageError, ConfigError as the native engine does."""
    check_asked(request.name, request.ip, request.fqdn)
    platform, location, entry = catalog.find_target(request)
    target = Target(platform, location, entry.dist, entry.version, entry.arch)
    merged = Merged()
    typed = parse_defines(request.defines)
    if request.firmware is not None:
        typed.setdefault("firmware", {"uefi": "efi"}.get(request.firmware, request.firmware))
    _lay_settings(merged, catalog, settings, target)
    asked = {key: parse_define(text) for key, text in typed.items()}
    merger = Merger(merged, asked, lambda name, where: find_included(catalog, name, where))
    _lay_files(catalog, target, merger, entry.spec)
    defines = {key: parse_define(text, merged.tables["defs"].get(key)) for key, text in typed.items()}
    folders = {"data_path": str(catalog.roots.old_tree), "spec_dir": str(entry.spec.parent)}
    fixed: dict[str, Value] = {**_fixed(request, target, merged, settings), **folders}
    defs = Defs(merged, defines, fixed, request.given)
    defs.may_be_undefined = True
    defs.optional = _OPTIONAL
    wrong = [error for path in merger.loaded for error in catalog.checked.get(path, ())]
    renderer = make_renderer(defs, lookups)
    _add_computed(defs, request, str(fixed["name"]), settings)
    render_keys(merged, renderer)
    old = _Old(catalog, target, defs, renderer)
    old.warnings = [f"{error.what}; {error.hint} ({error.where[0]})" for error in wrong]
    return old.build(entry.spec)


def _lay_settings(merged: Merged, catalog: Catalog, settings: OldSettings, target: Target) -> None:
    """Lay the settings, and what must be known before `*_specific`."""
    package = str((catalog.roots.old_tree or Path("/")).parent)
    built_in: dict[str, Value] = {
        "base_dir": package,
        "user_dir": str(settings.user_dir),
        "packer_cmd": "packer",
        "ansible_playbook": "config.yml",
        "iso_path": "/iso",
        "local_only": False,
        "cpu_sockets": 1,
        "cpu_cores": 2,
        "memory": 2048,
        "boot_disk_size": 16384,
        "credential_source": "vault",
        "vault_addr": "",
        "vault_token": "",
        **settings.values,
        "base_path": package,
        "install_path": str(settings.user_dir / "install"),
        **{key: getattr(target, key) for key in ("platform", "location", "dist", "version", "arch")},
    }
    for key, value in built_in.items():
        merged.put("defs", key, value, Origin(_SETTINGS, "settings", value))
    for key, text in _EVARS.items():
        merged.put("evars", key, text, Origin(_BUILT_IN, "built in", text))
    ansible: dict[str, Value] = {
        "type": "ansible",
        "playbook_file": ">>ansible_playbook<<",
        "extra_arguments": ["[>ansible_extra_args<]", "--extra-vars", _EXTRA_VARS],
    }
    merged.lists["provisioners"].append((ansible, Origin(_BUILT_IN, "built in", None)))


def _lay_files(catalog: Catalog, target: Target, merger: Merger, spec: Path) -> None:
    merged = merger.merged
    merger.load(required(catalog, "platforms", target.platform))
    for key in ("platforms", "locations"):
        merged.fields.pop(key, None)
    protected = merged.fields.get("platform_defs")
    if isinstance(protected, Table):
        for key, value in protected.items():
            merged.put("defs", key, value, Origin(protected.place(key), "platform_defs", value))
        merger.protected = set(protected)
    location = catalog.find_file("locations", target.location)
    if location is not None or target.location != "local":
        merger.load(required(catalog, "locations", target.location))
        check_support(target, merged)
    merged.fields.pop("platforms", None)
    merger.load(checked(catalog, "spec", spec))
    check_support(target, merged)


def _fixed(request: Request, target: Target, merged: Merged, settings: OldSettings) -> dict[str, Value]:
    """Give what nothing but `-D` may change."""
    spec_name = f"{target.dist}-{target.version}-{target.arch}"
    parts = target.version.split(".")
    return {
        "platform": target.platform,
        "platform_name": target.platform,
        "platform_type": as_text(merged.tables["config"].get("type", target.platform)),
        "location": target.location,
        "location_name": target.location,
        "spec_name": spec_name,
        "dist": target.dist,
        "version": target.version,
        "major": parts[0],
        "minor": parts[1] if len(parts) > 1 else "",
        "arch": target.arch,
        "user_dir": str(settings.user_dir),
        "temp_dir": settings.temp_dir,
        "tmpdir": settings.temp_dir,
        "build_id": settings.build_id,
        "name": request.name or spec_name,
        "ip": request.ip or "",
    }


def _add_computed(defs: Defs, request: Request, name: str, settings: OldSettings) -> None:
    """Add what follows from other defs; these win over the files as in OSImager."""
    raw = defs.merged.tables["defs"]

    def take(key: str, value: Callable[[], Value]) -> None:
        raw.pop(key, None)
        defs.computed[key] = value

    network: dict[str, str] = {}
    dns, ntp = (defs.value(key, None) if defs.is_defined(key) else None for key in ("dns", "ntp"))
    cidr = defs.text("cidr")
    if cidr and "/" in cidr:
        try:
            network = cidr_values(cidr)
        except ValueError as exc:
            where = defs.merged.place("defs", "cidr")
            raise ConfigError(f"cidr: {exc}", where=where, hint="correct cidr") from None
    for key in ("subnet", "prefix"):
        take(key, lambda key=key: network.get(key, ""))  # type: ignore[misc]
    if not defs.text("gateway"):
        take("gateway", lambda: network.get("gateway", ""))
    take("gw", lambda: defs.value("gateway", None))
    if network and not defs.text("netmask"):
        take("netmask", lambda: network["netmask"])
    take("dns_search", lambda: " ".join(search_list(dns)))
    for key, server in {**server_values("dns", server_list(dns)), **server_values("ntp", server_list(ntp))}.items():
        take(key, lambda server=server: server)  # type: ignore[misc]
    take(
        "fqdn",
        lambda: qualified_name(name, is_given=request.name is not None, asked=request.fqdn, domain=defs.text("domain")),
    )
    short = name.partition(".")[0] if request.name else re.sub(r"[^A-Za-z0-9-]", "-", name)
    take("hostname", lambda: short)
    iso_path = str(settings.home / as_text(raw.get("iso_path"))).rstrip("/")
    raw["iso_path"] = as_text(settings.values.get("iso_path", "/iso")) if iso_path == "" else iso_path
    if isinstance(raw.get("vms_path"), str) and raw["vms_path"]:
        defs.replace("vms_path", str(settings.home / as_text(defs.value("vms_path", None))).rstrip("/"))
    if defs.text("iso_url") and not raw.get("iso_name"):
        take("iso_name", lambda: _file_name(defs.text("iso_url")))
    image = bool(raw.get("disk_image_url"))
    if image and not raw.get("disk_image_name"):
        take("disk_image_name", lambda: _file_name(defs.text("disk_image_url")))
    take("image_import", lambda: "true" if image else "")


def _file_name(url: str) -> str:
    """Give the name a URL's file is kept by."""
    path = url if url.startswith("/") else urlparse(url).path
    return unquote(path.rpartition("/")[2]).replace(" ", "-")


class _Old:
    """Render the sections of one old target."""

    def __init__(self, catalog: Catalog, target: Target, defs: Defs, renderer: Renderer) -> None:
        self.catalog, self.target, self.defs, self.renderer = catalog, target, defs, renderer
        self.merged = defs.merged
        self.warnings: list[str] = []

    def build(self, spec: Path) -> OldBuild:
        """Give the whole build."""
        defs = {name: self.defs.value(name, None) for name in self.defs}
        self._use_local_iso(defs)
        merged = self.merged
        variables = {key: self.value("variables", key) for key in merged.tables["variables"]}
        fqdn = as_text(defs["fqdn"])
        variables |= {
            "platform-name": self.target.platform,
            "location-name": self.target.location,
            "spec-name": as_text(defs["spec_name"]),
            "spec-config": as_text(defs.get("spec_config", "tasks/spec.yml")),
            "name": as_text(defs["name"]),
            "fqdn": fqdn,
        }
        evars, config, provisioners = self.evars(), self.config(), tuple(self.provisioners())
        undefined = tuple(
            f"{name!r} is not defined ({where})"
            for name, where in self.defs.undefined.items()
            if where is not _BUILT_IN
        )
        return OldBuild(
            target=self.target,
            spec=spec,
            defs=defs,
            variables=variables,
            evars=evars,
            config=config,
            provisioners=provisioners,
            fields=dict(merged.fields),
            merged=merged,
            renderer=self.renderer,
            names=self.defs,
            render_files=self.files,
            warnings=(*self.warnings, *undefined),
        )

    def _use_local_iso(self, defs: dict[str, Value]) -> None:
        """A file that lies in `iso_path` already is used, not downloaded again."""
        url = as_text(defs.get("iso_url"))
        path = url.removeprefix("file://") if url.startswith("file://") else f"{defs['iso_path']}/{_file_name(url)}"
        if url and not defs.get("local_only") and Path(path).is_file():
            defs["local_only"] = True
            self.defs.replace("local_only", True)

    @property
    def is_skipped(self) -> bool:
        """Tell whether the spec wants no post-install configuration."""
        return bool(self.merged.fields.get("skip_config"))

    def evars(self) -> dict[str, Value]:
        """Give what the environment gets: also the virtual environment of the Ansible that the spec names."""
        evars = {key: self.value("evars", key) for key in self.merged.tables["evars"]}
        evars["RES_OPTIONS"] = f"nameserver {self.defs.text('dns1')}"
        version = self.merged.fields.get("ansible_version")
        if version and not self.is_skipped:
            path = self.renderer.lookups.environment("PATH") or ""
            evars["PATH"] = f"{self.defs.text('venv_dir')}/{as_text(version)}/bin:{path}"
        return evars

    def value(self, section: str, key: str) -> Value:
        raw = without_vault(self.merged.tables[section][key])
        return self.renderer.resolve_value(raw, self.merged.place(section, key))

    def config(self) -> dict[str, Value]:
        """Give the builder; an empty text counts as not given."""
        table = self.merged.tables["config"]
        left_out = set()
        if not self.defs.value_or("boot", True):
            left_out |= {"boot_command", "boot_wait"}
        if not self.defs.value_or("shutcmd", True):
            left_out |= {"shutdown_command"}
        config = {key: self.value("config", key) for key in table if key not in left_out}
        config["name"] = self.defs.text("spec_name")
        return {key: value for key, value in config.items() if not _is_empty(value, table.get(key))}

    def provisioners(self) -> list[tuple[Value, Place]]:
        """Give all provisioners in their order, each with its place."""
        if self.is_skipped:
            return []
        lists = self.merged.lists
        items = [*lists["pre_provisioners"], *lists["provisioners"], *lists["post_provisioners"]]
        return [(self.renderer.resolve_value(without_vault(raw), at.place), at.place) for raw, at in items]

    def files(self) -> dict[str, str]:
        """Give the generated files by their names. Raises ConfigError for a source that does not exist."""
        texts: dict[str, str] = {}
        for raw, origin in self.merged.lists["files"]:
            item = self.renderer.resolve_value(raw, origin.place)
            if isinstance(item, dict) and item.get("dest"):
                texts[as_text(item["dest"])] = self.file(item.get("sources"), origin.place)
        return texts

    def file(self, sources: Value, where: Place) -> str:
        parts = []
        for name in sources if isinstance(sources, list) else ():
            fragment = self.catalog.load_fragment(as_text(name), where)
            parts.append(self.renderer.render(fragment.text, fragment.place))
        return "".join(parts)


def _is_empty(value: Value, raw: Value) -> bool:
    """Tell whether a builder's value counts as not given: an empty text, or a marker that came to nothing."""
    return value == "" or (value is None and raw is not None)
