"""YAML with the line and column of everything in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

_NODES_MAX = 100_000
"""Limit of values: with aliases a small file could become a huge value."""
_CHARS_MAX = 2_000_000
"""Limit of characters: reading more would take minutes."""
_MERGE_TAG = "tag:yaml.org,2002:merge"

Path: TypeAlias = tuple[str | int, ...]
"""The path of a value: keys of mappings and indices of list items."""


class ConfigError(ValueError):
    """The errors in a file, one line for each finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One error and the path of its field."""

    path: Path
    message: str
    is_about_key: bool = False
    """Whether the name of the field is wrong, not its value."""


@dataclass(frozen=True, slots=True)
class Source:
    """The content of a file, with the position of everything in it."""

    name: str
    data: Any
    values: Mapping[Path, tuple[int, int]]
    """Line and column of each value, both from 1."""
    keys: Mapping[Path, tuple[int, int]]

    def error(self, findings: list[Finding]) -> ConfigError:
        """All findings in the order of the file."""
        placed = sorted((*self._place(each), self._text(each)) for each in findings)
        lines = [f"{self.name}:{line}:{column}: {text}" for line, column, text in placed]
        head = [f"{len(lines)} mistakes in {self.name}:"] if len(lines) > 1 else []
        return ConfigError("\n".join((*head, *lines)))

    def _place(self, finding: Finding) -> tuple[int, int]:
        places = self.keys if finding.is_about_key else self.values
        path = finding.path
        while path not in places and path:
            path = path[:-1]
            places = self.values
        return places.get(path, (1, 1))

    @staticmethod
    def _text(finding: Finding) -> str:
        field = dotted(finding.path)
        return f"{field}: {finding.message}" if field else finding.message


def dotted(path: Path) -> str:
    """`("applications", 0, "name")` as applications[0].name."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def read_yaml(text: str, name: str) -> Source:
    """Raises ConfigError with line and column for invalid YAML, repeated keys and keys that are not strings."""
    if len(text) > _CHARS_MAX:
        raise ConfigError(f"{name}:1:1: the file has more than {_CHARS_MAX} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        reader = _Reader(loader, name)
        data = None if node is None else reader.read(node, ())
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{name}:{_position(error)}: this is not YAML: {_reason(error)}") from error
    except yaml.reader.ReaderError as error:
        line, column = _counted(text[: error.position])
        reason = f"unacceptable character {chr(error.character)!r}"
        raise ConfigError(f"{name}:{line}:{column}: this is not YAML: {reason}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}:1:1: the values are nested too deeply") from error
    return Source(name, data, reader.values, reader.keys)


def _counted(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _position(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return "1:1" if mark is None else f"{mark.line + 1}:{mark.column + 1}"


def _reason(error: yaml.MarkedYAMLError) -> str:
    reason = " ".join(filter(None, (error.context, error.problem)))
    return f"{reason}. Indent with spaces." if "'\\t'" in reason else reason


class _Loader(yaml.SafeLoader):
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put the fields of merged mappings (<<) before the mapping's own, so that its own win.

        Of a list of mappings the first wins, as YAML says; in PyYAML 6.0.4 it is the last.
        """
        merges = [value for key, value in node.value if key.tag == _MERGE_TAG]
        node.value = [pair for pair in node.value if pair[0].tag != _MERGE_TAG]
        merged: dict[object, tuple[yaml.Node, yaml.Node]] = {}
        for mapping in itertools.chain.from_iterable(map(_mappings, merges)):
            self.flatten_mapping(mapping)
            # By key: nested merges would otherwise multiply at each level.
            merged.update((_identity(pair[0]), pair) for pair in mapping.value)
        node.value = [*merged.values(), *node.value]


def _mappings(merge: yaml.Node) -> Iterator[yaml.MappingNode]:
    """What `<<` names, a mapping or a list of them, with the one that wins last."""
    named: list[yaml.Node] = merge.value[::-1] if isinstance(merge, yaml.SequenceNode) else [merge]
    for node in named:
        if not isinstance(node, yaml.MappingNode):
            problem = "<< takes a mapping or a list of mappings"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        yield node


def _identity(key: yaml.Node) -> object:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, name: str) -> None:
        self.values: dict[Path, tuple[int, int]] = {}
        self.keys: dict[Path, tuple[int, int]] = {}
        self._loader = loader
        self._name = name
        self._open: set[int] = set()

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.values[path] = _place(node)
        if len(self.values) > _NODES_MAX:
            raise self._error(node, path, f"the file has more than {_NODES_MAX} values")
        if id(node) in self._open:
            raise self._error(node, path, "this value contains itself")
        self._open.add(id(node))
        try:
            return self._value(node, path)
        finally:
            self._open.remove(id(node))

    def _value(self, node: yaml.Node, path: Path) -> Any:
        match node:
            case yaml.MappingNode():
                return dict(self._items(node, path))
            case yaml.SequenceNode():
                return [self.read(item, (*path, number)) for number, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        try:
            return self._loader.construct_object(node, deep=True)
        except yaml.YAMLError:
            raise
        except Exception as error:  # e.g. the ValueError for a date such as 2024-13-45
            kind = node.tag.rpartition(":")[2]
            raise self._error(
                node, path, f"this is read as {kind} but is not valid; put strings into quotes"
            ) from error

    def _items(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, Any]]:
        written = {id(key_node) for key_node, _ in node.value}
        self._loader.flatten_mapping(node)
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node, path)
            if not isinstance(key, str):
                raise self._error(key_node, path, f"the key {key!r} is not a string: put it into quotes")
            # A key may override one of a merged mapping (<<); a key that is written twice is an error.
            if seen.get(key) in written and id(key_node) in written:
                raise self._error(key_node, (*path, key), "this field is given twice: remove one of them")
            seen[key] = id(key_node)
            self.keys[(*path, key)] = _place(key_node)
            yield key, self.read(value_node, (*path, key))

    def _error(self, node: yaml.Node, path: Path, message: str) -> ConfigError:
        line, column = _place(node)
        return ConfigError(f"{self._name}:{line}:{column}: {dotted((*path,))}{': ' if path else ''}{message}")


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
