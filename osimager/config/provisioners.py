"""Packer's provisioners as steps of ours; `docs/packer-keys.md` is the table that this follows.

One that cannot be run is named in `needs`, so that it stops a build at RESOLVE and is never skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from osimager.config.documents import Items, Table
from osimager.config.markers import as_text
from osimager.config.sections import StepKind, StepSection
from osimager.config.values import Value
from osimager.errors import ConfigError, Place

Needs = dict[str, Place | None]
"""What a target needs and there is not yet, each with the place that asks for it."""

_VAULT: Final = re.compile(r"\{\{\s*vault\s+`([^`]+)`\s+`([^`]+)`\s*\}\}")
_USER: Final = re.compile(r"\{\{\s*user\s+`([^`]+)`\s*\}\}")


def places_of(needs: Needs) -> tuple[Place, ...]:
    """Give the places that ask for what is needed, each once."""
    return tuple(dict.fromkeys(place for place in needs.values() if place is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioners:
    """What all provisioners of a target share. Relative paths start at `folder`; `evars` are Ansible's environment."""

    variables: Mapping[str, Value]
    evars: Mapping[str, str]
    folder: Path
    place: Place
    needs: Needs = field(default_factory=dict)

    def steps(self, raw: Value) -> list[StepSection]:
        """Give the steps of a provisioner; one that cannot be run adds to `needs`."""
        if not isinstance(raw, dict):
            raise ConfigError("a provisioner must be a mapping", where=self.place, hint="write type: …")
        kinds: dict[str, Callable[[Mapping[str, Value]], list[StepSection] | None]] = {
            "shell": self.shell,
            "file": self.file,
            "shell-local": self.shell_local,
            "ansible": self.ansible,
        }
        name = as_text(raw.get("type"))
        made = kinds[name](raw) if name in kinds else None
        if made is None:
            self.needs.setdefault(f"the provisioner {name or '(without type)'}", self.place)
        return made or []

    def text(self, value: Value) -> str:
        return resolve_user(as_text(value), self.variables)

    def shell(self, raw: Mapping[str, Value]) -> list[StepSection] | None:
        environment = self.environment(raw)
        place = self.place
        steps = []
        if raw.get("inline"):
            lines = raw["inline"] if isinstance(raw["inline"], list) else [raw["inline"]]
            text = "\n".join(map(self.text, lines)) + "\n"
            steps.append(StepSection(kind=StepKind.INLINE, argument=text, place=place, environment=environment))
        scripts = raw.get("scripts")
        for script in scripts if isinstance(scripts, list) else [raw.get("script")]:
            if not script:
                continue
            path = self.absolute(self.text(script))
            steps.append(StepSection(kind=StepKind.SCRIPT, argument=path, place=place, environment=environment))
        return steps or None

    def file(self, raw: Mapping[str, Value]) -> list[StepSection] | None:
        source, dest = self.text(raw.get("source")), self.text(raw.get("destination"))
        if not source or not dest or raw.get("direction", "upload") != "upload":
            return None
        argument = self.absolute(source)
        return [StepSection(kind=StepKind.FILE, argument=argument, dest=dest, place=self.place)]

    def shell_local(self, raw: Mapping[str, Value]) -> list[StepSection] | None:
        command = raw.get("inline") or raw.get("command")
        if not command:
            return None
        lines = command if isinstance(command, list) else [command]
        text = "\n".join(map(self.text, lines)) + "\n"
        return [
            StepSection(
                kind=StepKind.SHELL_LOCAL,
                argument=text,
                place=self.place,
                environment=self.environment(raw),
                folder=self.folder,
            )
        ]

    def ansible(self, raw: Mapping[str, Value]) -> list[StepSection] | None:
        """Give the playbook and the arguments that OSImager hands to ansible-playbook."""
        playbook = self.text(raw.get("playbook_file"))
        if not playbook:
            return None
        arguments = raw.get("extra_arguments")
        return [
            StepSection(
                kind=StepKind.ANSIBLE,
                argument=self.absolute(playbook),
                arguments=tuple(map(self.text, arguments)) if isinstance(arguments, list) else (),
                place=self.place,
                environment=self.evars,
            )
        ]

    def environment(self, raw: Mapping[str, Value]) -> dict[str, str]:
        """Read `environment_vars: ["A=b"]`."""
        pairs = raw.get("environment_vars")
        texts = map(self.text, pairs) if isinstance(pairs, list) else ()
        return {key: value for key, _, value in (text.partition("=") for text in texts)}

    def absolute(self, path: str) -> str:
        """Give a path as Packer finds it: OSImager starts it in the data folder."""
        return str(self.folder / path)


def without_vault(value: Value) -> Value:
    """Turn Packer's vault references into markers, all levels down; places are kept."""
    if isinstance(value, str):
        return _VAULT.sub(r"|>\1:\2<|", value) if "vault" in value else value
    if isinstance(value, Table):
        table = Table(value.path, value.line)
        table.update({key: without_vault(inner) for key, inner in value.items()})
        table.lines = value.lines
        return table
    if isinstance(value, Items):
        items = Items(value.path, value.line)
        items.extend(map(without_vault, value))
        items.lines = value.lines
        return items
    return value


def resolve_user(text: str, variables: Mapping[str, Value]) -> str:
    """Replace Packer's `{{user `name`}}` by the variable's value."""
    return _USER.sub(lambda match: as_text(variables.get(match[1])), text)
