"""From values as they were given to the configuration, or to all that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError

from sensor.config.keys import (
    SECRETS,
    Config,
    Key,
    Pattern,
    Section,
    Words,
    arms,
    declared,
    pattern_of,
)  # fmt: skip
from sensor.config.source import KeyPath, Problem, Source, scalar_text
from sensor.errors import ConfigError

_LONGEST = 60
"""Characters of a wrong value that are shown."""


def check(source: Source) -> Config:
    """The configuration that `source` gives, the rest being defaults.

    Raises:
        ConfigError: with a line for each thing that is wrong, in the order of the file.
    """
    problems = list(source.problems)
    config = None
    try:
        config = Config.model_validate(source.data)
    except ValidationError as error:
        problems += _problems(error, source)
    if problems or config is None:
        ordered = sorted(dict.fromkeys(problems), key=lambda each: each.place.line or 1 << 30)
        raise ConfigError([str(problem) for problem in ordered])
    return config


def _problems(error: ValidationError, source: Source) -> Iterator[Problem]:
    # What could not be read at all is None now, which would be told as a second problem.
    unread = {problem.path for problem in source.problems}
    for each in error.errors(include_url=False):
        path: KeyPath = tuple(part for part in each["loc"] if not str(part).startswith("<"))
        if path in unread and each["input"] is None:
            continue
        if each["type"] == "extra_forbidden":
            yield Problem(source.place(path), path, _unknown(path))
        elif each["type"] == "missing":
            yield Problem(source.place(path), path, f"must be given: {_wanted(path)}")
        elif each["type"] == "wrong":
            path += each["ctx"]["below"]
            yield Problem(source.place(path), path, each["ctx"]["reason"])
        else:
            reason = f"must be {_wanted(path)}"
            if path[-1:] and path[-1] not in SECRETS:
                reason += f", not {_shown(each['input'])}{_nearest_value(path, each['input'])}"
            yield Problem(source.place(path), path, reason)


def _unknown(path: KeyPath) -> str:
    """What to say of a key that nothing declares: the nearest name, or those that there are."""
    above, name = pattern_of(path[:-1]), str(path[-1])
    names = names_in(above)
    near = get_close_matches(name, names, n=1)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    elsewhere = [key.text for key in declared().values() if key.pattern[-1] == name]
    if elsewhere:
        return f"unknown key here; there is {' and '.join(elsewhere)}"
    return f"unknown key; known here: {', '.join(names)}"


def names_in(above: Pattern) -> list[str]:
    """The names of the keys right below a pattern."""
    size = len(above) + 1
    return [
        pattern[-1] for pattern in declared()
        if len(pattern) == size and pattern[:-1] == above
    ]  # fmt: skip


def _wanted(path: KeyPath) -> str:
    key = declared().get(pattern_of(path))
    return accepts(key) if key else "a mapping"


def accepts(key: Key) -> str:
    """What a key takes, in words: ``a whole number from 1 to 65535``."""
    words = [each.text for each in key.field.metadata if isinstance(each, Words)]
    kinds = [kind for kind in arms(key.kind) if kind is not type(None)]
    told = words or [word for kind in kinds for word in _in_words(kind, key.field.metadata)]
    return _listed([*told, *(["null"] if type(None) in arms(key.kind) else [])])


def _in_words(kind: Any, limits: Sequence[Any]) -> list[str]:
    """What values of a type are, one or the other."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if get_origin(kind) is list:
        return ["a list"]
    if issubclass(kind, Section):
        return ["a mapping"]
    if kind in (bool, str):
        return ["yes or no" if kind is bool else "text"]
    return [("a whole number" if kind is int else "a number") + _range(limits)]


def _range(limits: Sequence[Any]) -> str:
    least = [limit.ge for limit in limits if isinstance(limit, Ge)]
    most = [limit.le for limit in limits if isinstance(limit, Le)]
    above = [limit.gt for limit in limits if isinstance(limit, Gt)]
    below = [limit.lt for limit in limits if isinstance(limit, Lt)]
    if above and below:
        return f" between {above[0]} and {below[0]}"
    if above:
        return f" above {above[0]}"
    if least and most:
        return f" from {least[0]} to {most[0]}"
    return f" from {least[0]} on" if least else ""


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = scalar_text(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _nearest_value(path: KeyPath, value: Any) -> str:
    """A hint: the nearest of the terms that a key takes, or that text needs quotes."""
    key = declared().get(pattern_of(path))
    if key is None:
        return ""
    kinds = arms(key.kind)
    terms = [str(term) for kind in kinds if get_origin(kind) is Literal for term in get_args(kind)]
    near = get_close_matches(str(value), terms, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    if str in kinds and isinstance(value, bool | int | float):
        return "; put text that looks like that into quotes"
    return ""
