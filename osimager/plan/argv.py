"""QEMU's argument list from a machine's shape, as one ordered, typed builder. Pure: no file is looked at.

Every option has an id, so that an override can name it. PCI addresses are fixed: a guest's network card keeps its
name (`enp0s3`) whether or not the installer's drives are plugged in. Nothing secret may stand here: a direct boot's
kernel, initrd and command line go by a `-readconfig` descriptor (`render_boot_config`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from osimager.arch import Arch, Firmware
from osimager.config.sections import DiskInterface
from osimager.errors import ConfigError, PrerequisiteError
from osimager.plan.facts import Accelerator, HostFacts
from osimager.plan.model import BridgeNetwork, DiskShape, MachineShape, NicShape, UserNetwork

# PCI slots on the root bus, the same on pc, q35 and virt (pc: 0 and 1 are the chipset's; q35: 0x1f is).
_VIDEO_SLOT, _FIRST_NIC_SLOT, _RNG_SLOT, _SCSI_SLOT, _AHCI_SLOT, _USB_SLOT, _PANIC_SLOT = 2, 3, 8, 9, 10, 11, 12
_FIRST_DISK_SLOT, _LAST_DISK_SLOT = 0x10, 0x1D
_MOST_NICS = _RNG_SLOT - _FIRST_NIC_SLOT
# QEMU's config file parser takes lines below 1024 bytes and knows no escape (util/qemu-config.c, qemu_config_foreach).
_CONFIG_LINE_BYTES = 1000

_NAMED = re.compile(r"(?:^|,)(?:id|node-name)=([^,]+)")

# The psABI's levels to models that have at least their features, best first. TCG offers no AVX-512, so no level 4.
_LEVELS: dict[str, tuple[str, ...]] = {
    "x86-64": ("qemu64",),
    "x86-64-v1": ("qemu64",),
    "x86-64-v2": ("Nehalem", "Nehalem-v1"),
    "x86-64-v3": ("Haswell-noTSX", "Haswell-v4", "Haswell"),
    "x86-64-v4": ("Skylake-Server-noTSX-IBRS", "Skylake-Server-v3", "Skylake-Server"),
}

# The most that TCG has, without what makes it slow: five-level page tables, and `rep movsb` (one byte a turn) where
# `rep movsq` would do. Its vendor is AMD, so that Linux leaves page table isolation out: each system call of a guest on
# an Intel model flushes TCG's TLB (measured: a sixth of the whole boot). On arm64 the architected pointer
# authentication (QARMA) costs TCG half its speed; QEMU's own algorithm is made for it.
_TCG_MAX, _TCG_MAX_ARM = "max,la57=off,erms=off", "max,pauth-impdef=on"
_TCG_MAX_LEVELS = ("x86-64-v2", "x86-64-v3")
_TCG_AVX2 = (7, 2)

# The interface that TPM 2.0 brought, for PCs; `virt` has the older one, in memory.
_TPM_DEVICE = {Arch.X86_64: "tpm-crb", Arch.AARCH64: "tpm-tis-device"}


class Display(StrEnum):
    """Where the guest's screen goes; screenshots work with each."""

    NONE = "none"
    WINDOW = "window"
    VNC = "vnc"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFiles:
    """The files behind the shape: `disks` (qcow2) in the order of the shape's, `cds` (raw), firmware `variables`."""

    disks: tuple[Path, ...]
    cds: tuple[Path, ...] = ()
    variables: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """How the runner talks to the machine: inherited descriptors, and what the machine does at its end.

    `config_fd` is read for a direct boot; `tpm_fd` is a TPM's control channel; `taps` are the descriptors of the
    bridged cards, in order; `ram_fd` is the guest's memory. The guest waits for QMP's `cont`; with `incoming`, for a
    saved state before that.
    """

    qmp_fd: int
    serial_fd: int
    config_fd: int | None = None
    tpm_fd: int | None = None
    taps: tuple[int, ...] = ()
    ssh_port: int = 22
    ends_on_reset: bool = False
    display: Display = Display.NONE
    vnc_socket: Path | None = None
    ram_fd: int | None = None
    incoming: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """One option of QEMU's: `option` without its dash, its value where it takes one, its id where it has one."""

    option: str
    value: str | None = None
    id: str | None = None


def render_argv(shape: MachineShape, host: HostFacts, *, files: MachineFiles, channels: Channels) -> tuple[str, ...]:
    """Give the whole argument list, the program first.

    Raises ConfigError for a shape that QEMU cannot have, PrerequisiteError where this host's QEMU lacks a part.
    """
    _check_shape(shape, host, files)
    arguments = [
        *_base(shape, host, channels),
        *_firmware(shape, host, files),
        *_channels(channels),
        *_video_and_keys(shape, host, channels),
        *_network(shape, channels),
        *_small_devices(shape, host, channels),
        *_disks(shape, files),
        *_cds(shape, files),
    ]
    words = [str(host.qemu.path)]
    for argument in _overridden(arguments, shape):
        words.append(f"-{argument.option}")
        if argument.value is not None:
            words.append(argument.value)
    return tuple(words)


def check_argv(shape: MachineShape, host: HostFacts) -> None:
    """Refuse now what could not be started later. Raises as `render_argv` does."""
    somewhere = Path("/somewhere")
    files = MachineFiles(disks=(somewhere,) * len(shape.disks), cds=(somewhere,) * 2, variables=somewhere)
    taps = tuple(range(len(shape.nics)))
    render_argv(shape, host, files=files, channels=Channels(qmp_fd=0, serial_fd=0, taps=taps))


def render_kind(shape: MachineShape, host: HostFacts) -> tuple[str, ...]:
    """Give the arguments that decide whether a saved memory loads: those of a machine that can be saved, no file, no
    descriptor and no port of any one run in them.
    """
    files = MachineFiles(
        disks=tuple(Path(f"/{disk.id}") for disk in shape.disks),
        variables=Path("/variables") if shape.firmware is Firmware.UEFI else None,
    )
    tpm_fd = 0 if shape.tpm else None
    channels = Channels(qmp_fd=0, serial_fd=0, tpm_fd=tpm_fd, taps=(0,) * len(shape.nics), ram_fd=0)
    return render_argv(shape, host, files=files, channels=channels)


def render_overlay(node: str, path: Path) -> dict[str, object]:
    """Give the `blockdev-add` arguments of a disk's new overlay: as `_disks` has them, its backing added by the
    snapshot that follows.
    """
    cache = {"direct": False, "no-flush": True}
    file = {"driver": "file", "filename": str(path), "aio": "threads", "discard": "unmap", "cache": cache}
    return {
        "driver": "qcow2",
        "node-name": node,
        "backing": None,
        "discard": "unmap",
        "detect-zeroes": "unmap",
        "cache": cache,
        "file": file,
    }


def render_boot_config(kernel: Path, initrd: Path | None, command_line: str) -> str:
    """Give the `-readconfig` text of a direct boot. Raises ConfigError for what that format cannot hold."""
    lines = ["[machine]"]
    for name, value in (("kernel", str(kernel)), ("initrd", str(initrd or "")), ("append", command_line)):
        line = f'  {name} = "{value}"'
        if '"' in value or "\n" in value or len(line.encode()) > _CONFIG_LINE_BYTES:
            raise ConfigError(
                f"the direct boot's {name} holds a double quote or more than {_CONFIG_LINE_BYTES - 16} bytes",
                hint="use single quotes or fewer kernel arguments, or --boot typed",
            )
        if value:
            lines.append(line)
    return "\n".join(lines) + "\n"


def resolve_cpu(cpu: str, host: HostFacts) -> str:
    """Give the CPU model for a level or a model name, on this host's accelerator and QEMU.

    A level is a floor: hardware accelerators get `host`, TCG gets the most it has. Raises PrerequisiteError where this
    QEMU has no such model.
    """
    accelerator = host.accelerator.accelerator
    if accelerator is Accelerator.TCG:
        if cpu in ("host", "max") or (cpu in _TCG_MAX_LEVELS and host.qemu.version >= _TCG_AVX2):
            return _TCG_MAX_ARM if host.qemu.arch is Arch.AARCH64 else _TCG_MAX
        if cpu == "x86-64-v3":
            raise PrerequisiteError(
                f"TCG of QEMU {'.'.join(map(str, host.qemu.version))} has no AVX2, which x86-64-v3 asks for",
                hint="install QEMU 7.2 or newer, or build on a host with KVM",
            )
    elif cpu in ("host", "max") or cpu in _LEVELS or host.qemu.arch is Arch.AARCH64:
        return host.accelerator.cpu
    known = host.qemu.cpu_models
    if cpu == "x86-64-v4" and accelerator is Accelerator.TCG:
        raise PrerequisiteError("TCG has no AVX-512, which x86-64-v4 asks for", hint="build on a host with KVM")
    for model in _LEVELS.get(cpu, (cpu,)):
        if model in known:
            return model
    raise PrerequisiteError(
        f"{host.qemu.path.name} has no CPU model {cpu!r}", hint="see `-cpu help`, or install a newer QEMU"
    )


def _check_shape(shape: MachineShape, host: HostFacts, files: MachineFiles) -> None:
    if len(files.disks) != len(shape.disks):
        raise ConfigError(f"{len(shape.disks)} disks are planned, {len(files.disks)} files given")
    if len(shape.nics) > _MOST_NICS or len(shape.disks) > _LAST_DISK_SLOT - _FIRST_DISK_SLOT + 1:
        raise ConfigError(f"a machine has room for {_MOST_NICS} network cards and 14 disks")
    if shape.firmware is Firmware.UEFI and (host.firmware is None or files.variables is None):
        raise PrerequisiteError(f"no UEFI firmware for {shape.arch} on this host", hint=firmware_hint(shape.arch))
    if shape.firmware is Firmware.BIOS and shape.arch is Arch.AARCH64:
        raise ConfigError("aarch64 machines have no BIOS", hint="use --firmware uefi")
    if shape.tpm and _TPM_DEVICE[shape.arch] not in host.qemu.devices:
        raise PrerequisiteError(
            f"{host.qemu.path.name} has no {_TPM_DEVICE[shape.arch]} for a TPM",
            hint="install a QEMU that was built with TPM support",
        )


def firmware_hint(arch: Arch) -> str:
    """Say which packages hold the UEFI firmware."""
    debian, fedora = ("qemu-efi-aarch64", "edk2-aarch64") if arch is Arch.AARCH64 else ("ovmf", "edk2-ovmf")
    return f"install {debian} (Debian, Ubuntu), {fedora} (Fedora, EL) or Homebrew's qemu, which brings its own"


def _base(shape: MachineShape, host: HostFacts, channels: Channels) -> Iterator[Argument]:
    yield Argument("nodefaults")
    yield Argument("no-user-config")
    machine = [shape.machine]
    if shape.arch is Arch.AARCH64:
        # Beyond 8 CPUs GICv2 has no room; HVF before 9.x and TCG both have GICv3.
        machine.append("gic-version=3" if shape.cpus > 8 else "gic-version=max" if _is_kvm(host) else "gic-version=2")
    else:
        machine += ["hpet=off", "vmport=off"]
    if shape.firmware is Firmware.UEFI:
        machine += ["pflash0=firmware-code", "pflash1=firmware-variables"]
    if channels.ram_fd is not None:
        ram = f"memory-backend-file,id=ram0,size={shape.memory_mib}M,share=on,mem-path=/proc/self/fd/{channels.ram_fd}"
        yield Argument("object", ram, "ram0")
        machine.append("memory-backend=ram0")
    yield Argument("machine", ",".join(machine), "machine")
    yield Argument("accel", _accel(host), "accel")
    yield Argument("cpu", resolve_cpu(shape.cpu, host), "cpu")
    yield Argument("smp", f"cpus={shape.cpus}", "smp")
    yield Argument("m", f"size={shape.memory_mib}M", "memory")
    yield Argument("rtc", "base=utc", "rtc")
    yield Argument("boot", "menu=off,strict=on", "boot")
    reboot = "shutdown" if channels.ends_on_reset else "reset"
    yield Argument("action", f"reboot={reboot},shutdown=poweroff,panic=pause", "action")
    if host.system == "Linux" and host.qemu.sandbox:
        yield Argument("sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "sandbox")
    yield Argument("S")  # QMP tells of nothing that happens before it is greeted: a guest could be off by then
    if channels.incoming:
        yield Argument("incoming", "defer", "incoming")
    if channels.config_fd is not None:
        yield Argument("readconfig", f"/dev/fd/{channels.config_fd}")


def _is_kvm(host: HostFacts) -> bool:
    return host.accelerator.accelerator is Accelerator.KVM


def _accel(host: HostFacts) -> str:
    if host.accelerator.accelerator is Accelerator.TCG:
        return "tcg,thread=multi"
    return str(host.accelerator.accelerator)


def _firmware(shape: MachineShape, host: HostFacts, files: MachineFiles) -> Iterator[Argument]:
    if shape.firmware is not Firmware.UEFI:
        return
    assert host.firmware is not None
    assert files.variables is not None
    code = host.firmware
    yield _blockdev("firmware-code", code.code, driver=code.code_format, options="read-only=on")
    yield _blockdev("firmware-variables", files.variables, driver="qcow2")


def _channels(channels: Channels) -> Iterator[Argument]:
    yield Argument("chardev", f"socket,id=qmp,fd={channels.qmp_fd}", "qmp")
    yield Argument("mon", "chardev=qmp,id=monitor,mode=control", "monitor")
    yield Argument("chardev", f"socket,id=serial0,fd={channels.serial_fd}", "serial0")
    yield Argument("serial", "chardev:serial0")


def _video_and_keys(shape: MachineShape, host: HostFacts, channels: Channels) -> Iterator[Argument]:
    if channels.display is Display.VNC and channels.vnc_socket is not None:
        yield Argument("display", f"vnc=unix:{_value(channels.vnc_socket)}", "display")
    elif channels.display is Display.WINDOW:
        yield Argument("display", "cocoa" if host.system == "Darwin" else "gtk", "display")
    else:
        yield Argument("display", "none", "display")
    if shape.arch is Arch.AARCH64:
        yield _device("virtio-gpu-pci", "video0", slot=_VIDEO_SLOT)
        yield _device("qemu-xhci", "usb0", slot=_USB_SLOT)
        yield _device("usb-kbd", "keyboard0", "bus=usb0.0")
    else:
        yield _device("VGA", "video0", slot=_VIDEO_SLOT)


def _network(shape: MachineShape, channels: Channels) -> Iterator[Argument]:
    taps = iter(channels.taps)
    for index, nic in enumerate(shape.nics):
        net = f"{nic.id}-net"
        if isinstance(nic.network, BridgeNetwork):
            yield Argument("netdev", f"tap,id={net},fd={next(taps)}", net)
        else:
            yield Argument("netdev", _user_netdev(net, nic.network, channels.ssh_port if index == 0 else None), net)
        yield _device(*_nic_device(nic, net), slot=_FIRST_NIC_SLOT + index)


def _nic_device(nic: NicShape, net: str) -> tuple[str, str, str]:
    mac = f",mac={nic.mac}" if nic.mac else ""
    return nic.model, nic.id, f"netdev={net}{mac},romfile="  # no boot ROM: nothing is ever booted from the network


def _user_netdev(net: str, network: UserNetwork, ssh_port: int | None) -> str:
    parts = ["user", f"id={net}", "ipv6=off"]
    if network.cidr:
        parts += [f"net={network.cidr}", f"host={network.host}", *_own_addresses(network)]
    if network.restricted:
        # Forwards from this host still work; the guest reaches nothing, not even this host's answer server (tried:
        # libslirp drops what is no guestfwd, and that has one stream and cannot have the host's own address).
        parts.append("restrict=on")
    if ssh_port is not None:
        # Port 0: the kernel chooses, `info usernet` tells (no port is ever taken twice).
        parts.append(f"hostfwd=tcp:127.0.0.1:0-{network.guest or ''}:{ssh_port}")
    return ",".join(parts)


def _own_addresses(network: UserNetwork) -> Iterator[str]:
    """Give libslirp's DNS server and DHCP range addresses that are nobody's; its own choice is the 3rd and the 15th."""
    taken = {network.host, network.guest}
    free = (address for each in ipaddress.ip_network(network.cidr or "").hosts() if (address := str(each)) not in taken)
    yield f"dns={next(free)}"
    yield f"dhcpstart={next(free)}"


def _small_devices(shape: MachineShape, host: HostFacts, channels: Channels) -> Iterator[Argument]:
    yield Argument("object", "rng-builtin,id=entropy", "entropy")
    yield _device("virtio-rng-pci", "rng0", "rng=entropy", slot=_RNG_SLOT)
    if shape.arch is Arch.AARCH64:
        if "pvpanic-pci" in host.qemu.devices:
            yield _device("pvpanic-pci", "panic0", slot=_PANIC_SLOT)
    elif "pvpanic" in host.qemu.devices:
        yield _device("pvpanic", "panic0")
    if channels.ram_fd is not None and "vmgenid" in host.qemu.devices:
        # A kernel that wakes up with another id makes its random numbers anew (docs/specs/vmgenid in QEMU's tree).
        yield _device("vmgenid", "generation", "guid=auto")
    if channels.tpm_fd is not None:
        yield Argument("chardev", f"socket,id=tpm0-control,fd={channels.tpm_fd}", "tpm0-control")
        yield Argument("tpmdev", "emulator,id=tpm0-backend,chardev=tpm0-control", "tpm0-backend")
        yield _device(_TPM_DEVICE[shape.arch], "tpm0", "tpmdev=tpm0-backend")
    interfaces = {disk.interface for disk in shape.disks} | {shape.cdrom_interface}
    if DiskInterface.SCSI in interfaces:
        yield _device("virtio-scsi-pci", "scsi0", slot=_SCSI_SLOT)
    if DiskInterface.SATA in interfaces and not _is_q35(shape):
        yield _device("ich9-ahci", "ahci0", slot=_AHCI_SLOT)


def _is_q35(shape: MachineShape) -> bool:
    return "q35" in shape.machine


def _disks(shape: MachineShape, files: MachineFiles) -> Iterator[Argument]:
    cache = "cache.direct=off,cache.no-flush=on"  # fast and unsafe: a host that crashes loses a build, not an image
    for index, (disk, path) in enumerate(zip(shape.disks, files.disks, strict=True)):
        node = f"{disk.id}-file"
        yield _blockdev(node, path, driver="qcow2", options=f"discard=unmap,detect-zeroes=unmap,{cache}", file=cache)
        yield _disk_device(shape, disk, index, f"drive={node}" + (",bootindex=1" if index == 0 else ""))


def _disk_device(shape: MachineShape, disk: DiskShape, index: int, options: str) -> Argument:
    slot = _FIRST_DISK_SLOT + index
    match disk.interface:
        case DiskInterface.VIRTIO:
            return _device("virtio-blk-pci", disk.id, options, slot=slot)
        case DiskInterface.NVME:
            return _device("nvme", disk.id, f"serial={disk.id},{options}", slot=slot)
        case DiskInterface.SCSI:
            return _device("scsi-hd", disk.id, f"bus=scsi0.0,scsi-id={index},{options}")
        case DiskInterface.SATA | DiskInterface.IDE:
            port = sum(_is_ata(earlier.interface) for earlier in shape.disks[:index])
            return _device("ide-hd", disk.id, f"{_ata_place(shape, disk.interface, port)},{options}")


def _cds(shape: MachineShape, files: MachineFiles) -> Iterator[Argument]:
    ata_disks = sum(_is_ata(disk.interface) for disk in shape.disks)
    for index, path in enumerate(files.cds):
        name, node = f"cd{index}", f"cd{index}-file"
        yield _blockdev(node, path, driver="raw", options="read-only=on")
        options = f"drive={node}" + (",bootindex=2" if index == 0 else "")
        if _is_ata(shape.cdrom_interface):
            place = _ata_place(shape, shape.cdrom_interface, max(ata_disks, 2) + index)
            yield _device("ide-cd", name, f"{place},{options}")
        elif shape.cdrom_interface is DiskInterface.SCSI:
            yield _device("scsi-cd", name, f"bus=scsi0.0,scsi-id={len(shape.disks) + index},{options}")
        else:
            raise ConfigError(f"a CD drive cannot be on {shape.cdrom_interface}", hint="use sata, ide or scsi")


def _is_ata(interface: DiskInterface) -> bool:
    return interface in (DiskInterface.SATA, DiskInterface.IDE)


def _ata_place(shape: MachineShape, interface: DiskInterface, port: int) -> str:
    """Give the bus of the ATA drive number `port`: q35 has six ports built in, pc two IDE channels of two."""
    if _is_q35(shape):
        most, place = 6, f"bus=ide.{port}"
    elif interface is DiskInterface.SATA:
        most, place = 6, f"bus=ahci0.{port}"
    elif shape.arch is Arch.AARCH64:
        raise ConfigError("a virt machine has no IDE", hint="use virtio, scsi, sata or nvme")
    else:
        most, place = 4, f"bus=ide.{port // 2},unit={port % 2}"
    if port >= most:
        raise ConfigError(f"{shape.machine} has room for {most} {interface} drives")
    return place


def _device(driver: str, name: str, options: str = "", *, slot: int | None = None) -> Argument:
    parts = [driver, f"id={name}"]
    if options:
        parts.append(options)
    if slot is not None:
        parts.append(f"addr={slot:#x}")
    return Argument("device", ",".join(parts), name)


def _blockdev(node: str, path: Path, *, driver: str, options: str = "", file: str = "") -> Argument:
    parts = [f"driver={driver}", f"node-name={node}", "file.driver=file", f"file.filename={_value(path)}"]
    if "read-only=on" in options:
        parts.append("file.read-only=on")
    if file:
        parts += ["file.aio=threads", "file.discard=unmap", *(f"file.{option}" for option in file.split(","))]
    if options:
        parts.append(options)
    return Argument("blockdev", ",".join(parts), node)


def _value(path: Path) -> str:
    """Give a path as a value of QEMU's `key=value` lists, where a comma is doubled."""
    return str(path).replace(",", ",,")


def _overridden(arguments: list[Argument], shape: MachineShape) -> list[Argument]:
    """Apply the shape's overrides. Raises ConfigError for an id that no argument has, and that adds none."""
    for override in shape.overrides:
        at = next((i for i, argument in enumerate(arguments) if argument.id == override.id), len(arguments))
        named = _NAMED.search(override.argument or "")
        if at == len(arguments) and (override.option is None or (named and named[1] != override.id)):
            known = ", ".join(argument.id for argument in arguments if argument.id)
            raise ConfigError(f"no QEMU argument has the id {override.id!r}", hint=f"there are: {known}")
        arguments[at : at + 1] = [Argument(override.option, override.argument, override.id)] if override.option else []
    return arguments
