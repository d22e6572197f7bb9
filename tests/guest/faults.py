"""Faults planted in real guests: a project, a medium and the words of a build that gets stuck, and what it is stuck in.

`tests/guest/test_faults.py` asserts each, `bench/faults.py` measures. What is real is real: debian-installer's own
kernel and RAM disk, the made installer, GRUB, isolinux and its menus, SeaBIOS and edk2.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from osimager.paths import shipped
from tests.guest.lab import Ran, run
from tests.guest.tiny import HANG, RESET, SHUTDOWN, make_boot_sector

SYSLINUX = Path("/usr/lib/syslinux/modules/bios")
ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")
NETBOOT, MADE = "debian-12-netboot", "debian-12-made"
Plant = Callable[["Bench"], tuple[str, ...]]


@dataclass(frozen=True)
class Fault:
    """What is planted, and what the build has to say: `cause`, and a text that its message holds."""

    name: str
    cause: str
    plant: Plant
    says: str
    arch: str = "x86_64"
    status: int = 6
    needs: tuple[str, ...] = ()
    quick: bool = False


@dataclass
class Bench:
    """Where a fault is planted: a project's folder, for one architecture."""

    folder: Path
    arch: str
    _media: dict[str, Path] = field(default_factory=dict)

    def medium(self, name: str) -> Path:
        """Give a made ISO, from the tests' own cache."""
        if name not in self._media:
            ran = run("iso", "make", name, "--arch", self.arch, deadline_s=1500)
            assert ran.status == 0, ran.err
            self._media[name] = Path(ran.out.strip())
        return self._media[name]

    def extract(self, medium: str, inside: str, name: str) -> Path:
        """Give a file of a made ISO."""
        target = self.folder / name
        _xorriso("-osirrox", "on", "-indev", self.medium(medium), "-extract", inside, target)
        target.chmod(0o644)
        return target

    def iso(self, files: Mapping[str, bytes | Path], *options: str) -> str:
        """Write an ISO of `files`, by their names in it."""
        tree = self.folder / "tree"
        for name, content in files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, path)
            else:
                path.write_bytes(content)
        target = self.folder / "planted.iso"
        _xorriso("-as", "mkisofs", "-quiet", "-r", "-J", "-V", "PLANTED", *options, "-o", target, tree)
        return str(target)

    def change(self, shipped_name: str, wrong: Mapping[str, str]) -> None:
        """Put a changed copy of a shipped file into the project: it goes before the shipped one."""
        kind, _, name = shipped_name.partition("/")
        text = (shipped(kind) / name).read_text()
        for old, new in wrong.items():
            assert old in text, f"{old!r} is not in {shipped_name}"
            text = text.replace(old, new)
        path = self.folder / shipped_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _xorriso(*words: str | Path) -> None:
    subprocess.run(["xorriso", *words], check=True, capture_output=True, timeout=60)


def tiny(ending: bytes, says: str = "planted") -> Plant:
    """A medium that boots one sector, which `says` a line on the serial console."""

    def plant(bench: Bench) -> tuple[str, ...]:
        sector = make_boot_sector(f"{says}\r\n", ending).ljust(2048, b"\0")
        boot = ("-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4")
        return ("--boot", "menu", "--iso", bench.iso({"boot.bin": sector}, *boot))

    return plant


def data_only(firmware: str) -> Plant:
    """A medium that nothing boots from."""
    return lambda bench: ("--boot", "menu", "--firmware", firmware, "--iso", bench.iso({"readme.txt": b"data\n"}))


def no_boot_menu(bench: Bench) -> tuple[str, ...]:
    """A medium without a boot menu or a loader, booted as the specification says."""
    return ("--iso", bench.iso({"readme.txt": b"data\n"}))


def grub(config: str) -> Plant:
    """GRUB's own image for UEFI, with a configuration of ours."""

    def plant(bench: Bench) -> tuple[str, ...]:
        image = bench.extract(NETBOOT, "/boot/grub/efi.img", "efi.img")
        files: dict[str, bytes | Path] = {"boot/grub/efi.img": image, "boot/grub/grub.cfg": config.encode()}
        options = ("-e", "boot/grub/efi.img", "-no-emul-boot")
        return ("--boot", "menu", "--firmware", "uefi", "--iso", bench.iso(files, *options))

    return plant


def isolinux(config: str, *modules: str) -> Plant:
    """The loader of BIOS media, with a configuration of ours; an empty one is left out."""
    return lambda bench: _isolinux(bench, config, {}, *modules)


def _isolinux(bench: Bench, config: str, files: Mapping[str, bytes | Path], *modules: str) -> tuple[str, ...]:
    own: dict[str, bytes | Path] = {f"isolinux/{name}": SYSLINUX / name for name in ("ldlinux.c32", *modules)}
    own["isolinux/isolinux.bin"] = ISOLINUX
    if config:
        own["isolinux/isolinux.cfg"] = config.encode()
    options = ("-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot")
    load = ("-boot-load-size", "4", "-boot-info-table")
    return ("--boot", "menu", "--iso", bench.iso({**own, **files}, *options, *load))


def on_screen(script: str) -> Plant:
    """A kernel whose initrd does `script` (empty: it has none), booted by isolinux: it says all on the screen only."""

    def plant(bench: Bench) -> tuple[str, ...]:
        files: dict[str, bytes | Path] = {"vmlinuz": bench.extract(NETBOOT, "/install.amd/vmlinuz", "vmlinuz")}
        config = "DEFAULT one\nLABEL one\n KERNEL /vmlinuz\n APPEND"
        if script:
            files["initrd"] = make_initrd(bench, script)
            config += " initrd=/initrd"
        return _isolinux(bench, config + "\n", files)

    return plant


def on_serial(script: str) -> Plant:
    """A kernel whose initrd does `script`, started directly: its console is the serial one."""

    def plant(bench: Bench) -> tuple[str, ...]:
        kernel = bench.extract(NETBOOT, "/install.amd/vmlinuz", "vmlinuz")
        menu = b"menuentry 'Install' {\n linux /vmlinuz quiet\n initrd /initrd\n}\n"
        files: dict[str, bytes | Path] = {
            "vmlinuz": kernel,
            "initrd": make_initrd(bench, script),
            "boot/grub/grub.cfg": menu,
        }
        return ("--iso", bench.iso(files))

    return plant


def make_initrd(bench: Bench, script: str) -> bytes:
    """Give debian-installer's RAM disk with `script` for its first program."""
    initrd = bench.extract(NETBOOT, "/install.amd/initrd.gz", "initrd.gz").read_bytes()
    init = bench.folder / "own/init"
    init.parent.mkdir(exist_ok=True)
    init.write_text(f"#!/bin/sh\n{script}\n")
    init.chmod(0o755)
    made = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], cwd=init.parent, input=b"init\n", capture_output=True, check=True
    )
    return initrd + b"\0" * (-len(initrd) % 4) + made.stdout


def kernel_alone(bench: Bench) -> tuple[str, ...]:
    """debian-installer's kernel, its RAM disk forgotten."""
    folder = "install.amd" if bench.arch == "x86_64" else "install.a64"
    kernel = bench.extract(NETBOOT, f"/{folder}/vmlinuz", "vmlinuz")
    menu = b"menuentry 'Install' {\n linux /vmlinuz quiet\n}\n"
    return ("--iso", bench.iso({"vmlinuz": kernel, "boot/grub/grub.cfg": menu}))


def silent_kernel(bench: Bench) -> tuple[str, ...]:
    """The same out of GRUB's menu, which asks for no serial console: the panic is drawn on a framebuffer only."""
    folder = "install.amd" if bench.arch == "x86_64" else "install.a64"
    kernel = bench.extract(NETBOOT, f"/{folder}/vmlinuz", "vmlinuz")
    image = bench.extract(NETBOOT, "/boot/grub/efi.img", "efi.img")
    menu = b"set timeout=1\nmenuentry 'Install' {\n linux /vmlinuz console=tty0\n}\n"
    files: dict[str, bytes | Path] = {"vmlinuz": kernel, "boot/grub/efi.img": image, "boot/grub/grub.cfg": menu}
    iso = bench.iso(files, "-e", "boot/grub/efi.img", "-no-emul-boot")
    return ("--boot", "menu", "--firmware", "uefi", "--iso", iso)


def cut_initrd(bench: Bench) -> tuple[str, ...]:
    """debian-installer's kernel, with half of its RAM disk."""
    kernel = bench.extract(NETBOOT, "/install.amd/vmlinuz", "vmlinuz")
    whole = bench.extract(NETBOOT, "/install.amd/initrd.gz", "initrd.gz").read_bytes()
    menu = b"menuentry 'Install' {\n linux /vmlinuz quiet\n initrd /initrd.gz\n}\n"
    return ("--iso", bench.iso({"vmlinuz": kernel, "initrd.gz": whole[: len(whole) // 2], "boot/grub/grub.cfg": menu}))


def answers(medium: str, name: str, wrong: Mapping[str, str], *words: str) -> Plant:
    """A mistake in a fragment of the answer file."""

    def plant(bench: Bench) -> tuple[str, ...]:
        bench.change(f"files/debian/{name}", wrong)
        bench.medium(medium)
        return ("--iso", medium, *words)

    return plant


def late(medium: str, script: str, *words: str) -> Plant:
    """A late command of the answer file that also does `script`."""
    return answers(medium, "finish.cfg", {"  set -e; \\\n": f"  set -e; {script} \\\n"}, *words)


def arguments(medium: str, wrong: Mapping[str, str], *words: str) -> Plant:
    """A mistake in the specification, such as in its kernel arguments."""

    def plant(bench: Bench) -> tuple[str, ...]:
        bench.change("specs/debian/spec.yml", wrong)
        bench.medium(medium)
        return ("--iso", medium, *words)

    return plant


def both(*plants: Plant) -> Plant:
    """Several at once; the last one's words count."""
    return lambda bench: [plant(bench) for plant in plants][-1]


def menu_of(medium: str) -> Plant:
    """The medium's own menu, which knows nothing of our answers."""

    def plant(bench: Bench) -> tuple[str, ...]:
        bench.medium(medium)
        return ("--boot", "menu", "--iso", medium)

    return plant


_URL = "url=>>answer_url<</preseed.cfg"
_OPEN = {"d-i debian-installer/locale string >>locale<<\n": ""}
_BROKEN = {"d-i clock-setup/utc boolean true\n": "d-i\nd-i clock-setup/utc boolean true\n"}
_AS_IT_IS = ("-D", "validate=false")  # else its own validator refuses it before anything is booted
_EARLY = {"d-i clock-setup/utc boolean true\n": "d-i preseed/early_command string exit 3\n"}
_STOPPED = {f'- "{_URL}"': '- "url=http://10.0.2.2:9/preseed.cfg"'}
_NO_CARD = {f'- "{_URL}"': f'- "{_URL}"\n    - "modprobe.blacklist=virtio_net"'}
_GRUB_MENU = "set timeout=-1\nmenuentry 'Install' {\n true\n}\n"
_GRUB_GRAPHICS = "insmod all_video\ninsmod gfxterm\nterminal_output gfxterm\n" + _GRUB_MENU
_GRUB_MISSING = "set timeout=1\nset default=0\nmenuentry 'Install' {\n linux /no/such/vmlinuz\n}\n"
_MENU = "UI vesamenu.c32\nMENU TITLE Install\nLABEL one\n KERNEL /one\n"
_BOOT_CONFIG = "/target/boot/grub/grub.cfg"
_NO_LOADER = "dd if=/dev/zero of=/dev/vda bs=512 count=1;"  # with its signature: else it is booted, and hangs
_RESTARTS = {"restarts: 0": "restarts: 1"}
_SILENT = arguments(
    NETBOOT, {'    - "console=>>serial<<,115200"\n': "", "DEBIAN_FRONTEND=text": "DEBIAN_FRONTEND=newt"}
)
_FILL = "cat /dev/urandom > /target/full;"
_OTHER_KEY = {"echo '>>build_public_key<<'": "echo nobody"}
_OTHER_ROOT = f"sed -i s/root=UUID=/root=UUID=0/ {_BOOT_CONFIG};"
_WAIT = "sleep 100000"
_BOX = r"""
clear
echo '  +-------------------------------+'
echo '  | Erase all data on /dev/vda?   |'
echo '  |                               |'
echo '  |     <Yes>          <No>       |'
echo '  +-------------------------------+'
"""
_LOST_ROOT = r"""
n=0; while [ $n -lt 70 ]; do n=$((n + 1)); echo ":: running early hook $n"; done
echo "ERROR: Failed to mount 'UUID=6f3c1b2a' on real root"
echo 'You are now being dropped into an emergency shell.'
echo "sh: can't access tty; job control turned off"
printf '[rootfs ]# '
"""
_RETRIES = "while :; do echo 'No reply from 10.0.2.2, retrying in 5 seconds...'; sleep 5; done"
_SPINS = """
while :; do
  echo "install: could not reach the package source, trying again"
  n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done
done
"""
_BAD_ANSWER = "ERROR: answer file, line 3: unknown keyword 'langauge'"
_BROKEN_IN_TWO = r"""
echo ' ┌─────────────────────────┤ Error ├──────────────────────────┐'
echo ' │ The installer met a problem: the kickstart file could not  │'
echo ' │ be found where the boot arguments say.                     │'
echo ' └─────────────────────────────────────────────────────────────┘'
"""
_DENIES = "echo 'sshd: ALL' > /target/etc/hosts.deny;"
_STRANGE = "echo 'KexAlgorithms sntrup761x25519-sha512@openssh.com' > /target/etc/ssh/sshd_config.d/own.conf;"
_PASSWORDS = "echo 'PubkeyAuthentication no' > /target/etc/ssh/sshd_config.d/own.conf;"
_NO_NETWORK = "rm /target/usr/sbin/dhclient;"
_NO_DATA = "echo 'UUID=6f3c1b2a-0000-4000-8000-000000000000 /data ext4 defaults 0 2' >> /target/etc/fstab;"
_OFF = "ln -sf /lib/systemd/system/poweroff.target /target/etc/systemd/system/default.target;"
_SYSLINUX = ("/usr/lib/syslinux/modules/bios/vesamenu.c32",)
_ISOLINUX = (str(ISOLINUX), str(SYSLINUX / "ldlinux.c32"))

FAULTS: tuple[Fault, ...] = (
    # Firmware and boot loaders.
    Fault("no-boot-menu", "no-bootable-medium", no_boot_menu, "No bootable device", quick=True),
    Fault("uefi-no-loader", "uefi-shell", data_only("uefi"), "UEFI shell"),
    Fault("arm-no-loader", "uefi-shell", data_only("uefi"), "UEFI shell", arch="aarch64"),
    Fault("sector-hangs", "firmware", tiny(HANG), "stuck in its firmware"),
    Fault("sector-resets", "loop", tiny(RESET), "restarted", quick=True),
    Fault("sector-switches-off", "nothing-installed", tiny(SHUTDOWN), "switched itself off"),
    Fault("grub-menu", "boot-menu", grub(_GRUB_MENU), "menu"),
    Fault("grub-graphical-menu", "boot-menu", grub(_GRUB_GRAPHICS), "no kernel was started"),
    Fault("grub-no-config", "grub-shell", grub("exec_no_such_command\n"), "own shell"),
    Fault("grub-no-kernel", "boot-loader", grub(_GRUB_MISSING), "no/such/vmlinuz"),
    Fault("arm-grub-menu", "boot-menu", grub(_GRUB_MENU), "menu", arch="aarch64"),
    Fault("isolinux-no-config", "boot-loader", isolinux(""), "No configuration file found", needs=_SYSLINUX),
    Fault("isolinux-prompt", "boot-menu", isolinux("PROMPT 1\nLABEL one\n KERNEL /one\n"), "boot:", needs=_SYSLINUX),
    Fault(
        "isolinux-graphical-menu",
        "boot-menu",
        isolinux(_MENU, "vesamenu.c32", "libcom32.c32", "libutil.c32"),
        "no kernel was started",
        needs=_SYSLINUX,
    ),
    # Kernels.
    Fault("no-initrd", "no-initrd", kernel_alone, "unknown-block(0,0)", quick=True),
    Fault("cut-initrd", "no-initrd", cut_initrd, "none that it can use"),
    Fault("silent-no-initrd", "no-initrd", silent_kernel, "unknown-block(0,0)"),
    Fault("arm-no-initrd", "no-initrd", kernel_alone, "unknown-block(0,0)", arch="aarch64"),
    # What is said on the screen only, or in others' words.
    Fault("screen-no-initrd", "no-initrd", on_screen(""), "unknown-block(0,0)", needs=_ISOLINUX, quick=True),
    Fault("screen-init-ends", "kernel-panic", on_screen("sleep 1; exit 1"), "first program", needs=_ISOLINUX),
    Fault("screen-question", "question", on_screen(_BOX + _WAIT), "question", needs=_ISOLINUX),
    Fault("screen-no-root", "emergency-shell", on_screen(_LOST_ROOT + _WAIT), "dropped into", needs=_ISOLINUX),
    Fault("server-silent", "answer-not-fetched", on_serial(_RETRIES), "did not fetch"),
    Fault("installer-spins", "answer-not-fetched", on_serial(_SPINS), "did not fetch"),
    Fault("refuses-and-ends", "answer-refused", tiny(SHUTDOWN, _BAD_ANSWER), "unknown keyword", quick=True),
    Fault("kickstart-missing", "answer-not-fetched", on_serial(_BROKEN_IN_TWO + _WAIT), "could not be found"),
    # The real debian-installer.
    Fault("open-question", "question", answers(NETBOOT, "localisation.cfg", _OPEN), "Select a language"),
    Fault(
        "answers-broken",
        "answer-refused",
        answers(NETBOOT, "localisation.cfg", _BROKEN, *_AS_IT_IS),
        "preconfiguration file",
    ),
    Fault("early-command-fails", "installer-error", answers(NETBOOT, "localisation.cfg", _EARLY), "preseeded command"),
    Fault("newt-question", "question", menu_of(NETBOOT), "Select a language"),
    Fault("silent-question", "question", both(answers(NETBOOT, "localisation.cfg", _OPEN), _SILENT), "question"),
    Fault("server-stopped", "answer-not-fetched", arguments(NETBOOT, _STOPPED), "preconfiguration file"),
    Fault("no-network", "no-network", arguments(NETBOOT, _NO_CARD), "No network interfaces detected"),
    Fault("arm-server-stopped", "answer-not-fetched", arguments(NETBOOT, _STOPPED), "preconfiguration", arch="aarch64"),
    # The made installer, and what it leaves.
    Fault("late-command-fails", "installer-error", late(MADE, "exit 7;"), "preseeded command"),
    Fault("disk-fills", "disk-full", late(MADE, _FILL, "--disk", "3G"), "No space left on device"),
    Fault("disk-too-small", "disk-full", answers(MADE, "packages.cfg", {}, "--disk", "512M"), "too small"),
    Fault(
        "wrong-key", "key-refused", answers(MADE, "finish.cfg", {"echo '>>build_public_key<<'": "echo nobody"}), "key"
    ),
    Fault("no-root", "emergency-shell", late(MADE, _OTHER_ROOT), "does not exist"),
    Fault("system-resets", "loop", late(MADE, f"echo reboot > {_BOOT_CONFIG};"), "restarted"),
    Fault("installs-again", "loop", both(late(MADE, _NO_LOADER), arguments(MADE, _RESTARTS)), "restarted into itself"),
    Fault("ssh-denied", "no-ssh", late(MADE, _DENIES), "SSH"),
    Fault("ssh-strange", "no-ssh", late(MADE, _STRANGE), "breaks off"),
    Fault("ssh-passwords", "key-refused", late(MADE, _PASSWORDS), "refused this build's key"),
    Fault("system-no-network", "no-network", late(MADE, _NO_NETWORK), "has no network"),
    Fault("system-no-data", "emergency-shell", late(MADE, _NO_DATA), "emergency"),
    Fault("system-off", "guest-gone", late(MADE, _OFF), "switched itself off"),
    Fault("no-ssh", "no-ssh", late(MADE, "rm /target/usr/sbin/sshd;"), "SSH port does not answer"),
)


def build(fault: Fault, folder: Path) -> Ran:
    """Plant `fault` in `folder` and run the build that it stops."""
    words = fault.plant(Bench(folder, fault.arch))
    where = ("--arch", fault.arch, "--accel", "tcg", "--project", folder)
    return run("build", "debian-12", *where, "--force", "--no-verify", "--json", *words, deadline_s=1500)


_SIGNS = frozenset(
    {"screen_changed", "answer_fetched", "answer_refused", "proof_of_life", "qmp_event", "machine_started"}
)


def find_progress(events: list[dict[str, Any]]) -> float:
    """Give the time of the last event that shows a guest at work, its end and ours left out."""
    last = [time_of(event) for event in events if event["kind"] in _SIGNS and event.get("name") != "SHUTDOWN"]
    said: dict[str, float] = {}
    for event in events:
        if event["kind"] == "output_line" and event["source"] in ("serial", "screen"):
            said.setdefault("".join(letter for letter in event["text"] if not letter.isdigit()), time_of(event))
    disks = [event for event in events if event["kind"] == "disk_activity"]
    moved = [time_of(new) for old, new in pairwise(disks) if total_of(new) - total_of(old) > 1 << 16]
    return max((*last, *said.values(), *moved))


def time_of(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def total_of(event: dict[str, Any]) -> int:
    return int(event["read_bytes"] + event["written_bytes"])
