"""The texts that name a cause, as firmware, boot loaders, kernels and installers print them."""

from __future__ import annotations

import pytest

from osimager.machine.causes import RULES, Weight, find_last_word, find_rule, find_title, outranks

LINES = [
    ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", "no-initrd"),
    ('VFS: Cannot open root device "" or unknown-block(0,0): error -6', "no-initrd"),
    ("Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.", "no-initrd"),
    ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(254,1)", "no-root"),
    ("[    1.2] Kernel panic - not syncing: Attempted to kill init!", "kernel-panic"),
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
    ("anaconda 34.25 exception report", "installer-error"),
    ("An error occurred. Press enter to start a shell", "installer-error"),
    ("There was an error running the kickstart script at line 31.", "installer-error"),
    ("storage configuration failed: You have not defined a root partition (/)", "installer-error"),
    ("No bootable device.", "no-bootable-medium"),
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
    ("dhclient: Network is unreachable", "no-network"),
    ("  ┌───────────┤ [!!] Select a language ├───────────┐", "question"),
    ("Prompt: '?' for help, default=2>", "question"),
    ("[Press enter to continue]", "question"),
    ("Continue with autoinstall? (yes|no)", "question"),
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
        "[  OK  ] Stopped target Emergency Mode... no",
        "debian login: ",
        "Booting `Install'",
        "Boot failed: not a bootable disk",  # of an empty disk before the CD
        "Configuring grub-pc: error reporting is off",
        "Retrieving the preconfiguration file",
        "[    0.91] Initramfs unpacking failed: junk within compressed archive",  # padding: it goes on
    ],
)
def test_ordinary_line_names_nothing(line: str) -> None:
    assert find_rule(line) is None


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
