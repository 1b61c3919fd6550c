"""When a log file is begun anew, and what becomes of the one before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sensor.durations import seconds_of

_NAMED = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}


@dataclass(frozen=True)
class Rotation:
    """Begins a file anew by time, by size or by both.

    With an interval, the last part of the file's name may hold strftime patterns
    (``eve-%Y-%m-%d.json``), in local time, as in suricata.yaml. Where the new name is the old
    one, the file before becomes ``NAME.1``, that one ``NAME.2`` and so on.

    Attributes:
        interval: ``minute``, ``hour`` or ``day``, at whose turn (local time) the file is begun
            anew, or a time since it was begun: a number and s, m, h, d or w; None for no such.
        size: bytes from which on the file is begun anew; 0 for no such limit.
        count: numbered files that are kept.
    """

    interval: str | None = None
    size: int = 0
    count: int = 5

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: the key, as in the configuration, and what is wrong.
        """
        if self.interval is not None and self.interval not in _NAMED and not self._seconds():
            raise ValueError(
                f"rotate-interval: {self.interval!r} is neither minute, hour nor day, nor a number "
                "with s, m, h, d or w"
            )
        if self.size < 0:
            raise ValueError(f"rotate-size: {self.size} is negative")
        if self.count < 1:
            raise ValueError(f"rotate-count: {self.count} is less than 1")

    def _seconds(self) -> float:
        return seconds_of(self.interval or "") or 0.0

    def next_time(self, now: float) -> float:
        """When a file begun at `now` (seconds after the epoch) is to be begun anew."""
        if self.interval is None:
            return float("inf")
        if self.interval not in _NAMED:
            return now + self._seconds()
        begun = datetime.fromtimestamp(now).replace(second=0, microsecond=0)
        if self.interval != "minute":
            begun = begun.replace(minute=0)
        if self.interval == "day":
            begun = begun.replace(hour=0)
        # In local time, so that a day of 23 or 25 hours ends at midnight, too.
        return max((begun + _NAMED[self.interval]).timestamp(), now + 1)

    def path_at(self, path: Path, now: float) -> Path:
        """The name of the file begun at `now`."""
        if self.interval is None or "%" not in path.name:
            return path
        return path.with_name(time.strftime(path.name, time.localtime(now)))

    def shift(self, path: Path) -> None:
        """Make room for a new file at `path`.

        Raises:
            OSError: a file cannot be renamed.
        """
        for number in range(self.count - 1, 0, -1):
            older = _numbered(path, number)
            if older.exists():
                older.replace(_numbered(path, number + 1))
        if path.exists():
            path.replace(_numbered(path, 1))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
