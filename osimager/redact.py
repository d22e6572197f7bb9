"""The one masker: every log, event, plan and file of evidence passes through it, and each secret is told to it first.

It knows a secret in the forms that it takes on its way (`_forms_of`). A long form is also found in pieces, as `base64`
wraps it at 76 columns and as terminals cut it: any run of at least `_PIECE_AT_LEAST` of its characters that holds one
of its indexed groups, which every run of 15 does. Whatever looks like a crypt(3) hash is masked too, ours or not.

A secret of fewer than four characters cannot be told from chance: it is masked only as a whole word, and encoded
where the encoding has four. What no look-up can see: a secret changed by somebody's own code (reversed, in part).

Speed: an index by the first characters of each form, asked at each position of a text; 10,000 secrets cost a line the
same as one does. A regular expression of 300,000 alternatives does not compile in minutes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shlex
import urllib.parse
from collections.abc import Iterable, Iterator

from osimager.errors import OsimagerError

MASK = "********"
_SHORT = 4
_GRAM = 8
_PIECE_AT_LEAST = 12
_BEGUN_AT_LEAST = 3
_PLAIN_IN_PIECES = 64
_ENCODED_IN_PIECES = 24
_MOST_PIECES_OF_GRAM = 8

_SEPARATOR = r"(?:\\{0,8}\$|%24|&\#36;)"
_CRYPT = re.compile(
    rf"{_SEPARATOR}(?:1|5|6|7|y|gy|2[abxy])(?:{_SEPARATOR}[\w./,=-]{{0,64}}){{1,3}}"
    rf"{_SEPARATOR}(?:[\w./]|\\/|%2[Ff]){{20,}}"
)


# What stands behind the first characters of a form: the lengths of the forms that begin so, the longest first, and
# the long forms that hold these characters at an offset.
_Entry = tuple[tuple[int, ...], tuple[tuple[str, int], ...]]
_Span = tuple[int, int]


class Masker:
    """Replace every registered secret in a text by `MASK`."""

    __slots__ = ("_forms", "_index", "_known", "_lengths", "_longest")

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._forms: set[str] = set()
        # By the length of the key: 1 to 3 for whole words, 4 for forms shorter than 8, 8 for all others.
        self._index: dict[int, dict[str, _Entry]] = {}
        self._lengths: dict[_Entry, _Entry] = {}
        self._longest = 0

    def register(self, secret: str) -> None:
        """Add a secret. To be called before its first use, by whoever learns or makes it."""
        if secret in self._known:
            return
        self._known.add(secret)
        whole = {secret, secret.strip()}
        for text in {*whole, *(line.strip() for line in secret.splitlines())}:
            if len(text) >= _SHORT or text in whole:
                self._add(_quotings_of(text), _PLAIN_IN_PIECES)
        for text in whole:
            self._add(_encodings_of(text), _ENCODED_IN_PIECES)

    def mask(self, text: str) -> str:
        """Give `text` without any registered secret; what overlaps becomes one `MASK`."""
        spans: list[_Span] = []
        if "$" in text or "%24" in text or "&#36;" in text:
            spans += [match.span() for match in _CRYPT.finditer(text)]
        for size, table in self._index.items():
            found = [at for at in range(len(text) - size + 1) if text[at : at + size] in table]
            if found:
                spans += self._spans(text, found, size)
        return _without(text, spans) if spans else text

    def find_begun(self, text: str) -> int:
        """Give where a secret begins that may go on behind `text`; its length where none does.

        What is still shorter than `_BEGUN_AT_LEAST` tells nothing, and many a text ends so.
        """
        ats = range(max(0, len(text) - self._longest), len(text) - _BEGUN_AT_LEAST + 1)
        return next((at for at in ats if self._begins(text[at:])), len(text))

    def _begins(self, text: str) -> bool:
        """Tell whether `text` may be the beginning of a longer form."""
        for size, table in self._index.items():
            if size < _SHORT:
                continue
            if len(text) < size:
                if any(key.startswith(text) for key, (lengths, _) in table.items() if lengths):
                    return True
            elif (entry := table.get(text[:size])) and max(entry[0], default=0) > len(text):
                return True
        return False

    def mask_error(self, error: BaseException) -> None:
        """Mask what an error says, and those that it came from or stands for: a person will read them."""
        left: list[BaseException | None] = [error]
        done: set[int] = set()
        while left:
            each = left.pop()
            if each is None or id(each) in done:
                continue
            done.add(id(each))
            each.args = tuple(self.mask(part) if isinstance(part, str) else part for part in each.args)
            if isinstance(each, OsimagerError):
                each.what, each.hint = self.mask(each.what), each.hint and self.mask(each.hint)
            several = getattr(each, "errors", getattr(each, "exceptions", ()))
            left += [each.__cause__, each.__context__, *several]

    @contextlib.contextmanager
    def over_errors(self) -> Iterator[None]:
        """Mask what is raised in the block."""
        try:
            yield
        except Exception as error:
            self.mask_error(error)
            raise

    def _add(self, forms: Iterable[str], in_pieces_from: int) -> None:
        for form in forms:
            if form in self._forms or not form.strip() or not form.strip("*"):
                continue
            self._forms.add(form)
            self._longest = max(self._longest, len(form))
            size = _GRAM if len(form) >= _GRAM else min(len(form), _SHORT)
            self._enter(form[:size], length=len(form))
            if len(form) >= in_pieces_from:
                for offset in range(0, len(form) - _GRAM + 1, _GRAM):
                    self._enter(form[offset : offset + _GRAM], piece=(form, offset))

    def _enter(self, key: str, *, length: int | None = None, piece: tuple[str, int] | None = None) -> None:
        table = self._index.setdefault(len(key), {})
        lengths, pieces = table.get(key, ((), ()))
        if length is not None and length not in lengths:
            lengths = tuple(sorted((*lengths, length), reverse=True))
        if piece is not None and len(pieces) < _MOST_PIECES_OF_GRAM:
            pieces = (*pieces, piece)
        entry = (lengths, pieces)
        table[key] = entry if pieces else self._lengths.setdefault(entry, entry)

    def _spans(self, text: str, found: list[int], size: int) -> list[_Span]:
        """Give the parts to mask among the positions `found`, where a form or a piece may begin."""
        spans = []
        covered = 0
        table, forms = self._index[size], self._forms
        for at in found:
            lengths, pieces = table[text[at : at + size]]
            end = next((at + length for length in lengths if text[at : at + length] in forms), at)
            if end > at and (size >= _SHORT or _is_word(text, at, end)):
                spans.append((at, end))
                covered = max(covered, end)
            for form, offset in pieces if covered < at + size else ():
                start, end = _run(text, at, form, offset)
                if end - start >= _PIECE_AT_LEAST:
                    spans.append((start, end))
                    covered = max(covered, end)
        return spans


def find_hashes(text: str) -> list[str]:
    """Give everything in `text` that looks like a crypt(3) hash."""
    return [match[0] for match in _CRYPT.finditer(text)] if "$" in text else []


def _is_word(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isalnum() or before == "_" or after.isalnum() or after == "_")


def _run(text: str, at: int, form: str, offset: int) -> _Span:
    """Give the longest part of `text` around `at` that equals `form` around `offset`."""
    back = 0
    while back < min(at, offset) and text[at - back - 1] == form[offset - back - 1]:
        back += 1
    ahead = _GRAM
    most = min(len(text) - at, len(form) - offset)
    while ahead < most and text[at + ahead] == form[offset + ahead]:
        ahead += 1
    return at - back, at + ahead


def _without(text: str, spans: list[_Span]) -> str:
    """Give `text` with each span replaced; spans that overlap are one."""
    spans.sort()
    parts: list[str] = []
    done = start = end = 0
    for next_start, next_end in spans:
        if next_start < end:
            end = max(end, next_end)
            continue
        if end:
            parts += (text[done:start], MASK)
            done = end
        start, end = next_start, next_end
    return "".join((*parts, text[done:start], MASK, text[end:]))


def _quotings_of(text: str) -> set[str]:
    """Give `text` raw and as JSON, shells, URLs, XML, YAML, Python and QEMU's options quote it."""
    raw = text.encode("utf-8", "surrogatepass")
    forms = {text}
    if not (text.isascii() and text.isalnum()):
        forms |= {
            *_json_forms(text),
            *_shell_forms(text),
            *_url_forms(raw),
            *_xml_forms(text),
            text.replace("'", "''"),  # YAML and SQL, single-quoted
            text.replace(",", ",,"),  # QEMU's options
            repr(text)[1:-1],
            repr(raw)[2:-1],
            text.replace("\n", "\r\n"),  # a terminal's line ends
        }
    return {form for form in forms if len(form) >= _SHORT or form == text}


def _json_forms(text: str) -> set[str]:
    forms = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    # Go's encoder (Vault, Packer) escapes what HTML minds; PHP's the slash.
    forms.add(json.dumps(text)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
    forms.add(json.dumps(text)[1:-1].replace("/", "\\/"))
    return forms | {json.dumps(form, ensure_ascii=False)[1:-1] for form in forms}  # JSON as a text inside JSON


def _shell_forms(text: str) -> set[str]:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return {
        shlex.quote(text),
        text.replace("'", "'\"'\"'"),
        text.replace("'", "'\\''"),
        re.sub(r'([\\"$`])', r"\\\1", text),  # inside double quotes
        re.sub(r'([\\"$`!])', r"\\\1", text),
        re.sub(r"([^\w@%+=:,./\n-])", r"\\\1", text),  # bash's printf %q
        re.sub(r"([^\w\n])", r"\\\1", text),  # Perl's quotemeta
        quoted.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r"),  # $'…'
    }


def _url_forms(raw: bytes) -> set[str]:
    forms = {
        urllib.parse.quote(raw),
        urllib.parse.quote(raw, safe=""),
        urllib.parse.quote(raw, safe="!*'()"),  # JavaScript's encodeURIComponent
        urllib.parse.quote_plus(raw),
    }
    return forms | {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), form) for form in forms}


def _xml_forms(text: str) -> set[str]:
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    forms = {plain}
    for double in ("&quot;", "&#34;"):
        for single in ("'", "&apos;", "&#39;", "&#x27;"):
            forms.add(plain.replace('"', double).replace("'", single))
    return forms


def _encodings_of(text: str) -> set[str]:
    """Give hex and base64 of `text`, as UTF-8, and base64 as UTF-16 (PowerShell, Windows' answer files)."""
    raw = text.encode("utf-8", "surrogatepass")
    forms = {raw.hex(), raw.hex().upper(), *_base64_forms(raw)}
    forms |= _base64_forms(text.encode("utf-16-le", "surrogatepass"))
    return {form for form in forms if len(form) >= _SHORT}


def _base64_forms(raw: bytes) -> set[str]:
    """Give the base64 of `raw`, also at each of the three alignments it may have inside a longer text."""
    forms = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        forms |= {whole, whole.rstrip("=")}
        for shift in range(3):
            padded = encode(b"\0" * shift + raw).decode()
            # The first and the last quantum mix with neighbours; what lies between is the secret's alone.
            forms.add(padded[(shift * 8 + 5) // 6 : (shift + len(raw)) * 8 // 6])
    return forms
