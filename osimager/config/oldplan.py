"""A Packer build of an old tree as the sections of ours. `docs/packer-keys.md` is the table that this follows.

A key without a counterpart is a warning with its place; what cannot be run is named in `needs`, so that it stops a
build at RESOLVE and is never skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from osimager.config import models
from osimager.config.configuration import Configuration
from osimager.config.lookups import Lookups
from osimager.config.markers import as_list, as_text
from osimager.config.oldtree import OldBuild, OldSettings, resolve_old
from osimager.config.provisioners import Needs, Provisioners, places_of, resolve_user
from osimager.config.qemuargs import map_qemuargs
from osimager.config.request import Request
from osimager.config.resolve import hook_needs, missing_files
from osimager.config.sections import (
    AccessSection,
    FileSection,
    Fragment,
    InstallerSection,
    MachineSection,
    Rung,
    SealSection,
    Sections,
    SeedSection,
    StepSection,
    VerifySection,
)
from osimager.config.values import Value
from osimager.errors import Place

if TYPE_CHECKING:
    from osimager.config.catalog import Catalog

# Builder keys that something else of ours decides: where the image goes, how it is watched, which accelerator it has.
# fmt: off
_DECIDED_HERE: Final = frozenset((
    "accelerator", "communicator", "disk_cache", "disk_compression", "disk_discard", "display", "format", "headless",
    "host_port_max", "host_port_min", "iso_checksum", "iso_target_extension", "iso_target_path", "iso_url", "iso_urls",
    "name", "output_directory", "shutdown_command", "shutdown_timeout", "skip_compaction", "ssh_host", "ssh_timeout",
    "ssh_wait_timeout", "type", "use_default_display", "vm_name", "vnc_bind_address", "vnc_port_max", "vnc_port_min",
))
_MAPPED: Final = frozenset((
    "boot_command", "boot_wait", "cd_files", "cd_label", "cores", "cpu_model", "cpus", "disk_interface", "disk_size",
    "efi_boot", "firmware", "machine_type", "memory", "net_bridge", "net_device", "qemuargs", "sockets",
    "ssh_password", "ssh_port", "ssh_username", "threads",
))
# fmt: on
# What the platform `qemu` runs after a build: it defines a libvirt domain of the image. The registry stands for it.
_REGISTERING_HOOK: Final = "scripts/qemu_post_build.py"
_DISK_INTERFACES: Final = {"virtio-scsi": "scsi", "sata": "sata", "ide": "ide", "scsi": "scsi", "nvme": "nvme"}
_NICS: Final = {"virtio-net": "virtio", "virtio-net-pci": "virtio", "virtio": "virtio"}


# What `>>temp_dir<<` stands for: generated files are recognised by it; no such folder is needed.
_TEMP: Final = "/osimager-build"


def configure_old(catalog: Catalog, request: Request, lookups: Lookups) -> Configuration:
    """Resolve a target of an old tree to a Configuration. Raises UsageError, ConfigError(s)."""
    roots = catalog.roots
    user = roots.old_user or Path("/")
    settings = OldSettings(user_dir=user, values=roots.old_settings, temp_dir=_TEMP, home=Path.home())
    build = resolve_old(catalog, request, lookups, settings)
    return Configuration(
        target=build.target,
        profile=request.profile,
        spec=build.spec,
        defs=build.defs,
        sections=_Mapping(catalog, build).sections(),
        iso=request.iso or _iso(build),
        renderer=build.renderer,
        merged=build.merged,
        names=build.names,
        warnings=(*build.warnings, *_unmapped(build)),
        packer=build.packer(),
    )


def _iso(build: OldBuild) -> str | None:
    url = as_text(build.config.get("iso_url")) or as_text(build.defs.get("iso_url"))
    return url.removeprefix("file://") or None


def _unmapped(build: OldBuild) -> list[str]:
    """Give a warning for each builder key that nothing here reads."""
    known = _DECIDED_HERE | _MAPPED
    found = []
    hook = as_text(build.fields.get("post_build"))
    if hook and hook != _REGISTERING_HOOK:
        found.append(f"the post_build hook {hook!r} is not run ({build.merged.place('', 'post_build')})")
    for key in build.config:
        if key not in known and not key.startswith("winrm_"):
            place = build.merged.place("config", key)
            found.append(
                f"{key!r} of Packer's QEMU builder has no counterpart and is left out"
                + (f" ({place})" if place else "")
            )
    place = build.merged.place("config", "qemuargs")
    for argument in map_qemuargs(build.config.get("qemuargs")).left:
        found.append(f"'qemuargs' {argument!r} of Packer's QEMU builder has no counterpart and is left out ({place})")
    return found


class _Mapping:
    """One build's sections."""

    def __init__(self, catalog: Catalog, build: OldBuild) -> None:
        self.catalog, self.build = catalog, build
        self.config = build.config
        self.temp = as_text(build.defs["temp_dir"])

    def place(self, key: str) -> Place | None:
        return self.build.merged.place("config", key)

    def sections(self) -> Sections:
        needs = self.needs()
        steps = self.steps(needs)
        files, seed = self.files(needs)
        return Sections(
            installer=self.installer(seed),
            machine=self.machine(),
            access=self.access(),
            seal=SealSection(login=self.user("ssh_username") or None),
            verify=VerifySection(),
            files=files,
            steps=tuple(steps),
            needs=", ".join(needs) or None,
            needs_at=places_of(needs),
            environment={key: as_text(value) for key, value in self.build.evars.items()},
            venv=as_text(self.build.fields.get("ansible_version")) or None,
            notes=tuple(map(as_text, as_list(self.build.fields.get("notes"))))
            if self.build.fields.get("notes")
            else (),
        )

    def needs(self) -> Needs:
        """Give what the builder, the hooks and the required files need and there is not."""
        needs: Needs = {}
        build, place = self.build, self.build.merged.place
        if self.config.get("type") != "qemu":
            needs[f"the platform {build.target.platform}"] = self.place("type")
        if self.config.get("communicator", "ssh") != "ssh":
            needs[as_text(self.config["communicator"])] = self.place("communicator")
        needs |= hook_needs(build.merged, "pre_build")
        required = build.renderer.resolve_value(build.fields.get("required_files"), place("", "required_files"))
        return {**needs, **dict.fromkeys(missing_files(required, self.catalog), place("", "required_files"))}

    def steps(self, needs: Needs) -> list[StepSection]:
        steps: list[StepSection] = []
        evars = {key: as_text(value) for key, value in self.build.evars.items() if key != "PATH"}
        folder = Path(as_text(self.build.defs["data_path"]))
        for raw, place in self.build.provisioners:
            maker = Provisioners(variables=self.build.variables, evars=evars, folder=folder, place=place, needs=needs)
            steps += maker.steps(raw)
        return steps

    def user(self, key: str) -> str:
        """Give a builder's text with its `{{user}}` references resolved."""
        return resolve_user(as_text(self.config.get(key)), self.build.variables)

    def installer(self, seed: SeedSection | None) -> InstallerSection:
        values: dict[str, Value] = {"boot": ["typed"]}
        for ours, theirs in (("boot_command", "boot_command"), ("boot_wait", "boot_wait")):
            if theirs in self.config:
                values[ours] = self.config[theirs]
        section = models.make_installer(values, self.place)
        command = tuple(resolve_user(part, self.build.variables) for part in section.boot_command)
        return InstallerSection(boot=(Rung.TYPED,), boot_command=command, boot_wait_s=section.boot_wait_s, seed=seed)

    def machine(self) -> MachineSection:
        config = self.config
        cores = _number(config.get("sockets", 1)) * _number(config.get("cores", 1)) * _number(config.get("threads", 1))
        named = as_text(config.get("firmware")) or as_text(self.build.defs.get("firmware"))
        efi = config.get("efi_boot") is True or named not in ("", "bios", "seabios")
        values: dict[str, Value] = {
            "cpus": config.get("cpus", cores),
            "firmware": "uefi" if efi or self.build.target.arch == "aarch64" else "bios",
            "nic": _NICS.get(as_text(config.get("net_device", "virtio")), as_text(config.get("net_device"))),
            "disk_interface": _DISK_INTERFACES.get(as_text(config.get("disk_interface")), "virtio"),
        }
        for ours, theirs in (
            ("memory", "memory"),
            ("disk_size", "disk_size"),
            ("machine", "machine_type"),
            ("bridge", "net_bridge"),
        ):
            if theirs in config:
                values[ours] = config[theirs]
        if as_text(config.get("cpu_model", "host")) not in ("host", "max"):
            values["cpu"] = config["cpu_model"]
        arguments = map_qemuargs(config.get("qemuargs"))
        values |= {**arguments.values, "overrides": arguments.overrides}
        return models.make_machine(values, self.place)

    def access(self) -> AccessSection:
        port = as_text(self.config.get("ssh_port")) or "22"
        return AccessSection(
            user=self.user("ssh_username") or "root",
            port=int(port) if port.isdigit() else 22,
            method=as_text(self.config.get("communicator", "ssh")),
            password=self.user("ssh_password") or None,
        )

    def files(self, needs: Needs) -> tuple[tuple[FileSection, ...], SeedSection | None]:
        """Give the generated files, and the seed that `cd_files` puts some of them on."""
        made: dict[str, FileSection] = {}
        for raw, origin in self.build.merged.lists["files"]:
            item = self.build.renderer.resolve_value(raw, origin.place)
            if isinstance(item, dict) and item.get("dest"):
                dest = as_text(item["dest"])
                made[dest] = FileSection(dest, self.fragments(item.get("sources"), origin.place, needs), origin.place)
        names = []
        for path in ",".join(map(as_text, as_list(self.config.get("cd_files")))).split(","):
            name = path.strip().removeprefix(self.temp + "/")
            if name and name not in made:
                needs.setdefault(f"the file {name} of cd_files", self.place("cd_files"))
            names += [name] if name else []
        label = as_text(self.config.get("cd_label"))
        return tuple(made.values()), SeedSection(label=label, files=tuple(names)) if names and label else None

    def fragments(self, sources: Value, where: Place, needs: Needs) -> tuple[Fragment, ...]:
        """Load the sources of a file; one that the tree does not have is something that the target needs."""
        found = []
        for name in map(as_text, as_list(sources)):
            if self.catalog.find_source(name) is None:
                needs.setdefault(f"the file {name}", where)
            else:
                found.append(self.catalog.load_fragment(name, where))
        return tuple(found)


def _number(value: Value) -> int:
    return int(value) if isinstance(value, int | float) or (isinstance(value, str) and value.isdigit()) else 1
