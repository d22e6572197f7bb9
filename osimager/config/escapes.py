"""How a value is written into each language of answer files, so that its reader gets the very value back.

The functions are also those of `E>…<E`: `E>shell(password)<E`. Each raises ValueError for what its language cannot say.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Final

Escape = Callable[[str], str]

_XML: Final = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&apos;",
    "\n": "&#10;",
    "\r": "&#13;",
    "\t": "&#9;",
}
# Source: XML 1.0, production 2 (Char).
# Compiled when first used, by re itself: together they cost 5 ms, and most targets need one.
_NOT_XML: Final = "[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_NOT_IN_LINE: Final = "[\0-\x08\n-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]"
# What PyYAML and libyaml want escaped in double quotes; YAML 1.2.2, section 5.1.
_YAML: Final = '["\\\\\0-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff\ue000-\uf8ff\ufeff\ufffe\uffff\U000f0002-\U0010ffff]'


def shell(text: str) -> str:
    """Quote one word for a POSIX shell."""
    if "\0" in text:
        raise ValueError("a shell word cannot hold a NUL")
    return shlex.quote(text)


def xml(text: str) -> str:
    """Write text for an element or a quoted attribute."""
    if re.search(_NOT_XML, text):
        raise ValueError("XML cannot hold a control character")
    return re.sub("[&<>\"'\n\r\t]", lambda match: _XML[match[0]], text)


def json_text(text: str) -> str:
    """Write a JSON string, its quotes included."""
    return json.dumps(text, ensure_ascii=False)  # escaped, a hole (osimager.holes) would not be found again


def yaml(text: str) -> str:
    """Write a YAML string in double quotes."""
    return '"' + re.sub(_YAML, _yaml_escape, text) + '"'


def _yaml_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in '"\\':
        return "\\" + match[0]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def line(text: str) -> str:
    """Give text that stands in one line as it is, as in a preseed file."""
    if re.search(_NOT_IN_LINE, text):
        raise ValueError("a value with a line break cannot stand here")
    return text


def preseed(text: str) -> str:
    """Write a preseed value: one line, without the spaces at its ends that debconf drops, no `\\` that joins lines."""
    if text != text.strip() or text.endswith("\\"):
        raise ValueError("debconf drops spaces at the ends of a value, and joins lines at a backslash")
    return line(text)


def kickstart(text: str) -> str:
    """Quote one word of a kickstart command (pykickstart splits lines, then words as a shell does)."""
    return shlex.quote(line(text))


FUNCTIONS: Final[Mapping[str, Escape]] = {
    "shell": shell,
    "xml": xml,
    "json": json_text,
    "yaml": yaml,
    "preseed": preseed,
    "kickstart": kickstart,
}
_BY_FORMAT: Final[Mapping[str, Escape]] = {
    "preseed": preseed,
    "autoyast": xml,
    "unattend": xml,
    "xcpng": xml,
    "xml": xml,
    **dict.fromkeys(("agama", "ignition", "json", "photon", "proxmox", "toml"), lambda text: json_text(text)[1:-1]),
}


def escape_for(answer_format: str) -> Escape:
    """Give what `Configuration.render` escapes plain markers with: entities in XML, escapes in JSON, else one line."""
    return _BY_FORMAT.get(answer_format, line)
