"""The texts that name a cause, as firmware, boot loaders, kernels and installers print them."""

from __future__ import annotations

import pytest

from osimager.machine.causes import PANIC, RULES, Weight, find_last_word, find_rule, find_title, join_framed, outranks

LINES = [
    ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", "no-initrd"),
    ('VFS: Cannot open root device "" or unknown-block(0,0): error -6', "no-initrd"),
    ("Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.", "no-initrd"),
    ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(254,1)", "no-root"),
    ("[    1.2] Kernel panic - not syncing: Attempted to kill init!", "kernel-panic"),
    ("[  124.505512] watchdog: BUG: soft lockup - CPU#0 stuck for 115s! [cryptomgr_test:52]", "kernel-hang"),
    ("[    2.2] kernel BUG at mm/slub.c:379!", "kernel-panic"),
    ("[    2.2] BUG: unable to handle kernel NULL pointer dereference at 0000000000000008", "kernel-panic"),
    ("panic: vm_fault: fault on nofault entry, addr: 0xfffffe0000400000", "kernel-panic"),
    ("Kernel panic - not syncing: System is deadlocked on memory", "guest-out-of-memory"),
    ("[    0.9] Initramfs unpacking failed: write error", "guest-out-of-memory"),
    ("cp: error writing '/target/x': No space left on device", "disk-full"),
    ("because the selected disk or free space is too small to be automatically partitioned.", "disk-full"),
    ("  │ The disk has 512 MiB, too small for the recipe.", "disk-full"),
    ("ValueError: not enough free space on disks", "disk-full"),
    ("[  9.1] Out of memory: Killed process 312 (dpkg) total-vm:1", "guest-out-of-memory"),
    ("  │ The file needed for preconfiguration could not be retrieved from http://10.0.2.2:9/x.", "answer-not-fetched"),
    ("!! ERROR: Failed to retrieve the preconfiguration file", "answer-not-fetched"),
    ("anaconda: Failed to fetch kickstart from http://10.0.2.2:1/ks.cfg", "answer-not-fetched"),
    ("Warning: anaconda: failed to fetch kickstart from hd:LABEL=OEMDRV", "answer-not-fetched"),
    ("  │ Failed to process the preconfiguration file", "answer-refused"),
    ("The following problem occurred on line 7 of the kickstart file:", "answer-refused"),
    ("!! ERROR: Checksum error", "answer-refused"),
    ("An error occurred during reading the kickstart file:", "answer-refused"),
    ("Malformed autoinstall in 'keyboard' section", "answer-refused"),
    ("autoinstall config failed validation: storage", "answer-refused"),
    ("  │ Failed to run preseeded command", "installer-error"),
    ("An unknown error has occurred", "installer-error"),
    ("!! ERROR: Installation step failed", "installer-error"),
    ("Executing 'grub-install /dev/vda' failed. This is a fatal error.", "installer-error"),
    ("  │ No disk drive was detected. If you know the name of the driver", "installer-error"),
    ("you have not created a bootloader stage1 target device", "installer-error"),
    ("Failed to find a suitable stage1 device: EFI System Partition must be mounted", "installer-error"),
    ("anaconda 34.25 exception report", "installer-error"),
    ("An error occurred. Press enter to start a shell", "installer-error"),
    ("There was an error running the kickstart script at line 31.", "installer-error"),
    ("storage configuration failed: You have not defined a root partition (/)", "installer-error"),
    ("No bootable device.", "no-bootable-medium"),
    ("!!!! X64 Exception Type - 0E(#PF - Page-Fault)  CPU Apic ID - 00000000 !!!!", "firmware"),
    ("Synchronous Exception at 0x000000007BE6CA2C", "firmware"),
    ("BdsDxe: No bootable option or device was found.", "no-bootable-medium"),
    ("UEFI Interactive Shell v2.2", "uefi-shell"),
    ("Shell> ", "uefi-shell"),
    ('Generating "/run/initramfs/rdsosreport.txt"', "emergency-shell"),
    ("ALERT!  UUID=abc does not exist.  Dropping to a shell!", "emergency-shell"),
    ("(initramfs) ", "emergency-shell"),
    ("You are in emergency mode. After logging in, type journalctl -xb to view", "emergency-shell"),
    ("Cannot open access to console, the root account is locked.", "emergency-shell"),
    ("initramfs emergency recovery shell launched. Type 'exit' to continue boot", "emergency-shell"),
    ("Press Enter for maintenance", "emergency-shell"),
    ("grub rescue> ", "grub-shell"),
    ("error: file `/install/vmlinuz' not found.", "boot-loader"),
    ("error: you need to load the kernel first.", "boot-loader"),
    ("Could not find kernel image: linux", "boot-loader"),
    ("No DEFAULT or UI configuration directive found!", "boot-loader"),
    ("WARNING: No configuration file found", "boot-loader"),
    ("boot: ", "boot-menu"),
    ("                             GNU GRUB  version 2.06", "boot-menu"),
    ("Network autoconfiguration failed", "no-network"),
    ("  │ No Ethernet card was detected.", "no-network"),
    ("Error setting up base repository", "no-network"),
    ("!! ERROR: Unreachable gateway", "no-network"),
    ("The specified Debian archive mirror does not seem to support your architecture.", "no-network"),
    ("The installer failed to download a file from the mirror. This may be a problem", "no-network"),
    ("dhclient: Network is unreachable", "no-network"),
    ("  ┌───────────┤ [!!] Select a language ├───────────┐", "question"),
    ("Prompt: '?' for help, default=2>", "question"),
    ("[Press enter to continue]", "question"),
    ("Continue with autoinstall? (yes|no)", "question"),
    # glibc sysdeps/x86/cpu-features and dl-platform; Linux arch/x86/boot/cpu.c, decompress, kernel/reboot.c.
    ("Fatal glibc error: CPU does not support x86-64-v2", "wrong-cpu"),
    ("[    3.141592] Fatal glibc error: CPU does not support x86-64-v3", "wrong-cpu"),
    ("This kernel requires an x86-64 CPU, but only detected an i686 CPU.", "wrong-cpu"),
    (" -- System halted", "kernel-panic"),
    ("[  812.330112] reboot: System halted", "halted"),
    ("The operating system has halted.", "halted"),
    # apt, rpm and Anaconda's storage.
    ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk-full"),
    ("installing package kernel-core-5.14 needs 84MB on the /boot filesystem", "disk-full"),
    ("new lv is too large to fit in free space", "disk-full"),
    # pykickstart errors.py and parser.py; Anaconda's kickstart loading and text mode; EL 7's simpleline.
    ("There was a problem reading from line 12 of the kickstart file", "answer-refused"),
    ("Section %packages does not end with %end.", "answer-refused"),
    # Anaconda's errors.py, kickstart.py and exitters.
    ("The following error was found while parsing the kickstart configuration file:", "answer-refused"),
    ("Could not open kickstart file or included file named /tmp/part.ks", "answer-refused"),
    ("The installation was stopped due to an error which occurred while running in non-interactive", "installer-error"),
    ("Non interactive installation failed: Some packages, groups or modules are missing", "installer-error"),
    ("The system will be rebooted when you press Ctrl-C or Ctrl-Alt-Delete.", "installer-error"),
    ("Kickstart file /run/install/ks.cfg is missing.", "answer-not-fetched"),
    ("Please make your choice from above ['q' to quit | 'c' to continue | 'r' to refresh]: ", "question"),
    ("Since there cannot be any questions in cmdline mode, edit your kickstart file", "question"),
    ("Installation complete. Press ENTER to quit:", "question"),
    ("The media check is complete, the result is: FAIL.", "installer-error"),
    # cloud-init's schema and loader; curtin's reporter.
    ("Invalid cloud-config provided: Please run 'sudo cloud-init schema --system'", "answer-refused"),
    ("finish: cmd-install: FAIL: curtin command install", "installer-error"),
    # debian-installer: base-installer, anna, grub-installer, partman, cdrom-detect, netcfg (their templates).
    ("No installable kernel was found in the defined APT sources.", "installer-error"),
    ("  │ No kernel modules were found. This probably is due to a mismatch", "installer-error"),
    ("The 'grub-pc' package failed to install into /target/.", "installer-error"),
    ("The ext4 file system creation in partition #1 of Virtual disk 1 (vda) failed.", "installer-error"),
    ("  │ Incorrect installation media detected", "installer-error"),
    ("Your network is probably not using the DHCP protocol.", "no-network"),
    # linuxrc.
    ("Could not find the SUSE Linux Enterprise Server Repository.", "installer-error"),
    # mkfs.fat, the MBRs of syslinux and Windows, Bochs BIOS, iPXE.
    ("This is not a bootable disk.  Please insert a bootable floppy and", "no-bootable-medium"),
    ("Operating system load error.", "no-bootable-medium"),
    ("BOOTMGR is missing", "no-bootable-medium"),
    ("FATAL: INT18: BOOT FAILURE", "no-bootable-medium"),
    ("Nothing to boot: No such file or directory (https://ipxe.org/2d03e13b)", "no-bootable-medium"),
    # EDK II's shell and BdsDxe, shim, GRUB (kern/, normal/main.c), GRUB legacy, isolinux.asm, Linux's EFI stub.
    ("FS0:\\>", "uefi-shell"),
    ('BdsDxe: failed to load Boot0001 "UEFI QEMU DVD-ROM" from PciRoot(0x0): Access Denied', "boot-loader"),
    ("Verification failed: (0x1A) Security Violation", "boot-loader"),
    ("error: can't find command `linuxefi'.", "boot-loader"),
    ("error: cannot read the Linux header.", "boot-loader"),
    ("  Failed to boot both default and fallback entries.", "boot-loader"),
    ("Error 15: File not found", "boot-loader"),
    ("Could not find ramdisk image: /casper/initrd.gz", "boot-loader"),
    ("isolinux.bin missing or corrupt.", "boot-loader"),
    ("gfxboot.c32: not a COM32R image", "boot-loader"),
    ("EFI stub: ERROR: Failed to get file info", "boot-loader"),
    # dracut's emergency shell and its `die`; util-linux' and busybox' sulogin; systemd's rescue.service.
    ("Starting Dracut Emergency Shell...", "emergency-shell"),
    ("dracut: FATAL: No or empty root= argument", "emergency-shell"),
    ("[    2.110000] dracut: Refusing to continue", "emergency-shell"),
    ("Enter root password for system maintenance", "emergency-shell"),
    ("You are in rescue mode. After logging in, type journalctl -xb", "emergency-shell"),
    # ISC dhclient, udhcpc, klibc's ipconfig, NetworkManager, curl.
    ("No DHCPOFFERS received.", "no-network"),
    ("udhcpc: no lease, failing", "no-network"),
    ("IP-Config: no response after 60 secs - giving up", "no-network"),
    ("device (ens3): state change: ip-config -> failed (reason 'ip-config-unavailable')", "no-network"),
    ("curl: (7) Failed to connect to 10.0.2.2 port 80: Connection refused", "no-network"),
    ("Do you want to continue? [y/N]", "question"),
    # Linux, by architecture; the BSDs' debuggers; systemd's core/main.c; Anaconda's first program of EL 5 and 6.
    ("[    1.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000004", "wrong-cpu"),
    ("[    1.9] BUG: kernel NULL pointer dereference, address: 0000000000000008", "kernel-panic"),
    ("[    1.9] BUG: unable to handle page fault for address: ffffa0c1", "kernel-panic"),
    ("ddb{0}> ", "kernel-panic"),
    ("systemd[1]: Freezing execution.", "halted"),
    ("[!!!!!!] Failed to mount API filesystems.", "halted"),
    ("you may safely reboot your system", "halted"),
    # blivet and its forerunner, FreeBSD's and OpenBSD's ffs.
    ("Unable to allocate requested partition scheme.", "disk-full"),
    ("Could not allocate requested partitions: Partitioning failed", "disk-full"),
    ("/mnt: write failed, filesystem is full", "disk-full"),
    ("The disk sda (4 GiB) is too small.", "disk-full"),
    # Answers, in other installers' words.
    ("Unable to get a response file", "answer-not-fetched"),
    ("could not download answer file from http://10.0.2.2:1/x", "answer-not-fetched"),
    ("Answer file could not be read: /mnt/answers", "answer-not-fetched"),
    ("ERROR: answer file, line 3: unknown keyword 'langauge'", "answer-refused"),
    ("line 12 of the response file: no such option", "answer-refused"),
    ("The kickstart configuration is not valid", "answer-refused"),
    ("cannot parse the answer file", "answer-refused"),
    ("Error in unattend.xml: unexpected element", "answer-refused"),
    # OpenBSD's install.sub, Proxmox VE.
    ('Question has no answer in response file: "password for root account?"', "question"),
    ("failed; check /tmp/ai/ai.log, non-interactive mode aborted", "installer-error"),
    ("Installation aborted - unable to continue (type exit or CTRL-D to reboot)", "installer-error"),
    ("install exited abnormally -- received signal 11", "installer-error"),
    # Windows' boot manager, syslinux' gptmbr, BIOSes; iPXE.
    ("An operating system wasn't found. Try disconnecting any drives that don't", "no-bootable-medium"),
    ("Missing OS", "no-bootable-medium"),
    ("Reboot and Select proper Boot device", "no-bootable-medium"),
    ("http://10.0.2.2/boot.ipxe... Connection timed out (https://ipxe.org/4c0a6092)", "boot-loader"),
    # GRUB's kern/dl.c, mm.c and boot.S, ldlinux.elf, shim, systemd-boot.
    ("error: invalid arch-independent ELF magic.", "boot-loader"),
    ("alloc magic is broken at 0x7ff0b0a0: 0", "boot-loader"),
    ("GRUB Hard Disk Error", "boot-loader"),
    ("Booting kernel failed: Invalid argument", "boot-loader"),
    ("Invalid or corrupt kernel image.", "boot-loader"),
    ("start_image() returned Not Found", "boot-loader"),
    ("Failed to open \\EFI\\BOOT\\grubx64.efi - Not Found", "boot-loader"),
    ("Failed to execute Arch Linux (\\vmlinuz-linux): Not Found", "boot-loader"),
    ("Error loading \\EFI\\Linux\\linux.efi: Not found", "boot-loader"),
    # mkinitcpio, NixOS, EL 5 and 6, sysvinit, live-boot, FreeBSD.
    ("You are now being dropped into an emergency shell.", "emergency-shell"),
    ("An error occurred in stage 1 of the boot process, which must mount the", "emergency-shell"),
    ("*** Dropping you to a shell; the system will reboot", "emergency-shell"),
    ("[  OK  ] Reached target Emergency Mode.", "emergency-shell"),
    ("(or type Control-D to continue): ", "emergency-shell"),
    ("/dev/vda1: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.", "emergency-shell"),
    ("Enter full pathname of shell or RETURN for /bin/sh: ", "emergency-shell"),
    # busybox' wget, dracut's ifup, iputils.
    ("wget: bad address 'mirror.example'", "no-network"),
    ("dracut: Warning: dhcp for interface ens3 failed", "no-network"),
    ("connect: No route to host", "no-network"),
    # Media that end too soon.
    ("[   40.1] SQUASHFS error: Unable to read page, block 1f, size 2a", "medium-damaged"),
    ("[   40.1] I/O error, dev sr0, sector 120 op 0x0:(READ) flags 0x80700", "medium-damaged"),
    # systemd's jobs, dracut's initqueue.
    ("[ ***  ] A start job is running for /dev/disk/by-uuid/6f3c (50s / no limit)", "no-root"),
    ("dracut-initqueue[300]: Warning: dracut-initqueue: timeout, still waiting for", "no-root"),
    # whiptail, dialog, newt, urwid, debconf, cryptsetup, Alpine.
    ("       <Yes>                  <No>", "question"),
    ("   │            <  OK  >            │", "question"),
    ("   │      │ Retry │    │ Back │     │", "question"),
    ("[ Done       ]", "question"),
    ("Package configuration", "question"),
    ("*** sshd_config (Y/I/N/O/D/Z) [default=N] ?", "question"),
    ("Please unlock disk vda3_crypt: ", "question"),
    ("Which disk(s) would you like to use? (or '?' for help or 'none') [none]", "question"),
]


@pytest.mark.parametrize(("line", "cause"), LINES)
def test_line_names_its_cause(line: str, cause: str) -> None:
    rule = find_rule(line)
    assert rule is not None
    assert rule.cause == cause
    assert rule.hint


@pytest.mark.parametrize(
    "line",
    [
        "[    0.000000] Linux version 6.1.0-13-amd64",
        "Setting up linux-image-6.1.0-13-amd64 (6.1.55-1) ...",
        "panic=30 is set on the command line",
        "[   40.505292] watchdog: BUG: soft lockup - CPU#0 stuck for 37s! [cryptomgr_test:52]",  # a starved guest
        "[ 1840.505292] watchdog: BUG: soft lockup - CPU#1 stuck for 1711s! [swapper/1:0]",  # its host has slept
        "panic: runtime error: index out of range [1] with length 1",  # a program in Go
        "INFO anaconda.bootloader: bootloader stage1 target device is vda",
        "W: An error occurred during the signature verification. The repository is not updated",
        "finish: cmd-in-target: FAIL: curtin command in-target",  # Subiquity tries what may not be there
        "[  OK  ] Stopped target Emergency Mode... no",
        "debian login: ",
        "Booting `Install'",
        "Boot failed: not a bootable disk",  # of an empty disk before the CD
        "Configuring grub-pc: error reporting is off",
        "Retrieving the preconfiguration file",
        "Press any key to boot from CD or DVD....",  # goes on by itself
        "Press ESC in 1 seconds to skip",
        "reboot: Power down",
        "reboot: Restarting system",
        "Startup finished in 3.1s (kernel) + 12s (userspace) = 15.1s.",
        "Starting dracut initqueue hook...",
        "dracut: dracut-057-88.git20241216.el9_5",
        "[  OK  ] Stopped dracut emergency shell hook",
        'BdsDxe: failed to load Boot0001 "UEFI QEMU HARDDISK" from PciRoot(0x0)/Pci(0x4,0x0): Not Found',
        "EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID device path",
        "[    0.91] Initramfs unpacking failed: junk within compressed archive",  # padding: it goes on
        "*** An error occurred during the file system check.",  # the shell that follows tells
        "[  OK  ] Started Getty on tty1.",
        "[ OK ] Mounting root file system",
        "[ ***  ] A start job is running for /dev/disk/by-uuid/6f3c (12s / no limit)",
        "[ ***  ] A start job is running for Wait for Network (50s / no limit)",
        "kickstart file is valid",
        "Retrieving the answer file from http://10.0.2.2:1/x",
        "Reading answers from the seed",
        "Select and install software",
        "traps: python3[312] general protection fault ip:7f00",
        "Stopped target Rescue Mode",
        "Press any key to enter the menu",
        "error: no suitable video mode found.",
        "<Tab>/<Alt-Tab> between elements   |  <Space> selects   |  <F12> next screen",
    ],
)
def test_ordinary_line_names_nothing(line: str) -> None:
    assert find_rule(line) is None


@pytest.mark.parametrize(
    ("line", "weight"),
    [
        ("[    2.2] BUG: unable to handle kernel NULL pointer dereference at 0000000000000008", Weight.DIALOG),
        ("Invalid cloud-config provided: Please run 'sudo cloud-init schema --system'", Weight.DOUBT),
    ],
)
def test_what_a_guest_may_survive_proves_no_more_than_that(line: str, weight: Weight) -> None:
    rule = find_rule(line)
    assert rule is not None
    assert rule.weight is weight


def test_program_that_ended_is_told_from_other_panics() -> None:
    ended, other = (
        find_rule("Kernel panic - not syncing: Attempted to kill init!"),
        find_rule("Kernel panic - not syncing"),
    )
    assert ended is not None
    assert other is PANIC
    assert ended.cause == other.cause
    assert ended.hint != other.hint


def test_every_cause_is_one_word_and_says_what_to_do() -> None:
    assert all(rule.cause.replace("-", "").isalpha() and rule.what and rule.hint for rule in RULES)


def test_telling_rule_outranks_the_dialog_it_stands_in() -> None:
    question, refused = find_rule("<Go Back>"), find_rule("Failed to process the preconfiguration file")
    assert question is not None
    assert refused is not None
    assert outranks(refused, question)


NEWT = [
    "  ┌───────────┤ [!!] Configure the keyboard ├───────────┐",
    "  │ Keymap to use:                                      │",
    "  │     <Go Back>                                       │",
]
TEXT = [
    "Select a language",
    "-----------------",
    "Choose the language to be used for the installation process.",
    "Language:",
    "  1: C,",
    "Prompt: '?' for help, default=2>",
]
ERROR = [
    "Choose a mirror of the Debian archive",
    "-------------------------------------",
    "!! ERROR: Architecture not supported",
    "The specified Debian archive mirror does not seem to support your architecture.",
    "[Press enter to continue]",
    "[            (1*installer)  2 shell  3 shell  4- log           ][ Nov 26 17:17 ]",
]


@pytest.mark.parametrize(
    ("lines", "title"),
    [
        (NEWT, "Configure the keyboard"),
        (TEXT, "Select a language"),
        (ERROR, "Choose a mirror of the Debian archive: Architecture not supported"),
        ([" 3) [!] Installation source", "    (Error setting up software source)"], "Installation source"),
        (["  ┌─── [!!] Partition disks ───"], "Partition disks"),
        (["  ┌────┤ Configuring tzdata ├────┐", "  │ Area:   │", "  │  <Ok>   │"], "Configuring tzdata"),
        ([*TEXT, *NEWT], "Configure the keyboard"),
        (["nothing", "of that kind"], ""),
    ],
)
def test_dialog_is_called_by_its_title(lines: list[str], title: str) -> None:
    assert find_title(lines) == title


def test_last_word_of_a_guest_is_the_most_telling_final_one() -> None:
    said = [
        "No space left on device",
        "VFS: Unable to mount root fs on unknown-block(0,0)",
        "Kernel panic - not syncing: x",
    ]
    found = find_last_word(said)
    assert found is not None
    rule, line = found
    assert (rule.cause, rule.weight) == ("no-initrd", Weight.FINAL)
    assert line == said[1]
    assert find_last_word(["No space left on device"]) is None
    ended = find_last_word(["[!!] Partition disks", "No space left on device"], proving=(Weight.DIALOG,))
    assert ended is not None
    assert ended[0].cause == "disk-full"


def test_what_a_frame_has_broken_in_two_is_joined() -> None:
    joined, before = "", ""
    for row, expected in [
        ("  │ The kickstart file could not  │░", ""),
        ("  │ be found.                     │░", "The kickstart file could not be found."),
        ("  │                               │░", ""),
        ("  │     <Go Back>                 │░", ""),
        ("a line without a frame", ""),
        ("  │ another                       │", ""),
    ]:
        joined, before = join_framed(before, row)
        assert joined == expected
