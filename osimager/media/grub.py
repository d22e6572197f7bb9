"""GRUB's boot menus: the text of a grub.cfg → menu entries, pure.

A small reading of GRUB's script (GRUB manual 2.06, "Shell-like scripting"): variables, quotes, `if` where it can be
told, `source`. Where a condition cannot be told, both branches are read. Hostile text raises MediaError or gives fewer
entries; includes, commands and the length of values are bounded, and nothing recurses.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from osimager.arch import Firmware
from osimager.errors import MediaError, Place
from osimager.media.isolinux import ReadFile
from osimager.plan.facts import MenuEntry

_MOST_INCLUDES = 64
_MOST_COMMANDS = 100_000
_MOST_DEPTH = 256
_MOST_ENTRIES = 2_000
_MOST_EXPANDED = 16 << 20  # characters, over all commands: variables can double with each line
_LEX = re.compile(
    r"""(?P<skip>\\\n|\$(?=['"]))|(?P<space>[ \t\r\f\v]+)|(?P<comment>\#[^\n]*)|(?P<end>[\n;])|(?P<brace>[{}])
    |'(?P<single>[^']*)'?|"(?P<double>(?:\\.|[^"\\])*)"?|\\(?P<escaped>.)
    |\$(?:\{(?P<braced>\w+|[?@*\#])\}|(?P<bare>\w+|[?@*\#]))|(?P<plain>[^\s;{}'"$\\\#]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_IN_DOUBLE = re.compile(
    r"""\\(?P<escaped>["$\\])|\\\n|\$(?:\{(?P<braced>\w+)\}|(?P<bare>\w+))|(?P<plain>[^\\$]+|.)""", re.S
)
# The options of `menuentry` that a value follows (grub-core/commands/menuentry.c).
_VALUED = ("--class", "--users", "--hotkey", "--id", "--source")
_KERNEL = ("linux", "linuxefi", "linux16")
_INITRD = ("initrd", "initrdefi", "initrd16")
_COMPARISONS = ("=", "==", "!=")
_TEST_MOST_WORDS = 3


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a word: literal text, or a variable's name."""

    text: str
    is_variable: bool = False
    quoted: bool = False


_Word = list[_Part]


@dataclass(slots=True)
class _Entry:
    """A menu entry or submenu; `names` holds, for each level, what `default` may call it by."""

    title: str
    names: tuple[frozenset[str], ...]
    menu_file: str
    is_submenu: bool
    label: str = ""
    kernel: str = ""
    initrds: list[str] = field(default_factory=list)
    arguments: str = ""
    children: int = 0


@dataclass(slots=True)
class _Frame:
    """An open block. `active`: its commands count. For `if`: what of its branches is decided."""

    kind: str
    active: bool
    outer: bool
    taken: bool = False
    entry: _Entry | None = None


def parse_grub(text: str, menu_file: str, firmware: Firmware, read: ReadFile) -> tuple[MenuEntry, ...]:
    """Give the Linux entries of the menu `text`, which stands in `menu_file` on the ISO, as `firmware` would see them.

    `read` gives a sourced file's text by its absolute path. An entry in a submenu has its own title only.
    """
    reader = _Reader(menu_file, firmware, read)
    reader.run(text)
    default = reader.find_default()
    return tuple(
        MenuEntry(
            title=entry.title,
            label=entry.label,
            kernel=entry.kernel,
            initrds=tuple(entry.initrds),
            arguments=entry.arguments,
            is_default=entry is default,
            menu_file=entry.menu_file,
            firmware=firmware,
        )
        for entry in reader.entries
        if entry.kernel
    )


def _commands(text: str) -> Iterator[list[_Word]]:
    """Split a script into commands; a brace is a command of its own, `{` closing the one before it."""
    command: list[_Word] = []
    word: _Word | None = None
    at = 0
    while match := _LEX.match(text, at):
        at = match.end()
        kind = match.lastgroup
        if kind == "comment" and word is not None:
            word.append(_Part("#"))
            at = match.start() + 1
        elif kind in ("space", "end", "brace", "comment"):
            if word is not None:
                command.append(word)
                word = None
            if kind in ("end", "brace") and command:
                yield command
                command = []
            if kind == "brace":
                yield [[_Part(match[0])]]
        elif kind != "skip" and (kind is not None or match[0]):
            word = word if word is not None else []
            word.extend(_parts(kind, match))
    if word is not None:
        command.append(word)
    if command:
        yield command


def _parts(kind: str | None, match: re.Match[str]) -> _Word:
    """Give the parts that one lexical match adds to a word."""
    match kind:
        case "braced" | "bare":
            return [_Part(match[kind], is_variable=True)]
        case "double":
            found = [(inner.lastgroup, inner) for inner in _IN_DOUBLE.finditer(match["double"])]
            return [
                _Part(inner[name], is_variable=name in ("braced", "bare"), quoted=True) for name, inner in found if name
            ] or [_Part("", quoted=True)]
        case "single":
            return [_Part(match["single"], quoted=True)]
        case "escaped":
            return [_Part(match["escaped"], quoted=True)]
        case _:
            return [_Part(match[0])]


class _Reader:
    """The state of one pass over a menu and what it sources."""

    def __init__(self, menu_file: str, firmware: Firmware, read: ReadFile) -> None:
        prefix = posixpath.dirname(menu_file)
        self._read = read
        self._variables = {
            "prefix": prefix,
            "config_directory": prefix,
            "grub_platform": "efi" if firmware is Firmware.UEFI else "pc",
            "menuentry_id_option": "--id",
            "root": "cd0",
        }
        if firmware is Firmware.BIOS:
            self._variables["grub_cpu"] = "i386"
        self._frames: list[_Frame] = []
        self._stack: list[tuple[str, Iterator[list[_Word]]]] = []
        self._menu_file = menu_file
        self._top = 0
        self._includes = 0
        self._expanded = 0
        self.entries: list[_Entry] = []

    def run(self, text: str) -> None:
        """Read every command, those of sourced files in their place."""
        self._stack = [(self._menu_file, _commands(text))]
        done = 0
        while self._stack:
            command = next(self._stack[-1][1], None)
            if command is None:
                self._stack.pop()
                continue
            done += 1
            if done > _MOST_COMMANDS:
                raise self._too_large("commands")
            self._take(command)

    def _too_large(self, of_what: str) -> MediaError:
        return MediaError(f"the boot menu cannot be read: it has too many {of_what}", where=Place(self._menu_file))

    def find_default(self) -> _Entry | None:
        """Give the entry that `default` names (by number, title or id, `>` between levels), else the first."""
        levels = self._variables.get("default", "0").replace(">>", "\0").split(">")
        wanted = [level.replace("\0", ">").strip() for level in levels]
        bootable = [entry for entry in self.entries if not entry.is_submenu]
        for entry in bootable:
            if all(level in names for level, names in zip(wanted, entry.names, strict=False)):
                return entry
        return bootable[0] if bootable else None

    def _take(self, command: list[_Word]) -> None:
        """Run one command; the keywords before it are taken off."""
        while command:
            keyword = _literal(command[0])
            if keyword in ("then", "do", "!"):
                command = command[1:]
            elif keyword in ("if", "elif", "else", "fi", "while", "until", "for", "done"):
                command = self._take_keyword(keyword, command[1:])
            elif keyword in ("{", "}"):
                self._take_brace(keyword)
                command = command[1:]
            else:
                if self._active:
                    self._execute(self._expand(command))
                elif keyword in ("menuentry", "submenu", "function"):
                    self._push("pending", active=False)
                return

    @property
    def _active(self) -> bool:
        return self._frames[-1].active if self._frames else True

    def _push(self, kind: str, *, active: bool, taken: bool = False, entry: _Entry | None = None) -> None:
        if len(self._frames) >= _MOST_DEPTH:
            raise self._too_large("blocks in blocks")
        outer = self._active
        self._frames.append(_Frame(kind, outer and active, outer, taken, entry))

    def _take_keyword(self, keyword: str, rest: list[_Word]) -> list[_Word]:
        """Open, turn or close an `if` or a loop; give what of the command is still to be run."""
        top = self._frames[-1] if self._frames else None
        if keyword == "if":
            truth = self._test(rest)
            self._push("if", active=truth is not False, taken=truth is True)
            return []
        if keyword in ("while", "until", "for"):
            self._push("loop", active=True)
            return []
        if top is None or top.kind != ("loop" if keyword == "done" else "if"):
            return rest
        if keyword in ("fi", "done"):
            self._frames.pop()
        elif keyword == "elif":
            truth = self._test(rest)
            top.active = top.outer and not top.taken and truth is not False
            top.taken = top.taken or truth is True
            return []
        else:
            top.active = top.outer and not top.taken
        return rest

    def _take_brace(self, brace: str) -> None:
        top = self._frames[-1] if self._frames else None
        if brace == "{":
            if top is not None and top.kind == "pending":
                top.kind = "block"
            else:
                self._push("block", active=True)
        elif any(frame.kind == "block" for frame in self._frames):
            while self._frames.pop().kind != "block":
                pass

    def _execute(self, words: list[str]) -> None:
        name, arguments = (words[0], words[1:]) if words else ("", [])
        if name in ("menuentry", "submenu"):
            self._open_entry(arguments, is_submenu=name == "submenu")
        elif name == "function":
            self._push("pending", active=False)
        elif name == "set" or "=" in name:
            for assignment in arguments if name == "set" else words[:1]:
                variable, equals, value = assignment.partition("=")
                if equals:
                    self._variables[variable] = value
        elif name in ("source", ".", "configfile", "normal") and arguments:
            self._source(arguments[0])
        elif name in (*_KERNEL, *_INITRD) and arguments:
            self._set_files(name, arguments)

    def _set_files(self, name: str, arguments: list[str]) -> None:
        entry = next((frame.entry for frame in reversed(self._frames) if frame.entry is not None), None)
        if entry is None:
            return
        if name in _KERNEL:
            entry.kernel = self._absolute(arguments[0])
            kept = [word for word in arguments[1:] if not word.startswith("initrd=")]
            # As GRUB hands words with spaces on (grub-core/lib/cmdline.c).
            entry.arguments = " ".join(f'"{word}"' if " " in word and '"' not in word else word for word in kept)
        else:
            paths = [self._absolute(path) for path in arguments if not path.startswith("-")]
            entry.initrds.extend(path for path in paths if path not in entry.initrds)

    def _open_entry(self, arguments: list[str], *, is_submenu: bool) -> None:
        """Begin a `menuentry` or `submenu`: its title is the first word that is no option."""
        parent = next((frame.entry for frame in reversed(self._frames) if frame.entry is not None), None)
        title, label, words = "", "", iter(arguments)
        for word in words:
            if word in _VALUED:
                value = next(words, "")
                label = value if word == "--id" else label
            elif word.startswith("--"):
                label = word.partition("=")[2] if word.startswith("--id=") else label
            elif not title:
                title = word
        number = self._top if parent is None else parent.children
        if parent is None:
            self._top += 1
        else:
            parent.children += 1
        names = frozenset(name for name in (str(number), title, label) if name)
        levels = (*(parent.names if parent else ()), names)
        entry = _Entry(" ".join(title.split()), levels[:8], self._stack[-1][0], is_submenu, label)
        if len(self.entries) >= _MOST_ENTRIES:
            raise self._too_large("entries")
        self.entries.append(entry)
        self._push("pending", active=True, entry=entry)

    def _source(self, path: str) -> None:
        self._includes += 1
        if self._includes > _MOST_INCLUDES:
            raise self._too_large("includes")
        where = self._absolute(path)
        text = self._read(where)
        if text is not None:
            self._stack.append((where, _commands(text)))

    def _absolute(self, path: str) -> str:
        """Give a path without its device, `(cd0)/x` → `/x`; a relative one starts at the prefix."""
        inside = re.sub(r"^\([^)]*\)", "", path)
        base = re.sub(r"^\([^)]*\)", "", self._variables["prefix"])
        return posixpath.normpath("/" + posixpath.join(base, inside).lstrip("/"))

    def _expand(self, command: Sequence[_Word]) -> list[str]:
        """Give the words of a command with variables replaced; what is not set is empty."""
        words = []
        for word in command:
            texts = []
            for part in word:
                texts.append(self._variables.get(part.text, "") if part.is_variable else part.text)
                self._expanded += len(texts[-1])
                if self._expanded > _MOST_EXPANDED:
                    raise self._too_large("characters")
            if any(part.quoted or not part.is_variable for part in word):
                words.append("".join(texts))
            else:
                words.extend("".join(texts).split())
        return words

    def _test(self, command: list[_Word]) -> bool | None:
        """Evaluate a condition; None where it cannot be told without the machine."""
        negated = bool(command) and _literal(command[0]) == "!"
        command = command[1:] if negated else command
        words = self._expand(command)
        if words and words[0] in ("[", "test"):
            unset = any(part.is_variable and part.text not in self._variables for word in command for part in word)
            truth = _truth([word for word in words[1:] if word != "]"], unset=unset)
        else:
            truth = {"true": True, "false": False}.get(words[0]) if len(words) == 1 else None
        return truth if truth is None or not negated else not truth


def _truth(words: list[str], *, unset: bool) -> bool | None:
    """Evaluate `[ … ]`: comparisons of what is set, and emptiness; the rest (files, numbers) is not known."""
    negated = bool(words) and words[0] == "!"
    words = words[1:] if negated else words
    truth: bool | None = None
    if len(words) == _TEST_MOST_WORDS and words[1] in _COMPARISONS and not unset:
        truth = (words[0] == words[2]) is (words[1] != "!=")
    elif not words or words == ["-n"]:
        truth = False
    elif words[0] in ("-n", "-z") and len(words) <= 2:
        truth = bool("".join(words[1:])) is (words[0] == "-n")
    elif len(words) == 1:
        truth = bool(words[0])
    return truth if truth is None or not negated else not truth


def _literal(word: _Word) -> str:
    """Give a word's text where it is unquoted and without variables, else nothing."""
    return "".join(part.text for part in word) if not any(part.quoted or part.is_variable for part in word) else ""
