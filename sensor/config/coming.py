"""Keys that are declared, but whose function is not there yet."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from sensor.config.keys import Config, Pattern, path_text, pattern_of, plain
from sensor.config.source import KeyPath, leaves, scalar_text

NOT_YET = frozenset({
    "sensor-name",
    "alert-budget",
    "suppress",
    "grouping",
    "metrics",
    "eve-version",
    "outputs[1]",
    "outputs[].eve-log.enabled",
    "outputs[].eve-log.filetype",
    "outputs[].eve-log.filemode",
    "outputs[].eve-log.rotate-interval",
    "outputs[].eve-log.rotate-size",
    "outputs[].eve-log.rotate-count",
    "outputs[].eve-log.queue-size",
    "outputs[].eve-log.retry-max",
    "outputs[].eve-log.identity",
    "outputs[].eve-log.facility",
    "outputs[].eve-log.level",
    "outputs[].eve-log.syslog",
    "outputs[].eve-log.redis",
    "outputs[].eve-log.community-id",
    "outputs[].eve-log.types",
})  # fmt: skip
"""Keys that are refused unless they, and all below them, have their defaults.

Whoever makes one work takes it out here; ``outputs[1]`` stands for every output but the first.
"""


@cache
def _usual() -> dict[KeyPath, Any]:
    return dict(leaves(plain(Config())))


def not_yet(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """What a configuration asks for that is not there yet: where, and what to say."""
    if "outputs[1]" in NOT_YET and len(config.outputs) > 1:
        yield ("outputs", 1), "a second output is not supported yet"
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
