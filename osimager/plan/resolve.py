"""(configuration, facts, options) → the plan. Pure: what needs the disk or the network came in as a value."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Sequence

from osimager.arch import Arch, Firmware, parse_arch
from osimager.config.configuration import Configuration
from osimager.config.escapes import escape_for
from osimager.config.markers import as_text
from osimager.config.sections import DiskInterface, InstallerSection, MachineSection, NicSection, Rung
from osimager.errors import ConfigError, ConfigErrors, Place, PrerequisiteError, raise_all
from osimager.holes import ANSWER_URL, find_holes
from osimager.plan.argv import check_argv, resolve_cpu
from osimager.plan.deadlines import make_deadlines
from osimager.plan.facts import HostFacts
from osimager.plan.model import (
    Access,
    Answer,
    BootPlan,
    BridgeNetwork,
    BuildPlan,
    DefValue,
    DeviceOverride,
    DiskShape,
    InstallPlan,
    MachineShape,
    MediaPlan,
    NicShape,
    OutputPlan,
    SealMode,
    SealPlan,
    SeedPlan,
    Step,
    UserNetwork,
)
from osimager.plan.options import BuildOptions

# The network's own address and broadcast, its gateway, the guest, and QEMU's DNS and DHCP.
_LEAST_ADDRESSES = 6
_DEFAULT_MACHINE = {Arch.X86_64: "q35", Arch.I386: "pc", Arch.AARCH64: "virt"}
_DEFAULT_CPU = {Arch.X86_64: "max", Arch.I386: "max", Arch.AARCH64: "max"}
# edk2 for `virt` has no driver for AHCI, and boots no CD there (ArmVirtPkg/ArmVirtQemu.dsc).
_CDROM = {Arch.X86_64: DiskInterface.SATA, Arch.I386: DiskInterface.SATA, Arch.AARCH64: DiskInterface.SCSI}
_NIC_MODELS = {"virtio": "virtio-net-pci"}
# useradd(8) of Debian and EL; a key's line as sshd(8) has it, without options, and with a comment that needs no quotes.
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_PUBLIC_KEY = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.-]+ [A-Za-z0-9+/]+=*( [^'\"\\\x00-\x1f\x7f]*)?")
_CRYPT_HASH = re.compile(r"\$(1|5|6|7|y|gy|2[abxy])\$[\w./$,=-]+")


def check_needs(configuration: Configuration) -> None:
    """Refuse a target that needs what osimager does not have yet, before anything else is asked of it."""
    if needs := configuration.sections.needs:
        raise ConfigError(
            f"{configuration.target.short} needs {needs}, which osimager does not have yet",
            where=configuration.sections.needs_at,
            hint="docs/targets.md shows what each of our targets needs; in a spec of yours, do without it",
        )


def resolve_plan(
    configuration: Configuration,
    *,
    host: HostFacts,
    media: MediaPlan,
    steps: Sequence[Step],
    output: OutputPlan,
    options: BuildOptions,
) -> BuildPlan:
    """Make the whole plan, but for what only the ISO tells (`plan.boot.complete_boot`).

    Raises ConfigErrors, all of them at once, and what rendering an answer file raises.
    """
    sections = configuration.sections
    answers = render_answers(configuration)
    shape = make_shape(configuration, host, options)
    boot = choose_boot(sections.installer, _render_typed(configuration, options))
    install = make_install(sections.installer, shape, boot, answers, offline=options.offline)
    _check_names(configuration, shape, host)
    check_argv(shape, host)
    _check(configuration, install, steps)
    deadlines = make_deadlines(host.accelerator.accelerator, options.deadlines)
    return BuildPlan(
        target=configuration.target,
        profile=configuration.profile,
        hostname=_text(configuration, "name"),
        fqdn=_text(configuration, "fqdn"),
        address=_text(configuration, "ip") or "dhcp",
        defs=_defs(configuration),
        media=media,
        install=install,
        machine=shape,
        access=Access(user=sections.access.user, port=sections.access.port, password=sections.access.password),
        steps=tuple(steps),
        seal=make_seal(configuration, options),
        verify=options.verify and sections.verify.enabled,
        output=output,
        deadlines=deadlines,
        notes=sections.notes,
    )


def render_answers(configuration: Configuration) -> tuple[Answer, ...]:
    """Render every answer file; values are escaped as the installer's format asks (XML, JSON, one line).

    Raises ConfigErrors with everything that is wrong in them.
    """
    answer_format = configuration.sections.installer.format
    escape = escape_for(answer_format) if answer_format else None
    answers: list[Answer] = []
    errors: list[ConfigError] = []
    for file in configuration.sections.files:
        parts = []
        for part in file.fragments:
            try:
                parts.append(configuration.render(part.text, part.place, escape))
            except ConfigError as exc:
                errors += exc.errors
        answers.append(Answer(file.dest, "".join(parts), answer_format))
    raise_all(errors)
    return tuple(answers)


def make_seal(configuration: Configuration, options: BuildOptions) -> SealPlan:
    """Decide how the image is sealed: as asked, as the spec wishes, else by whether it is somebody's own machine.

    An account that the configuration keeps as a login is not removed, though the build got in by it.
    """
    section, user = configuration.sections.seal, configuration.sections.access.user
    own = options.name or _is_static(options.ip)
    wished = SealMode(section.mode) if section.mode else SealMode.MACHINE if own else SealMode.TEMPLATE
    return SealPlan(options.seal or wished, user, remove_build_user=section.login != user)


def _render_typed(configuration: Configuration, options: BuildOptions) -> BuildOptions:
    """Follow the markers of `--boot-command`: it stands for the spec's own, and may need what that one needs."""
    if options.boot_command is None:
        return options
    text = configuration.render(options.boot_command, Place("--boot-command"))
    return dataclasses.replace(options, boot_command=text)


def choose_boot(installer: InstallerSection, options: BuildOptions) -> BootPlan:
    """Take the ladder's first rung that the spec allows, or the one that was asked for."""
    rung, reason = (
        (installer.boot[0], "the first rung that the spec allows") if installer.boot else (Rung.MENU, "no rung given")
    )
    if options.boot is not None:
        rung, reason = options.boot, "asked for by --boot"
    elif options.boot_command is not None:
        rung, reason = Rung.TYPED, "asked for by --boot-command"
    command = options.boot_command if options.boot_command is not None else "".join(installer.boot_command)
    if rung is Rung.TYPED and not command:
        raise ConfigError("there is no boot_command to type", hint="give one with --boot-command, or use --boot direct")
    return BootPlan(
        rung=rung,
        reason=reason,
        menu=installer.menu or "",
        arguments=installer.kernel_arguments,
        drop=installer.drop_arguments,
        boot_command=command if rung is Rung.TYPED else "",
        spare_command=command if options.boot is None and Rung.TYPED in installer.boot[1:] else "",
        boot_wait_s=installer.boot_wait_s or 0.0,
    )


def make_install(
    installer: InstallerSection, shape: MachineShape, boot: BootPlan, answers: tuple[Answer, ...], *, offline: bool
) -> InstallPlan:
    """Decide how the answers reach the installer: over HTTP where an address of ours is asked for, else by seed.

    An offline guest reaches no server (QEMU's `restrict=on`), and on a bridge the server would be open to others: the
    answers come by the seed, or inside the initrd where the installer looks there (d-i). Raises ConfigError where there
    is no such way.
    """
    is_bridged = isinstance(shape.nics[0].network, BridgeNetwork)
    who, otherwise = ("an offline guest", "--offline") if offline else ("a guest on a bridge", "the bridge")
    wants_url = any(ANSWER_URL in find_holes(text) for text in (*boot.arguments, boot.boot_command))
    serve, inject = wants_url and not (offline or is_bridged), False
    if wants_url and not serve:
        inject = installer.format == "preseed" and boot.rung is Rung.DIRECT
        if ANSWER_URL in find_holes(boot.boot_command) or not (inject or installer.seed):
            raise ConfigError(
                f"{who} cannot fetch its answer file", hint=f"give the spec a seed, or build without {otherwise}"
            )
        kept = tuple(argument for argument in boot.arguments if ANSWER_URL not in find_holes(argument))
        boot = dataclasses.replace(boot, arguments=kept)
    seed = None
    if installer.seed is not None and not serve:
        seed = SeedPlan(installer.seed.label, installer.seed.files or tuple(answer.name for answer in answers))
    return InstallPlan(
        machine=shape,
        boot=boot,
        answers=answers,
        seed=seed,
        serve=serve,
        inject=inject,
        restarts=installer.restarts,
    )


def make_shape(configuration: Configuration, host: HostFacts, options: BuildOptions) -> MachineShape:
    """Give the machine's shape: the options over the spec over what suits the architecture."""
    section = configuration.sections.machine
    arch = parse_arch(configuration.target.arch)
    firmware = options.firmware or (Firmware.UEFI if arch is Arch.AARCH64 else section.firmware)
    if firmware is Firmware.BIOS and arch is Arch.AARCH64:
        raise ConfigError("aarch64 machines have no BIOS", hint="leave --firmware out, or say --firmware uefi")
    return MachineShape(
        arch=arch,
        firmware=firmware,
        machine=section.machine or _DEFAULT_MACHINE[arch],
        cpu=section.cpu or _DEFAULT_CPU[arch],
        cpus=options.cpus or min(section.cpus, host.cores),
        memory_mib=_memory_mib(section, options),
        disks=(
            DiskShape("disk0", options.disk_bytes or section.disk_size_bytes, section.disk_interface),
            *(DiskShape(f"disk{at}", disk.size_bytes, disk.interface) for at, disk in enumerate(section.disks, 1)),
        ),
        nics=_nics(configuration, options),
        cdrom_interface=_CDROM[arch],
        tpm=section.tpm,
        overrides=tuple(_override(name, text) for name, text in section.overrides.items()),
    )


def _nics(configuration: Configuration, options: BuildOptions) -> tuple[NicShape, ...]:
    section = configuration.sections.machine
    bridges = [bridge for bridge in (section.bridge, *(nic.bridge for nic in section.nics)) if bridge]
    if bridges and options.offline:
        hint = f"leave {bridges[0]} out of the machine, or build without --offline"
        raise ConfigError(f"a guest on the bridge {bridges[0]} is not offline", hint=hint)
    first = NicShape("nic0", _network(configuration, options), _model(section.nic), section.mac)
    return (
        first,
        *(
            NicShape(f"nic{at}", _second_network(nic, options), _model(nic.model), nic.mac)
            for at, nic in enumerate(section.nics, 1)
        ),
    )


def _model(name: str) -> str:
    return _NIC_MODELS.get(name, name)


def _second_network(nic: NicSection, options: BuildOptions) -> UserNetwork | BridgeNetwork:
    return BridgeNetwork(nic.bridge) if nic.bridge else UserNetwork(restricted=options.offline)


def _override(name: str, text: str | None) -> DeviceOverride:
    """Read `-device VGA,id=video0`; the dash may be left out."""
    if text is None:
        return DeviceOverride(name, None)
    option, _, argument = text.strip().removeprefix("-").partition(" ")
    return DeviceOverride(name, option, argument.strip() or None)


def _memory_mib(section: MachineSection, options: BuildOptions) -> int:
    asked = options.memory_mib or section.memory_mib
    if asked < section.minimum_memory_mib:
        raise ConfigError(
            f"{asked} MiB of memory are too little: this installer needs {section.minimum_memory_mib} MiB",
            hint=f"say --memory {section.minimum_memory_mib}M or more",
        )
    return asked


def _network(configuration: Configuration, options: BuildOptions) -> UserNetwork | BridgeNetwork:
    """Give the bridge, or QEMU's user network; for a static address that takes the place of the location's network."""
    address = _text(configuration, "ip")
    if bridge := configuration.sections.machine.bridge:
        return BridgeNetwork(bridge, address if _is_static(address) else None)
    if not _is_static(address):
        return UserNetwork(restricted=options.offline)
    cidr, gateway = _text(configuration, "cidr") or _text(configuration, "subnet"), _text(configuration, "gateway")
    location = f"the location {configuration.target.location!r}"
    if not cidr or not gateway:
        what = f"{location} has no network for {address}"
        hint = "give the location cidr and gateway, for instance cidr: 192.168.77.0/24 and gateway: 192.168.77.1"
        raise ConfigError(what, where=_places(configuration, "ip"), hint=hint)
    network = ipaddress.ip_network(cidr, strict=False)
    leave_out = "leave the address out: while the image is built it is given by DHCP"
    if not isinstance(network, ipaddress.IPv4Network):
        what = f"QEMU's user network forwards to IPv4 addresses only, and {location} has {network}"
        raise ConfigError(what, where=_places(configuration, "cidr"), hint=leave_out)
    if network.num_addresses < _LEAST_ADDRESSES:
        what = f"{network}, the network of {location}, has no room for QEMU's own addresses (its DNS and DHCP)"
        raise ConfigError(what, where=_places(configuration, "cidr"), hint=f"{leave_out}; or take a /29 or larger")
    for name, text in (("gateway", gateway), ("ip", address)):
        if not _is_host_of(network, text):
            what = f"the {name} {text} is not the address of a host in {network}, the network of {location}"
            hint = f"write one from {network[1]} to {network[-2]}"
            raise ConfigError(what, where=_places(configuration, name), hint=hint)
    if address == gateway:
        what, hint = f"{address} is the gateway's own address", "choose another address, or another gateway"
        raise ConfigError(what, where=_places(configuration, "ip"), hint=hint)
    return UserNetwork(cidr=str(network), host=gateway, guest=address, restricted=options.offline)


def _is_host_of(network: ipaddress.IPv4Network, text: str) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return address in network and address not in (network.network_address, network.broadcast_address)


def _places(configuration: Configuration, name: str) -> tuple[Place, ...]:
    """Give the place of the def `name`, none where no file gives it."""
    origins = configuration.explain(f"defs.{name}")
    return tuple(origin.place for origin in origins[:1] if origin.place.line is not None)


def _check_names(configuration: Configuration, shape: MachineShape, host: HostFacts) -> None:
    """Refuse what this host's QEMU does not have, before an ISO is fetched. Raises PrerequisiteError with the place."""
    qemu, merged = host.qemu, configuration.merged
    for key, word, known, option in (
        ("machine", shape.machine.partition(",")[0], qemu.machines, "-machine help"),
        ("nic", shape.nics[0].model, qemu.devices, "-device help"),
    ):
        if word not in known:
            hint = f"`{qemu.path.name} {option}` lists them"
            where = merged.place("machine", key)
            raise PrerequisiteError(f"{qemu.path.name} has no {key} {word!r}", where=where, hint=hint)
    try:
        resolve_cpu(shape.cpu, host)
    except PrerequisiteError as exc:
        raise PrerequisiteError(exc.what, where=merged.place("machine", "cpu"), hint=exc.hint) from None


def _is_static(address: str | None) -> bool:
    return bool(address) and address != "dhcp"


def _text(configuration: Configuration, name: str) -> str:
    value = configuration.defs.get(name)
    return "" if value is None else str(value)


def _defs(configuration: Configuration) -> tuple[DefValue, ...]:
    """Give every def with the place of the value that won."""
    found = []
    for name, value in sorted(configuration.defs.items()):
        origins = configuration.explain(name)
        found.append(DefValue(name, value, origins[0].place if origins else None))
    return tuple(found)


def _check(configuration: Configuration, install: InstallPlan, steps: Sequence[Step]) -> None:
    """Refuse at once what could only fail much later."""
    errors = []
    served = {answer.name for answer in install.answers}
    if install.seed is not None:
        errors += [
            ConfigError(f"the seed names the file {name!r}, which no `files` entry makes", hint="add it under files:")
            for name in install.seed.files
            if name not in served
        ]
    try:
        check_login(configuration)
    except ConfigError as exc:
        errors += exc.errors
    if not _has_login(configuration, steps):
        errors.append(
            ConfigError(
                f"nobody could log in to the finished image of {configuration.target.short}",
                hint="keep cloud-init (the base.sh step), or give the profile a username with authorized_keys",
            )
        )
    if errors:
        raise ConfigErrors(errors)


def find_login(configuration: Configuration) -> str | None:
    """Give the account that people keep: the spec's, or the profile's where it has a key or a password."""
    if configuration.sections.seal.login is not None:
        return configuration.sections.seal.login
    defs = configuration.defs
    opens = defs.get("authorized_keys") or defs.get("password")
    return _text(configuration, "username") or None if opens else None


def check_login(configuration: Configuration) -> None:
    """Refuse a profile's login that no installer could make. Raises ConfigErrors."""
    name, password = _text(configuration, "username"), _text(configuration, "password")
    given = configuration.defs.get("authorized_keys")
    keys = given if isinstance(given, list) else [given] if given else []
    if configuration.sections.seal.login is not None or not (name or keys or password):
        return
    errors = []

    def refuse(key: str, what: str, hint: str) -> None:
        origins = configuration.explain(f"defs.{key}")
        errors.append(ConfigError(what, where=origins[0].place if origins else None, hint=hint))

    if not isinstance(given, list | None):
        refuse("authorized_keys", "authorized_keys must be a list", "begin each key's line with '- '")
    if not name:
        what = "authorized_keys and password are of no use without a username"
        refuse("authorized_keys" if keys else "password", what, "add username: NAME to the profile")
    elif not _USER_NAME.fullmatch(name):
        refuse("username", f"{name!r} cannot be the name of an account", "use a-z, 0-9, _ and -, at most 32 of them")
    elif name == configuration.sections.access.user and name != "root":
        what = f"the account {name!r} is the build's own, and goes when the image is sealed"
        refuse("username", what, "choose another username, or another build_user under defs")
    for key in keys:
        if not isinstance(key, str) or not _PUBLIC_KEY.fullmatch(key):
            refuse(
                "authorized_keys", f"{as_text(key)[:40]!r} is not a public key", "paste the line of an id_….pub file"
            )
    if password and not _CRYPT_HASH.fullmatch(password):
        hint = 'hash it: password: "6>users/ann:password<6" takes it from the secrets'
        refuse("password", "the profile's password is not a crypt hash", hint)
    if errors:
        raise ConfigErrors(errors)


def _has_login(configuration: Configuration, steps: Sequence[Step]) -> bool:
    """Tell whether somebody gets in: through cloud-init, or by a login that the configuration keeps."""
    kept = find_login(configuration)
    has_cloud_init = configuration.defs.get("cloud_init", True) is not False and any(
        step.name == "base" for step in steps
    )
    return has_cloud_init or kept is not None
