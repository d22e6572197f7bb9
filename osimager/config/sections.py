"""What a resolved target says, as frozen values: the sections of a spec after merging and markers.

No pydantic here and no I/O: these are the types that the plan is made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from osimager.arch import Firmware
from osimager.config.values import Value
from osimager.errors import Place


class Rung(StrEnum):
    """A way to start the installer, from the surest to the last resort."""

    DIRECT = "direct"
    MENU = "menu"
    TYPED = "typed"


class DiskInterface(StrEnum):
    """How the guest sees a disk."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"
    NVME = "nvme"


class StepKind(StrEnum):
    """What a provisioning step does; also the key that says so in a spec."""

    SCRIPT = "script"
    INLINE = "inline"
    FILE = "file"
    SHELL_LOCAL = "shell-local"
    ANSIBLE = "ansible"


@dataclass(frozen=True, slots=True)
class Target:
    """What is built and where: `[PLATFORM/[LOCATION/]]DIST-VERSION[-ARCH]`, all five known."""

    platform: str
    location: str
    dist: str
    version: str
    arch: str

    @property
    def name(self) -> str:
        """The short name, `DIST-VERSION`."""
        return f"{self.dist}-{self.version}"

    @property
    def short(self) -> str:
        """`DIST-VERSION-ARCH`: what images are called by."""
        return f"{self.dist}-{self.version}-{self.arch}"

    def __str__(self) -> str:
        return f"{self.platform}/{self.location}/{self.dist}-{self.version}-{self.arch}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was given: its place, the sections that matched on the way, and the raw value from there on.

    `is_joined`: what was there before is part of it (`merge: [KEY]`). `section` reads `defs`,
    `version_specific '12.*' > defs`, `-D`, `computed`, `built in`.
    """

    place: Place
    section: str
    value: Value
    is_joined: bool = False


@dataclass(frozen=True, slots=True)
class Fragment:
    """One file of an answer file's parts: its text as it stands on disk, markers and all."""

    place: Place
    text: str


@dataclass(frozen=True, slots=True)
class FileSection:
    """A file to be generated: the name it gets, and the fragments that it is put together from, in order."""

    dest: str
    fragments: tuple[Fragment, ...]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSection:
    """The small ISO with answer files: its volume label and the `dest` names of the files on it."""

    label: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallerSection:
    """How this version's installer is started and told what to do.

    `menu` is a regular expression for the ISO's own menu entry (None: its default); `kernel_arguments` are added to
    that entry's own, without those that a whole word of them matches in `drop_arguments`. `boot_command` is Packer's
    language, typed after `boot_wait_s` seconds at the latest. `restarts`: how often the installer restarts itself
    before its end. `sources` says of each kernel argument by its name, and of `boot_command`, `menu`, `seed` and the
    like, where it is documented.
    """

    format: str = ""
    boot: tuple[Rung, ...] = (Rung.DIRECT, Rung.TYPED)
    menu: str | None = None
    kernel_arguments: tuple[str, ...] = ()
    drop_arguments: tuple[str, ...] = ()
    seed: SeedSection | None = None
    boot_command: tuple[str, ...] = ()
    boot_wait_s: float | None = None
    restarts: int = 0
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSection:
    """A disk beside the one that becomes the image."""

    size_bytes: int
    interface: DiskInterface = DiskInterface.VIRTIO


@dataclass(frozen=True, slots=True, kw_only=True)
class NicSection:
    """A network card beside the first: on QEMU's user network, or on a bridge of this host's."""

    model: str = "virtio"
    bridge: str | None = None
    mac: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSection:
    """The machine that the guest is given. None: the accelerator's or QEMU's own choice.

    `nic`, `bridge` and `mac` are the first network card's, `disk_size_bytes` and `disk_interface` the first disk's.
    `overrides` are options of QEMU's by the id of the argument that they replace or add; None removes it.
    """

    memory_mib: int = 2048
    cpus: int = 2
    disk_size_bytes: int = 10 * 1024**3
    cpu: str | None = None
    machine: str | None = None
    disk_interface: DiskInterface = DiskInterface.VIRTIO
    nic: str = "virtio"
    bridge: str | None = None
    mac: str | None = None
    disks: tuple[DiskSection, ...] = ()
    nics: tuple[NicSection, ...] = ()
    tpm: bool = False
    overrides: Mapping[str, str | None] = field(default_factory=dict)
    firmware: Firmware = Firmware.BIOS
    minimum_memory_mib: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSection:
    """How the runner gets into the installed guest. `user` is the build's own account.

    `password` is set for old trees only, whose answer files plant no key; it is a secret.
    """

    user: str = "osimager"
    port: int = 22
    method: str = "ssh"
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSection:
    """One provisioning action. `argument` is the script's, file's or playbook's name, or the inline text.

    `arguments` are more words for ansible-playbook; `folder` is where a step on this host runs, if not beside its file.
    """

    kind: StepKind
    argument: str
    place: Place
    dest: str | None = None
    mode: int | None = None
    cache: bool = True
    inputs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    folder: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealSection:
    """What leaves the image at the end, and what stays. `login` names the account that people keep, if there is one."""

    login: str | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySection:
    """Whether the finished image is booted from clean firmware variables, and asked what was promised of it."""

    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """All of a target's sections, after merging and markers. `needs` is what stops a build at RESOLVE, with its places.

    `environment` (`evars`) is what steps on this host get, `venv` the virtual environment whose Ansible runs playbooks.
    """

    installer: InstallerSection
    machine: MachineSection
    access: AccessSection
    seal: SealSection
    verify: VerifySection
    files: tuple[FileSection, ...] = ()
    steps: tuple[StepSection, ...] = ()
    needs: str | None = None
    needs_at: tuple[Place, ...] = ()
    status: str | None = None
    notes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    venv: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoEntry:
    """One ISO of the catalogue for one architecture. Either `make` names a recipe, or there are `urls` or `patterns`.

    `patterns` are file names to look for under `iso_path`; `checksum_url` points at the vendor's list;
    `needs_login` is the page where people get the file that nobody may download for them. `sources` says of each key
    where the vendor says so.
    """

    name: str
    arch: str
    place: Place
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    checksum_url: str | None = None
    signature_url: str | None = None
    signature_key: str | None = None
    size_bytes: int | None = None
    volume_id: str | None = None
    patterns: tuple[str, ...] = ()
    make: str | None = None
    needs_login: str | None = None
    notes: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
