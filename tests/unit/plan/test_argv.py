"""The argument list: golden files for each host × guest × firmware, and the rules that they cannot show."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from osimager.arch import Arch, Firmware
from osimager.config.sections import DiskInterface
from osimager.errors import ConfigError, PrerequisiteError
from osimager.plan.argv import (
    Channels,
    Display,
    MachineFiles,
    check_argv,
    render_argv,
    render_boot_config,
    resolve_cpu,
)
from osimager.plan.facts import Accelerator, AcceleratorFacts, FirmwareFiles, HostFacts, QemuFacts
from osimager.plan.model import (
    BridgeNetwork,
    DeviceOverride,
    DiskShape,
    MachineShape,
    NicShape,
    UserNetwork,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "argv"
CPUS = frozenset({"qemu64", "Nehalem", "Haswell-noTSX", "Haswell", "max", "cortex-a57", "neoverse-n1"})
DEVICES = frozenset({"pvpanic", "pvpanic-pci", "virtio-blk-pci", "tpm-crb", "tpm-tis-device"})


def make_host(system: str, host: Arch, guest: Arch, accelerator: Accelerator) -> HostFacts:
    prefix = Path("/opt/homebrew" if system == "Darwin" else "/usr")
    qemu = QemuFacts(
        arch=guest,
        path=prefix / "bin" / f"qemu-system-{guest}",
        version=(9, 2, 0),
        sandbox=system == "Linux",
        cpu_models=CPUS,
        devices=DEVICES,
        machines=frozenset({"q35", "pc", "virt"}),
        digest="",
    )
    firmware = FirmwareFiles(guest, prefix / "share/CODE.fd", prefix / "share/VARS.fd")
    facts = AcceleratorFacts(guest, accelerator, "")
    return HostFacts(
        system=system, arch=host, cores=8, memory_mib=16384, qemu=qemu, accelerator=facts, firmware=firmware
    )


HOSTS = {
    "linux-kvm": make_host("Linux", Arch.X86_64, Arch.X86_64, Accelerator.KVM),
    "linux-tcg": make_host("Linux", Arch.X86_64, Arch.X86_64, Accelerator.TCG),
    "linux-tcg-arm": make_host("Linux", Arch.X86_64, Arch.AARCH64, Accelerator.TCG),
    "linux-kvm-arm": make_host("Linux", Arch.AARCH64, Arch.AARCH64, Accelerator.KVM),
    "darwin-hvf-arm": make_host("Darwin", Arch.AARCH64, Arch.AARCH64, Accelerator.HVF),
    "darwin-tcg": make_host("Darwin", Arch.AARCH64, Arch.X86_64, Accelerator.TCG),
}
STATIC = UserNetwork(cidr="192.168.77.0/24", host="192.168.77.1", guest="192.168.77.10")


def make_shape(arch: Arch, firmware: Firmware, machine: str = "") -> MachineShape:
    arm = arch is Arch.AARCH64
    return MachineShape(
        arch=arch,
        firmware=firmware,
        machine=machine or ("virt" if arm else "q35"),
        cpu="cortex-a57" if arm else "x86-64-v2",
        cpus=2,
        memory_mib=2048,
        disks=(DiskShape("disk0", 20 << 30),),
        nics=(NicShape("net0"),),
        cdrom_interface=DiskInterface.SCSI if arm else DiskInterface.SATA,
    )


X86 = make_shape(Arch.X86_64, Firmware.BIOS)
CHANNELS = Channels(qmp_fd=10, serial_fd=11)
WITH_TPM = dataclasses.replace(CHANNELS, tpm_fd=12)
OLD = dataclasses.replace(
    make_shape(Arch.X86_64, Firmware.BIOS, "pc"),
    disks=(DiskShape("disk0", 1, DiskInterface.IDE), DiskShape("disk1", 1, DiskInterface.SATA)),
    nics=(NicShape("net0", STATIC, "e1000", "52:54:00:12:34:56"), NicShape("net1", BridgeNetwork("br0"))),
    cdrom_interface=DiskInterface.IDE,
)
MANY = dataclasses.replace(
    X86,
    cpus=16,
    disks=tuple(DiskShape(f"disk{n}", 1, interface) for n, interface in enumerate(DiskInterface)),
    nics=(NicShape("net0", UserNetwork(restricted=True)),),
)
CASES = {
    **{
        f"{name}-{firmware}": (make_shape(host.qemu.arch, firmware), host, CHANNELS)
        for name, host in HOSTS.items()
        for firmware in Firmware
        if not (host.qemu.arch is Arch.AARCH64 and firmware is Firmware.BIOS)
    },
    "installer-direct": (
        X86,
        HOSTS["linux-tcg"],
        dataclasses.replace(CHANNELS, config_fd=12, ends_on_reset=True),
    ),
    "old-pc": (OLD, HOSTS["linux-kvm"], dataclasses.replace(CHANNELS, taps=(13,))),
    "many-disks-offline": (MANY, HOSTS["linux-kvm"], CHANNELS),
    **{
        f"tpm-{arch}": (dataclasses.replace(make_shape(arch, Firmware.UEFI), tpm=True), HOSTS[host], WITH_TPM)
        for arch, host in ((Arch.X86_64, "linux-tcg"), (Arch.AARCH64, "linux-tcg-arm"))
    },
    "arm-16-cpus-vnc": (
        dataclasses.replace(make_shape(Arch.AARCH64, Firmware.UEFI), cpus=16),
        HOSTS["linux-tcg-arm"],
        dataclasses.replace(CHANNELS, display=Display.VNC, vnc_socket=Path("/run/vnc,1")),
    ),
}


def render(shape: MachineShape, host: HostFacts, channels: Channels = CHANNELS) -> tuple[str, ...]:
    files = MachineFiles(
        disks=tuple(Path(f"/w/{disk.id}.qcow2") for disk in shape.disks),
        cds=(Path("/isos/installer.iso"), Path("/w/seed, 1.iso")),
        variables=Path("/w/vars.qcow2"),
    )
    return render_argv(shape, host, files=files, channels=channels)


def as_text(argv: tuple[str, ...]) -> str:
    return " ".join(argv).replace(" -", "\n-") + "\n"


@pytest.mark.parametrize("name", CASES)
def test_argv_is_golden(name: str, update_golden: bool) -> None:
    shape, host, channels = CASES[name]
    text = as_text(render(shape, host, channels))
    file = GOLDEN / f"{name}.txt"
    if update_golden or os.environ.get("OSIMAGER_UPDATE_GOLDEN"):
        file.write_text(text)
    assert file.read_text() == text


def test_macos_gets_no_linux_only_option() -> None:
    argv = render(make_shape(Arch.AARCH64, Firmware.UEFI), HOSTS["darwin-hvf-arm"])
    assert not {"-sandbox", "-daemonize"} & set(argv)
    assert not any("kvm" in word or "io_uring" in word or "aio=native" in word for word in argv)


def test_override_replaces_removes_and_adds() -> None:
    shape = dataclasses.replace(
        X86,
        overrides=(
            DeviceOverride("video0", "device", "virtio-vga,id=video0"),
            DeviceOverride("rng0", None),
            DeviceOverride("balloon0", "device", "virtio-balloon-pci,id=balloon0"),
            DeviceOverride("s3", "global", "ICH9-LPC.disable_s3=1"),
            DeviceOverride("cpu", "cpu", "qemu64"),
        ),
    )
    text = as_text(render(shape, HOSTS["linux-tcg"]))
    assert "virtio-vga,id=video0" in text
    assert "VGA,id=video0,addr" not in text
    assert "id=rng0" not in text
    assert "-cpu qemu64\n" in text
    assert "-cpu max" not in text
    assert text.endswith("-device virtio-balloon-pci,id=balloon0\n-global ICH9-LPC.disable_s3=1\n")


@pytest.mark.parametrize("option", [None, "device"])
def test_override_of_an_unknown_id_names_the_known_ones(option: str | None) -> None:
    shape = dataclasses.replace(X86, overrides=(DeviceOverride("video9", option, "virtio-vga,id=video0"),))
    with pytest.raises(ConfigError, match="video9") as caught:
        render(shape, HOSTS["linux-tcg"])
    assert "video0" in str(caught.value.hint)


def test_tpm_that_this_qemu_has_not_got_is_told_before_the_start() -> None:
    host = HOSTS["linux-tcg"]
    without = dataclasses.replace(host, qemu=dataclasses.replace(host.qemu, devices=frozenset()))
    shape = dataclasses.replace(X86, tpm=True)
    check_argv(shape, host)
    with pytest.raises(PrerequisiteError, match="qemu-system-x86_64 has no tpm-crb"):
        check_argv(shape, without)


def test_network_card_keeps_its_place_without_the_installers_drives() -> None:
    files = MachineFiles(disks=(Path("/w/a.qcow2"),))
    bare = render_argv(X86, HOSTS["linux-tcg"], files=files, channels=CHANNELS)
    full = render(X86, HOSTS["linux-tcg"])
    assert [word for word in bare if word.startswith("virtio-net")] == [
        word for word in full if word.startswith("virtio-net")
    ]


@pytest.mark.parametrize(
    ("cpu", "host", "model"),
    [
        ("x86-64", "linux-tcg", "qemu64"),
        ("x86-64-v2", "linux-tcg", "max,la57=off,erms=off"),
        ("x86-64-v3", "linux-tcg", "max,la57=off,erms=off"),
        ("x86-64-v3", "linux-kvm", "host"),
        ("host", "linux-tcg", "max,la57=off,erms=off"),
        ("max", "linux-tcg-arm", "max,pauth-impdef=on"),
        ("cortex-a57", "linux-tcg-arm", "cortex-a57"),
        ("cortex-a57", "darwin-hvf-arm", "host"),
        ("Haswell", "linux-kvm", "Haswell"),
    ],
)
def test_cpu_levels_become_models(cpu: str, host: str, model: str) -> None:
    assert resolve_cpu(cpu, HOSTS[host]) == model


def test_older_tcg_gets_a_model_that_has_the_level_or_says_that_it_has_none() -> None:
    host = HOSTS["linux-tcg"]
    old = dataclasses.replace(host, qemu=dataclasses.replace(host.qemu, version=(6, 2, 0)))
    assert resolve_cpu("x86-64-v2", old) == "Nehalem"
    with pytest.raises(PrerequisiteError, match="has no AVX2"):
        resolve_cpu("x86-64-v3", old)


def test_hvf_that_cannot_give_its_host_cpu_gives_the_one_that_worked() -> None:
    host = HOSTS["darwin-hvf-arm"]
    m4 = dataclasses.replace(host, accelerator=dataclasses.replace(host.accelerator, cpu="cortex-a57"))
    assert {resolve_cpu(cpu, m4) for cpu in ("max", "host", "neoverse-n1")} == {"cortex-a57"}


@pytest.mark.parametrize("cpu", ["x86-64-v4", "i986"])
def test_cpu_that_is_not_there_is_a_prerequisite(cpu: str) -> None:
    with pytest.raises(PrerequisiteError):
        resolve_cpu(cpu, HOSTS["linux-tcg"])


def test_kernel_arguments_never_stand_in_argv() -> None:
    argv = render(X86, HOSTS["linux-tcg"], dataclasses.replace(CHANNELS, config_fd=12))
    assert not {"-kernel", "-initrd", "-append"} & set(argv)


def test_boot_config_holds_kernel_initrd_and_arguments() -> None:
    text = render_boot_config(Path("/k"), Path("/i"), "url=http://10.0.2.2:1/x 'a b'")
    assert text == '[machine]\n  kernel = "/k"\n  initrd = "/i"\n  append = "url=http://10.0.2.2:1/x \'a b\'"\n'


@pytest.mark.parametrize("command_line", ['a="b c"', "x" * 1000, "a\nb"])
def test_boot_config_refuses_what_its_format_cannot_hold(command_line: str) -> None:
    with pytest.raises(ConfigError):
        render_boot_config(Path("/k"), None, command_line)


@pytest.mark.parametrize(
    "shape",
    [
        dataclasses.replace(X86, cdrom_interface=DiskInterface.VIRTIO),
        dataclasses.replace(X86, nics=tuple(NicShape(f"net{n}") for n in range(9))),
        dataclasses.replace(X86, disks=tuple(DiskShape(f"disk{n}", 1, DiskInterface.SATA) for n in range(7))),
        dataclasses.replace(X86, arch=Arch.AARCH64, machine="virt"),
    ],
)
def test_impossible_shape_is_a_configuration_error(shape: MachineShape) -> None:
    with pytest.raises(ConfigError):
        render(shape, HOSTS["linux-tcg"])
