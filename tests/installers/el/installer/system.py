"""The installed system: Debian's, copied from the medium, with the accounts, names and settings of the kickstart."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .kickstart import TARGET
from .source import first_interface, read_arguments
from .storage import Volume
from .talk import Stopped, run, say

# Red Hat's names of packages, and Debian's; what is in neither column is said and left out.
_PACKAGES = {
    "cloud-init": "cloud-init",
    "cloud-utils-growpart": "cloud-guest-utils",
    "qemu-guest-agent": "qemu-guest-agent",
    "openssh-server": "openssh-server",
    "sudo": "sudo",
    "curl": "curl",
    "rsync": "rsync",
    "vim-minimal": "vim-tiny",
    "vim-enhanced": "vim-tiny",
}
_BINDS = ("proc", "sys", "dev", "run")


def in_target(*words: str, told: str | None = None) -> str:
    """Run a program in the installed system."""
    return run("chroot", TARGET, *words, told=told)


def copy_system(payload: Path, volumes: Sequence[Volume]) -> None:
    """Copy the payload, and make what belongs to this machine."""
    # Two processes: reading from a medium and writing take an emulated processor two minutes one after the other.
    words = ("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--one-file-system")
    with subprocess.Popen([*words, "-C", payload, "-cf", "-", "."], stdout=subprocess.PIPE) as reader:
        subprocess.run([*words, "-C", TARGET, "-xpf", "-"], stdin=reader.stdout, check=True)
    lines = []
    for volume in volumes:
        if volume.is_mounted or volume.filesystem == "swap":
            uuid = run("blkid", "-o", "value", "-s", "UUID", volume.device).strip()
            kind = "vfat" if volume.filesystem == "efi" else volume.filesystem
            place = volume.mountpoint if volume.is_mounted else "none"
            options = "umask=0077,shortname=winnt" if kind == "vfat" else "defaults"
            lines.append(f"UUID={uuid} {place} {kind} {options} 0 0")
    _write("etc/fstab", "\n".join(lines))
    _write("etc/machine-id", Path("/proc/sys/kernel/random/uuid").read_text().strip().replace("-", ""))
    for name in _BINDS:
        (TARGET / name).mkdir(exist_ok=True)
        run("mount", "--rbind", f"/{name}", TARGET / name)
    # Scripts of Red Hat's family write to these.
    (TARGET / "etc/dnf").mkdir(exist_ok=True)
    _write("etc/dnf/dnf.conf", "[main]")


def _write(path: str, text: str) -> None:
    (TARGET / path).write_text(text + "\n")


def set_up_language(handler: Any) -> None:
    """Set language, keyboard and time zone."""
    language = handler.lang.lang or "en_US.UTF-8"
    if language not in ("C.UTF-8", "en_US.UTF-8"):
        in_target(
            "localedef",
            "-i",
            language.partition(".")[0],
            "-f",
            "UTF-8",
            "-A",
            "/usr/share/locale/locale.alias",
            language,
        )
    _write("etc/default/locale", f"LANG={language}")
    keyboard = handler.keyboard
    layout = next(iter(keyboard.x_layouts), keyboard.vc_keymap or keyboard.keyboard or "us")
    _write("etc/default/keyboard", f'XKBMODEL="pc105"\nXKBLAYOUT="{layout}"')
    zone = handler.timezone.timezone or "America/New_York"
    if not (TARGET / "usr/share/zoneinfo" / zone).is_file():
        raise Stopped(f"The time zone {zone} of the kickstart does not exist.")
    (TARGET / "etc/localtime").unlink(missing_ok=True)
    (TARGET / "etc/localtime").symlink_to(f"/usr/share/zoneinfo/{zone}")
    _write("etc/timezone", zone)


def set_up_network(handler: Any) -> None:
    """Set the host's name and the first card's address, for ifupdown."""
    data = handler.network.network
    fqdn = next((each.hostname for each in data if each.hostname), "localhost.localdomain")
    name = fqdn.partition(".")[0]
    _write("etc/hostname", fqdn)
    _write(
        "etc/hosts",
        f"127.0.0.1 localhost localhost.localdomain\n::1 localhost localhost.localdomain\n127.0.1.1 {fqdn} {name}",
    )
    card = next((each for each in data if each.device or each.ip or not each.hostname), None)
    interface = _predictable_name()
    text = "auto lo\niface lo inet loopback\n"
    if card is not None and interface and card.onboot:
        text += f"allow-hotplug {interface}\niface {interface} inet "
        text += _static(card) if card.bootProto == "static" else "dhcp\n"
    _write("etc/network/interfaces", text)
    servers = (card.nameserver or "").split(",") if card is not None and card.bootProto == "static" else []
    live = Path("/etc/resolv.conf")
    resolv = "\n".join(f"nameserver {server}" for server in servers if server)
    _write("etc/resolv.conf", resolv or (live.read_text() if live.is_file() else ""))


def _static(card: Any) -> str:
    prefix = ipaddress.ip_network(f"0.0.0.0/{card.netmask}").prefixlen
    gateway = f"    gateway {card.gateway}\n" if card.gateway else ""
    return f"static\n    address {card.ip}/{prefix}\n{gateway}"


def _predictable_name() -> str | None:
    """Give the name that udev gives the first card on the installed system (systemd.net-naming-scheme(7))."""
    card = first_interface()
    if card is None or read_arguments().values.get("net.ifnames") == "0":
        return card
    said = subprocess.run(
        ["udevadm", "test-builtin", "net_id", f"/sys/class/net/{card}"], capture_output=True, text=True, check=False
    ).stdout
    for kind in ("ONBOARD", "SLOT", "PATH"):
        if match := re.search(rf"^ID_NET_NAME_{kind}=(\S+)", said, re.MULTILINE):
            return match[1]
    return card


def set_up_accounts(handler: Any) -> None:
    """Set root's password, make users, plant SSH keys."""
    in_target("groupadd", "--force", "wheel")
    _write("etc/sudoers.d/wheel", "%wheel ALL=(ALL) ALL")
    root = handler.rootpw
    if root.password and not root.lock:
        _set_password("root", root.password, is_crypted=root.isCrypted)
    for user in handler.user.userList:
        _add_user(user)
    for each in getattr(getattr(handler, "sshkey", None), "sshUserList", ()):
        _plant_key(each.username, each.key)


def _add_user(user: Any) -> None:
    groups = [name.partition("(")[0].strip() for name in user.groups]
    for name in groups:
        in_target("groupadd", "--force", name)
    words = ["--create-home", "--shell", user.shell or "/bin/bash", "--comment", user.gecos]
    words += ["--uid", str(user.uid)] if user.uid else []
    words += ["--home-dir", user.homedir] if user.homedir else []
    words += ["--groups", ",".join(groups)] if groups else []
    in_target("useradd", *words, user.name)
    if user.password and not user.lock:
        _set_password(user.name, user.password, is_crypted=user.isCrypted)


def _set_password(name: str, password: str, *, is_crypted: bool) -> None:
    in_target("chpasswd", *(["--encrypted"] if is_crypted else []), told=f"{name}:{password}\n")


def _plant_key(name: str, key: str) -> None:
    _, _, uid, gid, _, home, _ = in_target("getent", "passwd", name).strip().split(":")
    folder = TARGET / home.lstrip("/") / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / "authorized_keys"
    with file.open("a") as out:
        out.write(f"{key}\n")
    file.chmod(0o600)
    for path in (folder, file):
        shutil.chown(path, int(uid), int(gid))


def set_up_services(handler: Any) -> None:
    """Enable and disable services; those that Debian does not have are said."""
    for verb, names in (("enable", handler.services.enabled), ("disable", handler.services.disabled)):
        for name in names:
            unit = "ssh" if name == "sshd" else name
            done = subprocess.run(
                ["systemctl", f"--root={TARGET}", verb, unit], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                say(f"note: the service {name} is not in this payload")
    for name in ("selinux", "firewall"):
        if getattr(handler, name).seen:
            say(f"note: {name} means nothing to this payload")


def install_packages(handler: Any, repository: Path) -> None:
    """Install what %packages names, as far as the medium has it."""
    for group in handler.packages.groupList:
        say(f"note: the group @{group.name} means nothing to this payload")
    for name in handler.packages.packageList:
        debian = _PACKAGES.get(name)
        if debian is None:
            say(f"note: the package {name} is not in this payload")
        elif not list((TARGET / "var/lib/dpkg/info").glob(f"{debian}.list")):
            _install_package(debian, repository)


def _install_package(name: str, repository: Path) -> None:
    folder = TARGET / "var/tmp/packages"
    folder.mkdir(exist_ok=True)
    patterns = (repository / f"{name}.list").read_text().split()
    files = [Path(shutil.copy(file, folder)).name for pattern in patterns for file in repository.glob(pattern)]
    in_target("dpkg", "--install", *(f"/var/tmp/packages/{file}" for file in files))
    shutil.rmtree(folder)


def install_host_keys() -> None:
    """Give sshd its keys, which Red Hat's makes at its first start and Debian's when it is installed."""
    for key in Path("/run/keys").glob("ssh_host_*"):
        shutil.copy2(key, TARGET / "etc/ssh")


def keep_records(kickstart: str) -> None:
    """Leave what Anaconda leaves."""
    for name in ("anaconda-ks.cfg", "original-ks.cfg"):
        file = TARGET / "root" / name
        file.write_text(kickstart)
        file.chmod(0o600)
    folder = TARGET / "var/log/anaconda"
    folder.mkdir(exist_ok=True)
    shutil.copy("/run/installer/log", folder / "anaconda.log")
