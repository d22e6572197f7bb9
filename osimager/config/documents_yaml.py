"""The YAML reader of `documents`: PyYAML's C composer, and YAML 1.2's meaning of scalars on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

import yaml

from osimager.config.documents import (
    MOST_DEPTH,
    MOST_VALUES,
    Items,
    Table,
    checked_scalar,
    duplicate_key,
    parse_scalar,
)  # fmt: skip
from osimager.config.values import Scalar, Value
from osimager.errors import ConfigError, Place

_PLAIN, _QUOTED = "plain", "quoted"
_BASE: Final[type] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]  # CSafeLoader or SafeLoader
    """PyYAML's composer with a resolver that only tells plain scalars from quoted ones."""

    def resolve(self, kind: type, value: str, implicit: object) -> str:
        if kind is not yaml.ScalarNode:
            return _QUOTED
        return _PLAIN if isinstance(implicit, tuple) and implicit[0] else _QUOTED


def load_yaml(path: Path, text: str) -> Value:
    """Read a YAML text. Raises ConfigError with the line of what is wrong."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else None
        what = " ".join(part for part in (exc.context, exc.problem) if part)
        raise ConfigError(f"not YAML: {what}", where=Place(path, line), hint="check indentation and quotes") from exc
    except yaml.reader.ReaderError as exc:
        line = text.encode()[: exc.position].count(b"\n") + 1
        what, hint = f"not YAML: U+{exc.character:04X} is not a character of text", "take it out"
        raise ConfigError(what, where=Place(path, line), hint=hint) from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise ConfigError(f"not YAML: {exc}", where=Place(path), hint="check indentation and quotes") from exc
    return None if node is None else _Composer(path).value_of(node, 0)


class _Composer:
    """Turn nodes into values, counting them: an alias costs as much as what it stands for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.path, node.start_mark.line + 1)

    def value_of(self, node: yaml.Node, depth: int) -> Value:
        self.count += 1
        if self.count > MOST_VALUES or depth > MOST_DEPTH:
            raise ConfigError("too many or too deeply nested values", where=self.place(node), hint="split this file")
        if isinstance(node, yaml.ScalarNode):
            return checked_scalar(self.scalar_of(node), self.path, node.start_mark.line + 1)
        if node.tag not in (_QUOTED, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise self.refused_tag(node)
        return self.table_of(node, depth) if isinstance(node, yaml.MappingNode) else self.items_of(node, depth)

    def scalar_of(self, node: yaml.ScalarNode) -> Scalar:
        match node.tag:
            case "plain":
                return parse_scalar(node.value)
            case "quoted" | "tag:yaml.org,2002:str" | "!":
                return cast("str", node.value)
        raise self.refused_tag(node)

    def refused_tag(self, node: yaml.Node) -> ConfigError:
        return ConfigError(f"the YAML tag {node.tag!r} is not allowed", where=self.place(node), hint="remove the tag")

    def table_of(self, node: yaml.MappingNode, depth: int) -> Table:
        table = Table(self.path, node.start_mark.line + 1)
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a scalar", where=Place(self.path, line), hint="write KEY: VALUE")
            key = checked_scalar(cast("str", key_node.value), self.path, line)
            if key in table:
                raise duplicate_key(key, Place(self.path, line), table.lines[key])
            table[key] = self.value_of(value_node, depth + 1)
            table.lines[key] = line
        return table

    def items_of(self, node: yaml.Node, depth: int) -> Items:
        items = Items(self.path, node.start_mark.line + 1)
        for child in node.value:
            items.append(self.value_of(child, depth + 1))
            items.lines.append(child.start_mark.line + 1)
        return items
