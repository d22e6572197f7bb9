"""What a guest says when it will not get on, and what that means: a table of texts, read line by line.

The texts are those of firmware, boot loaders, kernels and installers as they print them on the console or on a text
screen. A new one is a line here and one in `tests/unit/machine/test_causes.py`. Knows no times: `watch` has the clock.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from osimager.errors import MachineError


class StuckGuest(MachineError):
    """A guest that will not get on by itself; `seen` is the end of its console."""

    def __init__(self, cause: str, what: str, *, hint: str, seen: str = "") -> None:
        super().__init__(what, hint=hint, cause=cause)
        self.seen = seen


class Weight(Enum):
    """How much a text proves. FINAL: the end, whatever follows. DIALOG: the end once nothing follows for some time.
    DOUBT: the end only where the guest also rests. LOADER: as DIALOG, and only until a kernel runs.
    """

    FINAL = "final"
    DIALOG = "dialog"
    DOUBT = "doubt"
    LOADER = "loader"


@dataclass(frozen=True, slots=True)
class Rule:
    """A text and the cause that it names."""

    weight: Weight
    cause: str
    pattern: re.Pattern[str]
    what: str
    hint: str


def _rule(weight: Weight, cause: str, what: str, hint: str, *patterns: str) -> Rule:
    return Rule(weight, cause, re.compile("|".join(patterns)), what, hint)


_MEMORY_HINT = "give it more with --memory"
_ANSWER_HINT = "check the answer file: `osimager plan` shows it as the guest gets it, evidence/answers as it got it"
# An installer's own words for its answers, as others than those above have them.
_ANSWERS = r"\b(?:answer[- _]?file|answers|response file|unattend|kickstart|preseed|auto-?install|autoyast|user-data)"
_CANNOT = r"(?i:\b(?:error|fail|problem|unable to|cannot|can't|could ?n[o']t)"
_LOADER_HINT = "look at the menu's paths: the medium lacks a file that its boot loader asks for, or cannot be read"

# The telling ones first: an earlier rule wins over a later one.
RULES: tuple[Rule, ...] = (
    _rule(
        Weight.FINAL,
        "guest-out-of-memory",
        "the guest ran out of memory",
        _MEMORY_HINT,
        r"Kernel panic - not syncing: (?:Out of memory|System is deadlocked on memory)",
        r"Initramfs unpacking failed: write error",
        r"Out of memory and no killable processes",
    ),
    _rule(
        Weight.FINAL,
        "no-initrd",
        "the guest's kernel has no initrd, or none that it can use",
        "look at the initrd of the boot entry: is it there, whole, and made for this kernel?",
        r"Unable to mount root fs on (?:unknown-block\(0,0\)|\"\")",
        r"Cannot open root device \"(?:\(null\))?\" or unknown-block\(0,0\)",
        r"No working init found",  # of an initrd that is cut off, what was unpacked stays
    ),
    _rule(
        Weight.FINAL,
        "wrong-cpu",
        "the guest's system needs a newer CPU model than it has",
        "give it one with machine.cpu: x86-64-v2 for EL 9, x86-64-v3 for EL 10, a 64-bit one for a 64-bit system",
        r"^(?:\[ *\d+\.\d+\] )?Fatal glibc error: CPU does not support",  # of init; the panic follows
        r"This kernel requires an? \S+ CPU, but only detected",
        r"Attempted to kill init! exitcode=0x00000004",  # SIGILL
    ),
    _rule(
        Weight.FINAL,
        "no-root",
        "the guest's kernel found no root file system",
        "look at root= and the driver of the disk's interface in the initrd",
        r"VFS: Unable to mount root fs",
        r"VFS: Cannot open root device",
    ),
    _rule(
        Weight.FINAL,
        "kernel-panic",
        "the guest's kernel panicked, since its first program ended",
        "look at the lines before it: what the init of its initrd, or of its system, did not find or could not run",
        r"Kernel panic - not syncing: (?:Attempted to kill init!|Requested init)",
    ),
    _rule(
        Weight.FINAL,
        "kernel-panic",
        "the guest's kernel panicked",
        "try another CPU model or more memory (--memory); the console's last lines tell more",
        r"Kernel panic - not syncing",
        r"^panic: (?!runtime error: )|^(?:ddb|db)(?:\{\d+\})?> ?$",  # BSD; not a program in Go
        r"^ ?-- System halted",  # a kernel that cannot unpack itself
    ),
    _rule(
        Weight.FINAL,
        "halted",
        "the guest halted, and neither restarted nor switched itself off",
        "let the answer file end with a restart or a power-off (kickstart: reboot or poweroff; it halts by default)",
        r"reboot: System halted",
        r"^The (?:operating )?system has halted\.?$",  # BSD
        r"you may safely (?:reboot|turn off) your (?:system|computer)|^(?:\[ *\d+\.\d+\] )?System halted\.?$",
    ),
    _rule(
        Weight.FINAL,
        "halted",
        "the guest's service manager gave up, and does nothing any more",
        "the lines before it say why: a file system that cannot be mounted, a policy that cannot be loaded",
        r"systemd\[1\]: Freezing execution|^(?:\S+ )?\[!!!!!!\] ",
    ),
    _rule(
        Weight.FINAL,
        "kernel-hang",
        "a processor of the guest has hung",
        "the emulator or the kernel is at fault: build again; if it comes back, try another CPU model or --cpus 1",
        # kernel/watchdog.c: said every 26 s, with the whole time. A starved guest says so too, and gets over it. One
        # whose clock leapt (its host slept) says so once, of the whole leap: a real hang is told of on its way there.
        r"soft lockup - CPU#\d+ stuck for 1\d{2}s!",
    ),
    _rule(
        Weight.DIALOG,  # it ends the task that met it; most guests go on
        "kernel-panic",
        "the guest's kernel met an error of its own",
        "try another CPU model or more memory (--memory); the console's last lines tell more",
        r"kernel BUG at |[Uu]nable to handle (?:kernel (?:NULL pointer|paging request)|page fault for)",
        r"BUG: kernel NULL pointer|\bOops: .*\[#\d+\]",
    ),
    _rule(
        Weight.DIALOG,
        "disk-full",
        "the guest's disk is full or too small",
        "give it a larger one with --disk, or make the partitions in the answer file smaller or larger",
        r"No space left on device",
        r"[Nn]ot enough (?:free |disk )?space",
        r"too small (?:to (?:hold|be)|for the)|Failed to partition the selected disk",
        r"do(?:es)?(?: not|n't) have enough (?:disk |free )?space|[Ii]nsufficient (?:disk |free )?space",
        r"more space (?:is )?(?:needed|required) (?:on|in)|needs \S+ (?:more space )?on the \S+ filesystem",
        r"too large to fit in free space|file ?system (?:is )?full|[Dd]isk (?:is )?full|(?i:\bdisk\b.*\btoo small\b)",
        r"(?:[Uu]nable to|[Cc]ould not) allocate requested partition",
    ),
    _rule(
        Weight.DOUBT,
        "guest-out-of-memory",
        "the guest ran out of memory",
        _MEMORY_HINT,
        r"Out of memory: Killed process",
        r"(?i:insufficient memory|not enough (?:memory|RAM)\b(?! to load specified))",
    ),
    _rule(
        Weight.DIALOG,
        "answer-not-fetched",
        "the installer could not fetch its answer file",
        "it has no network, or the address in its boot arguments is wrong",
        r"(?i:(?:preconfiguration|file needed for preconfiguration) could not be retrieved)",
        r"(?i:failed to retrieve the preconfiguration)",
        r"(?i:failed to fetch kickstart)",
        _CANNOT + r".{0,80}\b(?:download|fetch|retriev|get)\w* .{0,80}(?:" + _ANSWERS + r"|ks\.cfg|install\.conf))",
        r"(?i:(?:answer|response) file.*(?:could not be|cannot be|not) (?:found|read|fetched|downloaded|retrieved))",
        r"(?i:kickstart.*(?:could not be|cannot be|not) (?:found|read|fetched|downloaded))",
        r"(?i:kickstart file \S+ is missing)",
    ),
    _rule(
        Weight.DIALOG,
        "answer-refused",
        "the installer refused its answer file",
        _ANSWER_HINT,
        r"(?i:failed to process the preconfiguration file)",
        r"(?i:error parsing preconfiguration file)|!! ERROR: Checksum error|\[!!\] Checksum error",
        r"(?i:problem (?:occurred on|reading from) line \d+ of the kickstart)",
        r"(?i:error occurred during reading the kickstart|error was found while parsing the kickstart)",
        r"Could not open kickstart file or included file",
        r"Section \S+ does not end with %end|Unable to open input kickstart file",
        r"(?i:unknown command: .*kickstart|kickstart.*(?:parse|syntax) error|error parsing kickstart)",
        r"(?i:(?:invalid|malformed) (?:kickstart|autoinstall|autoyast))",
        r"(?i:autoinstall.*(?:invalid|failed validation|validation (?:error|failed)))",
        r"(?i:(?:error|invalid).*(?:parsing|in) the (?:autoyast|control file|profile))",
        r"(?i:" + _ANSWERS + r"\w*\b.*\b(?:invalid|malformed|not valid|rejected|refused|corrupt|could not be parsed|"
        r"(?:syntax|parse|parsing|validation|schema) error|failed (?:validation|to (?:parse|validate))))",
        r"(?i:\b(?:invalid|malformed|corrupt|rejected|(?:cannot|could not|failed to) (?:parse|validate)|"
        r"(?:error|mistake|problem)s? (?:in|parsing|processing)) (?:the )?(?:\S+ )?" + _ANSWERS + r")",
        r"(?i:(?:answer|response) file\S*,?:? line \d+|line \d+ (?:of|in) (?:the |your )?(?:answer|response) file)",
    ),
    _rule(
        Weight.DOUBT,  # cloud-init warns so of a key that it does not know, and obeys the others
        "answer-refused",
        "the installer refused its answer file",
        _ANSWER_HINT,
        r"Invalid cloud-config provided|Failed loading yaml blob",
    ),
    _rule(
        Weight.DIALOG,
        "installer-error",
        "the installer stopped at an error",
        "the console and the screenshot show which one; what it obeyed is in evidence/answers",
        r"Failed to run preseeded command|Installation step failed|An installation step failed|This is a fatal error",
        r"Failed to load installer component|Debootstrap [Ee]rror|Failed to install the base system",
        r"No disk drive was detected|No partitionable media|No root file system is defined",
        r"(?i:an (?:unknown|unexpected) error (?:has )?occurr?ed)",
        r"(?i:an error (?:has )?occurr?ed(?: during(?! the (?:signature|file system))|\. press enter))",  # apt goes on
        r"There was an error running the (?:kickstart|%\w+) script",
        r"The installation (?:was stopped due to|should be aborted)|Non interactive installation failed",
        r"Some packages, groups or modules are missing|The system will be rebooted when you press Ctrl",
        r"The following error occurred while installing|[Ss]torage configuration failed",
        r"No installable kernel was found|No kernel modules were found|GRUB installation failed",
        r"package failed to install into /target|file system creation in partition .* failed",
        r"(?:Incorrect|Your) installation (?:media|CD-ROM) (?:detected|couldn't be mounted)",
        r"No (?:usable )?disks detected|[Nn]o valid boot ?loader target device|suitable stage1 device",
        r"not created a bootloader stage1",
        r"finish: cmd-(?!in-target)\S+: FAIL: |Could not find the .* [Rr]epository|the result is: FAIL",
        r"exception report$|Traceback \(most recent call first\)",
        r"Pane is dead|X startup failed, aborting",
        r"Unable to install GRUB|Failed to install the boot ?loader|Failed to install bootblocks",
        r"(?i:\binstallation (?:has |was )?(?:failed|aborted)|\binstallation cannot (?:continue|proceed))",
        r"(?i:\binstaller (?:has |was )?(?:crashed|aborted|failed(?! to))|install(?:er)? exited abnormally)",
        r"Autopartitioning failed|non-interactive mode aborted",
    ),
    _rule(
        Weight.FINAL,
        "firmware",
        "the machine's firmware crashed",
        "give the guest more memory (--memory), or another firmware: `osimager doctor` shows which one is used",
        # EDK2: UefiCpuPkg's DumpCpuContext, ArmPkg's DefaultExceptionHandler.
        r"^!!!! (?:X64|IA32) Exception Type|^Synchronous Exception at 0x",
    ),
    _rule(
        Weight.FINAL,
        "no-bootable-medium",
        "the firmware found nothing to boot",
        "the ISO is not bootable with this firmware (try --firmware uefi or bios), or the disk holds no system",
        # SeaBIOS says "Boot failed: …" of each device in turn, an empty disk before the CD too; this comes last.
        r"No bootable (?:device|option or device)|No boot device|(?i:operating system not found)",
        r"(?i:missing operating system|^no operating system|^an operating system wasn't found)|^Missing OS\b",
        r"(?i:^no boot(?:able)? (?:disk|drive|medium|media|image)s? |disk boot failure|select proper boot device)",
        r"^A disk read error occurred",
        r"Non-system disk|FATAL: No bootable|This is not a bootable disk|FATAL: INT18",
        r"^(?:Error loading operating system|Operating system load error|Invalid partition table$)",
        r"^(?:BOOTMGR|NTLDR) is missing|^Nothing to boot: |^No more network devices",
    ),
    _rule(
        Weight.LOADER,  # keys may be typed into it
        "uefi-shell",
        "the firmware ended in its UEFI shell: nothing else could be booted",
        "the ISO or disk has no UEFI boot loader for this architecture",
        r"UEFI Interactive Shell|^Shell> |^FS\d+:\\.*> ?$",
    ),
    _rule(
        Weight.FINAL,
        "emergency-shell",
        "the guest ended in an emergency shell",
        "it did not find its root or its installer's image: look at root=, inst.stage2= and the disk's interface",
        r"Entering emergency mode|You are in emergency mode|Reached target emergency\.target",
        r"dracut:/#|Generating \"/run/initramfs/rdsosreport|Starting Dracut Emergency Shell|Warning: Could not boot",
        r"dracut(?:\[\d+\])?: (?:FATAL: |Refusing to continue)",
        r"(?:(?:Give|Enter) root password|Press Enter) for (?:system )?maintenance|You are in rescue mode",
        r"Cannot open access to console, the root account is locked",
        r"^\(initramfs\)|emergency recovery shell launched|^mountroot> |An error occurred in stage 1 of the boot",
        r"(?i:\bdropp(?:ed|ing) (?:you )?(?:in)?to (?:an? )?(?:(?:emergency|rescue|recovery|debug) )?shell\b)",
        r"Welcome to (?:emergency|rescue) mode|Reached target (?:Emergency|Rescue) Mode|^BOOT FAILED!",
        r"(?i:(?:type|press) control-d to continue|control-d will exit from this shell|run fsck manually)",
        r"Enter (?:full )?pathname of shell or RETURN for|No /sbin/init found on rootdev",
    ),
    _rule(
        Weight.LOADER,
        "boot-loader",
        "the boot loader cannot load what it is to boot",
        _LOADER_HINT,
        r"^error: .*(?:not found|no such|you need to load the kernel first|unknown file ?system|"
        r"invalid (?:\S+ ELF )?magic|bad shim|premature end|not a regular file|failure reading|out of (?:memory|disk)|"
        r"couldn't read file|cannot read the Linux header|cannot load image|outside of disk|bad signature|"
        r"start_image\(\) returned|secure ?boot)|^alloc magic is broken|\bGRUB.* (?:Geom|Hard Disk|Floppy|Read) Error",
        # Of another command that it lacks GRUB only complains; where that ends it, its shell tells.
        r"^error: .*can't find command [`'](?:linux|initrd|kernel|module|multiboot|xen_|chainloader|boot)",
        r"Failed to boot both default and fallback entries",
        r"^Error \d+: (?:File not found|Cannot mount selected partition)",
        r"Could not find (?:kernel|ramdisk) image|No configuration file found|No DEFAULT or UI configuration directive",
        r"ISOLINUX.*(?:[Ee]rror|failed)|isolinux\.bin missing or corrupt|isolinux: Disk error|not a COM32R? image",
        r"Not enough memory to load specified kernel|^EFI stub: ERROR: ",
        r"BdsDxe: failed to load .*: (?:Access Denied|Security Violation)|Verification failed: .*Security Violation",
        r"Failed to load (?:ldlinux|COM32|libcom32)|Image checksum error|Loading \S+ failed",
        r"[Ii]nvalid or corrupt kernel|Booting kernel failed|\(https?://ipxe\.org/[0-9a-f]+\)|^iPXE> ",
        # shim; systemd-boot.
        r"^start_image\(\) returned |^Failed to (?:open|load image) \\|Something has gone seriously wrong",
        r"^Failed to execute .+ \(.+\): |^Error (?:loading|preparing) \S+.*: |^No loader found\. Configuration files",
    ),
    _rule(
        Weight.LOADER,  # keys may be typed into it
        "grub-shell",
        "the boot loader ended in its own shell",
        "it did not find its configuration or kernel: " + _LOADER_HINT,
        r"^grub rescue>|^grub>|GNU GRUB.*minimal BASH-like|^\s*Minimal BASH-like line editing",
    ),
    _rule(
        Weight.LOADER,
        "boot-menu",
        "a boot menu waits for a choice",
        "say which entry to take (the spec's menu), or type one with --boot typed",
        r"Press enter to boot the selected|Use the .* keys to (?:select|change)|Automatic boot in|^boot:",
        r"Press \[Tab\] to edit|Press Tab for full configuration|[Pp]ress (?:the )?ENTER (?:key )?to boot",
        r"^\s*GNU GRUB  version",
    ),
    _rule(
        Weight.DIALOG,
        "no-network",
        "the guest has no network, or does not reach what it needs there",
        "check the mirror and proxy in the configuration; with --offline everything must be on the ISO",
        r"(?i:network autoconfiguration failed|no ethernet card was detected|no network interfaces? detected)",
        r"(?i:error setting up (?:the )?(?:base repository|software source)|failed to set up installation source)",
        r"Ethernet card not found|Unreachable gateway|No DHCP client found",
        r"(?i:bad archive mirror|does not seem to support your architecture|error while getting the (?:release )?file)",
        r"(?i:mirror (?:is|was) (?:either )?not (?:available|accessible|reachable))|failed to download a file from the",
        r"network is probably not using the DHCP protocol|IP-Config: Auto-configuration of network failed",
    ),
    _rule(
        Weight.DOUBT,
        "no-network",
        "the guest has no network, or does not reach what it needs there",
        "check the mirror and proxy in the configuration; with --offline everything must be on the ISO",
        r"(?i:no DHCP ?(?:offers|lease)|network is unreachable|temporary failure (?:in name resolution|resolving))",
        r"(?i:failed to download package|could not resolve host)|ip-config-unavailable|udhcpc: no lease",
        r"IP-Config: no response after|dhcp4 \(\S+\): (?:request|activation:?.*) timed out|curl: \((?:6|7|28)\)",
        r"Failed to start (?:systemd-networkd-wait-online|NetworkManager-wait-online|Wait for Network|Raise network)",
        r"Timeout occurred while waiting for network connectivity|wget: bad address|(?i:no route to host)",
        r"(?i:dhcp for interface \S+ failed|dhcp (?:discovery|request)? ?(?:failed|timed? ?out))|Network is down",
        r"(?i:(?:unable to|failed to|could not|cannot) (?:obtain|get|acquire) .*(?:dhcp|lease|ip address))",
    ),
    _rule(
        Weight.DOUBT,  # what probes a medium reads beyond its end
        "medium-damaged",
        "the guest cannot read its medium",
        "fetch the ISO again, or check it: `osimager iso verify`",
        r"SQUASHFS error: |I/O error, dev sr\d|attempt to access beyond end of device",
    ),
    _rule(
        Weight.DOUBT,  # others may do without it
        "no-root",
        "the guest waits for a disk, a medium or a network that does not come",
        "look at root= and at the label of the medium, and at the driver of the disk's interface in the initrd",
        r"A start job is running for (?:/dev/|dev-|dracut initqueue).*\((?:4[5-9]s|[5-9]\ds|\d+min).* / no limit\)",
        r"dracut-initqueue:? timeout",
    ),
    _rule(
        Weight.DIALOG,
        "question",
        "the installer asks a question",
        "the answer file leaves it open: the screenshot and the console show which one",
        r"\[!!?\]|Please make (?:a selection|your choice)|Continue with autoinstall|\['c' to continue",
        r"(?i:(?:press|hit) (?:<?enter>?|\[enter\]|return|any key|a key) "
        r"(?:to|when) (?:continue|quit|exit|reboot|restart|retry|proceed|ready))",
        r"Please respond 'yes' or 'no'|<Go Back>|Prompt: '\?' for help|there cannot be any questions in cmdline mode",
        r"(?i:[\[(]y(?:es)?[/|]no?[\])] ?[:?]?$)|\(Y/I/N/O/D/Z\)|Question has no answer in response file",
        # The buttons of newt, dialog and urwid, and debconf's title.
        r"<\s*(?:Yes|No|Ok|OK|Continue|Retry)\s*>|[│|] +(?:OK|Ok|Yes|No|Retry|Continue) +[│|]|\[ (?:Done|Continue) +\]",
        r"^\s*Package configuration\s*$",
        r"(?i:please (?:enter|unlock) .*(?:passphrase|password|disk)|enter passphrase for )",
        r"(?i:^(?:which|select|choose|please (?:select|choose|answer|specify)) .*[:?\]] ?$)",
    ),
)

PANIC = next(rule for rule in RULES if rule.pattern.search("Kernel panic - not syncing"))


def find_rule(line: str) -> Rule | None:
    """Give the first rule that `line` matches, or None."""
    return next((rule for rule in RULES if rule.pattern.search(line)), None)


_SURE = frozenset({Weight.FINAL})


def find_last_word(lines: Sequence[str], *, proving: Collection[Weight] = _SURE) -> tuple[Rule, str] | None:
    """Give what ended a guest by the end of its console: the most telling rule of these weights, and its line."""
    found = [(rule, line.strip()) for line in lines if (rule := find_rule(line)) and rule.weight in proving]
    return min(found, key=lambda pair: RULES.index(pair[0]), default=None)


def outranks(rule: Rule, other: Rule) -> bool:
    """Tell whether `rule` says more than `other` of the same guest."""
    return RULES.index(rule) < RULES.index(other)


_FRAMED = re.compile(r"(?:┤\s*(?:\[!+\]\s*)?|\[!+\]\s*)(.*?)\s*(?:[├┤|─-]{2}.*|[├┤|─])?$")
_IN_FRAME = re.compile(r"^\s*[│|] (.*) [│|]\W*$")
_UNDERLINE = re.compile(r"^\s*(?:-{3,}|={3,})\s*$")
_SAID_ERROR = re.compile(r"!! ERROR: (.+)")


def join_framed(before: str, line: str) -> tuple[str, str]:
    """Give what stands in a dialog's frame in two rows that follow each other, as one line (empty: there is no second),
    and what the next one follows.
    """
    found = _IN_FRAME.match(line)
    text = found[1].strip() if found else ""
    return (f"{before} {text}" if before and text else ""), text


def find_title(lines: Sequence[str]) -> str:
    """Give what an installer's last dialog is called, and its error where it tells of one; empty where none is seen.

    debian-installer frames it (newt: `┤ [!!] Select a language ├`) or underlines it (text frontend); Anaconda's text
    mode marks what is left to do (`3) [!] Installation source`).
    """
    for at in range(len(lines) - 1, -1, -1):
        title = ""
        if framed := _FRAMED.search(lines[at]):
            title = framed[1]
        elif at and _UNDERLINE.match(lines[at]):
            title = lines[at - 1].strip()
        if title:
            error = next((said[1] for line in lines[at:] if (said := _SAID_ERROR.search(line))), "")
            return f"{title}: {error}" if error else title
    return ""
