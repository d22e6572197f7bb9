"""Each golden command line is taken by the QEMU of this host, where it has that binary: begun with `-S`, and asked to
quit. What belongs to a host's hardware (KVM, HVF, its own processor) stands as TCG and the model that it has."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from osimager.arch import Arch
from osimager.machine.firmware import find_firmware
from osimager.plan.argv import render_boot_config
from tests.conftest import find_or_skip

pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-img")]
GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "argv").glob("*.txt"))
LIMIT_S = 60
_DRIVE = re.compile(r"driver=(raw|qcow2),node-name=[\w-]+,file\.driver=file,file\.filename=((?:,,|[^,])+)")
_HARDWARE = {"-accel": (r"^(kvm|hvf)", "tcg"), "-cpu": (r"^host\b", "max")}
_MIB = 1 << 20


def take_home(word: str, folder: Path, arch: Arch) -> str:
    """Give a word of a golden line with files of this host, made where they are not there."""
    found = _DRIVE.search(word)
    if found is None:
        return word.replace("/run/", f"{folder}/")
    if found[2].endswith("CODE.fd"):
        firmware = find_firmware(arch)
        if firmware is None:
            pytest.skip(f"there is no UEFI firmware for {arch} on this host")
        return word.replace(found[2], str(firmware.code)).replace("driver=raw", f"driver={firmware.code_format}", 1)
    path = folder / Path(found[2].replace(",,", ",")).name
    # Variables are as large as their flash; where that is too small, QEMU says so.
    size = find_variables_bytes(arch) if path.name == "vars.qcow2" else _MIB
    subprocess.run(["qemu-img", "create", "-q", "-f", found[1], path, str(size)], check=True)
    return word.replace(found[2], str(path).replace(",", ",,"))


def find_variables_bytes(arch: Arch) -> int:
    firmware = find_firmware(arch)
    return firmware.variables.stat().st_size if firmware is not None else _MIB


@contextmanager
def descriptors(folder: Path) -> Iterator[tuple[socket.socket, dict[str, int]]]:
    """Give our end of QMP, and what the golden lines' descriptors are here: QMP, serial console, boot configuration."""
    kernel = folder / "kernel"
    kernel.write_bytes(bytes(_MIB))
    config = folder / "boot.cfg"
    config.write_text(render_boot_config(kernel, None, "quiet"))
    with ExitStack() as owner:
        qmp, serial = socket.socketpair(), socket.socketpair()
        for end in (*qmp, *serial):
            owner.enter_context(end)
        opened = owner.enter_context(config.open("rb"))
        yield qmp[0], {"10": qmp[1].fileno(), "11": serial[1].fileno(), "12": opened.fileno()}


@pytest.mark.parametrize("file", GOLDEN, ids=[file.stem for file in GOLDEN])
def test_this_hosts_qemu_takes_the_golden_line(file: Path, tmp_path: Path) -> None:
    binary, *options = file.read_text().splitlines()
    if any("netdev tap" in option for option in options):
        pytest.skip("a tap needs a bridge: test_bridge has one")
    if any("tpmdev" in option for option in options):
        pytest.skip("a TPM needs one who is it: test_tpm has one")
    qemu = find_or_skip(Path(binary).name)
    arch = Arch(Path(binary).name.removeprefix("qemu-system-"))
    argv = []
    with descriptors(tmp_path) as (monitor, numbers):
        for option in options:
            name, _, word = option.partition(" ")
            word = re.sub(*_HARDWARE[name], word) if name in _HARDWARE else take_home(word, tmp_path, arch)
            word = re.sub(r"(fd[=/])(\d+)$", lambda found: found[1] + str(numbers[found[2]]), word)
            argv += [name, *([word] if word else [])]
        child = subprocess.Popen(
            [qemu, *argv, "-S"], pass_fds=tuple(numbers.values()), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        monitor.settimeout(LIMIT_S)
        with child:
            monitor.sendall(b'{"execute": "qmp_capabilities"}\n{"execute": "query-status"}\n{"execute": "quit"}\n')
            _, said = child.communicate(timeout=LIMIT_S)
        assert (child.returncode, said) == (0, b"")
        [status] = [answer for answer in read_answers(monitor) if "status" in answer]
        assert status["status"] == "prelaunch"


def read_answers(monitor: socket.socket) -> list[dict[str, object]]:
    """Give what QEMU answered on QMP, of a QEMU that has ended."""
    monitor.setblocking(False)
    lines = monitor.recv(1 << 20).splitlines()
    return [answer["return"] for line in lines if "return" in (answer := json.loads(line))]
