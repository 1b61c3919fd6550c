"""Configuration as it was given: plain values, and where each of them stands.

YAML is read as Suricata's users write it (`yes` and `no` are booleans), but no further than the
configuration needs: no dates, no octal or base-60 numbers, no anchors, no tags that make objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sensor.config.keys import Section, declared, path_text, pattern_of, plain

KeyPath = tuple[str | int, ...]
"""Names, and numbers of items of lists."""

_TRUE, _FALSE = ("yes", "true", "on"), ("no", "false", "off")
_MOST_DIGITS = 18
"""Of a whole number; one of more is text, and refused where a number is wanted."""


_INDEX = re.compile(r"\[(\d+)\]")
_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./:@+-]*\Z")
"""Text that needs no quotes, unless it reads as something else."""


class Place(NamedTuple):
    """Where something was given: a file's name and line, or an option and no line."""

    name: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.line}" if self.line else self.name


class Problem(NamedTuple):
    """Something wrong: where it stands, at which path, and what is wrong."""

    place: Place
    path: KeyPath
    reason: str

    def __str__(self) -> str:
        return ": ".join(str(each) for each in (self.place, path_text(self.path), self.reason)
                         if each)  # fmt: skip


class _Loader(yaml.SafeLoader):
    """Tells null, booleans and numbers from text; everything else is text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (as declared above it)


_WHOLE = rf"[-+]?(?:0|[1-9][0-9]{{0,{_MOST_DIGITS - 1}}})"
_EXPONENT = r"[eE][-+]?[0-9]{1,3}"


def _resolve(kind: str, form: str, first: str) -> None:
    """Take text of a form that begins with one of `first` for a value of a kind."""
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{form})$"), [*first] or [""]
    )


_resolve("null", "", "")
_resolve("null", "~|null|Null|NULL", "~nN")
_resolve("bool", "|".join(
    form for word in _TRUE + _FALSE for form in (word, word.title(), word.upper())
), "yYnNtTfFoO")  # fmt: skip
_resolve("int", _WHOLE, "-+0123456789")
_resolve("float", rf"{_WHOLE}(?:\.[0-9]+(?:{_EXPONENT})?|{_EXPONENT})", "-+0123456789")


@dataclass
class Source:
    """Plain values, where each of them was given, and what was wrong with how.

    Attributes:
        data: the values: mappings, lists, text, numbers, booleans and None.
        places: of values, by path; a value that is not there stands where the one above it does.
        problems: in the order in which they were found.
    """

    data: Any = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """Where the value at `path` was given, or the nearest one above it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return Place("configuration")

    def has(self, path: KeyPath) -> bool:
        """Whether there is a value at `path`."""
        node = self.data
        for part in path:
            there = isinstance(node, list) if isinstance(part, int) else isinstance(node, dict)
            if not there or (part >= len(node) if isinstance(part, int) else part not in node):
                return False
            node = node[part]
        return True

    def assign(self, setting: str) -> None:
        """Do what ``--set KEY=VALUE`` says; KEY is like ``a.0.b`` or ``a[0].b``."""
        key, equals, text = setting.partition("=")
        name = f"--set {setting}"
        parts = _INDEX.sub(r".\1", key.strip()).split(".")
        if not equals or not all(parts):
            reason = "must be KEY=VALUE, KEY like a.0.b"
            self.problems.append(Problem(Place(name), (), reason))
            return
        path: KeyPath = tuple(int(part) if part.isdecimal() else part for part in parts)
        value = read_text(text.strip(), name)
        self.problems += (
            Problem(Place(name), (*path, *each.path), each.reason) for each in value.problems
        )
        if not value.problems:
            self.set(path, value.data, name)

    def set(self, path: KeyPath, value: Any, name: str) -> None:
        """Set the value at `path`, as `name` (an option) says.

        Mappings that are missing are made, in the place of a plain value, too; lists have their
        defaults first, and the item after the last one of a list is added. What cannot be is a
        problem.
        """
        place, node = Place(name), self.data
        for at, (part, after) in enumerate(zip(path, (*path[1:], None), strict=True)):
            reason = _no_way(node, part)
            if reason:
                self.problems.append(Problem(place, path[:at], reason))
                return
            if isinstance(part, int) and part == len(node):
                node.append(None)
            if after is None:
                node[part] = deepcopy(value)
            elif not isinstance(
                node[part] if isinstance(part, int) else node.get(part), dict | list
            ):
                node[part] = _usual_list(path[: at + 1]) if isinstance(after, int) else {}
                self.places[path[: at + 1]] = place
            node = node[part]
        self.places = {at: old for at, old in self.places.items() if at[: len(path)] != path}
        self.places[path] = place


def _usual_list(path: KeyPath) -> list[Any]:
    """The default of a list, or an empty one where none is declared."""
    key = declared().get(pattern_of(path))
    usual = key.field.default if key else None
    if not isinstance(usual, list):
        return []
    return [plain(item) if isinstance(item, Section) else item for item in usual]


def _no_way(node: Any, part: str | int) -> str:
    """Why there is nothing to set at `part` of a value; nothing if there is."""
    if isinstance(part, str):
        return "" if isinstance(node, dict) else "is a list; its items have numbers"
    if not isinstance(node, list):
        return "is not a list"
    if part > len(node):
        return f"has {len(node)} items; the next one would be number {len(node)}"
    return ""


def read_file(path: Path) -> Source:
    """The configuration in a file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return _broken(Place(str(path)), f"cannot be read: {reason}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _broken(Place(str(path), line), "is not UTF-8")
    return read_config(text, str(path))


def read_config(text: str, name: str) -> Source:
    """The configuration in the text of a file of this name."""
    source = read_text(text, name)
    if source.data is None:
        source.data = {}
    if not isinstance(source.data, dict):
        source.problems.append(Problem(Place(name, 1), (), "must be a mapping of keys"))
        source.data = {}
    return source


def read_text(text: str, name: str) -> Source:
    """YAML of the name `name`: of a file, lines are counted."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        reader = _Reader(name)
        data = reader.plain(node, ()) if node else None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return _broken(Place(name, line), "has a character that YAML does not allow")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        reason = " ".join(part for part in (error.context, error.problem) if part)
        return _broken(Place(name, line), f"is not YAML: {reason}")
    except RecursionError:
        return _broken(Place(name, 1), "is nested too deeply")
    return Source(data, {(): Place(name), **reader.places}, reader.problems)


def read_value(text: str) -> Any:
    """One value, as it may stand behind a key, or None where it is none."""
    source = read_text(text, "")
    return None if source.problems else source.data


def scalar_text(value: Any) -> str:
    """How YAML has a value without anything below it, so that it is read as it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        if _PLAIN.match(value) and read_value(value) == value:
            return value
        quoted: str = yaml.dump(
            value, Dumper=yaml.SafeDumper, default_style='"', allow_unicode=True, width=1 << 30
        )
        return quoted.strip()
    return repr(value)


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """The values that have nothing below them, with their paths below `path`."""
    if isinstance(value, dict | list) and value:
        for part, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(below, (*path, part))
    else:
        yield path, value


def _broken(place: Place, reason: str) -> Source:
    return Source({}, {(): Place(place.name)}, [Problem(place, (), reason)])


class _Reader:
    """Makes plain values of YAML's nodes, and remembers their lines."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: set[int] = set()
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []

    def plain(self, node: Node, path: KeyPath) -> Any:
        """The value of a node that stands at `path`."""
        self.places.setdefault(path, self._place(node))
        if id(node) in self._seen:
            # The node stands where its anchor does; the alias, where its key or item does.
            reason = "anchors and aliases are not supported"
            self.problems.append(Problem(self.places[path], path, reason))
            return None
        self._seen.add(id(node))
        if isinstance(node, MappingNode):
            return dict(self._items(node, path))
        if isinstance(node, SequenceNode):
            return [self.plain(item, (*path, at)) for at, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)  # noqa: S101 (there is no fourth kind)
        return self._scalar(node, path)

    def _items(self, node: MappingNode, path: KeyPath) -> Iterator[tuple[str, Any]]:
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                self._wrong(key, path, "a key must be a name")
                continue
            name = str(key.value)
            here = (*path, name)
            if name in first:
                self._wrong(key, here, f"is given twice; first in line {first[name]}")
                continue
            first[name] = line
            self.places[here] = self._place(key)
            yield name, self.plain(value, here)

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        kind, value = node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value)
        try:
            if kind == "null":
                return None
            if kind == "bool" and value.lower() in _TRUE + _FALSE:
                return value.lower() in _TRUE
            if kind == "int":
                return int(value)
            if kind == "float":
                return float(value)
        except ValueError:
            return self._wrong(node, path, f"{value!r} is not what its tag says")
        if kind != "str":
            return self._wrong(node, path, f"the tag {node.tag} is not supported")
        return value

    def _place(self, node: Node) -> Place:
        return Place(self._name, node.start_mark.line + 1)

    def _wrong(self, node: Node, path: KeyPath, reason: str) -> None:
        self.problems.append(Problem(self._place(node), path, reason))
