"""What this host can run: its QEMU binaries, found out by asking them, its accelerators, firmware and resources.

Answers of a binary are cached by its path, size and time; the first look costs under 2 s, the next under 20 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from osimager.arch import Arch, Firmware, host_arch
from osimager.errors import OsimagerError, PrerequisiteError
from osimager.kept import make_folder, write_kept
from osimager.machine.accelerator import choose_accelerator
from osimager.paths import Places
from osimager.plan.facts import AcceleratorFacts, FirmwareFiles, HostFacts, QemuFacts
from osimager.proc import Completed, ToolFailed, run_tool

_SCHEMA = 1
_ASK_S = 15.0
_EXTRA_FOLDERS = ("/opt/homebrew/bin", "/usr/local/bin", "/opt/local/bin", "/run/current-system/sw/bin")
_VERSION = re.compile(r"version (\d+(?:\.\d+)+)")

# The package that holds QEMU for x86 and for Arm, by the names of os-release(5).
_PACKAGES = {
    "debian": ("qemu-system-x86", "qemu-system-arm"),
    "ubuntu": ("qemu-system-x86", "qemu-system-arm"),
    "fedora": ("qemu-system-x86-core", "qemu-system-aarch64-core"),
    "rhel": ("qemu-kvm", "qemu-kvm"),
    "suse": ("qemu-x86", "qemu-arm"),
    "arch": ("qemu-system-x86", "qemu-system-aarch64"),
    "alpine": ("qemu-system-x86_64", "qemu-system-aarch64"),
    "nixos": ("qemu", "qemu"),
    "darwin": ("qemu (brew install qemu)", "qemu (brew install qemu)"),
}


async def inspect_host(arch: Arch, firmware: Firmware, *, places: Places, accel: str = "auto") -> HostFacts:
    """Give what a plan for guests of `arch` needs to know of this host.

    Raises PrerequisiteError that names the missing package, accelerator or firmware.
    """
    qemu = await inspect_qemu(arch, places)
    files = _find_padded(qemu, places) if firmware is Firmware.UEFI else None
    if firmware is Firmware.UEFI and files is None:
        from osimager.plan.argv import firmware_hint

        raise PrerequisiteError(f"there is no UEFI firmware for {arch} on this host", hint=firmware_hint(arch))
    return HostFacts(
        system=platform.system(),
        arch=host_arch(),
        cores=os.cpu_count() or 1,
        memory_mib=memory_mib(),
        qemu=qemu,
        accelerator=await choose_accelerator(qemu, wanted=accel, cache=_cache(places)),
        firmware=files,
    )


async def inspect_qemu(arch: Arch, places: Places) -> QemuFacts:
    """Find and ask the QEMU binary for `arch`. Raises PrerequisiteError where there is none that works."""
    path = find_qemu(arch)
    stat = path.stat()
    identity = f"{_SCHEMA}\n{arch}\n{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    file = _cache(places) / f"qemu-{arch}-{digest}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return _from_cache(file, arch, path, digest)
    facts = await _ask_qemu(arch, path, digest)
    content = {
        "version": facts.version,
        "sandbox": facts.sandbox,
        "cpu_models": sorted(facts.cpu_models),
        "devices": sorted(facts.devices),
        "machines": sorted(facts.machines),
        "accelerators": sorted(facts.accelerators),
    }
    with contextlib.suppress(PrerequisiteError):  # a cache that cannot be written costs time, nothing else
        write_kept(file, json.dumps(content))
    return facts


def find_qemu(arch: Arch) -> Path:
    """Find the system emulator for `arch`, on PATH or where Homebrew, MacPorts, Nix and EL put it."""
    names = [f"qemu-system-{arch}"]
    if arch is Arch.I386:
        names.append("qemu-system-x86_64")
    where = os.pathsep.join([os.environ.get("PATH", ""), *_EXTRA_FOLDERS])
    for name in names:
        if found := shutil.which(name, path=where):
            return Path(found)
    if arch is host_arch() and os.access("/usr/libexec/qemu-kvm", os.X_OK):
        return Path("/usr/libexec/qemu-kvm")
    raise PrerequisiteError(f"{names[0]} is not on this host", hint=f"install {qemu_package(arch)}")


def qemu_package(arch: Arch, os_release: Path = Path("/etc/os-release")) -> str:
    """Name the package that holds QEMU for `arch` in this distribution."""
    ids = ["darwin"] if platform.system() == "Darwin" else _distribution_ids(os_release)
    at = 1 if arch is Arch.AARCH64 else 0
    for one in ids:
        if packages := _PACKAGES.get(one):
            return packages[at]
    return f"{_PACKAGES['debian'][at]} (Debian, Ubuntu) or {_PACKAGES['fedora'][at]} (Fedora)"


def _distribution_ids(os_release: Path) -> list[str]:
    """Give ID, then ID_LIKE of os-release(5)."""
    with contextlib.suppress(OSError):
        fields = dict(line.split("=", 1) for line in os_release.read_text("utf-8").splitlines() if "=" in line)
        words = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
        return ["suse" if "suse" in word else word for word in words]
    return []


def _cache(places: Places) -> Path:
    return places.cache / "host"


def _find_padded(qemu: QemuFacts, places: Places) -> FirmwareFiles | None:
    from osimager.machine.firmware import find_firmware, pad_code  # a plan for BIOS needs none of it

    found = find_firmware(qemu.arch, home=Path.home(), qemu=qemu.path)
    return None if found is None else pad_code(found, _cache(places))


def _from_cache(file: Path, arch: Arch, path: Path, digest: str) -> QemuFacts:
    data = json.loads(file.read_text("utf-8"))
    return QemuFacts(
        arch=arch,
        path=path,
        version=tuple(int(number) for number in data["version"]),
        sandbox=bool(data["sandbox"]),
        cpu_models=frozenset(data["cpu_models"]),
        devices=frozenset(data["devices"]),
        machines=frozenset(data["machines"]),
        digest=digest,
        accelerators=frozenset(data["accelerators"]),
    )


async def _ask_qemu(arch: Arch, path: Path, digest: str) -> QemuFacts:
    """Ask the binary for its version and lists, all at once."""
    questions = {
        "version": ["-version"],
        "accelerators": ["-accel", "help"],
        "cpus": ["-machine", "none", "-cpu", "help"],
        "devices": ["-machine", "none", "-device", "help"],
        # Without seccomp the option is refused before the machines are listed.
        "machines": ["-sandbox", "on", "-machine", "help"],
    }
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {
                name: group.create_task(run_tool([path, *words], deadline_s=_ASK_S, check=False))
                for name, words in questions.items()
            }
        said = {name: task.result() for name, task in tasks.items()}
        sandbox = said["machines"].status == 0
        if not sandbox:
            said["machines"] = await run_tool([path, "-machine", "help"], deadline_s=_ASK_S)
    except* (TimeoutError, ToolFailed) as group_error:
        raise PrerequisiteError(f"{path} does not answer", hint="reinstall QEMU") from group_error
    version = _VERSION.search(said["version"].text)
    if version is None:
        raise _no_qemu(arch, path, said["version"])
    return QemuFacts(
        arch=arch,
        path=path,
        version=tuple(int(number) for number in version[1].split(".")),
        sandbox=sandbox,
        cpu_models=parse_cpu_help(said["cpus"].text),
        devices=parse_device_help(said["devices"].text),
        machines=parse_machine_help(said["machines"].text),
        digest=digest,
        accelerators=frozenset(said["accelerators"].text.split("\n")[1:]) - {""},
    )


def _no_qemu(arch: Arch, path: Path, done: Completed) -> PrerequisiteError:
    """Say what a program that is called like a QEMU answers instead of its version."""
    words = next((line.strip() for line in (done.text + done.stderr).splitlines() if line.strip()), "")
    answer = f"says {words[:200]!r}" if words else f"says nothing and exits with status {done.status}"
    hint = f"take that program off PATH, and install {qemu_package(arch)}"
    return PrerequisiteError(f"{path} is no QEMU: asked for its version it {answer}", hint=hint)


def parse_cpu_help(text: str) -> frozenset[str]:
    """Read the models of `-cpu help`: `x86 Nehalem  …` on x86, `  cortex-a57` elsewhere; flags come after a blank."""
    models = set()
    for line in text.splitlines()[1:]:
        if line.startswith("Recognized CPUID flags"):
            break
        words = line.split()
        if words:
            models.add(words[1] if words[0] == "x86" and len(words) > 1 else words[0])
    return frozenset(models)


def parse_device_help(text: str) -> frozenset[str]:
    """Read the names and aliases of `-device help`."""
    return frozenset(re.findall(r'(?:name|alias) "([^"]+)"', text))


def parse_machine_help(text: str) -> frozenset[str]:
    """Read the names of `-machine help`."""
    return frozenset(line.split()[0] for line in text.splitlines()[1:] if line.strip())


def memory_mib() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (ValueError, OSError):
        return 0


def free_memory_mib() -> int | None:
    """Give what can be had without swapping (Linux's MemAvailable); None where the system does not tell."""
    with contextlib.suppress(OSError):
        match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
        return int(match[1]) >> 10 if match else None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestReport:
    """What this host can do for guests of one architecture; `problem` says what it lacks."""

    arch: Arch
    qemu: Path | None = None
    version: str = ""
    accelerator: AcceleratorFacts | None = None
    sandbox: bool = False
    firmware: FirmwareFiles | None = None
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """What `osimager doctor` shows."""

    system: str
    release: str
    arch: Arch
    cores: int
    memory_mib: int
    free_memory_mib: int | None
    cache: Path
    free_disk_bytes: int
    guests: tuple[GuestReport, ...]
    qemu_img: Path | None


async def doctor_report(places: Places) -> HostReport:
    """Look at everything a build may need of this host; problems are told, not raised."""
    folder = make_folder(places.cache)
    img = shutil.which("qemu-img")
    return HostReport(
        system=platform.system(),
        release=platform.release(),
        arch=host_arch(),
        cores=os.cpu_count() or 1,
        memory_mib=memory_mib(),
        free_memory_mib=free_memory_mib(),
        cache=folder,
        free_disk_bytes=shutil.disk_usage(folder).free,
        guests=tuple([await _guest_report(arch, places) for arch in (Arch.X86_64, Arch.AARCH64)]),
        qemu_img=Path(img) if img else None,
    )


async def _guest_report(arch: Arch, places: Places) -> GuestReport:
    from osimager.machine.firmware import find_firmware
    from osimager.plan.argv import firmware_hint

    try:
        qemu = await inspect_qemu(arch, places)
        accelerator = await choose_accelerator(qemu, cache=_cache(places))
    except OsimagerError as exc:
        return GuestReport(arch=arch, problem=exc.what, hint=exc.hint or "")
    firmware = find_firmware(arch, home=Path.home(), qemu=qemu.path)
    return GuestReport(
        arch=arch,
        qemu=qemu.path,
        version=".".join(str(number) for number in qemu.version),
        accelerator=accelerator,
        sandbox=qemu.sandbox,
        firmware=firmware,
        problem="" if firmware else "no UEFI firmware",
        hint="" if firmware else firmware_hint(arch),
    )


def find_processor() -> str:
    """Name this host's processor and what it can do, as far as the system tells (proc(5), cpuinfo)."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part", "Features")
    return "\n".join(line for line in first.splitlines() if line.partition(":")[0].strip() in wanted)
