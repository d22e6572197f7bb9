"""The order of an installation."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any, NoReturn

from pykickstart.constants import KS_REBOOT, KS_SHUTDOWN

from . import kickstart, source, storage, system
from .bootloader import install_bootloader
from .talk import Stopped, say, wait_forever

_MEDIUM = Path("/run/medium")
_PAYLOAD = Path("/run/lower")


def main() -> NoReturn:
    """Install and end the machine; or say why not, and wait."""
    product = kickstart.read_product(_MEDIUM)
    say(f"anaconda {product.name} (test installer, kickstart syntax {product.syntax}) started.")
    handler: Any = None
    try:
        text = source.find_kickstart(source.read_arguments())
        if text is None:
            _ask("Language settings, Installation source, Installation destination, Root password")
        kickstart.run_scripts(kickstart.read_scripts(text, product, kickstart.PRE))
        handler = kickstart.parse_kickstart(text, product)
        _check_answers(handler)
        _install(handler, text)
    except Stopped as exc:
        print(f"\n{exc}")
        if handler is not None:
            kickstart.run_scripts(kickstart.scripts_of(handler, kickstart.ON_ERROR))
        print("\nThe installer will now terminate.")
        wait_forever()
    _end(handler)


def _check_answers(handler: Any) -> None:
    """Stop at the hub of Anaconda's text mode where something has to be said that the kickstart does not say."""
    missing = []  # the source is not: without one named, the medium that was booted is taken
    if not (handler.autopart.seen or handler.partition.seen):
        missing.append("Installation destination")
    if not (handler.rootpw.seen or handler.user.userList):
        missing.append("Root password")
    if not handler.packages.seen:
        missing.append("Software selection")
    if missing:
        _ask(", ".join(missing))


def _ask(what: str) -> NoReturn:
    """Show the hub's prompt, and wait for the person who is not there."""
    print(f"\nInstallation\n\n[!] {what}\n")
    print("Please make a selection from the above ['b' to begin installation, 'q' to quit, 'r' to refresh]: ")
    wait_forever()


def _install(handler: Any, text: str) -> None:
    say("Creating the disk's layout")
    disk, volumes = storage.set_up_disk(handler)
    kickstart.run_scripts(kickstart.scripts_of(handler, kickstart.PRE_INSTALL))
    say("Installing the system")
    system.copy_system(_PAYLOAD, volumes)
    system.install_packages(handler, _MEDIUM / "BaseOS/Packages")
    say("Configuring the installed system")
    system.set_up_language(handler)
    system.set_up_network(handler)
    system.set_up_accounts(handler)
    system.set_up_services(handler)
    while not Path("/run/keys/made").exists():
        time.sleep(0.1)
    system.install_host_keys()
    say("Installing boot loader")
    install_bootloader(handler, disk, volumes)
    say("Running post-installation scripts")
    kickstart.run_scripts(kickstart.scripts_of(handler, kickstart.POST))
    system.keep_records(text)
    say("Installation complete.")


def _end(handler: Any) -> NoReturn:
    """Leave the disk whole and end the machine as the kickstart says; without a word it waits for a person."""
    action = handler.reboot.action
    subprocess.run(["sync"], check=True)
    subprocess.run(["umount", "--recursive", "--lazy", kickstart.TARGET], check=False)
    subprocess.run(["sync"], check=True)
    if action not in (KS_REBOOT, KS_SHUTDOWN):
        print("Installation complete. Press ENTER to quit: ")
        wait_forever()
    # Without systemd in the live system, the kernel is asked at once.
    subprocess.run(["busybox", "reboot" if action == KS_REBOOT else "poweroff", "-f"], check=True)
    wait_forever()


if __name__ == "__main__":
    main()
