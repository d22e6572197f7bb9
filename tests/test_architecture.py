"""The shape of osimager, proved over its syntax trees: docs are believed, this is checked (ARCHITECTURE.md).

The tables come first: a new room, module or library is one line in them.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

PACKAGE = Path(__file__).parent.parent / "osimager"

# Each room's layer. A file imports from lower layers and from its own room only; rooms of layer 3 never meet.
LAYERS = {
    "aio": 0,
    "arch": 0,
    "crypt": 0,
    "env": 0,
    "errors": 0,
    "events": 0,
    "holes": 0,
    "kept": 0,
    "paths": 0,
    "proc": 0,
    "processes": 0,
    "qemu_img": 0,
    "redact": 0,
    "units": 0,
    "config": 1,
    "plan": 2,
    "ports": 2,
    "check": 3,
    "finalize": 3,
    "lookup": 3,
    "machine": 3,
    "media": 3,
    "provision": 3,
    "registry": 3,
    "secrets": 3,
    "build": 4,
    "cli": 5,
    "__main__": 6,
}

# Where each third-party library may be imported, as globs of paths in the package.
IMPORT_SITES = {
    "aiohttp": ["media/*"],
    "click": ["cli/*"],
    "cryptography": ["provision/keys.py"],
    "dns": ["lookup/dns.py"],
    "filelock": ["kept.py"],
    "hvac": ["secrets/vault.py"],
    "paramiko": ["provision/ssh.py"],
    "pycdlib": ["media/*"],
    "pydantic": ["registry/form.py"],
    "qemu": ["machine/qmp.py"],
    "requests": ["secrets/vault.py"],  # hvac's own errors
    "rich": ["cli/*"],
    # The registry is the program's own file, and is written too: see the docstring there.
    "yaml": ["config/documents*.py", "registry/store.py"],
}

# What only these files may call or import.
SOLE_SITES = {
    "print": ["cli/*"],
    "sys.exit": ["cli/*", "__main__.py"],
    "subprocess": [],
    "os.system": [],
    "os.popen": [],
    "os.fork": [],
    "multiprocessing": [],
    "asyncio.create_subprocess_exec": ["proc.py"],
    "asyncio.create_subprocess_shell": [],
    "asyncio.create_task": ["aio.py"],
    "asyncio.ensure_future": ["aio.py", "cli/build.py"],  # there it is the command itself, which signals cancel
    "asyncio.gather": [],
    "asyncio.to_thread": ["aio.py"],
}

# Layers 1 and 2 are synchronous and open no socket; layer 2 does no I/O at all.
FORBIDDEN_MODULES = {
    "config": {"asyncio", "http", "socket", "ssl", "subprocess"},
    "plan": {"asyncio", "http", "io", "os", "shutil", "socket", "ssl", "subprocess", "tempfile"},
}
FORBIDDEN_METHODS = {
    "plan": {"exists", "glob", "is_dir", "is_file", "iterdir", "mkdir", "open", "read_bytes", "read_text", "rename"}
    | {"resolve", "rglob", "stat", "unlink", "write_bytes", "write_text"},
}

HEAVY = {"aiohttp", "cryptography", "dns", "hvac", "jinja2", "paramiko", "pycdlib", "pydantic", "qemu", "rich"}
MOST_FUNCTION_LINES = 80
MOST_FILE_LINES = 600

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@cache
def parse(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text())


def room_of(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def is_site(file: str, globs: list[str]) -> bool:
    return any(PurePosixPath(file).match(glob) for glob in globs)


def find_imports(file: str) -> Iterator[tuple[int, str]]:
    """Give the line and the dotted name of everything that `file` imports, wherever in it."""
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def find_calls(file: str) -> Iterator[tuple[int, str]]:
    """Give the line and the name of each call: `print`, `sys.exit`; `.name` for a method of anything."""
    for node in ast.walk(parse(file)):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name):
                yield node.lineno, name
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                yield node.lineno, f"{owner}.{name}"
                yield node.lineno, f".{name}"
            case ast.Attribute(attr=name):
                yield node.lineno, f".{name}"


def assert_none(found: list[str]) -> None:
    assert not found, "\n".join(found)


def test_every_room_has_a_layer() -> None:
    rooms = {room_of(file) for file in FILES} - {"__init__"}
    assert rooms <= LAYERS.keys(), f"add to LAYERS: {sorted(rooms - LAYERS.keys())}"


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_from_lower_layers_and_its_own_room_only(file: str) -> None:
    here = room_of(file)
    found = []
    for line, name in find_imports(file):
        if not name.startswith("osimager."):
            continue
        there = name.split(".")[1]
        if there not in LAYERS:  # the version, which the package itself holds
            continue
        is_base = LAYERS.get(here, -1) == LAYERS[there] == 0
        if there != here and LAYERS[there] >= LAYERS.get(here, -1) and not is_base:
            found.append(f"{file}:{line}: {here} (layer {LAYERS.get(here)}) imports {name} (layer {LAYERS[there]})")
    assert_none(found)


@pytest.mark.parametrize("file", FILES)
def test_each_library_has_its_import_site(file: str) -> None:
    known = set(IMPORT_SITES) | set(sys.stdlib_module_names) | {"osimager"}
    found = []
    for line, name in find_imports(file):
        library = name.partition(".")[0]
        if library not in known or (library in IMPORT_SITES and not is_site(file, IMPORT_SITES[library])):
            found.append(f"{file}:{line}: {library} is imported in {IMPORT_SITES.get(library, 'no file')}")
    assert_none(found)


@pytest.mark.parametrize("file", FILES)
def test_what_has_a_sole_site_is_used_there_only(file: str) -> None:
    used = [*find_calls(file), *((line, name.partition(".")[0]) for line, name in find_imports(file))]
    assert_none(
        [
            f"{file}:{line}: {name} belongs to {SOLE_SITES[name] or 'no file'}"
            for line, name in used
            if name in SOLE_SITES and not is_site(file, SOLE_SITES[name])
        ]
    )


@pytest.mark.parametrize("file", [file for file in FILES if room_of(file) in FORBIDDEN_MODULES])
def test_the_pure_layers_do_no_io(file: str) -> None:
    modules = FORBIDDEN_MODULES[room_of(file)]
    methods = {f".{name}" for name in FORBIDDEN_METHODS.get(room_of(file), ())}
    if methods:
        methods.add("open")
    assert_none(
        [f"{file}:{line}: {name}" for line, name in find_imports(file) if name.partition(".")[0] in modules]
        + [f"{file}:{line}: {name}()" for line, name in find_calls(file) if name in methods]
    )


@pytest.mark.parametrize("file", FILES)
def test_functions_and_files_are_short(file: str) -> None:
    functions = [node for node in ast.walk(parse(file)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = [
        f"{file}:{node.lineno}: {node.name} has {lines} lines"
        for node in functions
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MOST_FUNCTION_LINES
    ]
    if (lines := len((PACKAGE / file).read_text().splitlines())) > MOST_FILE_LINES:
        found.append(f"{file} has {lines} lines")
    assert_none(found)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import json, sys\nfrom osimager.cli.main import main\n"
        "sys.argv = ['osimager', '--help']\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    argv = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert loaded.isdisjoint(HEAVY), sorted(loaded & HEAVY)
