"""Times as people write them: a number with s, m, h, d or w."""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds_of(text: str) -> float | None:
    """``30m`` or ``0.5h`` in seconds; None if it is no such time, or none at all."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhdw])", text)
    return float(match[1]) * _UNITS[match[2]] or None if match else None
