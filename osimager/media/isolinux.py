"""The boot menus of ISOLINUX and SYSLINUX: configuration text → menu entries, pure.

Sources: the SYSLINUX wiki's pages Config, Menu, Directives; com32/menu/readconfig.c of syslinux 6.03. Hostile text
raises MediaError or gives fewer entries; the number of includes and lines is bounded.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from osimager.arch import Firmware
from osimager.errors import MediaError, Place
from osimager.plan.facts import MenuEntry

ReadFile = Callable[[str], str | None]

_MOST_INCLUDES = 64
_MOST_LINES = 100_000
_MOST_LABELS = 2_000
# What KERNEL names beside Linux: modules, boot sectors and images (Config, "KERNEL file").
_OTHER_KERNELS = (".c32", ".cbt", ".com", ".0", ".bin", ".bs", ".bss", ".img", ".efi")


@dataclass(slots=True)
class _Label:
    name: str
    title: str = ""
    kernel: str = ""
    is_linux: bool = False
    append: str | None = None
    initrds: list[str] = field(default_factory=list)
    menu_default: bool = False
    menu_file: str = ""
    depth: int = 0


def parse_isolinux(text: str, menu_file: str, read: ReadFile) -> tuple[MenuEntry, ...]:
    """Give the Linux entries of the menu `text`, which stands in `menu_file` on the ISO.

    `read` gives an included file's text by its absolute path. The default entry is the one that the menu highlights
    (MENU DEFAULT, not a submenu's), else DEFAULT's, else the one that a timeout takes, else the first.
    """
    parser = _Parser(menu_file, read)
    parser.run(text)
    default = parser.find_default()
    return tuple(parser.make_entry(label, label is default) for label in parser.labels if label.is_linux)


class _Parser:
    """The state of one pass over a menu and what it includes."""

    def __init__(self, menu_file: str, read: ReadFile) -> None:
        self._menu_file = menu_file
        self._folder = posixpath.dirname(menu_file)
        self._read = read
        self._append = ""
        self._default = ""
        self._on_timeout = ""
        self._label: _Label | None = None
        self._in_help = False
        self._includes = 0
        self._depth = 0
        self._configs: list[str] = []
        self._stack: list[tuple[str, Iterator[str]]] = []
        self.labels: list[_Label] = []

    def run(self, text: str) -> None:
        """Read every line, included ones in their place."""
        self._stack = [(self._menu_file, iter(text.splitlines()))]
        lines = 0
        while self._stack:
            line = next(self._stack[-1][1], None)
            if line is None:
                self._stack.pop()
                self._go_on()
                continue
            lines += 1
            if lines > _MOST_LINES:
                raise MediaError(f"the boot menu has more than {_MOST_LINES} lines", where=Place(self._menu_file))
            word, rest = _split(line)
            if word and not word.startswith("#"):
                self._take(word.lower(), rest)

    def find_default(self) -> _Label | None:
        """Give the label that a person sees highlighted."""
        top = [label for label in self.labels if label.depth == 0]
        marked = [label for label in top if label.menu_default]
        # The first label of a name is meant; DEFAULT may also name the menu's module, which is no label.
        named = {label.name.lower(): label for label in reversed(self.labels)}
        wanted = [named[name] for name in (self._default, self._on_timeout) if name in named]
        return next(iter([*marked[-1:], *wanted, *top, *self.labels]), None)

    def _go_on(self) -> None:
        """Go through a menu's doors (CONFIG) where it has nothing else: Debian's help is one that leads back."""
        if not self._stack and not any(label.is_linux for label in self.labels):
            configs, self._configs = self._configs, []
            for path in reversed(configs):
                self._include(path)

    def make_entry(self, label: _Label, is_default: bool) -> MenuEntry:
        """Give `label` as an entry, its paths absolute."""
        append = self._append if label.append is None else label.append
        words = ("" if append == "-" else append).split()
        initrds = [*label.initrds, *(word.partition("=")[2] for word in words if word.lower().startswith("initrd="))]
        paths = [path for value in initrds[-1:] for path in value.split(",") if path]
        return MenuEntry(
            title=" ".join((label.title or label.name).replace("^", "").split()),
            label=label.name,
            kernel=self._absolute(label.kernel),
            initrds=tuple(self._absolute(path) for path in paths),
            arguments=" ".join(word for word in words if not word.lower().startswith("initrd=")),
            is_default=is_default,
            menu_file=label.menu_file,
            firmware=Firmware.BIOS,
        )

    def _absolute(self, path: str) -> str:
        return posixpath.normpath(posixpath.join("/", self._folder.lstrip("/"), path)).replace("//", "/", 1)

    def _take(self, word: str, rest: str) -> None:
        if self._in_help:
            self._in_help = word != "endtext"
            return
        match word:
            case "text" if rest.lower().startswith("help"):
                self._in_help = True
            case "label":
                if len(self.labels) >= _MOST_LABELS:
                    raise MediaError("the boot menu has too many labels", where=Place(self._menu_file))
                self._label = _Label(rest, menu_file=self._stack[-1][0], depth=self._depth)
                self.labels.append(self._label)
            case "menu":
                self._take_menu(*_split(rest))
            case "include":
                self._include(rest)
            case "config":
                self._configs.append(rest)
            case "default":
                self._default = rest.lower()
            case "ontimeout":
                self._on_timeout = rest.lower()
            case "append" if self._label is None:
                self._append = rest
            case _ if self._label is not None:
                self._take_for_label(self._label, word, rest)

    def _take_menu(self, word: str, rest: str) -> None:
        match word.lower():
            case "label" if self._label is not None:
                self._label.title = rest
            case "default" if self._label is not None:
                self._label.menu_default = True
            case "begin":
                self._label, self._depth = None, self._depth + 1
            case "end":
                self._label, self._depth = None, max(0, self._depth - 1)
            case "include":
                self._include(rest)

    def _take_for_label(self, label: _Label, word: str, rest: str) -> None:
        match word:
            case "linux" | "kernel":
                label.kernel, _space, more = rest.partition(" ")
                label.is_linux = bool(label.kernel) and (
                    word == "linux" or not label.kernel.lower().endswith(_OTHER_KERNELS)
                )
                label.append = more if more and label.append is None else label.append
            case "append":
                label.append = rest
            case "initrd":
                label.initrds.append(rest)
            case "localboot" | "com32" | "boot" | "bss" | "pxe" | "fdimage" | "comboot":
                label.is_linux = False

    def _include(self, rest: str) -> None:
        """Go on with the file that `rest` names (a menu's title may follow it)."""
        self._includes += 1
        if self._includes > _MOST_INCLUDES:
            raise MediaError(f"the boot menu has more than {_MOST_INCLUDES} includes", where=Place(self._menu_file))
        path = self._absolute(rest.partition(" ")[0])
        text = self._read(path)
        if text is not None:
            self._stack.append((path, iter(text.splitlines())))


def _split(line: str) -> tuple[str, str]:
    """Give the first word of `line` and the rest."""
    word, *rest = line.split(None, 1)[:2] or [""]
    return word, rest[0].strip() if rest else ""
