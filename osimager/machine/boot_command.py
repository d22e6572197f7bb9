"""Packer's boot command language, read into actions; `keyboard` types them.

Source: bootcommand/boot_command.pigeon in packer-plugin-sdk. `<enter>`, `<f10>`, `<wait>`, `<wait5>`, `<wait1m30s>`,
`<leftShiftOn>`, `<aOff>` mean what they mean there, in any case. Ours beside them: chords `<leftCtrl+leftAlt+del>`,
repeats `<right*30>`, `<waitStill>`, `<waitChange>`, `<waitSerial "text">`. A `<` that begins no such word is typed,
but what begins like one and is none is refused: nobody means `<wait 5>` to be typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from osimager.errors import ConfigError, Place

WAIT_S = 1.0
_MOST_REPEATS = 1000

# QEMU's names of keys (QKeyCode in qapi/ui.json) for Packer's.
_SPECIAL = {
    "bs": "backspace",
    "del": "delete",
    "enter": "ret",
    "return": "ret",
    "esc": "esc",
    "tab": "tab",
    "up": "up",
    "down": "down",
    "left": "left",
    "right": "right",
    "spacebar": "spc",
    "insert": "insert",
    "home": "home",
    "end": "end",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "menu": "compose",
    "leftalt": "alt",
    "rightalt": "alt_r",
    "leftctrl": "ctrl",
    "rightctrl": "ctrl_r",
    "leftshift": "shift",
    "rightshift": "shift_r",
    "leftsuper": "meta_l",
    "rightsuper": "meta_r",
    **{f"f{number}": f"f{number}" for number in range(1, 13)},
}
_PLAIN = {
    **{letter: letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789"},
    "-": "minus",
    "=": "equal",
    "[": "bracket_left",
    "]": "bracket_right",
    "\\": "backslash",
    ";": "semicolon",
    "'": "apostrophe",
    "`": "grave_accent",
    ",": "comma",
    ".": "dot",
    "/": "slash",
    " ": "spc",
    "\n": "ret",
    "\t": "tab",
}
_SHIFTED = {
    **{letter.upper(): letter for letter in "abcdefghijklmnopqrstuvwxyz"},
    **dict(zip("!@#$%^&*()", "1234567890", strict=True)),
    "_": "minus",
    "+": "equal",
    "{": "bracket_left",
    "}": "bracket_right",
    "|": "backslash",
    ":": "semicolon",
    '"': "apostrophe",
    "~": "grave_accent",
    "<": "comma",
    ">": "dot",
    "?": "slash",
}
# Keys that leave a mark where they are echoed; a space only moves the cursor.
ECHOED = {*_PLAIN.values(), *_SHIFTED.values()} - {"spc", "ret", "tab"}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_WORD = re.compile(r'<(waitSerial\s+"(?:[^"\\]|\\.)*"|[^<>\s"]+)>', re.IGNORECASE)
# What is surely meant as a word: a name alone, a wait with anything in it, a key that is repeated or part of a chord.
_MEANT = re.compile(
    rf"<([a-z][a-z0-9]*|wait[^<>]*|(?:{'|'.join(_SPECIAL)})\s*[*+][^<>]*|[^\s<>]\*[0-9]+)>", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Press:
    """Keys pressed together and let go, the modifiers first."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """A key that goes down (and stays), or up."""

    key: str
    down: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


class WaitKind(StrEnum):
    """What is waited for on the screen or on the console."""

    STILL = "still"
    CHANGE = "change"
    SERIAL = "serial"


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until the screen is still, has changed, or the console has said `text`."""

    kind: WaitKind
    text: str = ""


Action = Press | Hold | Pause | Wait


@dataclass(frozen=True, slots=True)
class Line:
    """Keys up to an Enter or a wait, or one pause or wait alone; `text` is the command's part that says so."""

    text: str
    actions: tuple[Action, ...]


def parse_lines(command: str) -> tuple[Line, ...]:
    """Read a boot command as lines to be typed. Raises ConfigError as `parse_keys` does."""
    return tuple(_lines(_parse(command)))


def parse_keys(command: str) -> tuple[Action, ...]:
    """Read a boot command. Raises ConfigError for a `<word>` that means nothing or a character that no key makes."""
    return tuple(action for _, actions in _parse(command) for action in actions)


def check_keys(command: str, where: Place | None) -> None:
    """Raise ConfigError, with the place, for a boot command that cannot be typed."""
    try:
        parse_keys(command)
    except ConfigError as exc:
        raise ConfigError(exc.what, where=where, hint=exc.hint) from None


def _parse(command: str) -> Iterator[tuple[str, list[Action]]]:
    """Give each word or character of a boot command, and what it does: at least one action."""
    at = 0
    while at < len(command):
        word = _WORD.match(command, at)
        parsed = _parse_word(word[1]) if word else None
        if word and parsed is not None:
            yield word[0], parsed
            at = word.end()
            continue
        if meant := _MEANT.match(command, at):
            raise ConfigError(f"{meant[0]} in a boot command is no key and no wait", hint=_hint_for(meant[1].lower()))
        yield command[at], [_press_of(command[at])]
        at += 1


def _hint_for(word: str) -> str:
    if word.startswith("waitserial"):
        return 'write <waitSerial "text">'
    if word.startswith("wait"):
        return "write <wait>, <wait10>, <wait1m30s>, <waitStill> or <waitChange>"
    if "*" in word:
        return f"write <right*30>: a key, and how often, 1 to {_MOST_REPEATS}"
    return "a lone < is typed; keys are as in Packer"


def _lines(parsed: Iterable[tuple[str, list[Action]]]) -> Iterator[Line]:
    """Split actions into pauses, waits, and runs of keys that end with an Enter."""
    text = ""
    keys: list[Action] = []
    for part, actions in parsed:
        if isinstance(actions[0], (Pause, Wait)):
            if keys:
                yield Line(text, tuple(keys))
                text, keys = "", []
            yield Line(part, tuple(actions))
            continue
        text += part
        keys += actions
        if isinstance(actions[-1], Press) and actions[-1].keys[-1] == "ret":
            yield Line(text, tuple(keys))
            text, keys = "", []
    if keys:
        yield Line(text, tuple(keys))


def _parse_word(word: str) -> list[Action] | None:
    """Give the actions of what stands between `<` and `>`; None where that is nothing of the language."""
    lower = word.lower()
    if lower.startswith("waitserial"):
        _, quote, text = word.partition('"')
        return [Wait(WaitKind.SERIAL, re.sub(r"\\(.)", r"\1", text[:-1]))] if quote and len(text) > 1 else None
    if lower in ("waitstill", "waitchange"):
        return [Wait(WaitKind(lower.removeprefix("wait")))]
    if lower.startswith("wait"):
        seconds = _parse_wait(lower.removeprefix("wait"))
        return None if seconds is None else [Pause(seconds)]
    base, star, times = word.rpartition("*")
    if star and re.fullmatch(r"[0-9]{1,4}", times) and 1 <= int(times) <= _MOST_REPEATS:
        return [chord] * int(times) if (chord := _parse_chord(base)) else None
    for ending, down in (("on", True), ("off", False)):
        if lower.endswith(ending) and (key := _key_of(word[: -len(ending)])):
            return [Hold(key, down)]
    chord = _parse_chord(word)
    return [chord] if chord and (len(chord.keys) > 1 or lower in _SPECIAL) else None


def _parse_wait(text: str) -> float | None:
    """Give seconds for Go's durations, a plain number, or nothing (one second)."""
    if not text:
        return WAIT_S
    if text.isascii() and text.isdigit():
        return float(text)
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))


def _parse_chord(text: str) -> Press | None:
    keys = [_key_of(part) for part in text.split("+")]
    return Press(tuple(key for key in keys if key)) if all(keys) else None


def _key_of(name: str) -> str | None:
    """Give QEMU's name of a special key or of a character's key."""
    if len(name) == 1:
        return _PLAIN.get(name.lower()) or _SHIFTED.get(name)
    return _SPECIAL.get(name.lower())


def _press_of(character: str) -> Press:
    if key := _PLAIN.get(character):
        return Press((key,))
    if key := _SHIFTED.get(character):
        return Press(("shift", key))
    raise ConfigError(
        f"no key of a US keyboard makes the character {character!r}", hint="boot commands are typed as ASCII"
    )
