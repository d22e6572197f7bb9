"""Media made from packages: a recipe of `isos.d/made/` → an installer ISO in the cache.

A recipe is a folder of data: its script `make` does the work in an empty folder. This file decides whether it must run
(the digest of recipe and packages), that it can, and that nothing is left of it but the ISO. It knows no distribution
but through `apt`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from osimager import kept
from osimager.aio import finish, in_thread
from osimager.arch import Arch, host_arch
from osimager.env import Env
from osimager.errors import MediaError, Place, PrerequisiteError
from osimager.events import Notice, OutputLine
from osimager.media.store import IsoStore
from osimager.plan.model import MadeMedium
from osimager.proc import ToolFailed, run_tool

# The program and the package that has it, in Debian's and Ubuntu's words.
_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "xorriso": "xorriso",
    "mke2fs": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mcopy": "mtools",
    "cpio": "cpio",
    "zstd": "zstd",
    "unshare": "util-linux",
}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBIAN_ARCHES = {Arch.X86_64: "amd64", Arch.AARCH64: "arm64", Arch.I386: "i386"}
_SUITE = "bookworm"
_DEADLINE_S = 3600.0
_NEEDED_BYTES = 4 << 30
_REMOVE_S = 120.0
_WORK_PREFIX = "osimager-made-"
# What apt's word on packages depends on (apt.conf(5), "Dir"; dpkg's status: what is installed is a candidate too).
_APT_FILES = (Path("/etc/apt"), Path("/var/lib/apt/lists"), Path("/var/lib/dpkg/status"))
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


async def make_iso(made: MadeMedium, env: Env, *, arch: Arch) -> Path:
    """Give the ISO that the recipe makes for `arch`: found in the cache by its digest, else made now.

    Raises PrerequisiteError where this host lacks what that takes, MediaError where the recipe fails.
    """
    path, sources = await _place_of(made, env, arch)
    if path.is_file():
        return path
    if env.offline:
        raise MediaError(f"{made.recipe} is not made yet for {arch}, and --offline forbids fetching its packages")

    def tell() -> None:
        env.emit(Notice(f"another osimager makes {made.recipe}: waiting for it"))

    lock = IsoStore(env.places).lock(f"made-{made.recipe}-{arch}")
    async with kept.holding(lock, wait=env.wait, on_wait=tell):
        if not path.is_file():
            _check_host(made, arch)
            env.emit(Notice(f"making {made.recipe} for {arch} from Debian's packages"))
            await _make(made, arch, path, sources=sources, env=env)
    return path


async def find_made(made: MadeMedium, env: Env, *, arch: Arch) -> Path | None:
    """Give the ISO that `make_iso` would give without making anything. Raises PrerequisiteError without apt."""
    path, _ = await _place_of(made, env, arch)
    return path if path.is_file() else None


async def _place_of(made: MadeMedium, env: Env, arch: Arch) -> tuple[Path, str]:
    """Give where the recipe's ISO lies or will lie, and the apt sources that it is made from."""
    _check_apt(made)
    sources, versions = await _packages(made, env, arch)
    key = recipe_digest(made.folder, arch, sources, versions)
    return env.places.isos / "made" / f"{made.recipe}-{arch}-{key[:16]}.iso", sources


def recipe_digest(folder: Path, arch: Arch, sources: str, versions: str) -> str:
    """Give the digest of all that decides what is made: the recipe's files, those all recipes share, and packages."""
    digest = hashlib.sha256(f"1\0{arch}\0{sources}\0{versions}\0".encode())
    for path in _recipe_files(folder):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder.parent)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def recipe_packages(folder: Path, arch: Arch) -> tuple[str, ...]:
    """Give the names in the recipe's lists (`packages`, `pool`): one a line, `name:amd64` for one architecture only."""
    names: set[str] = set()
    for path in (folder / "packages", folder / "pool"):
        for line in path.read_text().splitlines() if path.is_file() else ():
            name, _, only = line.partition("#")[0].strip().partition(":")
            if name and only in ("", _DEBIAN_ARCHES[arch]):
                names.add(name)
    return tuple(sorted(names))


def _recipe_files(folder: Path) -> Iterator[Path]:
    for root in (folder, folder.parent / "common"):
        yield from (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.endswith("~"))


# What this host has ---------------------------------------------------------------------------------------------------


def _check_apt(made: MadeMedium) -> None:
    if sys.platform != "linux" or shutil.which("apt-get") is None:
        raise PrerequisiteError(
            f"{made.recipe} is made from packages, which takes a Linux host with apt",
            hint="use the vendor's ISO: leave out --iso, or name one that osimager iso list shows with a URL",
        )


def _check_host(made: MadeMedium, arch: Arch) -> None:
    """Check that the recipe can run here. Raises PrerequisiteError that names the packages to install."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None]
    if not _KEYRING.is_file():
        missing.append("debian-archive-keyring")
    if os.geteuid() != 0 and shutil.which("newuidmap") is None:
        missing.append("uidmap")
    if missing:
        names = " ".join(sorted(missing))
        raise PrerequisiteError(f"making {made.recipe} takes {names}", hint=f"sudo apt-get install {names}")
    runs_packages = (made.folder / "packages").is_file()
    emulator = Path("/proc/sys/fs/binfmt_misc") / f"qemu-{arch}"
    if runs_packages and arch is not host_arch() and not emulator.is_file():
        raise PrerequisiteError(
            f"making {made.recipe} for {arch} runs {arch} programs, and this host cannot",
            hint="sudo apt-get install qemu-user-static binfmt-support; in a container also: "
            f"mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && update-binfmts --enable qemu-{arch}",
        )


async def _packages(made: MadeMedium, env: Env, arch: Arch) -> tuple[str, str]:
    """Give apt's sources and the versions of the recipe's packages; asked once, as long as apt's own files stay."""
    state = await in_thread(lambda: _apt_state(made, arch))
    memory = env.places.isos / "apt" / f"{made.recipe}-{arch}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        if known["state"] == state:
            return str(known["sources"]), str(known["versions"])
    sources, versions = await _apt_sources(), await _package_versions(made, arch)
    kept.write_kept(memory, json.dumps({"state": state, "sources": sources, "versions": versions}))
    return sources, versions


def _apt_state(made: MadeMedium, arch: Arch) -> str:
    """Digest the names, sizes and times of all that apt's answer depends on, and the names that it is asked for."""
    digest = hashlib.sha256("\n".join(recipe_packages(made.folder, arch)).encode())
    for root in _APT_FILES:
        for path in sorted([root, *root.rglob("*")]):
            with contextlib.suppress(OSError):
                stat = path.stat()
                digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


async def _apt_sources() -> str:
    """Give this host's apt sources of the suite; empty where it is another system: mmdebstrap knows them then."""
    fields = "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)"
    done = await run_tool(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"], deadline_s=60)
    lines = []
    for row in done.text.splitlines():
        origin, codename, component, uri = row.split("|")
        if origin == "Debian" and component == "main" and codename.split("-")[0] == _SUITE:
            lines.append(f"deb {uri.rstrip('/')} {codename} main")
    return "\n".join(dict.fromkeys(lines))


async def _package_versions(made: MadeMedium, arch: Arch) -> str:
    """Give what apt would install of the recipe's packages now: `name version`, a line each.

    A package of another architecture that apt has no lists for counts by its name: its siblings' versions change too.
    """
    names = [
        *recipe_packages(made.folder, arch),
        f"{made.recipe.replace('debian-', 'debian-installer-')}-{_DEBIAN_ARCHES[arch]}",
    ]
    done = await run_tool(["apt-cache", "policy", *names], deadline_s=60, check=False)
    found, name = [], ""
    for line in done.text.splitlines():
        if line[:1].strip():
            name = line.rstrip(":")
        elif line.strip().startswith("Candidate:"):
            found.append(f"{name} {line.split(':', 1)[1].strip()}")
    return "\n".join(found)


# Making ------------------------------------------------------------------------------------------------------------


async def _make(made: MadeMedium, arch: Arch, path: Path, *, sources: str, env: Env) -> None:
    """Run the recipe and publish its ISO whole. The caller holds the lock, so older work folders are nobody's."""
    kept.make_folder(path.parent)
    # Without root the work is done under subordinate ids, which cannot reach into a private home.
    root = path.parent if os.geteuid() == 0 else Path(tempfile.gettempdir())
    prefix = f"{_WORK_PREFIX}{os.geteuid()}-{made.recipe}-{arch}-"
    for stale in root.glob(f"{prefix}*"):
        await _remove(stale)
    if shutil.disk_usage(root).free < _NEEDED_BYTES:
        raise PrerequisiteError(
            f"making {made.recipe} takes {_NEEDED_BYTES >> 30} GiB of space in {root}", hint="free some space there"
        )
    work = _make_work(root, prefix)
    try:
        await _run_recipe(made, arch, work, sources=sources, env=env)
        with kept.publishing(path) as partial:
            await in_thread(lambda: _take(work / "made.iso", partial))
    finally:
        await finish(_remove(work), _REMOVE_S)


async def _run_recipe(made: MadeMedium, arch: Arch, work: Path, *, sources: str, env: Env) -> None:
    """Run `make` in `work`. As root in name spaces of its own: its mounts and processes end with it, killed or not."""
    environment = {name: os.environ[name] for name in _PROXIES if name in os.environ}
    recipe = await in_thread(lambda: _copy_recipe(made.folder, work / "recipes"))
    environment |= {
        "RECIPE": str(recipe),
        "ARCH": _DEBIAN_ARCHES[arch],
        "OUT": str(work / "made.iso"),
        "SOURCES": sources,
        "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]),
    }
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child"] if os.geteuid() == 0 else []

    def tell(line: str) -> None:
        env.emit(OutputLine(f"make {made.recipe}", line))

    try:
        await run_tool(
            [*alone, "sh", recipe / "make"],
            deadline_s=_DEADLINE_S,
            cwd=work,
            environment=environment,
            on_line=tell,
        )
    except ToolFailed as exc:
        if "No space left on device" in exc.done.stderr:
            raise PrerequisiteError(f"no space is left in {work.parent}", hint="free some space there") from exc
        raise MediaError(f"{made.recipe} could not be made: {exc.what}", where=Place(made.folder / "make")) from exc
    except TimeoutError as exc:
        raise MediaError(f"{made.recipe} was not made within {_DEADLINE_S:.0f} s") from exc


def _make_work(root: Path, prefix: str) -> Path:
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    work.chmod(0o755)  # subordinate ids go through it; it holds nothing that is secret
    return work


def _copy_recipe(folder: Path, target: Path) -> Path:
    """Copy the recipe and what all recipes share to where subordinate ids can read them."""
    shutil.copytree(folder.parent / "common", target / "common")
    return Path(shutil.copytree(folder, target / folder.name))


def _others(work: Path) -> list[Path]:
    return [path for path in work.iterdir() if path.is_dir() or path.stat().st_uid != os.geteuid()]


def _take(source: Path, target: Path) -> None:
    """Move `source` to `target` where that costs nothing and leaves an own file, else copy it."""
    if source.stat().st_uid == os.geteuid() and source.stat().st_dev == target.parent.stat().st_dev:
        source.replace(target)
    else:
        shutil.copyfile(source, target)


async def _remove(work: Path) -> None:
    """Remove a work folder; without root what subordinate ids own in it goes first."""
    if os.geteuid() != 0 and (inner := _others(work)):
        await run_tool(["mmdebstrap", "--unshare-helper", "rm", "-rf", *inner], deadline_s=_REMOVE_S, check=False)
    await in_thread(lambda: shutil.rmtree(work, ignore_errors=True))
