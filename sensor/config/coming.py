"""Keys that are declared, but whose function is not there yet."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from sensor.config.keys import Config, Pattern, path_text, pattern_of, plain
from sensor.config.source import KeyPath, leaves, scalar_text

NOT_YET = frozenset({"metrics"})
"""Keys that are refused unless they, and all below them, have their defaults.

Whoever makes one work takes it out here.
"""


@cache
def _usual() -> dict[KeyPath, Any]:
    return dict(leaves(plain(Config())))


def not_yet(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """What a configuration asks for that is not there yet: where, and what to say."""
    usual = _usual()
    for path, value in leaves(plain(config)):
        same = ("outputs", 0, *path[2:]) if path[0] == "outputs" else path
        if not waits(pattern_of(path)) or (same in usual and usual[same] == value):
            continue
        default = f"; leave it at {scalar_text(usual[same])}" if same in usual else ""
        yield path, f"is not supported yet{default}"


def waits(pattern: Pattern) -> bool:
    """Whether the function of a key, or of one above it, is not there yet."""
    return any(path_text(pattern[:end]) in NOT_YET for end in range(1, len(pattern) + 1))
