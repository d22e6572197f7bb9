"""OpenBSD's response file: lines of `question = answer`, and the questions that its installer asks.

Source: autoinstall(8): "a response file consists of lines with a question and an answer"; install.sub of OpenBSD 7,
which matches the beginning of a question, whatever its case, and takes the first line that fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from osimager.check.problem import Finding, suggest

# The questions as far as they do not name a user, an interface or a disk; `{}` stands for such a name.
QUESTIONS: Final = (
    "System hostname",
    "Choose your keyboard layout",
    "Terminal type",
    "Which network interface do you wish to configure",
    "Network interface to configure",
    "IPv4 address for {}",
    "Netmask for {}",
    "IPv6 address for {}",
    "IPv6 prefix length for {}",
    "Default IPv4 route",
    "IPv6 default router",
    "DNS domain name",
    "DNS nameservers",
    "Password for root account",
    "Password for root",
    "Public ssh key for root account",
    "Start sshd(8) by default",
    "Do you expect to run the X Window System",
    "Do you want the X Window System to be started by xenodm(1)",
    "Change the default console to {}",
    "Which speed should {} use",
    "Setup a user",
    "Full name for user {}",
    "Password for user {}",
    "Public ssh key for user {}",
    "Allow root ssh login",
    "What timezone are you in",
    "Which disk is the root disk",
    "Encrypt the root disk with a (p)assphrase or (k)eydisk",
    "Use (W)hole disk MBR, whole disk (G)PT or (E)dit",
    "Use (W)hole disk MBR, whole disk (G)PT, (O)penBSD area or (E)dit",
    "Use (W)hole disk or (E)dit the MBR",
    "An EFI/GPT disk may not boot. Proceed",
    "Use (W)hole disk, use the (O)penBSD area or (E)dit the MBR",
    "Use (A)uto layout, (E)dit auto layout, or create (C)ustom layout",
    "URL to autopartitioning template for disklabel",
    "Which disk do you wish to initialize",
    "Location of sets",
    "Pathname to the sets",
    "HTTP proxy URL",
    "HTTP Server",
    "Server directory",
    "Unable to connect using https. Use http instead",
    "Use http instead of https",
    "Set name(s)",
    "Directory does not contain SHA256.sig. Continue without verification",
    "Checksum test for {} failed. Continue anyway",
    "Unverified sets: {}. Continue without verification",
    "Location of {}",
    "Time appears wrong. Set to {}",
)
_PATTERNS: Final = tuple(
    re.compile(re.escape(question).replace(r"\{\}", r".+"), re.IGNORECASE) for question in QUESTIONS
)
NO_PASSWORD: Final = "*" * 13  # autoinstall(8): it disables the account's password
_BCRYPT_LENGTH: Final = 60


async def check(_version: str, files: Sequence[tuple[str, str]]) -> Sequence[Finding]:
    """Check the lines of each response file."""
    return [
        Finding(index, number, what, hint)
        for index, (_, text) in enumerate(files)
        for number, what, hint in _problems(text)
    ]


def _problems(text: str) -> Iterator[tuple[int, str, str | None]]:
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        question, equals, answer = (part.strip() for part in line.partition("="))
        if not equals:
            yield number, "a line has a question, = and its answer", None
            continue
        if (first := seen.setdefault(question.lower(), number)) != number:
            yield number, f"{question!r} is answered in line {first} already, which counts", None
        if not any(pattern.fullmatch(question) for pattern in _PATTERNS):
            yield number, f"OpenBSD's installer is not known to ask {question!r}", suggest(question, QUESTIONS)
        if not answer:
            yield number, f"{question!r} has no answer", "write none where nothing is meant"
        if question.lower().startswith("password") and not _is_password(answer):
            yield number, f"{question!r} is neither {NO_PASSWORD} nor a bcrypt hash", "encrypt(1) makes one"


def _is_password(answer: str) -> bool:
    return answer == NO_PASSWORD or (answer.startswith("$2b$") and len(answer) == _BCRYPT_LENGTH)
