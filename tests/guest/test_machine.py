"""One real QEMU a test, with guests of 512 bytes: how it starts, what it tells, and each way in which it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import os
import signal
import socket
import sys
import zlib
from pathlib import Path
from types import ModuleType

import pytest

from osimager.aio import poll, supervised
from osimager.arch import Arch, Firmware
from osimager.config.sections import DiskInterface
from osimager.env import Env
from osimager.errors import GuestGone, MachineError, PrerequisiteError, StageTimeout
from osimager.events import Event, MachineEnded, MachineStarted, Notice, OutputLine, QmpEvent
from osimager.machine.accelerator import choose_accelerator, probe
from osimager.machine.causes import StuckGuest
from osimager.machine.console import serving_console
from osimager.machine.firmware import make_variables
from osimager.machine.host import doctor_report, inspect_host, inspect_qemu
from osimager.machine.ladder import SYSTEM
from osimager.machine.png import parse_ppm
from osimager.machine.qemu import DirectBoot, MachineRun, QemuMachine, start_machine
from osimager.machine.qmp import Qmp
from osimager.machine.ram import CHANGES, MACHINE, MEMORY, SavedMemory
from osimager.machine.watch import Patience, watch_machine
from osimager.plan.argv import Display
from osimager.plan.facts import Accelerator, HostFacts
from osimager.plan.model import DeviceOverride, DiskShape, MachineShape, NicShape, UserNetwork
from osimager.ports import EndReason, Machine
from osimager.redact import MASK


def _load_tiny() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = _load_tiny()
pytestmark = [pytest.mark.guest, pytest.mark.needs("qemu-system-x86_64", "qemu-img")]
LIMIT_S = 40

SHAPE = MachineShape(
    arch=Arch.X86_64,
    firmware=Firmware.BIOS,
    machine="q35",
    cpu="x86-64-v2",
    cpus=1,
    memory_mib=64,
    disks=(DiskShape("disk0", 1 << 20),),
    nics=(NicShape("net0"),),
)


@pytest.fixture
async def host(env: Env) -> HostFacts:
    return await inspect_host(Arch.X86_64, Firmware.BIOS, places=env.places, accel="tcg")


def make_run(env: Env, host: HostFacts, ending: bytes, *, text: str = "hello\r\n", role: str = "target") -> MachineRun:
    disk = tiny.make_disk(env.workspace / "disk.qcow2", tiny.make_boot_sector(text, ending))
    return MachineRun(role=role, shape=SHAPE, host=host, disks=(disk,), serial_log=env.workspace / "serial.log")


async def wait_for_line(machine: QemuMachine, text: str) -> None:
    """Wait until the console has said `text`: on a busy host it may have before anybody listens."""

    async def is_said() -> bool | None:
        return text in machine.serial_tail(100) or None

    await poll(is_said, first_s=0.01, most_s=0.1)


def ended(events: list[Event]) -> list[str]:
    return [event.reason for event in events if isinstance(event, MachineEnded)]


async def test_restart_ends_an_installer(env: Env, host: HostFacts, events: list[Event]) -> None:
    run = dataclasses.replace(make_run(env, host, tiny.RESET), ends_on_reset=True)
    async with asyncio.timeout(LIMIT_S), start_machine(run, env) as machine:
        assert await machine.wait_end() is EndReason.GUEST_RESET
    assert ended(events) == ["guest-reset"]
    assert "] hello" in run.serial_log.read_text()
    assert run.serial_log.stat().st_mode & 0o777 == 0o600


async def test_two_who_look_at_the_screen_at_once_do_not_disturb_each_other(env: Env, host: HostFacts) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.HANG), env) as machine:

        async def look_often() -> int:
            return sum([(await machine.look()).width > 0 for _ in range(30)])

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(look_often()) for _ in range(3)]
    assert [task.result() for task in tasks] == [30, 30, 30]


async def test_power_off_ends_a_machine(env: Env, host: HostFacts, events: list[Event]) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.SHUTDOWN), env) as machine:
        assert await machine.wait_end() is EndReason.GUEST_SHUTDOWN
        with pytest.raises(GuestGone):
            await machine.screenshot(env.workspace / "late.png")
    assert ended(events) == ["guest-shutdown"]


async def test_power_off_is_heard_however_late_the_monitor_is_greeted(
    env: Env, host: HostFacts, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    greet = Qmp.connect

    async def greet_late(self: Qmp, ours: socket.socket) -> None:
        await asyncio.sleep(2)  # this guest needs a quarter of it to be off
        await greet(self, ours)

    monkeypatch.setattr(Qmp, "connect", greet_late)
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.SHUTDOWN), env) as machine:
        assert await machine.wait_end() is EndReason.GUEST_SHUTDOWN
    assert ended(events) == ["guest-shutdown"]


async def test_restart_of_a_target_is_an_event_and_not_its_end(env: Env, host: HostFacts) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.RESET), env) as machine:
        await env.bus.wait_for(QmpEvent, lambda event: event.name == "RESET" and "guest-reset" in event.detail)
        assert (await machine.disk_activity()).read_bytes > 0


async def test_power_button_is_obeyed(env: Env, host: HostFacts, events: list[Event]) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.OBEY_BUTTON), env) as machine:
        await wait_for_line(machine, "hello")
        await machine.shut_down(30)
    assert ended(events) == ["guest-shutdown"]


async def test_guest_that_ignores_the_power_button_is_a_timeout(env: Env, host: HostFacts) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.HANG), env) as machine:
        await wait_for_line(machine, "hello")
        with pytest.raises(StageTimeout) as caught:
            await machine.shut_down(0.2)
        assert caught.value.seen == "hello"


async def test_leaving_the_block_ends_the_guest(env: Env, host: HostFacts, events: list[Event]) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.HANG), env) as machine:
        pid = machine.pid
    assert ended(events) == ["asked"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_power_off_that_nobody_awaits_ends_the_block(env: Env, host: HostFacts) -> None:
    run = make_run(env, host, tiny.SHUTDOWN)
    with pytest.raises(GuestGone, match="switched itself off"):
        async with asyncio.timeout(LIMIT_S), start_machine(run, env):
            await asyncio.Event().wait()


async def test_power_off_that_is_expected_does_not_end_the_block(env: Env, host: HostFacts) -> None:
    run = dataclasses.replace(make_run(env, host, tiny.SHUTDOWN), end_expected=True)
    async with asyncio.timeout(LIMIT_S), start_machine(run, env) as machine:
        await env.bus.wait_for(MachineEnded)
        assert await machine.wait_end() is EndReason.GUEST_SHUTDOWN


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_death_ends_what_is_awaited(env: Env, host: HostFacts, number: signal.Signals) -> None:
    async def build() -> None:
        async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.HANG), env) as machine:
            os.kill(machine.pid, number)
            await asyncio.Event().wait()

    with pytest.raises(GuestGone) as caught:
        await build()
    assert "signal" in str(caught.value) or number.name in str(caught.value)


async def test_death_is_told_to_who_awaits_the_end(env: Env, host: HostFacts, events: list[Event]) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.HANG), env) as machine:
        os.kill(machine.pid, signal.SIGKILL)
        with pytest.raises(GuestGone, match="SIGKILL") as caught:
            await machine.wait_end()
    assert caught.value.returncode == -9
    assert "memory" in str(caught.value.hint)
    assert ended(events) == ["died"]


async def test_more_processors_than_a_machine_holds_are_told_with_a_hint(env: Env, host: HostFacts) -> None:
    run = dataclasses.replace(make_run(env, host, tiny.HANG), shape=dataclasses.replace(SHAPE, cpus=5000))
    with pytest.raises(PrerequisiteError, match="SMP CPUs") as caught:
        async with start_machine(run, env):
            pass
    assert "--cpus" in str(caught.value.hint)


async def test_stopped_qemu_is_killed(env: Env, host: HostFacts, events: list[Event]) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.HANG), env) as machine:
        os.kill(machine.pid, signal.SIGSTOP)
    assert ended(events) == ["asked"]


async def test_disk_that_is_in_use_says_so(env: Env, host: HostFacts) -> None:
    run = make_run(env, host, tiny.HANG)
    async with asyncio.timeout(LIMIT_S), start_machine(run, env):
        with pytest.raises(GuestGone, match="lock") as caught:
            async with start_machine(dataclasses.replace(run, serial_log=env.workspace / "second.log"), env):
                pass
    assert "another process" in str(caught.value.hint)


async def test_missing_kernel_says_so(env: Env, host: HostFacts) -> None:
    direct = DirectBoot(kernel=env.workspace / "none", initrd=None, command_line="secret=hunter2")
    run = dataclasses.replace(make_run(env, host, tiny.HANG), direct=direct)
    with pytest.raises(MachineError, match="could not open kernel"):
        async with asyncio.timeout(LIMIT_S), start_machine(run, env):
            pass


async def test_more_memory_than_there_is_lacks_of_the_host(env: Env, host: HostFacts) -> None:
    run = make_run(env, host, tiny.HANG)
    run = dataclasses.replace(run, shape=dataclasses.replace(SHAPE, memory_mib=1 << 29))
    with pytest.raises((PrerequisiteError, GuestGone)):
        async with asyncio.timeout(LIMIT_S), start_machine(run, env):
            pass


@pytest.mark.skipif(sys.platform == "darwin", reason="QEMU on a Mac has windows whatever DISPLAY says")
async def test_host_without_windows_is_told_what_else_shows_the_screen(
    env: Env, host: HostFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    run = dataclasses.replace(make_run(env, host, tiny.HANG), display=Display.WINDOW)
    with pytest.raises(PrerequisiteError) as caught:
        async with asyncio.timeout(LIMIT_S), start_machine(run, env):
            pass
    assert "--display" in str(caught.value.hint)


async def test_endpoint_is_a_port_of_the_kernels_choice(env: Env, host: HostFacts) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.HANG), env) as machine:
        assert machine.endpoint.host == "127.0.0.1"
        with socket.create_connection((machine.endpoint.host, machine.endpoint.port), timeout=5):
            pass


async def test_screenshot_is_a_png(env: Env, host: HostFacts) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.HANG), env) as machine:
        await machine.screenshot(env.workspace / "screen.png")
    assert (env.workspace / "screen.png").read_bytes().startswith(b"\x89PNG")
    assert not list(env.workspace.glob(".partial*"))


async def test_secret_on_the_console_is_masked(env: Env, host: HostFacts, events: list[Event]) -> None:
    env.masker.register("hunter2")
    run = make_run(env, host, tiny.SHUTDOWN, text="password is hunter2\r\nlogin: ")
    async with asyncio.timeout(LIMIT_S), start_machine(run, env) as machine:
        await machine.wait_end()
        assert machine.serial_tail(5) == "password is ********\nlogin:"
    assert "hunter2" not in run.serial_log.read_text()
    assert not any("hunter2" in str(event) for event in events)


async def test_cancel_leaves_nothing(env: Env, host: HostFacts, events: list[Event]) -> None:
    started = asyncio.Event()

    async def build() -> None:
        async with start_machine(make_run(env, host, tiny.HANG), env):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(build())
    async with asyncio.timeout(LIMIT_S):
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended(events) == ["asked"]


async def test_two_machines_get_two_ports(env: Env, host: HostFacts) -> None:
    first = make_run(env, host, tiny.HANG)
    second = dataclasses.replace(
        first, disks=(env.workspace / "two.qcow2",), serial_log=env.workspace / "two.log", role="verify"
    )
    tiny.make_disk(second.disks[0], tiny.make_boot_sector("two", tiny.HANG))
    async with asyncio.timeout(LIMIT_S), start_machine(first, env) as one, start_machine(second, env) as two:
        assert one.endpoint.port != two.endpoint.port


def _all_disks(*interfaces: DiskInterface) -> tuple[DiskShape, ...]:
    return tuple(DiskShape(f"disk{number}", 1 << 20, interface) for number, interface in enumerate(interfaces))


SHAPES = {
    "q35-all-disks": dataclasses.replace(SHAPE, disks=_all_disks(*DiskInterface)),
    "pc-all-disks": dataclasses.replace(
        SHAPE, machine="pc", disks=_all_disks(*DiskInterface), cdrom_interface=DiskInterface.IDE
    ),
    "pc-sata-cd": dataclasses.replace(SHAPE, machine="pc"),
    "e1000-static": dataclasses.replace(
        SHAPE,
        nics=(
            NicShape(
                "net0", UserNetwork("192.168.77.0/24", "192.168.77.1", "192.168.77.10"), "e1000", "52:54:00:12:34:56"
            ),
            NicShape("net1", UserNetwork(restricted=True)),
        ),
    ),
    "overridden": dataclasses.replace(
        SHAPE,
        nics=(NicShape("nic0"), NicShape("nic1", model="e1000"), NicShape("nic2", model="rtl8139")),
        overrides=(
            DeviceOverride("rng0", None),
            DeviceOverride("video0", "device", "virtio-vga,id=video0"),
            DeviceOverride("balloon0", "device", "virtio-balloon-pci,id=balloon0"),
            DeviceOverride("s3", "global", "ICH9-LPC.disable_s3=1"),
        ),
    ),
    "level-3": dataclasses.replace(SHAPE, cpu="x86-64-v3", cpus=2),
    "uefi-x86_64": dataclasses.replace(SHAPE, firmware=Firmware.UEFI),
    "uefi-pc": dataclasses.replace(SHAPE, firmware=Firmware.UEFI, machine="pc"),
    "uefi-aarch64": dataclasses.replace(
        SHAPE,
        arch=Arch.AARCH64,
        firmware=Firmware.UEFI,
        machine="virt",
        cpu="cortex-a57",
        cdrom_interface=DiskInterface.SCSI,
    ),
    "aarch64-16-cpus": dataclasses.replace(
        SHAPE,
        arch=Arch.AARCH64,
        firmware=Firmware.UEFI,
        machine="virt",
        cpu="max",
        cpus=16,
        memory_mib=256,
        disks=_all_disks(DiskInterface.VIRTIO, DiskInterface.SATA, DiskInterface.SCSI, DiskInterface.NVME),
        cdrom_interface=DiskInterface.SCSI,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
async def test_this_hosts_qemu_accepts_the_shape(name: str, env: Env) -> None:
    shape = SHAPES[name]
    try:
        host = await inspect_host(shape.arch, shape.firmware, places=env.places, accel="tcg")
    except PrerequisiteError as exc:
        pytest.skip(str(exc))
    sector = tiny.make_boot_sector("", tiny.HANG)
    disks = tuple(tiny.make_disk(env.workspace / f"{disk.id}.qcow2", sector) for disk in shape.disks)
    cds = (env.workspace / "a,b.iso", env.workspace / "seed.iso")
    for cd in cds:
        cd.write_bytes(bytes(1 << 16))
    variables = None
    if host.firmware is not None:
        variables = await make_variables(host.firmware, env.workspace / "variables.qcow2")
    run = MachineRun(
        role="target",
        shape=shape,
        host=host,
        disks=disks,
        cds=cds,
        variables=variables,
        serial_log=env.workspace / "serial.log",
    )
    async with asyncio.timeout(LIMIT_S), start_machine(run, env) as machine:
        assert machine.endpoint.port > 0


def as_port(machine: QemuMachine) -> Machine:
    """Prove by its types that QemuMachine is what `build` expects."""
    return machine


async def test_argv_event_holds_no_kernel_argument(env: Env, host: HostFacts, events: list[Event]) -> None:
    kernel = env.workspace / "kernel"
    kernel.write_bytes(bytes(4096))
    direct = DirectBoot(kernel=kernel, initrd=None, command_line="url=http://10.0.2.2:1/secret")
    run = dataclasses.replace(make_run(env, host, tiny.HANG), direct=direct)
    async with asyncio.timeout(LIMIT_S), start_machine(run, env):
        pass
    started = [event for event in events if isinstance(event, MachineStarted)]
    assert started
    assert "10.0.2.2" not in " ".join(started[0].argv)


async def test_typed_line_arrives_whole(env: Env, host: HostFacts) -> None:
    line = "linux /vmlinuz url=http://10.0.2.2:8080/a_B/~{x}|?.cfg <auto=true> --- \\\"'`!@#$%^&*()[];:+,"
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.ECHO_KEYS), env) as machine:
        await wait_for_line(machine, "hello")
        await machine.type_keys(f"<waitStill>{line}<enter>second<bs>line<leftShiftOn>a<leftShiftOff><enter>")
        await machine.type_keys(f'<waitSerial "second"><wait10ms>{"x" * 120}<enter>third<enter>')
        await machine.type_keys('<waitSerial "third">')
        assert line in machine.serial_tail(10).splitlines()
        assert "x" * 120 in machine.serial_tail(10).splitlines()
        assert "secondlineA" in machine.serial_tail(10)


async def test_line_that_nobody_reads_is_told_of(env: Env, host: HostFacts, events: list[Event]) -> None:
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.HANG), env) as machine:
        await wait_for_line(machine, "hello")
        await machine.type_keys("<waitStill>ab<enter>")
    assert [event.level for event in events if isinstance(event, Notice)] == ["warning"]


async def test_secret_is_typed_once_and_never_told(env: Env, host: HostFacts, events: list[Event]) -> None:
    env.masker.register("hunter2")
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.ECHO_KEYS), env) as machine:
        await wait_for_line(machine, "hello")
        await machine.type_keys('<waitStill>hunter2<enter>end<enter><waitSerial "end">')
        assert machine.serial_tail(2) == "********\nend"
    assert not any("hunter2" in str(event) for event in events)


def find_lit_rows(pixels: bytes, *, width: int) -> set[int]:
    """Give the rows of characters, 16 pixels high, that show anything."""
    row = width * 3 * 16
    return {at // row for at in range(0, len(pixels), row) if any(pixels[at : at + row])}


async def test_secret_is_seen_neither_half_typed_nor_on_a_picture(
    env: Env, host: HostFacts, events: list[Event], tmp_path: Path
) -> None:
    env.masker.register(secret := "correct horse battery")
    async with asyncio.timeout(LIMIT_S), start_machine(make_run(env, host, tiny.ECHO_KEYS), env) as machine:
        await wait_for_line(machine, "hello")
        await machine.type_keys("<waitStill>")
        typing = asyncio.create_task(machine.type_keys(f'{secret}<enter>end<enter><waitSerial "end"><waitStill>'))
        while not typing.done():
            await machine.observe()
            await asyncio.sleep(0.1)
        await typing
        await machine.screenshot(tmp_path / "covered.png")
        await machine.qmp.execute("screendump", {"filename": str(tmp_path / "all.ppm")})
    lines = [event.text for event in events if isinstance(event, OutputLine) and event.source == "screen"]
    assert [line for line in lines if MASK in line]
    assert not [line for line in lines if "corr" in line]
    width, height, pixels = parse_ppm((tmp_path / "all.ppm").read_bytes())
    drawn = zlib.decompress((tmp_path / "covered.png").read_bytes().partition(b"IDAT")[2])
    covered = b"".join(drawn[at + 1 : at + 1 + width * 3] for at in range(0, len(drawn), width * 3 + 1))
    assert len(covered) == width * height * 3
    shown, kept = find_lit_rows(pixels, width=width), find_lit_rows(covered, width=width)
    [hidden] = shown - kept
    assert hidden + 1 in kept, "`end` stands below it"


async def test_empty_disk_is_named_by_the_watcher(env: Env, host: HostFacts) -> None:
    run = make_run(env, host, tiny.HANG)
    tiny.make_disk(run.disks[0], bytes(512))

    async def build() -> None:
        async with (
            asyncio.timeout(LIMIT_S),
            start_machine(run, env) as machine,
            supervised(watch_machine(machine, env, SYSTEM)),
        ):
            await machine.wait_end()

    with pytest.raises(StuckGuest, match="No bootable device") as caught:
        await build()
    assert caught.value.cause == "no-bootable-medium"


async def test_guest_that_never_says_what_is_waited_for_is_stuck(
    env: Env, host: HostFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osimager.machine.watch.PATIENCE", Patience(loader_s=4.0))

    async def build() -> None:
        async with (
            asyncio.timeout(LIMIT_S),
            start_machine(make_run(env, host, tiny.HANG), env) as machine,
            supervised(watch_machine(machine, env, SYSTEM)),
        ):
            await machine.type_keys('<wait><waitSerial "never">x')

    with pytest.raises(StuckGuest, match=r'its boot command waits at <waitSerial "never">') as caught:
        await build()
    assert caught.value.cause == "firmware"


async def test_panic_that_the_guest_reports_ends_the_block(env: Env, host: HostFacts) -> None:
    run = make_run(env, host, tiny.PANIC)

    async def build() -> None:
        async with asyncio.timeout(LIMIT_S), start_machine(run, env) as machine:
            await machine.wait_end()

    with pytest.raises(MachineError, match="panicked"):
        await build()


async def test_console_is_fanned_out_and_can_be_typed_into(env: Env, host: HostFacts, tmp_path: Path) -> None:
    run = make_run(env, host, tiny.ECHO_SERIAL)
    async with asyncio.timeout(LIMIT_S), start_machine(run, env) as machine:
        await wait_for_line(machine, "hello")
        async with serving_console(machine.serial, tmp_path / "r" / "console") as path:
            assert path.stat().st_mode & 0o777 == 0o600
            one, one_out = await asyncio.open_unix_connection(path)
            two, two_out = await asyncio.open_unix_connection(path)
            assert await one.readexactly(5) == await two.readexactly(5) == b"hello"
            one_out.write(b"typed")
            assert await one.readexactly(5) == await two.readexactly(5) == b"typed"
            two_out.close()
            one_out.write(b"!")
            assert await one.readexactly(1) == b"!"
        assert await one.read() == b""
        one_out.close()
        assert not path.exists()


async def test_guest_goes_on_from_a_memory_and_the_changes_of_it(env: Env, host: HostFacts, tmp_path: Path) -> None:
    run = dataclasses.replace(make_run(env, host, tiny.REMEMBER_SERIAL), savable=True)
    folders = [tmp_path / name for name in ("whole", "first", "second")]
    async with asyncio.timeout(LIMIT_S), start_machine(run, env) as machine:
        await wait_for_line(machine, "hello")
        for folder, typed, said in zip(folders, "abc", ("a", "ab", "abc"), strict=True):
            machine.serial.write(typed.encode())
            await wait_for_line(machine, said)
            folder.mkdir()
            async with machine.paused():
                await machine.save(folder)
    saved = SavedMemory(folders[-1] / MACHINE, (folders[0] / MEMORY, folders[1] / CHANGES, folders[2] / CHANGES))
    assert all(file.stat().st_size < 10 << 20 for file in saved.ram[1:])
    run = dataclasses.replace(run, saved=saved, serial_log=env.workspace / "again.log")
    async with asyncio.timeout(LIMIT_S), start_machine(run, env) as machine:
        machine.serial.write(b"d")
        await wait_for_line(machine, "abcd")


async def test_probe_guest_runs_under_tcg_and_a_hang_is_named(host: HostFacts) -> None:
    verdict = await probe(host.qemu, Accelerator.TCG, deadline_s=LIMIT_S)
    assert verdict.works
    verdict = await probe(host.qemu, Accelerator.TCG, deadline_s=0.01)
    assert not verdict.works
    assert "hung" in verdict.reason


@pytest.mark.needs("qemu-system-aarch64")
async def test_probe_guest_for_arm_runs_under_tcg(env: Env) -> None:
    arm = await inspect_qemu(Arch.AARCH64, env.places)
    assert (await probe(arm, Accelerator.TCG, deadline_s=LIMIT_S)).works


async def test_verdict_is_remembered(env: Env, host: HostFacts) -> None:
    folder = env.places.cache / "host"
    first = await choose_accelerator(host.qemu, cache=folder)
    assert first.accelerator is Accelerator.TCG or "ran to its end" in first.reason
    no_binary = dataclasses.replace(host.qemu, path=Path("/nowhere/qemu-system-x86_64"))
    assert await choose_accelerator(no_binary, cache=folder) == first


async def test_wanted_accelerator_that_does_not_work_says_why(env: Env, host: HostFacts) -> None:
    facts = await choose_accelerator(host.qemu, cache=env.places.cache)
    if facts.accelerator is not Accelerator.TCG:
        pytest.skip("the accelerator of this host works")
    with pytest.raises(PrerequisiteError, match=r"does not work here|there is no"):
        await choose_accelerator(host.qemu, wanted="kvm", cache=env.places.cache)


async def test_doctor_tells_of_every_architecture(env: Env) -> None:
    report = await doctor_report(env.places)
    assert {guest.arch for guest in report.guests} == {Arch.X86_64, Arch.AARCH64}
    assert report.free_disk_bytes > 0
    assert all(guest.problem or guest.accelerator for guest in report.guests)
