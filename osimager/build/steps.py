"""A target's steps: base.sh, the target's or profile's script, the profile's `scripts`, the spec's steps, `--step`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path

from osimager.build.request import BuildRequest
from osimager.config.catalog import Catalog
from osimager.config.configuration import Configuration
from osimager.config.markers import as_text
from osimager.config.request import own_profile
from osimager.config.sections import StepKind as Kind
from osimager.config.sections import StepSection
from osimager.config.settings import load_settings
from osimager.errors import ConfigError, Place, raise_all
from osimager.holes import find_holes
from osimager.paths import Places, search_path
from osimager.plan.model import Step, StepKind
from osimager.provision.scripts import find_script, load_script, load_steps

# What Packer's Ansible provisioner tells a playbook of the build: those written for it ask for these.
_PACKERS_VARIABLES = {"packer_build_name": "qemu", "packer_builder_type": "qemu"}

# What Ansible reads by itself beside a playbook (its guide, "Sample directory layout"), and what is installed for it.
_ANSIBLE_READS = re.compile(
    "roles|tasks|handlers|templates|files|vars|group_vars|host_vars|library|module_utils|collections|.*_plugins"
    r"|ansible\.cfg|requirements\.ya?ml"
)
# What opens a vault or a guest is no input: what is in it is one.
_KEYS = re.compile(rb"(?m)--(?:vault|private-key)[^\s=]*[= ]\s*\S+|^\s*(?:vault|private_key)_.*$")
_MOST_FILE_BYTES = 64 << 20


def make_steps(
    configuration: Configuration,
    catalog: Catalog,
    asked: BuildRequest,
    places: Places,
    *,
    is_secret: Callable[[str], bool],
) -> tuple[Step, ...]:
    """Give all steps in their order. Raises ConfigErrors for what the spec and the profile name wrongly.

    A tree of OSImager 1.x has its provisioners and `--step` only: it expects nothing of ours in the guest.
    """
    folders = search_path("scripts.d", project=asked.project, places=places)
    program = _named_ansible(configuration, asked, places)
    loader = _Loader(configuration, catalog, folders, is_secret, program=program)
    steps = list(loader.all(configuration.sections.steps))
    if catalog.roots.old_tree is None:
        target = configuration.target
        names = (own_profile(configuration.profile), target.name, target.dist)
        steps[:0] = loader.profile_scripts(load_steps(folders, names=tuple(filter(None, names))))
    raise_all(loader.errors)
    return (*steps, *load_steps((), names=(), files=asked.steps))


def _named_ansible(configuration: Configuration, asked: BuildRequest, places: Places) -> Path | None:
    """Give the ansible-playbook of the spec's `venv`: a folder under OSImager's `venv_dir`, or a path of its own."""
    if configuration.sections.venv is None:
        return None
    settings = asked.settings or load_settings(places)
    folder = Path(as_text(settings.osimager_defs.get("venv_dir")) or places.venvs)
    return folder / configuration.sections.venv / "bin/ansible-playbook"


def find_changed_inputs(step: Step, now: Step) -> list[str]:
    """Name what a step depends on and is another `now` than when the plan was made."""
    return sorted({text.rpartition(":")[0] for text in {*step.inputs} ^ {*now.inputs}})


def needs_ansible(steps: Sequence[Step]) -> bool:
    """Tell whether a step is a playbook."""
    return any(step.kind is StepKind.ANSIBLE for step in steps)


class _Loader:
    """Reads what steps name, and keeps what is wrong, to say all of it at once."""

    def __init__(
        self,
        configuration: Configuration,
        catalog: Catalog,
        folders: Sequence[Path],
        is_secret: Callable[[str], bool],
        *,
        program: Path | None,
    ) -> None:
        self.configuration, self.catalog = configuration, catalog
        self.folders, self.is_secret, self.program = folders, is_secret, program
        self.errors: list[ConfigError] = []

    def profile_scripts(self, first: Sequence[Step]) -> Iterator[Step]:
        """Give `first`, and the scripts that the profile lists; one that has run already is not repeated."""
        yield from first
        names = self.configuration.defs.get("scripts")
        origins = self.configuration.explain("defs.scripts")
        place = origins[0].place if origins else Place("(profile)")
        done = {Path(step.origin.path) for step in first}
        for name in names if isinstance(names, list) else [names] if names else []:
            try:
                path = self.find(as_text(name), place)
                if path not in done:
                    yield load_script(path)
            except ConfigError as exc:
                self.errors.append(exc)

    def all(self, sections: Sequence[StepSection]) -> Iterator[Step]:
        """Give the steps of a spec."""
        for section in sections:
            try:
                yield self.step(section)
            except ConfigError as exc:
                self.errors.append(exc)

    def step(self, section: StepSection) -> Step:
        """Give one step of a spec. Raises ConfigError for what it names and there is not."""
        shared = Step(
            name=f"{Path(section.place.path).name}:{section.place.line or 1}",
            kind=StepKind.SCRIPT,
            content=b"",
            origin=section.place,
            environment=tuple(sorted(_without_holes(section.environment, section.place).items())),
            cache=section.cache,
            folder=section.folder,
            inputs=self.inputs(section.inputs, section.place),
        )
        match section.kind:
            case Kind.SCRIPT:
                path = self.find(section.argument, section.place)
                script = load_script(path)
                return dataclasses.replace(shared, name=script.name, content=script.content, origin=Place(path))
            case Kind.INLINE:
                return dataclasses.replace(shared, content=_text(section.argument, section.place))
            case Kind.SHELL_LOCAL:
                content = _text(section.argument.rstrip("\n") + "\n", section.place)
                return dataclasses.replace(shared, kind=StepKind.LOCAL, content=content)
            case Kind.FILE:
                return dataclasses.replace(
                    shared,
                    kind=StepKind.FILE,
                    content=self.file(section),
                    destination=section.dest or "",
                    mode=0o644 if section.mode is None else section.mode,
                )
            case Kind.ANSIBLE:
                return self.playbook(section, shared)

    def file(self, section: StepSection) -> bytes:
        """Give a file's bytes: one of the generated files, else one on disk."""
        folder = as_text(self.configuration.defs.get("temp_dir"))
        generated = section.argument.removeprefix(folder + "/") if folder else section.argument
        for file in self.configuration.sections.files:
            if file.dest == generated:
                text = "".join(self.configuration.render(part.text, part.place) for part in file.fragments)
                return _text(text, section.place)
        return _read(self.find(section.argument, section.place), section.place)

    def playbook(self, section: StepSection, shared: Step) -> Step:
        """Give the step of a playbook: what it reads from the folders beside it is an input too."""
        path = self.find(section.argument, section.place)
        variables, arguments = split_arguments(section.arguments, section.place)
        if secret := next((word for word in arguments if self.is_secret(word)), None):
            what = f"the argument {secret.partition('=')[0]!r} of ansible-playbook holds a secret"
            raise ConfigError(
                what, where=section.place, hint="hand it over as a variable: environment, or --extra-vars"
            )
        environment = {**_PACKERS_VARIABLES, **dict(shared.environment), **variables}
        words = (*arguments, *(value for name, value in environment.items() if name.startswith("ANSIBLE_")))
        return dataclasses.replace(
            shared,
            name=path.stem,
            kind=StepKind.ANSIBLE,
            content=_read(path, section.place),
            origin=Place(path),
            environment=tuple(sorted(_without_holes(environment, section.place).items())),
            arguments=arguments,
            program=self.program,
            inputs=(*shared.inputs, *(_digest(each, path.parent) for each in _find_read(path, words))),
        )

    def find(self, name: str, place: Place) -> Path:
        """Find what a step names: beside the file that says so, then as a script, then under `files`."""
        beside = Path(place.path).parent / name  # an absolute name stays itself
        if beside.is_file():
            return beside.absolute()
        found = find_script(self.folders, name.removesuffix(".sh")) or self.catalog.find_source(name)
        if found is None:
            hint = f"looked in {', '.join(map(str, (beside.parent, *self.folders, *self.catalog.roots.files)))}"
            raise ConfigError(f"the file {name!r} of a step does not exist", where=place, hint=hint)
        return found

    def inputs(self, patterns: Sequence[str], place: Place) -> tuple[str, ...]:
        """Digest the files that a step says it depends on. Raises ConfigError for a pattern that finds none."""
        base = Path(place.path).parent
        digests = []
        for pattern in patterns:
            # Path.glob refuses what is absolute, empty, or has ** beside other characters.
            names = glob(pattern, root_dir=base, recursive=True, include_hidden=True)  # noqa: PTH207
            found = sorted(base / name for name in names)
            if not found:
                raise ConfigError(
                    f"no file is called {pattern!r}", where=place, hint=f"inputs are looked for in {base}"
                )
            digests += [_digest(path, base) for path in found]
        return tuple(digests)


def split_arguments(words: Sequence[str], place: Place) -> tuple[dict[str, str], tuple[str, ...]]:
    """Take `--extra-vars` out of the arguments of ansible-playbook: they go by a file, never by argv.

    They are `KEY=VALUE …` in a shell's quotes, or a JSON object (ansible-playbook(1), "--extra-vars").
    """
    variables: dict[str, str] = {}
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in ("-e", "--extra-vars"):
            kept.append(word)
            continue
        text = value if equals else next(rest, "")
        if text.startswith("@"):
            kept += [option, text]
        else:
            variables |= _variables(text, place)
    return variables, tuple(kept)


def _variables(text: str, place: Place) -> dict[str, str]:
    try:
        if text.lstrip().startswith("{"):
            found = json.loads(text)
            return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}
        pairs = (word.partition("=") for word in shlex.split(text))
        return {key: value for key, equals, value in pairs if equals}
    except ValueError as exc:
        what = f"the extra variables of ansible-playbook cannot be read: {exc}"
        raise ConfigError(what, where=place, hint="write KEY=VALUE …, or a JSON object") from None


def _text(text: str, place: Place) -> bytes:
    if holes := find_holes(text):
        what = f"a step cannot hold {', '.join(sorted(holes))}: only the installer gets that"
        raise ConfigError(what, where=place, hint="leave it out")
    return text.encode()


def _without_holes(environment: Mapping[str, str], place: Place) -> Mapping[str, str]:
    for value in environment.values():
        _text(value, place)
    return environment


def _read(path: Path, place: Place) -> bytes:
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise ConfigError(
                f"{path} is larger than {_MOST_FILE_BYTES >> 20} MiB", where=place, hint="fetch it instead"
            )
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}", where=place, hint="check the path") from exc


def _find_read(playbook: Path, words: Sequence[str]) -> list[Path]:
    """Find what Ansible reads beside a playbook: its folders and settings, and what is named by the playbook, by those
    settings, by the step's own `words`, or by a file that is named so.
    """
    beside = sorted(each for each in playbook.parent.iterdir() if each != playbook)
    found = [each for each in beside if _ANSIBLE_READS.fullmatch(each.name)]
    unread = [(playbook.parent, " ".join(words).encode()), (playbook.parent, playbook.read_bytes())]
    unread += [(playbook.parent, each.read_bytes()) for each in found if each.is_file()]
    while unread:
        folder, text = unread.pop()
        text = _KEYS.sub(b"", text)
        named = [each for each in beside if _is_named(each, text)]
        for each in (*named, *_find_paths(text, dict.fromkeys((playbook.parent, folder)), playbook)):
            if any(each == one or one in each.parents for one in found):
                continue
            found.append(each)
            if each.is_file() and each.stat().st_size <= _MOST_FILE_BYTES:
                unread.append((each.parent, each.read_bytes()))
    return found


def _find_paths(text: bytes, folders: Iterable[Path], playbook: Path) -> Iterator[Path]:
    """Give what a text names with a slash in it, relative to one of `folders`; what holds the playbook is too much."""
    for word in sorted(set(re.findall(rb"[\w.+/\x80-\xff-]*/[\w.+/\x80-\xff-]*", text))):
        for folder in folders:
            path = folder / os.fsdecode(word.strip(b"/"))
            plain = Path(os.path.normpath(path))
            # Any word of a text may come here, and Path.exists raises for one that is too long for a name.
            if plain not in (playbook, *playbook.parents) and os.path.exists(path):  # noqa: PTH110
                yield path


def _is_named(path: Path, text: bytes) -> bool:
    """Tell whether a text names what lies beside it: a folder only as a whole value, since its name may be any word."""
    name = re.escape(os.fsencode(path.name))
    if path.is_dir():
        return re.search(rb"[:=\[,-]\s*[\"']?" + name + rb"[\"']?\s*([,}\]#\n]|$)", text) is not None
    return re.search(rb"(?<![\w.-])" + name + rb"(?![\w-])", text) is not None


def _digest(path: Path, base: Path) -> str:
    """Give `NAME:sha256`; a folder's is taken over all its files, with their names and whether they are programs."""
    digest = hashlib.sha256()
    for file in _files_of(path) if path.is_dir() else [path]:
        if file.is_file() and not re.search(r"__pycache__|\.pyc$", str(file)):
            about = f"{file.relative_to(path.parent)}\0{file.stat().st_size}\0{file.stat().st_mode & 0o111}\0"
            digest.update(about.encode(errors="surrogateescape"))
            with file.open("rb") as content:
                hashlib.file_digest(content, lambda: digest)
    return f"{path.relative_to(base) if path.is_relative_to(base) else path}:{digest.hexdigest()}"


def _files_of(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Give all that lies in `folder` and below, links followed, but for one that leads back to where it lies."""
    real = folder.resolve()
    for each in sorted(folder.iterdir()) if real not in above else ():
        if each.is_dir():
            yield from _files_of(each, (*above, real))
        else:
            yield each
