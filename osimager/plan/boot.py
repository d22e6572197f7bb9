"""What only the ISO tells, put into the plan after FETCH: the menu's kernel, its initrds and the whole command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from osimager.arch import Arch, Firmware
from osimager.config.sections import Rung
from osimager.errors import MediaError, Place
from osimager.holes import ANSWER_URL, find_holes
from osimager.plan.facts import MediaFacts, MenuEntry
from osimager.plan.model import BootPlan, BuildPlan


def complete_boot(plan: BuildPlan, media: MediaFacts) -> BuildPlan:
    """Give the plan with its direct boot completed from the ISO's own menu; other rungs need nothing of it.

    Raises MediaError where it has none, and typing is no way either; and for an ISO of another architecture.
    """
    check_arch(media, plan.machine.arch)
    boot = plan.install.boot
    if boot.rung is not Rung.DIRECT:
        return plan
    try:
        entry, reason = choose_entry(media.entries, boot, plan.machine.firmware)
    except MediaError as exc:
        return _typed_instead(plan, exc)
    line = make_command_line(entry.arguments, boot.arguments, boot.drop)
    boot = dataclasses.replace(boot, reason=reason, kernel=entry.kernel, initrds=entry.initrds, command_line=line)
    return dataclasses.replace(plan, install=dataclasses.replace(plan.install, boot=boot))


def check_arch(media: MediaFacts, arch: Arch) -> None:
    """Raise MediaError for an ISO that a machine of `arch` cannot start from; one of x86_64 starts a 32-bit one too."""
    startable = {arch, Arch.I386} if arch is Arch.X86_64 else {arch}
    if media.arches and startable.isdisjoint(media.arches):
        raise MediaError(
            f"this is the wrong ISO: it is for {' and '.join(media.arches)}, and the machine is {arch}",
            where=Place(media.path),
            hint=f"name one for {arch} with --iso, or build this one with --arch {media.arches[0]}",
        )


def _typed_instead(plan: BuildPlan, missing: MediaError) -> BuildPlan:
    """Go down to the rung of typing, if the spec allows it and what is typed can be filled. Raises `missing`."""
    boot = plan.install.boot
    if not boot.spare_command or (ANSWER_URL in find_holes(boot.spare_command) and not plan.install.serve):
        raise missing
    reason = f"{missing.what}, so its own loader is typed to"
    boot = dataclasses.replace(boot, rung=Rung.TYPED, reason=reason, boot_command=boot.spare_command)
    return dataclasses.replace(plan, install=dataclasses.replace(plan.install, boot=boot))


def choose_entry(entries: Sequence[MenuEntry], boot: BootPlan, firmware: Firmware) -> tuple[MenuEntry, str]:
    """Take the entry that `boot.menu` names, else the menu's default one; this firmware's menu goes before the other's.

    Gives the entry and, in a sentence, why it was taken. A medium of one's own has titles of its own, so an entry that
    is not found is no error: the default is what a person would start by pressing Enter.
    """
    bootable = [entry for entry in entries if entry.kernel]
    if not bootable:
        raise MediaError(
            "the ISO has no boot menu with a Linux kernel in it",
            hint="boot it by typing: --boot typed, with a boot_command in the spec or --boot-command",
        )
    ranked = sorted(bootable, key=lambda entry: (entry.firmware is not firmware, not entry.is_default))
    if boot.menu:
        wanted = re.compile(boot.menu, re.IGNORECASE)
        for entry in ranked:
            if wanted.search(entry.label) or wanted.search(entry.title):
                return entry, f"the entry {entry.title or entry.label!r} of {entry.menu_file}, as the spec says"
    first = ranked[0]
    which = "the default entry" if first.is_default else "the first entry"
    missing = f"; none matches {boot.menu!r}" if boot.menu else ""
    return first, f"{which} {first.title or first.label!r} of {first.menu_file}{missing}"


def make_command_line(own: str, added: Sequence[str], drop: Sequence[str]) -> str:
    """Give the menu's arguments without those that match `drop`, ours put before `---` (what follows it, d-i copies to
    the installed system) or at the end.

    Each of `added` is one argument; one with spaces is quoted as the kernel reads it (lib/cmdline.c, next_arg). Raises
    MediaError for one that no quoting can carry.
    """
    unwanted = [re.compile(pattern) for pattern in drop]
    words = [word for word in _words(own) if not any(pattern.fullmatch(word) for pattern in unwanted)]
    cut = next((index for index, word in enumerate(words) if word in ("---", "--")), len(words))
    return " ".join([*words[:cut], *(_quoted(argument) for argument in added), *words[cut:]])


def _words(text: str) -> list[str]:
    """Split a command line at spaces outside double quotes, as the kernel does."""
    return re.findall(r'(?:"[^"]*"?|[^\s"])+', text)


def _quoted(argument: str) -> str:
    if not argument or any(ord(letter) < 0x20 for letter in argument) or argument.count('"') % 2:
        raise MediaError(f"{argument!r} cannot be a kernel argument", hint="no control characters, no odd quote")
    if _words(argument) == [argument]:
        return argument
    if '"' in argument:
        raise MediaError(f"{argument!r} cannot be a kernel argument", hint="the kernel has no way to quote a quote")
    name, equals, value = argument.partition("=")
    return f'{name}="{value}"' if equals and " " not in name else f'"{argument}"'
