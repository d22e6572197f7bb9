"""Which accelerator really runs guests here: found out by a guest of a few instructions, under the clock.

A `/dev/kvm` that opens and makes machines may still never let a guest through (nested virtualisation that is half
there), and some hosts run real mode but hang on the way to long mode. So each candidate runs a probe that says how far
it came. Verdicts are kept until the host is rebooted, the binary or the device changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from osimager.arch import Arch, host_arch
from osimager.errors import PrerequisiteError
from osimager.kept import write_kept
from osimager.plan.facts import Accelerator, AcceleratorFacts, QemuFacts
from osimager.proc import open_child, run_tool

PROBE_S = 1.5
_KVM = Path("/dev/kvm")
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
    """Whether an accelerator runs guests, and what was seen."""

    works: bool
    reason: str
    seconds: float = 0.0


async def choose_accelerator(qemu: QemuFacts, *, wanted: str = "auto", cache: Path) -> AcceleratorFacts:
    """Give the accelerator for guests of `qemu.arch`. `wanted`: auto, kvm, hvf or tcg; `cache`: a folder for verdicts.

    Raises PrerequisiteError where the wanted one does not work here, or none does.
    """
    has_tcg = not qemu.accelerators or Accelerator.TCG in qemu.accelerators
    fast = Accelerator.HVF if sys.platform == "darwin" else Accelerator.KVM
    if wanted == Accelerator.TCG or (wanted == "auto" and not _is_native(qemu.arch)):
        if not has_tcg:
            raise PrerequisiteError(f"{qemu.path} was built without TCG", hint="install QEMU's full package")
        reason = "asked for" if wanted == Accelerator.TCG else f"guests of {qemu.arch} are foreign to this host"
        return AcceleratorFacts(qemu.arch, Accelerator.TCG, reason)
    if wanted not in ("auto", fast):
        raise PrerequisiteError(f"there is no {wanted} on {sys.platform}", hint="use --accel auto")
    verdict = await _cached_verdict(qemu, fast, cache)
    if verdict.works:
        return AcceleratorFacts(qemu.arch, fast, verdict.reason)
    if wanted == fast:
        raise PrerequisiteError(f"{fast} does not work here: {verdict.reason}", hint="use --accel auto or tcg")
    if not has_tcg:
        raise PrerequisiteError(
            f"no accelerator works here: {fast}: {verdict.reason}; and {qemu.path} was built without TCG",
            hint="install QEMU's full package, or mend the accelerator",
        )
    return AcceleratorFacts(qemu.arch, Accelerator.TCG, f"{fast} passed over: {verdict.reason}")


def _is_native(arch: Arch) -> bool:
    host = host_arch()
    return arch is host or (arch is Arch.I386 and host is Arch.X86_64)


async def probe(qemu: QemuFacts, accelerator: Accelerator, *, deadline_s: float = PROBE_S) -> Verdict:
    """Run the probe guest under `accelerator` and say how far it came. Never raises for a guest that fails."""
    started = asyncio.get_running_loop().time()
    with tempfile.TemporaryDirectory(prefix="osimager-probe-") as folder:
        ended, said, stderr = await _run_probe(_probe_argv(qemu, accelerator, Path(folder)), deadline_s)
    seconds = asyncio.get_running_loop().time() - started
    if ended and said.endswith("L"):
        return Verdict(True, f"a probe guest ran to its end in {seconds * 1000:.0f} ms", seconds)
    if ended:
        last = stderr.strip().splitlines()
        why = f"QEMU ended a probe guest: {last[-1]}" if last else "a probe guest ended before it had said anything"
        return Verdict(False, why, seconds)
    where = {"": "its first instruction", "R": "long mode" if qemu.arch is not Arch.AARCH64 else "its loop"}
    place = where.get(said, "its end")
    return Verdict(False, f"it opens, but a probe guest hung: no sign of {place} in {deadline_s:.1f} s", seconds)


def _probe_argv(qemu: QemuFacts, accelerator: Accelerator, folder: Path) -> list[str]:
    image = folder / "probe"
    if qemu.arch is Arch.AARCH64:
        image.write_bytes(_ARM_PROBE)
        machine, option = "virt", "-kernel"
    else:
        rom = bytearray(_X86_PROBE.ljust(_ROM_BYTES, b"\x90"))
        rom[0xFFF0:0xFFF3] = b"\xe9" + (-0xFFF3 & 0xFFFF).to_bytes(2, "little")  # reset vector: jmp 0
        image.write_bytes(rom)
        machine, option = "q35", "-bios"
    cpu = "max" if accelerator is Accelerator.TCG else "host"
    return [
        *(str(qemu.path), "-nodefaults", "-no-user-config", "-machine", machine, "-accel", str(accelerator)),
        *("-cpu", cpu, "-m", "64", "-display", "none", "-action", "reboot=shutdown", option, str(image)),
        *("-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"),
    ]


async def _run_probe(argv: list[str], deadline_s: float) -> tuple[bool, str, str]:
    """Give whether QEMU ended by itself in time, and what it wrote to stdout and stderr."""
    said: list[bytes] = []
    pipe = asyncio.subprocess.PIPE
    async with open_child(argv, stdout=pipe, ask_s=0, term_s=0.1) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while data := await child.stdout.read(64):
                    said.append(data)
                stderr = await child.stderr.read()
                await child.wait()
                return True, b"".join(said).decode("ascii", "replace"), stderr.decode(errors="replace")
    return False, b"".join(said).decode("ascii", "replace"), ""


async def _cached_verdict(qemu: QemuFacts, accelerator: Accelerator, cache: Path) -> Verdict:
    file = cache / f"{accelerator}-{_state_digest(qemu, accelerator)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        data = json.loads(file.read_text("utf-8"))
        return Verdict(bool(data["works"]), str(data["reason"]), float(data["seconds"]))
    verdict = await _examine(qemu, accelerator)
    with contextlib.suppress(PrerequisiteError):  # a cache that cannot be written costs time, nothing else
        content = {"works": verdict.works, "reason": verdict.reason, "seconds": verdict.seconds}
        write_kept(file, json.dumps(content))
    return verdict


def _state_digest(qemu: QemuFacts, accelerator: Accelerator) -> str:
    """Give a digest of what a verdict depends on: the binary, the boot, the device and who may open it."""
    state = [qemu.digest, str(accelerator)]
    with contextlib.suppress(OSError):
        state.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii"))
    with contextlib.suppress(OSError):
        device = _KVM.stat()
        state += [str(device.st_mode), str(device.st_ctime_ns), str(os.access(_KVM, os.R_OK | os.W_OK))]
    return hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]


async def _examine(qemu: QemuFacts, accelerator: Accelerator) -> Verdict:
    """Look at what can be known without a guest, then run one."""
    if qemu.accelerators and accelerator not in qemu.accelerators:
        return Verdict(False, f"{qemu.path.name} was built without it")
    obstacle = _kvm_obstacle() if accelerator is Accelerator.KVM else await _hvf_obstacle(qemu)
    return Verdict(False, obstacle) if obstacle else await probe(qemu, accelerator)


def _kvm_obstacle() -> str:
    """Say what keeps KVM from being opened, else nothing."""
    if not _KVM.exists():
        return f"there is no {_KVM}"
    return "" if os.access(_KVM, os.R_OK | os.W_OK) else f"{_KVM} is not open to this user: join the group kvm"


async def _hvf_obstacle(qemu: QemuFacts) -> str:
    """Say what keeps Hypervisor.framework from working, else nothing. Unverified: no macOS host was at hand."""
    if qemu.arch is Arch.AARCH64 and qemu.version < (8, 2):
        return "QEMU 8.2 or newer is needed for guests under HVF: brew upgrade qemu"
    support = await run_tool(["/usr/sbin/sysctl", "-n", "kern.hv_support"], deadline_s=5, check=False)
    if support.text.strip() != "1":
        return "this Mac has no Hypervisor.framework (sysctl kern.hv_support)"
    codesign: list[str | Path] = ["/usr/bin/codesign", "-d", "--entitlements", "-", "--xml", qemu.path.resolve()]
    signed = await run_tool(codesign, deadline_s=5, check=False)
    if "com.apple.security.hypervisor" not in signed.text + signed.stderr:
        return f"{qemu.path} lacks the entitlement com.apple.security.hypervisor: brew reinstall qemu signs it"
    return ""
