"""From a request to a Configuration: lay the files over one another, follow the markers, check the sections."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from osimager.config import models
from osimager.config.configuration import Configuration, Defs, add_computed, make_renderer, render_keys
from osimager.config.documents import Items, Table, parse_scalar
from osimager.config.escapes import shell
from osimager.config.lookups import Lookups
from osimager.config.markers import Renderer, as_list, as_text
from osimager.config.merge import BUILDER_KEYS, Merged, Merger
from osimager.config.network import is_address, is_host_name
from osimager.config.plain_values import value_problems
from osimager.config.profiles import profile_tables
from osimager.config.provisioners import Needs, Provisioners, places_of, without_vault
from osimager.config.request import DEFAULT_PROFILE, Request
from osimager.config.sections import FileSection, Fragment, MachineSection, Origin, Sections, StepSection, Target
from osimager.config.shapes import check_shape
from osimager.config.values import Value, scalar_problem
from osimager.errors import ConfigError, Place, UsageError, raise_all

if TYPE_CHECKING:
    from osimager.config.catalog import Catalog

T = TypeVar("T")
_BUILT_IN = Place("(built in)")


def check_asked(*texts: str | None) -> None:
    """Refuse what a person typed that is no text, or could be taken for a value that only the build knows."""
    for text in filter(None, texts):
        if problem := scalar_problem(text):
            raise UsageError(f"{text!r}: {problem}", hint="take it out")


def _check_host(request: Request) -> None:
    """Refuse a name or an address that no installer would take: it would stop and ask. Raises UsageError."""
    for option, text in (("--name", request.name), ("--fqdn", request.fqdn)):
        if text is not None and not is_host_name(text):
            hint = "letters, digits and '-', in parts of at most 63 with dots between them"
            raise UsageError(f"{option} {text!r} is not a host name", hint=hint)
    if request.ip not in (None, "", "dhcp") and not is_address(request.ip):
        raise UsageError(f"--ip {request.ip!r} is not an address", hint="such as --ip 192.168.77.10, or --ip dhcp")


def parse_defines(defines: tuple[str, ...]) -> dict[str, str]:
    """Split `-D` arguments: at a comma only where every part is KEY=VALUE. Raises UsageError."""
    found: dict[str, str] = {}
    check_asked(*defines)
    for text in defines:
        parts = text.split(",")
        if not all(re.match(r"\s*[A-Za-z_][\w.-]*\s*=", part) for part in parts):
            parts = [text]
        for part in parts:
            key, equals, value = part.partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z_][\w.-]*", key.strip()):
                raise UsageError(f"-D {text!r} is not KEY=VALUE", hint="such as -D memory=4096")
            found[key.strip()] = value.strip()
    return found


def parse_define(text: str, below: Value = "") -> Value:
    """Give what `-D` means by its text: a YAML scalar, but a text where `below`, the value that it replaces, is one."""
    if text.startswith(('"', "'")):
        from osimager.config.documents_yaml import load_yaml

        try:
            quoted = load_yaml(Path("-D"), text)
        except ConfigError:
            quoted = None
        return quoted if isinstance(quoted, str) else text
    value = text if isinstance(below, str) else parse_scalar(text)
    return text if scalar_problem(value) else value


def resolve(catalog: Catalog, request: Request, lookups: Lookups) -> Configuration:
    """Resolve one target. Raises UsageError for an unknown one, ConfigErrors with all that is wrong in its files."""
    check_asked(request.name, request.ip, request.fqdn)
    _check_host(request)
    platform, location, entry = catalog.find_target(request)
    target = Target(platform, location, entry.dist, entry.version, entry.arch)
    typed = parse_defines(request.defines)
    asked: dict[str, Value] = {} if request.firmware is None else {"firmware": request.firmware}
    merged = Merged()
    merger = Merger(
        merged,
        defines={key: parse_define(text) for key, text in typed.items()} | asked,
        include=lambda name, where: find_included(catalog, name, where),
        builder_keys=BUILDER_KEYS,
    )
    _lay_all(catalog, request, target, merger, spec=entry.spec)
    defines = {key: parse_define(text, merged.tables["defs"].get(key)) for key, text in typed.items()} | asked
    fixed = _fixed_defs(target, request)
    defs = Defs(merged, defines, fixed, request.given)
    renderer = make_renderer(defs, lookups)
    defs.may_be_undefined = merged.fields.get("undefined") == "empty"
    add_computed(defs, request, str(fixed["name"]))
    defs.computed["late_command"] = lambda: late_command(catalog, renderer, request.profile)
    render_keys(merged, renderer)
    return _configure(catalog, request, target=target, defs=defs, renderer=renderer, spec=entry.spec)


def late_command(catalog: Catalog, renderer: Renderer, profile: str) -> str:
    """Give the line that runs `files/late/PROFILE.sh`, else `files/late/default.sh`, in what was installed.

    One line of words in plain quotes, which every format of answer files can carry; empty where there is no such file.
    Raises ConfigError for a marker in it that is wrong.
    """
    names = (f"late/{profile}.sh", "late/default.sh")
    found = next((name for name in names if catalog.find_source(name) is not None), None)
    if found is None:
        return ""
    fragment = catalog.load_fragment(found, _BUILT_IN)
    lines = renderer.render(fragment.text, fragment.place).splitlines()
    words = " ".join(map(shell, lines))
    return f"printf '%s\\n' {words} > /root/late.sh && sh /root/late.sh && rm /root/late.sh"


def _fixed_defs(target: Target, request: Request) -> dict[str, Value]:
    major, _, rest = target.version.partition(".")
    fixed: dict[str, Value] = {
        "platform": target.platform,
        "platform_name": target.platform,
        "location": target.location,
        "location_name": target.location,
        "dist": target.dist,
        "version": target.version,
        "major": major,
        "minor": rest.partition(".")[0],
        "arch": target.arch,
        "spec_name": f"{target.dist}-{target.version}-{target.arch}",
        "profile": request.profile,
        "name": request.name or re.sub(r"[^A-Za-z0-9-]", "-", target.name),
    }
    if request.ip is not None:
        fixed["ip"] = request.ip
    if domain := (request.fqdn or request.name or "").partition(".")[2]:
        fixed["domain"] = domain
    return fixed


def _lay_all(catalog: Catalog, request: Request, target: Target, merger: Merger, *, spec: Path) -> None:
    """Lay, from the bottom: built-in values, platform, location, spec, the default profile, the profile asked for."""
    merged = merger.merged
    for key in ("platform", "location", "dist", "version", "arch"):
        merged.tables["defs"][key] = getattr(target, key)
    _put(merged, "firmware", "uefi" if target.arch == "aarch64" else "bios")
    merger.load(required(catalog, "platforms", target.platform))
    location = catalog.find_file("locations", target.location)
    if location is not None:
        merger.load(checked(catalog, "location", location))
    elif target.location != "local":
        raise _unknown_name(catalog, "locations", target.location)
    merger.load(checked(catalog, "spec", spec))
    default = catalog.find_file("profiles", "default")
    below = checked(catalog, "profile", default) if default else None
    asked = None if request.profile == DEFAULT_PROFILE else required(catalog, "profiles", request.profile)
    for profile in profile_tables(below, asked, target.arch):
        merger.load(profile)
    check_support(target, merged)


def checked(catalog: Catalog, kind: str, path: Path) -> Table:
    """Give the document at `path`. Raises ConfigErrors for all that is wrong with its keys; in an old tree they are
    kept as warnings.
    """
    document = catalog.document(path)
    if path not in catalog.checked:
        catalog.checked[path] = check_shape(kind, document)
    if catalog.roots.old_tree is None:
        raise_all(catalog.checked[path])
    return document


def _put(merged: Merged, key: str, value: Value) -> None:
    merged.put("defs", key, value, Origin(_BUILT_IN, "built in", value))


def required(catalog: Catalog, kind: str, name: str) -> Table:
    """Give the document of a platform, location or profile. Raises UsageError that lists the known ones."""
    path = catalog.find_file(kind, name)
    if path is None:
        raise _unknown_name(catalog, kind, name)
    return checked(catalog, kind[:-1], path)


def _unknown_name(catalog: Catalog, kind: str, name: str) -> UsageError:
    return UsageError(f"there is no {kind[:-1]} {name!r}", hint=f"there are: {', '.join(catalog.names_of(kind))}")


def find_included(catalog: Catalog, name: str, where: Place) -> Table:
    """Give the spec that `include` names. Raises ConfigError at the include's place."""
    path = catalog.find_file("", name)
    if path is None:
        roots = ", ".join(str(root) for root in catalog.roots.specs)
        raise ConfigError(f"the included spec {name!r} does not exist", where=where, hint=f"looked in {roots}")
    return checked(catalog, "spec", path)


def check_support(target: Target, merged: Merged) -> None:
    """Refuse a target whose spec or location names other platforms or locations."""
    for key, asked in (("platforms", target.platform), ("locations", target.location)):
        named = as_list(merged.fields.get(key))
        if named and asked not in named:
            what = f"{target.name} does not support the {key[:-1]} {asked!r}"
            hint = f"it supports {', '.join(map(as_text, named))}"
            raise ConfigError(what, where=merged.place("", key), hint=hint)


def hook_needs(merged: Merged, *hooks: str) -> Needs:
    """Give those of the `hooks` (`pre_build`, `post_build`) that the files name: they are Python of OSImager's own."""
    return {
        f"the {hook} hook {script}": merged.place("", hook)
        for hook in hooks
        if (script := as_text(merged.fields.get(hook)))
    }


def missing_files(wanted: Value, catalog: Catalog) -> list[str]:
    """Give what to say of each of `required_files`, its markers resolved, that is in no `files` folder."""
    found = []
    for entry in wanted if isinstance(wanted, list) else ():
        name, url = (as_text(entry.get(key)) if isinstance(entry, dict) else "" for key in ("file", "url"))
        if catalog.find_source(name) is None:
            found.append(f"the file {name}" + (f" from {url}" if url else ""))
    return found


class _Collector:
    """Run checks one after another and keep what is wrong, to say all of it at once."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []

    def take(self, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except ConfigError as exc:
            self.errors += exc.errors
        return None

    def done(self) -> None:
        unique = {(error.what, error.where): error for error in self.errors}
        raise_all(list(unique.values()))


def _configure(
    catalog: Catalog, request: Request, *, target: Target, defs: Defs, renderer: Renderer, spec: Path
) -> Configuration:
    errors, merged = _Collector(), defs.merged
    values = {name: errors.take(lambda name=name: defs.value(name, None)) for name in defs}  # type: ignore[misc]
    errors.errors += value_problems(values, lambda name: next((o.place for o in defs.origins(name)), None))
    sections = _Sections(catalog, merged, renderer, errors, defs).make()
    iso: Value = request.iso
    if iso is None and "iso" in merged.fields:
        iso = errors.take(lambda: renderer.resolve_value(merged.fields["iso"], merged.place("", "iso")))
    errors.done()
    assert sections is not None
    unread = tuple(
        f"{key!r} under config has no counterpart and is left out ({merged.place('config', key)})"
        for key in merged.tables["config"]
        if key not in BUILDER_KEYS
    )
    undefined = tuple(
        f"{name!r} is not defined" + (f" ({where})" if where else "") for name, where in defs.undefined.items()
    )
    return Configuration(
        target=target,
        profile=request.profile,
        spec=spec,
        defs=values,
        sections=sections,
        iso=as_text(iso) or None,
        renderer=renderer,
        merged=merged,
        names=defs,
        warnings=(*unread, *undefined),
    )


class _Sections:
    """Render and check the sections of one target."""

    def __init__(self, catalog: Catalog, merged: Merged, renderer: Renderer, errors: _Collector, defs: Defs) -> None:
        self.catalog, self.merged, self.renderer, self.errors, self.defs = catalog, merged, renderer, errors, defs
        self.needs: Needs = {}

    def make(self) -> Sections | None:
        """Give all sections, or None where `errors` has what is wrong."""
        take = self.errors.take
        installer = take(lambda: models.make_installer(self.values("installer"), self.place_of("installer")))
        machine = take(self.machine)
        access = take(lambda: models.make_access(self.values("access"), self.place_of("access")))
        seal = take(lambda: models.make_seal(self.values("seal"), self.place_of("seal")))
        verify = take(lambda: models.make_verify(self.values("verify"), self.place_of("verify")))
        files = [take(lambda item=item: self.file(*item)) for item in self.merged.lists["files"]]  # type: ignore[misc]
        steps = [take(lambda item=item: self.step(*item)) for item in self.merged.lists["steps"]]  # type: ignore[misc]
        environment = take(lambda: {key: as_text(value) for key, value in self.values("evars").items()})
        packer_steps = take(self.packer_steps)
        take(self.find_needs)
        status, notes, venv, ansible = (
            take(lambda key=key: self.field(key))  # type: ignore[misc]
            for key in ("status", "notes", "venv", "ansible_version")
        )
        if installer is None or machine is None or access is None or seal is None or verify is None:
            return None
        own_steps = tuple(step for step in steps if step is not None)
        before, after = packer_steps or ((), ())
        return Sections(
            installer=installer,
            machine=machine,
            access=access,
            seal=seal,
            verify=verify,
            files=tuple({file.dest: file for file in files if file is not None}.values()),
            steps=(*before, *own_steps, *after),
            needs=", ".join(self.needs) or None,
            needs_at=places_of(self.needs),
            environment=environment or {},
            venv=as_text(venv) or as_text(ansible) or None,
            status=as_text(status) or None,
            notes=tuple(map(as_text, notes)) if isinstance(notes, list) else (as_text(notes),) if notes else (),
        )

    def field(self, key: str) -> Value:
        return self.renderer.resolve_value(self.merged.fields.get(key), self.merged.place("", key))

    def values(self, section: str) -> dict[str, Value]:
        """Render one table section; a value that comes to None counts as not given."""
        given: dict[str, Value] = {}
        for key, raw in self.merged.tables[section].items():
            value = self.renderer.resolve_value(without_vault(raw), self.merged.place(section, key))
            if value is not None:
                given[key] = value
        return given

    def find_needs(self) -> None:
        """Note what the target needs and there is not: by the spec's own word, its access, its required files."""
        if own := as_text(self.field("needs")):
            self.needs.setdefault(own, self.merged.place("", "needs"))
        if self.merged.tables["access"].get("method") == "winrm":
            self.needs.setdefault("winrm", self.merged.place("access", "method"))
        self.needs |= hook_needs(self.merged, "pre_build", "post_build")
        for missing in missing_files(self.field("required_files"), self.catalog):
            self.needs.setdefault(missing, self.merged.place("", "required_files"))

    def packer_steps(self) -> tuple[tuple[StepSection, ...], tuple[StepSection, ...]]:
        """Give the steps of Packer's provisioners, those before and after our own."""
        if self.merged.fields.get("skip_config") is True:
            return (), ()
        variables = self.values("variables")

        def of(section: str) -> list[StepSection]:
            found = []
            for raw, origin in self.merged.lists[section]:
                folder = Path(origin.place.path).parent
                maker = Provisioners(variables=variables, evars={}, folder=folder, place=origin.place, needs=self.needs)
                found += maker.steps(self.renderer.resolve_value(without_vault(raw), origin.place))
            return found

        before = (*of("pre_provisioners"), *of("provisioners"))
        return before, tuple(of("post_provisioners"))

    def place_of(self, section: str) -> models.PlaceOf:
        return lambda key: self.merged.place(section, key)

    def machine(self) -> MachineSection:
        values = {**self.values("machine"), "firmware": self.defs.value("firmware", None)}
        place_of = lambda key: self.merged.place("machine", key) or self.merged.place("defs", key)  # noqa: E731
        return models.make_machine(values, place_of)

    def item(self, raw: Value, origin: Origin, section: str) -> tuple[Table, dict[str, Value]]:
        """Give an item of a list as it is written, and resolved. Raises ConfigError for one that is no mapping."""
        if not isinstance(raw, Table):
            what = f"an item of {section} must be a mapping"
            raise ConfigError(what, where=origin.place, hint="write - KEY: VALUE")
        resolved = self.renderer.resolve_value(raw, origin.place)
        assert isinstance(resolved, dict)
        return raw, resolved

    def file(self, raw: Value, origin: Origin) -> FileSection:
        table, values = self.item(raw, origin, "files")
        found = models.check(models.FILE, values, "files", lambda key: table.place(key or None))
        sources = table.get("sources")
        places = sources if isinstance(sources, Items) else None
        fragments = [
            self.fragment(name, places.place(index) if places is not None else table.place("sources"))
            for index, name in enumerate(found["sources"])
            if name
        ]
        return FileSection(found["dest"], tuple(fragments), origin.place)

    def fragment(self, name: str, where: Place) -> Fragment:
        """Load a fragment; one that is named after the profile falls back to `default`."""
        profile = as_text(self.defs.value("profile", None))
        default = re.sub(rf"\b{re.escape(profile)}\b", "default", name)
        found = name if self.catalog.find_source(name) is not None else default
        return self.catalog.load_fragment(found if self.catalog.find_source(found) else name, where)

    def step(self, raw: Value, origin: Origin) -> StepSection:
        table, values = self.item(raw, origin, "steps")
        return models.make_step(values, origin.place, lambda key: table.place(key or None))
