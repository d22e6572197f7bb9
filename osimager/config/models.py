"""The shape of every section, checked by pydantic and turned at once into the frozen values of `sections`.

Checked after merging and markers, so fields are the final ones: sizes as `2G` or MiB, durations as `90s` or seconds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from osimager.arch import Firmware
from osimager.config.sections import (
    AccessSection,
    InstallerSection,
    MachineSection,
    Rung,
    SealSection,
    SeedSection,
    StepKind,
    StepSection,
    Value,
    VerifySection,
)
from osimager.errors import ConfigError, ConfigErrors, Place
from osimager.units import parse_duration, parse_size


def _mebibytes(value: object) -> object:
    if isinstance(value, str):
        return parse_size(value, unit="m") // (1 << 20)
    return value


def _bytes(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value << 20
    return parse_size(value, unit="m") if isinstance(value, str) else value


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) else value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as exc:
        raise ValueError(f"it is not a regular expression: {exc}") from None
    return value


def _texts(value: object) -> object:
    """Numbers and one text are what people write where a list of texts is meant."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in value]
    return value


E = TypeVar("E", bound=StrEnum)


def _member(kind: type[E], names: Mapping[str, str] | None = None) -> Callable[[object], object]:
    """Make the converter from a text to a member of `kind`; `names` are other words for members."""

    def convert(value: object) -> object:
        if not isinstance(value, str):
            return value
        word = (names or {}).get(value, value)
        if word not in {member.value for member in kind}:
            raise ValueError(f"{value!r} is none of {', '.join(kind)}")
        return kind(word)

    return convert


def _mode(value: object) -> object:
    return int(value, 8) if isinstance(value, str) and re.fullmatch(r"0?o?[0-7]{3,4}", value) else value


Mebibytes = Annotated[int, BeforeValidator(_mebibytes, json_schema_input_type=int | str), Field(ge=0, le=1 << 24)]
Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str), Field(ge=1 << 20, le=1 << 50)]
Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str), Field(ge=0)]
Whole = Annotated[int, BeforeValidator(_whole, json_schema_input_type=int | str), Field(ge=0)]
Regex = Annotated[str, BeforeValidator(lambda value: _regex(value) if isinstance(value, str) else value)]
Texts = Annotated[list[str], BeforeValidator(_texts, json_schema_input_type=list[str] | str)]
Mode = Annotated[int, BeforeValidator(_mode, json_schema_input_type=int | str), Field(ge=0, le=0o7777)]


class Model(BaseModel):
    """What every section has in common: no unknown key, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class SeedModel(Model):
    """The small ISO with answer files."""

    label: str = Field(min_length=1, max_length=32)
    files: Texts = []

    def frozen(self) -> SeedSection:
        """Give the frozen value."""
        return SeedSection(label=self.label, files=tuple(self.files))


class InstallerModel(Model):
    """The `installer` section."""

    format: str = ""
    boot: list[Annotated[Rung, BeforeValidator(_member(Rung))]] = [Rung.DIRECT, Rung.TYPED]
    menu: Regex | None = None
    kernel_arguments: Texts = []
    drop_arguments: Annotated[list[Regex], BeforeValidator(_texts, json_schema_input_type=list[str] | str)] = []
    seed: SeedModel | None = None
    boot_command: Texts = []
    boot_wait: Seconds | None = None
    restarts: Whole = 0

    def frozen(self) -> InstallerSection:
        """Give the frozen value; empty arguments (an expression that gave nothing) are left out."""
        return InstallerSection(
            format=self.format,
            boot=tuple(self.boot),
            menu=self.menu,
            kernel_arguments=tuple(argument for argument in self.kernel_arguments if argument.strip()),
            drop_arguments=tuple(self.drop_arguments),
            seed=self.seed.frozen() if self.seed else None,
            boot_command=tuple(self.boot_command),
            boot_wait_s=self.boot_wait,
            restarts=self.restarts,
        )


class MachineModel(Model):
    """The `machine` section."""

    memory: Annotated[Mebibytes, Field(ge=32)] = 2048
    cpus: Annotated[Whole, Field(ge=1, le=1024)] = 2
    disk_size: Bytes = 10 << 30
    cpu: str | None = None
    machine: str | None = None
    disk_interface: str = "virtio"
    nic: str = "virtio"
    firmware: Annotated[Firmware, BeforeValidator(_member(Firmware, {"efi": "uefi"}))] = Firmware.BIOS
    minimum_memory: Mebibytes = 0

    def frozen(self) -> MachineSection:
        """Give the frozen value, with at least the memory that the installer needs."""
        return MachineSection(
            memory_mib=max(self.memory, self.minimum_memory),
            cpus=self.cpus,
            disk_size_bytes=self.disk_size,
            cpu=self.cpu,
            machine=self.machine,
            disk_interface=self.disk_interface,
            nic=self.nic,
            firmware=self.firmware,
            minimum_memory_mib=self.minimum_memory,
        )


class AccessModel(Model):
    """The `access` section."""

    user: str = Field("osimager", pattern=r"^[a-z_][a-z0-9_.-]{0,30}$|^Administrator$")
    port: Annotated[Whole, Field(ge=1, le=65535)] = 22
    method: str = "ssh"

    def frozen(self) -> AccessSection:
        """Give the frozen value."""
        return AccessSection(user=self.user, port=self.port, method=self.method)


class SealModel(Model):
    """The `seal` section. `mode` is the wish of the spec; `--seal` goes first."""

    login: str | None = None
    mode: str | None = Field(None, pattern="^(template|machine)$")

    def frozen(self) -> SealSection:
        """Give the frozen value."""
        return SealSection(login=self.login, mode=self.mode)


class VerifyModel(Model):
    """The `verify` section."""

    enabled: bool = True
    commands: Texts = []

    def frozen(self) -> VerifySection:
        """Give the frozen value."""
        return VerifySection(enabled=self.enabled, commands=tuple(self.commands))


class FileModel(Model):
    """An item of `files`."""

    dest: str = Field(min_length=1, pattern="^[^/]")
    sources: Texts = Field(min_length=1)


class StepModel(Model):
    """An item of `steps`: one of script, inline, file, shell-local, ansible, and what belongs to it."""

    script: str | None = None
    inline: Texts | None = None
    file: str | None = None
    shell_local: str | None = Field(None, alias="shell-local")
    ansible: str | None = None
    dest: str | None = None
    mode: Mode | None = None
    cache: bool = True
    inputs: Texts = []
    environment: dict[str, str] = {}

    def frozen(self, place: Place) -> StepSection:
        """Give the frozen value. Raises ConfigError where not exactly one kind is given."""
        kinds = {
            StepKind.SCRIPT: self.script,
            StepKind.INLINE: None if self.inline is None else "\n".join(self.inline) + "\n",
            StepKind.FILE: self.file,
            StepKind.SHELL_LOCAL: self.shell_local,
            StepKind.ANSIBLE: self.ansible,
        }
        given = [(kind, argument) for kind, argument in kinds.items() if argument is not None]
        if len(given) != 1:
            what = "a step must say exactly one thing to do"
            raise ConfigError(what, where=place, hint=f"write one of {', '.join(kinds)} in each step")
        if self.file is not None and self.dest is None:
            raise ConfigError("a file step needs dest", where=place, hint="add dest: /path/in/the/guest")
        return StepSection(
            kind=given[0][0],
            argument=given[0][1],
            place=place,
            dest=self.dest,
            mode=self.mode,
            cache=self.cache,
            inputs=tuple(self.inputs),
            environment=self.environment,
        )


class IsoArchModel(Model):
    """What an entry of `isos.d` says of the ISO itself; an architecture may say it otherwise."""

    url: str | None = None
    urls: Texts = []
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    checksum_url: str | None = None
    signature_url: str | None = None
    signature_key: str | None = None
    size: (
        Annotated[int, BeforeValidator(lambda value: parse_size(value) if isinstance(value, str) else value)] | None
    ) = None
    volume_id: Regex | None = None
    patterns: Texts = []
    make: str | None = None
    options: dict[str, str | int | bool | list[str]] = {}
    needs_login: str | None = None


class IsoModel(IsoArchModel):
    """One entry of an `isos.d` file."""

    notes: str | None = None
    source: Texts = []
    arches: dict[str, IsoArchModel] = Field(min_length=1)


M = TypeVar("M", bound=BaseModel)


def check(model: type[M], values: Mapping[str, Value], name: str, place_of: Callable[[str], Place | None]) -> M:
    """Check a section's values. Raises ConfigErrors with one message for each wrong value, each at its place.

    `name` is the section's name for the messages; `place_of` gives the place of one of its keys.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as exc:
        found = [(tuple(error["loc"]), error["type"], error["msg"]) for error in exc.errors()]
    raise ConfigErrors([_error(model, name, problem, place_of) for problem in found])


def _error(
    model: type[BaseModel],
    name: str,
    problem: tuple[tuple[int | str, ...], str, str],
    place_of: Callable[[str], Place | None],
) -> ConfigError:
    loc, kind, message = problem
    path = ".".join([name, *(str(part) for part in loc if not str(part).startswith(("function-", "literal[")))])
    where = place_of(str(loc[0])) if loc else place_of("")
    if kind == "extra_forbidden":
        return unknown_key(str(loc[-1]), _fields(model, loc), where, inside=".".join([name, *map(str, loc[:-1])]))
    if kind == "missing":
        return ConfigError(f"{path} is missing", where=where, hint=f"add {loc[-1]}: …")
    if message.startswith("Input "):
        what = f"{path} {message.removeprefix('Input ')}"
    else:
        what = f"{path}: {message.removeprefix('Value error, ')}"
    return ConfigError(what, where=where, hint=f"correct {path}")


def _fields(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Give the keys that the model at `loc` (the last part left out) knows."""
    for part in loc[:-1]:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        candidates = [inner, *getattr(inner, "__args__", ())]
        found = next((item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)), None)
        if found is not None:
            model = found
    return [field.alias or name for name, field in model.model_fields.items()]


def unknown_key(key: str, known: Sequence[str], where: Place | None, *, inside: str) -> ConfigError:
    """Make the error for a key that nobody reads, with the likeliest known one."""
    close = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return ConfigError(f"the key {key!r} is unknown in {inside}", where=where, hint=hint)
