"""The frozen plan: plain data that says everything a build will do. Layer 3's rooms meet in these types only.

Texts may hold typed holes (`osimager.holes`); everything else is final. Sizes and durations carry their unit in the
name. Nothing here knows a file's content but through a digest, except answers and steps, which are small.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from osimager.arch import Arch, Firmware
from osimager.config.markers import as_text
from osimager.config.sections import DiskInterface, Rung, Target
from osimager.config.values import Value
from osimager.errors import Place
from osimager.events import Stage


@dataclass(frozen=True, slots=True)
class DiskShape:
    """One disk of a machine. The first of a machine is the one that is installed and becomes the image."""

    id: str
    size_bytes: int
    interface: DiskInterface = DiskInterface.VIRTIO


@dataclass(frozen=True, slots=True)
class UserNetwork:
    """QEMU's user network. None: QEMU's own choice (10.0.2.0/24, the host at .2, the guest by DHCP at .15).

    For a static address: `cidr` is the location's network, `host` its gateway, `guest` the address that the SSH
    forward aims at. `restricted` cuts the guest off from everything but this host's forwards.
    """

    cidr: str | None = None
    host: str | None = None
    guest: str | None = None
    restricted: bool = False


@dataclass(frozen=True, slots=True)
class BridgeNetwork:
    """A bridge of this host's, through a tap descriptor that the caller opens.

    `guest` is the guest's static address; None: it gets one from a server there, and is known by its own packets.
    """

    bridge: str
    guest: str | None = None


@dataclass(frozen=True, slots=True)
class NicShape:
    """One network card: `model` is QEMU's device name without its bus (`virtio-net-pci`, `e1000`)."""

    id: str
    network: UserNetwork | BridgeNetwork = UserNetwork()
    model: str = "virtio-net-pci"
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceOverride:
    """A change to QEMU's argument list: the argument `id` is replaced, removed (`option` None), or added."""

    id: str
    option: str | None
    argument: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineShape:
    """The guest's hardware, accelerator and files left out. `cpu` is a level (`x86-64-v2`) or a QEMU model name."""

    arch: Arch
    firmware: Firmware
    machine: str
    cpu: str
    cpus: int
    memory_mib: int
    disks: tuple[DiskShape, ...]
    nics: tuple[NicShape, ...]
    cdrom_interface: DiskInterface = DiskInterface.SATA
    tpm: bool = False
    overrides: tuple[DeviceOverride, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BootPlan:
    """How the installer is booted. Until FETCH has read the ISO, `kernel` and `initrds` of a direct boot are empty.

    `menu` is a regular expression for the menu entry to take (empty: the default entry), `arguments` are added to that
    entry's own, of which those that fully match a regex of `drop` are left out. `boot_command` is typed, in Packer's
    language. `reason` says why this rung was taken. `spare_command` is typed
    where the rung is DIRECT and the ISO turns out to have no menu.
    """

    rung: Rung
    reason: str
    menu: str = ""
    arguments: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    kernel: str = ""
    initrds: tuple[str, ...] = ()
    command_line: str = ""
    boot_command: str = ""
    boot_wait_s: float = 0.0
    spare_command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeMedium:
    """A recipe for an ISO made from packages: a folder of `isos.d/made/`, for one architecture."""

    recipe: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPlan:
    """Where the installer ISO comes from: exactly one of `path`, `urls` and `made`.

    `sha256` is what it must have; `checksum_url` is the vendor's checksum file for the name `filename`; neither: a
    local file that is recorded as unverified. `signature_url` is that file's own signature, by the key with the
    fingerprint `signature_key`. `volume_id` is a regular expression.
    """

    name: str
    filename: str = ""
    path: Path | None = None
    urls: tuple[str, ...] = ()
    made: MadeMedium | None = None
    sha256: str | None = None
    checksum_url: str | None = None
    signature_url: str | None = None
    signature_key: str | None = None
    size_bytes: int | None = None
    volume_id: str | None = None
    origin: Place | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer file: its name for the guest, its rendered text (with holes), and the format that validates it."""

    name: str
    text: str
    format: str


@dataclass(frozen=True, slots=True)
class SeedPlan:
    """The seed ISO: its volume label and the names of the answers on it."""

    label: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlan:
    """The installer's machine: booted so, fed so, ended after `restarts` restarts and one more (or a power-off).

    The answers come on the `seed`, by the answer server (`serve`), or inside the initrd (`inject`).
    """

    machine: MachineShape
    boot: BootPlan
    answers: tuple[Answer, ...]
    seed: SeedPlan | None
    serve: bool
    inject: bool = False
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the runner gets into the installed guest: with this build's key.

    `password`, a secret, is for trees of OSImager 1.x, whose answer files plant no key: the key follows after CONNECT.
    """

    user: str
    port: int = 22
    become: str = "sudo"
    password: str | None = field(default=None, repr=False)


class StepKind(StrEnum):
    """What a provisioning step does."""

    SCRIPT = "script"
    FILE = "file"
    LOCAL = "local"
    ANSIBLE = "ansible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One provisioning action. `content` is the script's or the file's bytes.

    A SCRIPT runs as root in the guest, its `environment` beside it (never in argv). A FILE goes to `destination` with
    `mode`. LOCAL runs on this host, in `folder`, else in that of `origin`. ANSIBLE is the playbook at `origin`, run by
    `program` (None: ours) with `arguments`; of its `environment`, ANSIBLE_* go to it, all else are extra variables.
    `inputs` are digests of extra files that it depends on; `cache` false: it is run in every build.
    """

    name: str
    kind: StepKind
    content: bytes
    origin: Place
    environment: tuple[tuple[str, str], ...] = ()
    destination: str = ""
    mode: int = 0o755
    cache: bool = True
    inputs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    folder: Path | None = None
    program: Path | None = None


class SealMode(StrEnum):
    """TEMPLATE: for clones, all identity out. MACHINE: keeps host name, address and what belongs to them."""

    TEMPLATE = "template"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class SealPlan:
    """What leaves the image at the end. `build_user` is the account that the build got in by.

    It goes (`remove_build_user`) unless the configuration keeps it as somebody's login.
    """

    mode: SealMode
    build_user: str
    remove_build_user: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPlan:
    """Where the image goes: `folder/stem.qcow2`. `replace` allows an existing one to be replaced."""

    folder: Path
    stem: str
    replace: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Deadline:
    """How long a stage may take, in seconds of this host's time."""

    stage: Stage
    seconds: float


@dataclass(frozen=True, slots=True)
class DefValue:
    """One def as resolved, and the place it came from."""

    name: str
    value: Value
    origin: Place | None

    @property
    def text(self) -> str:
        """The value as people read it."""
        if isinstance(self.value, list | dict):
            return json.dumps(self.value, ensure_ascii=False)
        return as_text(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """Everything that a build will do."""

    target: Target
    profile: str
    hostname: str
    fqdn: str
    address: str
    defs: tuple[DefValue, ...]
    media: MediaPlan
    install: InstallPlan
    machine: MachineShape
    access: Access
    steps: tuple[Step, ...]
    seal: SealPlan
    verify: bool
    output: OutputPlan
    deadlines: tuple[Deadline, ...]
    notes: tuple[str, ...] = ()

    def deadline_s(self, stage: Stage) -> float:
        """Give the deadline of `stage` in seconds."""
        return next(deadline.seconds for deadline in self.deadlines if deadline.stage is stage)
