"""The one masker: every log, event, plan and file of evidence passes through it, and each secret is told to it first.

It knows a secret in the forms that it takes on its way: raw, each line of a long one, base64, URL and hex encoding,
JSON and shell quoting. Values shorter than four characters cannot be told from chance and are masked only as whole
words.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import urllib.parse

MASK = "********"
_SHORT = 4


class Masker:
    """Replace every registered secret in a text by `MASK`, the longest first."""

    def __init__(self) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def register(self, secret: str) -> None:
        """Add a secret. To be called before its first use, by whoever learns or makes it."""
        forms = _forms_of(secret)
        if not forms <= self._forms:
            self._forms |= forms
            self._pattern = None

    def mask(self, text: str) -> str:
        """Give `text` without any registered secret."""
        if not self._forms:
            return text
        if self._pattern is None:
            longest_first = sorted(self._forms, key=lambda form: (-len(form), form))
            self._pattern = re.compile("|".join(_pattern_of(form) for form in longest_first))
        return self._pattern.sub(MASK, text)


def _pattern_of(form: str) -> str:
    return re.escape(form) if len(form) >= _SHORT else rf"(?<!\w){re.escape(form)}(?!\w)"


def _forms_of(secret: str) -> set[str]:
    """Give the forms a secret may appear in, the empty one left out."""
    lines = [line for line in secret.splitlines() if len(line.strip()) >= _SHORT]
    forms = set()
    for text in (secret, secret.strip(), *lines):
        raw = text.encode()
        forms |= {
            text,
            raw.hex(),
            raw.hex().upper(),
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            shlex.quote(text),
            urllib.parse.quote(text),
            urllib.parse.quote(text, safe=""),
            urllib.parse.quote_plus(text),
        }
        forms |= _base64_forms(raw)
    return {form for form in forms if form.strip()}


def _base64_forms(raw: bytes) -> set[str]:
    """Give the base64 of `raw` at each of the three alignments it may have inside a longer text."""
    forms = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        forms.add(encode(raw).decode())
        forms.add(encode(raw).decode().rstrip("="))
        for shift in range(3) if len(raw) >= 6 else ():
            padded = encode(b"\0" * shift + raw).decode().rstrip("=")
            # The first and the last quantum mix with neighbours; what lies between is the secret's alone.
            core = padded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6]
            if len(core) >= 8:
                forms.add(core)
    return forms
