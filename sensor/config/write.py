"""A configuration written out: as YAML with comments, or as Suricata's flat lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, get_origin

from sensor.config.check import accepts
from sensor.config.keys import ITEM, Config, Key, Pattern, Section, arms, declared, plain
from sensor.config.source import leaves, scalar_text

CONFIG_FILE = "flowvane.yaml"
"""Name of the file that ships."""
SCHEMA_FILE = "flowvane.schema.json"
"""Name of the JSON Schema, beside the file."""
_HEAD = f"""\
# yaml-language-server: $schema={SCHEMA_FILE}
#
# The configuration of `flowvane run`. `flowvane config check FILE` tells what is wrong with one,
# docs/configuration.md has the same keys as tables. What is left out has its default.
"""
_WIDTH = 96


def as_yaml(config: Config) -> str:
    """All of a configuration, each key with its meaning, what it takes and its default."""
    return _HEAD + "".join(f"{line}\n" for line in _section(config, (), comments=True))


def as_lines(config: Config) -> list[str]:
    """``a.0.b = value`` for each value, as `suricata --dump-config`; `--set` takes each back."""
    return [
        f"{'.'.join(map(str, path))} = {'[]' if value == [] else scalar_text(value)}"
        for path, value in leaves(plain(config))
    ]


def _section(section: Section, above: Pattern, *, comments: bool) -> Iterator[str]:
    """The lines of a section, not indented."""
    for name, field in type(section).model_fields.items():
        pattern = (*above, field.alias or name)
        if comments:
            if not above:
                yield ""
            yield from _comment(declared()[pattern])
        yield from _entry(pattern, getattr(section, name), comments=comments)


def _comment(key: Key) -> Iterator[str]:
    """What a key means, takes and defaults to."""
    text = key.field.description or ""
    if not has_keys_below(key):
        of = f" ({key.unit})" if key.unit else ""
        text += f" Takes {accepts(key)}{of}. {default_of(key)}"
    for line in textwrap.wrap(text, _WIDTH):
        yield f"# {line}"


def default_of(key: Key) -> str:
    """The default of a key without anything below it, in words."""
    if key.field.is_required():
        return "Must be given"
    return f"Default: {scalar_text(key.field.default)}"


def has_keys_below(key: Key) -> bool:
    """Whether a key's value is a section or a list."""
    return any(
        get_origin(kind) is list or (isinstance(kind, type) and issubclass(kind, Section))
        for kind in arms(key.kind)
    )


def _entry(pattern: Pattern, value: Any, *, comments: bool) -> Iterator[str]:
    """A key and its value."""
    name = pattern[-1]
    if isinstance(value, Section):
        yield f"{name}:"
        yield from _indented(_section(value, pattern, comments=comments))
    elif value == []:
        yield f"{name}: []"
        if comments:
            example = _example((*pattern, ITEM))
            yield from (f"#{line}" for line in _indented(example))
    elif isinstance(value, list):
        yield f"{name}:"
        for at, item in enumerate(value):
            told = comments and at == 0
            yield from _indented(_item(item, (*pattern, ITEM), comments=told))
    else:
        yield f"{name}: {scalar_text(value)}"


def _item(item: Any, pattern: Pattern, *, comments: bool) -> Iterator[str]:
    """An item of a list; comments on its first key stand before the dash."""
    if not isinstance(item, Section):
        yield f"- {scalar_text(item)}"
        return
    dashed = False
    for line in _section(item, pattern, comments=comments):
        if dashed or line.startswith("#"):
            yield f"  {line}" if dashed else line
        else:
            yield f"- {line}"
            dashed = True


def _example(pattern: Pattern) -> Iterator[str]:
    """What an item of a list that is empty could look like."""
    for kind in arms(declared()[pattern].kind):
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            continue
        needed = {
            field.alias or name: (field.examples or [None])[0]
            for name, field in kind.model_fields.items() if field.is_required()
        }  # fmt: skip
        yield from _item(kind.model_validate(needed), pattern, comments=True)


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
