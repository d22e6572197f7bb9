"""One target, resolved: defs, sections, and where every value came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from osimager.config.escapes import Escape
from osimager.config.lookups import Lookups
from osimager.config.markers import Names, Renderer, as_text, too_large
from osimager.config.merge import Merged
from osimager.config.network import check_servers, cidr_values, qualified_name, search_list, server_list, server_values
from osimager.config.request import Request
from osimager.config.sections import Origin, Sections, Target
from osimager.config.values import Value, is_too_large
from osimager.errors import ConfigError, Place
from osimager.holes import ANSWER_URL, BUILD_PASSWORD, BUILD_PASSWORD_CRYPT, BUILD_PUBLIC_KEY, hole

COMPUTED = Place("(computed)")
ASKED = Place("(command line)")
# Names that fragments may use though a location or spec says nothing of them.
_EMPTY_BY_DEFAULT = ("domain", "dns1", "dns2", "dns3", "ntp1", "ntp2", "proxy", "mirror", "ip")
_EMPTY_LISTS = ("packages", "scripts", "authorized_keys")
# What only a build knows: holes until then.
_HOLES = (ANSWER_URL, BUILD_PUBLIC_KEY, BUILD_PASSWORD, BUILD_PASSWORD_CRYPT)
_FREE_SECTIONS = ("defs", "variables", "evars", "config")
_EMPTY_NETWORK = ("subnet", "prefix", "netmask", "gateway")


class Defs(Names):
    """The defs of one target, resolved when they are asked for, each once.

    What wins: `given` by the caller, then `-D`, then `fixed` (target, name), then what files say; what follows from
    others (`computed`) fills the gaps, but for the names that only osimager knows.
    """

    def __init__(
        self, merged: Merged, defines: Mapping[str, Value], fixed: Mapping[str, Value], given: Mapping[str, Value]
    ) -> None:
        self.merged, self.defines, self.fixed, self.given = merged, defines, fixed, given
        self.computed: dict[str, Callable[[], Value]] = {}
        self.renderer: Renderer
        self.may_be_undefined = False
        self.optional: frozenset[str] = frozenset()
        self.undefined: dict[str, Place | None] = {}
        self._known: dict[str, Value] = {}
        self._active: list[str] = []
        self._failed: dict[str, ConfigError] = {}

    def __iter__(self) -> Iterator[str]:
        names = [self.merged.tables["defs"], self.fixed, self.computed, self.defines, self.given]
        return iter(dict.fromkeys(name for source in names for name in source))

    def is_defined(self, name: str) -> bool:
        """Tell whether anything gives `name`."""
        return any(name in source for source in (self.given, self.defines, self.fixed, self.merged.tables["defs"])) or (
            name in self.computed
        )

    def value(self, name: str, where: Place | None) -> Value:
        """Give the value of `name`, its chain of markers followed to the end. Raises ConfigError for a cycle."""
        if name in self._known:
            return self._known[name]
        if name in self._active:
            members = self._active[self._active.index(name) :]
            hint = "give one of them a value of its own"
            what = f"the def {name!r} depends on itself: {' → '.join([*members, name])}"
            self._failed |= dict.fromkeys(members, ConfigError(what, where=where, hint=hint))
        if name in self._failed:
            raise self._failed[name]
        self._active.append(name)
        try:
            value = self._checked(name, where)
        except ConfigError as exc:
            if self.is_defined(name):  # else each place that names it is told
                self._failed.setdefault(name, exc)
            raise
        finally:
            self._active.pop()
        self._known[name] = value
        return value

    def _checked(self, name: str, where: Place | None) -> Value:
        """Find a value. Raises ConfigError where the chain to it is too long to be followed, or it is too large."""
        try:
            value = self._find(name, where)
        except RecursionError:  # all of the chain remember this one error
            place, hint = self.merged.place("defs", self._active[0]), "let it name what it needs itself"
            what = f"the chain of defs from {self._active[0]!r} on is too long"
            raise ConfigError(what, where=place, hint=hint) from None
        if is_too_large(value):
            raise too_large(self.merged.place("defs", name) or where)
        return value

    def _find(self, name: str, where: Place | None) -> Value:
        if name in self.given:
            return self.given[name]
        if name in self.defines:
            return self.renderer.resolve_value(self.defines[name], ASKED)
        if name in self.fixed:
            return self.fixed[name]
        raw = self.merged.tables["defs"]
        if name in raw:
            return self.renderer.resolve_value(raw[name], self.merged.place("defs", name))
        if name in self.computed:
            return self.computed[name]()
        return self._undefined(name, where)

    def _undefined(self, name: str, where: Place | None) -> Value:
        head, _, rest = name.partition(".")
        if rest and self.is_defined(head):
            value = self.value(head, where)
            for part in rest.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                return value
        if name in self.optional:
            return ""
        if self.may_be_undefined:
            self.undefined.setdefault(name, where)
            return ""
        import difflib

        close = difflib.get_close_matches(name, list(self), 1)
        hint = f"did you mean {close[0]!r}?" if close else f"define it under defs, or with -D {name}=VALUE"
        raise ConfigError(f"{name!r} is not defined", where=where, hint=hint)

    def value_or(self, name: str, default: Value) -> Value:
        """Give the value of `name`, `default` where it is not defined."""
        return self.value(name, None) if self.is_defined(name) else default

    def replace(self, name: str, value: Value) -> None:
        """Let `name` have `value` from now on; what was resolved before keeps what it saw."""
        self._known[name] = value

    def text(self, name: str) -> str:
        """Give the value of `name` as text, nothing where it is not defined."""
        return as_text(self.value(name, None)) if self.is_defined(name) else ""

    def origins(self, name: str) -> tuple[Origin, ...]:
        """Give the origins of `name`, the winner first."""
        found = list(reversed(self.merged.origins.get("defs", {}).get(name, [])))
        for source, place, label in (
            (self.fixed, COMPUTED, "target"),
            (self.defines, ASKED, "-D"),
            (self.given, COMPUTED, "build"),
        ):
            if name in source:
                found.insert(0, Origin(place, label, source[name]))
        if not found and name in self.computed:
            found.append(Origin(COMPUTED, "computed", self.value(name, None)))
        return tuple(found)


def add_computed(defs: Defs, request: Request, name: str) -> None:
    """Teach `defs` what follows from the location's network and the host's name."""
    computed = defs.computed

    def network(key: str) -> Callable[[], Value]:
        def value() -> Value:
            cidr = defs.text("cidr")
            if not cidr:
                return ""
            try:
                return cidr_values(cidr)[key]
            except ValueError as exc:
                where = defs.merged.place("defs", "cidr")
                raise ConfigError(f"cidr: {exc}", where=where, hint="correct cidr") from None

        return value

    def servers(kind: str, key: str) -> Callable[[], Value]:
        return lambda: server_values(kind, server_list(raw(kind))).get(key, "")

    def raw(kind: str) -> Value:
        return defs.value(kind, None) if defs.is_defined(kind) else None

    for kind in ("dns", "ntp"):
        try:
            check_servers(raw(kind))
        except ValueError as exc:
            hint = f"write {kind}: {{servers: [ADDRESS]" + (", search: [DOMAIN]}" if kind == "dns" else "}")
            raise ConfigError(f"{kind}: {exc}", where=defs.merged.place("defs", kind), hint=hint) from None
    for key in _EMPTY_BY_DEFAULT:
        computed[key] = lambda: ""
    for key in _EMPTY_LISTS:
        computed[key] = list
    for key in _EMPTY_NETWORK:
        computed[key] = network(key)
    for key in _HOLES:
        computed[key] = lambda key=key: hole(key)  # type: ignore[misc]
    computed["gw"] = lambda: defs.value("gateway", None)
    computed["dns_search"] = lambda: " ".join(search_list(raw("dns")))
    for kind in ("dns", "ntp"):
        for number in range(1, max(3, len(server_list(raw(kind)))) + 1):
            computed[f"{kind}{number}"] = servers(kind, f"{kind}{number}")
    computed["fqdn"] = lambda: qualified_name(
        name, is_given=request.name is not None, asked=request.fqdn, domain=defs.text("domain")
    )
    computed["hostname"] = lambda: (request.name or request.fqdn or name).partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A target resolved: typed defs and sections, each value explained."""

    target: Target
    profile: str
    spec: Path
    defs: Mapping[str, Value]
    sections: Sections
    iso: str | None
    """The `isos.d` name, path or URL to install from; None where the spec and the request name none."""
    renderer: Renderer
    merged: Merged
    names: Defs
    warnings: tuple[str, ...] = ()
    packer: Mapping[str, Value] | None = None
    """What OSImager 1.x would hand to Packer; only of a target of its data tree."""

    def render(self, text: str, place: Place | None = None, escape: Escape | None = None) -> str:
        """Give `text` with every marker resolved. Raises ConfigError with the line in `place` that went wrong.

        `escape` is applied to what markers give, but for `%>` and `E>`, which are the author's own markup.
        """
        return self.renderer.render(text, place, escape)

    def explain(self, key: str) -> tuple[Origin, ...]:
        """Give the origins of `key` (`memory`, `defs.memory`, `machine.memory`): the winner, then what it overrode.

        For a list (`files`, `steps`): the origin of each item, in their order.
        """
        section, _, name = key.partition(".")
        if name and section in self.merged.tables:
            found = self.names.origins(name) if section == "defs" else self._section_origins(section, name)
            if found:
                return found
        if found := self.names.origins(key):
            return found
        if key in self.merged.lists:
            return tuple(origin for _, origin in self.merged.lists[key])
        for section in ("", *self.merged.tables, *self.merged.lists):
            if found := self._section_origins(section, key):
                return found
        return ()

    def _section_origins(self, section: str, name: str) -> tuple[Origin, ...]:
        return tuple(reversed(self.merged.origins.get(section, {}).get(name, [])))


def render_keys(merged: Merged, renderer: Renderer) -> None:
    """Replace the markers in the keys of the sections whose keys are free."""
    for section in _FREE_SECTIONS:
        table, origins = merged.tables[section], merged.origins.get(section, {})
        for key in [key for key in table if ">" in key]:
            name = renderer.render(key, merged.place(section, key))
            table[name] = table.pop(key)
            origins[name] = origins.pop(key, [])


def make_renderer(defs: Defs, lookups: Lookups) -> Renderer:
    """Join `defs` and `lookups` in the renderer that both need."""

    def dns() -> tuple[tuple[str, ...], tuple[str, ...]]:
        value = defs.value("dns", None) if defs.is_defined("dns") else None
        return server_list(value), search_list(value)

    defs.renderer = Renderer(defs, lookups, dns)
    return defs.renderer
