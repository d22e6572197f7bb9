"""Which accelerator really runs guests here: found out by a guest of a few instructions, under the clock.

A `/dev/kvm` that opens and makes machines may still never let a guest through (nested virtualisation that is half
there), and some hosts run real mode but hang on the way to long mode. So each candidate runs a probe that says how far
it came. TCG runs it at the same time and is the clock: what takes far longer than TCG hangs, whatever else this host is
doing meanwhile, and what goes through the probe's loop more slowly is no help. Verdicts are kept until the host is
rebooted, the binary or the device changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from osimager.arch import Arch, host_arch
from osimager.errors import PrerequisiteError
from osimager.kept import write_kept
from osimager.plan.facts import Accelerator, AcceleratorFacts, QemuFacts
from osimager.proc import open_child

# How long a probe may take where there is no TCG to compare with, at most, at least, and as a multiple of TCG's time.
PROBE_S, _LONGEST_S, _SHORTEST_S, _TIMES_TCG = 1.5, 10.0, 0.7, 3.0
_NOISE_S = 0.02  # what the two ends of a pipe may be late
_KVM = Path("/dev/kvm")
_SCHEMA = "2"
_HVF_FALLBACK = "cortex-a57"
_ROM_BYTES = 65536

# A BIOS image for pc and q35, assembled with GNU as from:
#     .code16: cli; out 0x3f8,'R'; lgdtl %cs:gdtr; cr0|=1; ljmpl $8,$0xf0000+pm
#     .code32: ds=ss=0x10; [0x1000]=0x2003; [0x2000]=0x3003; [0x3000]=0x83; cr3=0x1000; cr4|=PAE; EFER|=LME;
#              cr0|=PG; ljmpl $24,$0xf0000+lm
#     .code64: ecx=20000000; 1: decl %ecx; jnz 1b; out 0x3f8,'L'; out 0xcf9,6; 2: hlt; jmp 2b
#     gdt: null, 32-bit code, data, 64-bit code
_X86_PROBE = bytes.fromhex(
    "fabaf803b052ee2e660f0116b0000f20c00c010f22c066ea1e000f00080066b810008ed88ed0c7050010000003200000"
    "c7050020000003300000c7050030000083000000b8001000000f22d80f20e00c200f22e0b9800000c00f3280cc010f30"
    "0f20c00d000000800f22c0ea72000f001800b9002d3101ffc975fc66baf803b04cee66baf90cb006eef4ebfd0f1f4000"
    "0000000000000000ffff0000009acf00ffff00000092cf00ffff0000009aaf001f0090000f00"
)
# A flat kernel for virt: 'R' to the PL011 at 0x9000000, a loop of 2^24, 'L', then PSCI SYSTEM_OFF by hvc.
_ARM_PROBE = b"".join(
    word.to_bytes(4, "little")
    for word in (
        0xD2A12000,  # mov x0, #0x9000000
        0x52800A41,  # mov w1, #'R'
        0x39000001,  # strb w1, [x0]
        0xD2A02002,  # mov x2, #0x1000000
        0xF1000442,  # subs x2, x2, #1
        0x54FFFFE1,  # b.ne .-4
        0x52800981,  # mov w1, #'L'
        0x39000001,  # strb w1, [x0]
        0x52800100,  # mov w0, #8
        0x72B08000,  # movk w0, #0x8400, lsl #16
        0xD4000002,  # hvc #0
        0x14000000,  # b .
    )
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an accelerator runs guests, what was seen, with which CPU model, and the seconds: all, and in the loop.

    `is_final`: it may be kept. A TCG that does not come to an end in time says that this host is busy, no more.
    """

    works: bool
    reason: str
    seconds: float = 0.0
    loop_s: float = 0.0
    cpu: str = "host"
    is_final: bool = True


@dataclass(frozen=True, slots=True)
class _Seen:
    """How a probe's QEMU ended (or that it did not), when it said what, and its last words."""

    ended: bool
    said: tuple[tuple[str, float], ...]
    seconds: float
    stderr: str

    @property
    def text(self) -> str:
        return "".join(character for character, _ in self.said)


async def choose_accelerator(qemu: QemuFacts, *, wanted: str = "auto", cache: Path) -> AcceleratorFacts:
    """Give the accelerator for guests of `qemu.arch`. `wanted`: auto, kvm, hvf or tcg; `cache`: a folder for verdicts.

    Raises PrerequisiteError where the wanted one does not work here, or none does.
    """
    fast = Accelerator.HVF if sys.platform == "darwin" else Accelerator.KVM
    if wanted == Accelerator.TCG and _has_tcg(qemu):
        return AcceleratorFacts(qemu.arch, Accelerator.TCG, "asked for")
    if wanted not in ("auto", fast, Accelerator.TCG):
        raise PrerequisiteError(f"there is no {wanted} on {sys.platform}", hint="use --accel auto")
    verdicts = await _cached_verdicts(qemu, fast, cache)
    if wanted != Accelerator.TCG and verdicts[fast].works:
        return AcceleratorFacts(qemu.arch, fast, verdicts[fast].reason, verdicts[fast].cpu)
    if wanted == fast:
        raise PrerequisiteError(f"{fast} does not work here: {verdicts[fast].reason}", hint="use --accel auto or tcg")
    if not verdicts[Accelerator.TCG].works:
        reasons = "; ".join(f"{name}: {verdict.reason}" for name, verdict in verdicts.items())
        hint = "install QEMU's full package, or mend the accelerator"
        raise PrerequisiteError(f"no accelerator works here for {qemu.path}: {reasons}", hint=hint)
    passed_over = verdicts[fast].reason if not _is_native(qemu.arch) else f"{fast} passed over: {verdicts[fast].reason}"
    return AcceleratorFacts(qemu.arch, Accelerator.TCG, passed_over)


def _is_native(arch: Arch) -> bool:
    host = host_arch()
    return arch is host or (arch is Arch.I386 and host is Arch.X86_64)


def _has_tcg(qemu: QemuFacts) -> bool:
    return not qemu.accelerators or Accelerator.TCG in qemu.accelerators


async def probe(qemu: QemuFacts, accelerator: Accelerator, *, deadline_s: float = PROBE_S) -> Verdict:
    """Run the probe guest under `accelerator` and say how far it came. Never raises for a guest that fails."""
    return await _probe(qemu, accelerator, asyncio.timeout(deadline_s))


async def _probe(qemu: QemuFacts, accelerator: Accelerator, limit: asyncio.Timeout, cpu: str = "host") -> Verdict:
    with tempfile.TemporaryDirectory(prefix="osimager-probe-") as folder:
        seen = await _run_probe(_probe_argv(qemu, accelerator, Path(folder), cpu), limit)
    if seen.ended and seen.text.endswith("L"):
        loop_s = seen.said[-1][1] - seen.said[0][1]
        reason = f"a probe guest ran to its end in {seen.seconds * 1000:.0f} ms"
        return Verdict(True, reason, seen.seconds, loop_s, cpu)
    if seen.ended:
        last = seen.stderr.strip().splitlines()
        why = f"QEMU ended a probe guest: {last[-1]}" if last else "a probe guest ended before it had said anything"
        return Verdict(False, why, seen.seconds)
    where = {"": "its first instruction", "R": "long mode" if qemu.arch is not Arch.AARCH64 else "its loop"}
    place = where.get(seen.text, "its end")
    what = f"it opens, but a probe guest hung: no sign of {place} in {seen.seconds:.1f} s"
    return Verdict(False, what, seen.seconds, is_final=False)


def _probe_argv(qemu: QemuFacts, accelerator: Accelerator, folder: Path, cpu: str) -> list[str]:
    image = folder / "probe"
    if qemu.arch is Arch.AARCH64:
        image.write_bytes(_ARM_PROBE)
        machine, option = "virt", "-kernel"
    else:
        rom = bytearray(_X86_PROBE.ljust(_ROM_BYTES, b"\x90"))
        rom[0xFFF0:0xFFF3] = b"\xe9" + (-0xFFF3 & 0xFFFF).to_bytes(2, "little")  # reset vector: jmp 0
        image.write_bytes(rom)
        machine, option = "q35", "-bios"
    model = "max" if accelerator is Accelerator.TCG else cpu
    return [
        *(str(qemu.path), "-nodefaults", "-no-user-config", "-machine", machine, "-accel", str(accelerator)),
        *("-cpu", model, "-m", "64", "-display", "none", "-action", "reboot=shutdown", option, str(image)),
        *("-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"),
    ]


async def _run_probe(argv: list[str], limit: asyncio.Timeout) -> _Seen:
    """Run a probe until it ends or the limit."""
    now = asyncio.get_running_loop().time
    started = now()
    said: list[tuple[str, float]] = []
    pipe = asyncio.subprocess.PIPE
    with contextlib.suppress(TimeoutError):
        async with limit, open_child(argv, stdout=pipe, term_s=0.1) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            while data := await child.stdout.read(1):
                said.append((data.decode("ascii", "replace"), now()))
            stderr = await child.stderr.read()
            await child.wait()
            return _Seen(True, tuple(said), now() - started, stderr.decode(errors="replace"))
    return _Seen(False, tuple(said), now() - started, "")


async def _cached_verdicts(qemu: QemuFacts, fast: Accelerator, cache: Path) -> Mapping[Accelerator, Verdict]:
    """Give the verdicts on this host's fast accelerator and on TCG."""
    file = cache / f"accelerators-{qemu.arch}-{_state_digest(qemu)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_text("utf-8"))
        return {name: Verdict(**kept[name]) for name in (fast, Accelerator.TCG)}
    verdicts = await _examine(qemu, fast)
    if all(verdict.is_final for verdict in verdicts.values()):
        with contextlib.suppress(PrerequisiteError):  # a cache that cannot be written costs time, nothing else
            write_kept(file, json.dumps({str(name): asdict(verdict) for name, verdict in verdicts.items()}))
    return verdicts


def _state_digest(qemu: QemuFacts) -> str:
    """Give a digest of what a verdict depends on: the binary, the boot, the device and who may open it."""
    state = [_SCHEMA, qemu.digest]
    with contextlib.suppress(OSError):
        state.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii"))
    with contextlib.suppress(OSError):
        device = _KVM.stat()
        state += [str(device.st_mode), str(device.st_ctime_ns), str(os.access(_KVM, os.R_OK | os.W_OK))]
    return hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]


async def _examine(qemu: QemuFacts, fast: Accelerator) -> dict[Accelerator, Verdict]:
    """Look at what can be known without a guest, then run one under each accelerator."""
    if obstacle := await _find_obstacle(qemu, fast):
        return {fast: Verdict(False, obstacle), Accelerator.TCG: await _examine_tcg(qemu)}
    verdict, tcg = await _race(qemu, fast)
    if not verdict.works and fast is Accelerator.HVF and qemu.arch is Arch.AARCH64:
        verdict = await _race_fallback(qemu, verdict)
    return {fast: verdict, Accelerator.TCG: tcg}


async def _find_obstacle(qemu: QemuFacts, accelerator: Accelerator) -> str:
    """Say why no guest needs to be tried, else nothing."""
    if not _is_native(qemu.arch):
        return f"guests of {qemu.arch} are foreign to this host"
    if qemu.accelerators and accelerator not in qemu.accelerators:
        return f"{qemu.path.name} was built without it"
    if accelerator is Accelerator.KVM:
        return _find_kvm_obstacle()
    from osimager.machine.hvf import find_obstacle  # macOS alone needs it, and plistlib with it

    return await find_obstacle(qemu)


async def _race(qemu: QemuFacts, accelerator: Accelerator, cpu: str = "host") -> tuple[Verdict, Verdict]:
    """Run the probe under `accelerator` and under TCG side by side, and give both verdicts."""
    now = asyncio.get_running_loop().time
    limit = asyncio.timeout(_LONGEST_S if _has_tcg(qemu) else PROBE_S)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(_probe(qemu, accelerator, limit, cpu))
        tcg = await _examine_tcg(qemu)
        if tcg.works and not running.done():
            left_s = max(_SHORTEST_S, tcg.seconds * _TIMES_TCG) - tcg.seconds
            limit.reschedule(min(limit.when() or now(), now() + left_s))
    return replace(_compare(running.result(), tcg), is_final=tcg.is_final), tcg


async def _race_fallback(qemu: QemuFacts, first: Verdict) -> Verdict:
    """Try the model that HVF takes where `host` has what QEMU does not know: SME on an M4 (QEMU issues 2665, 2721)."""
    second, _ = await _race(qemu, Accelerator.HVF, _HVF_FALLBACK)
    if not second.works:
        return first
    return replace(second, reason=f"{second.reason}, as {_HVF_FALLBACK}: with -cpu host {first.reason}")


async def _examine_tcg(qemu: QemuFacts) -> Verdict:
    """Run the probe under TCG. A host on which it takes too long is busy: TCG works wherever QEMU gets to run it."""
    if not _has_tcg(qemu):
        return Verdict(False, f"{qemu.path.name} was built without it")
    verdict = await probe(qemu, Accelerator.TCG, deadline_s=_LONGEST_S)
    return verdict if verdict.is_final else replace(verdict, works=True, reason="this host is busy")


def _compare(verdict: Verdict, tcg: Verdict) -> Verdict:
    """Reject what runs, but more slowly than TCG."""
    if not (verdict.works and tcg.works and tcg.is_final) or verdict.loop_s <= tcg.loop_s + _NOISE_S:
        return verdict
    took = f"{verdict.loop_s * 1000:.0f} ms for a loop that takes TCG {tcg.loop_s * 1000:.0f} ms"
    return replace(verdict, works=False, reason=f"it is slower than TCG: {took}")


def _find_kvm_obstacle() -> str:
    """Say what keeps KVM from being opened, else nothing."""
    if not _KVM.exists():
        return f"there is no {_KVM}"
    return "" if os.access(_KVM, os.R_OK | os.W_OK) else f"{_KVM} is not open to this user: join the group kvm"
