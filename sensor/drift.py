"""How far the traffic of the last day has drifted from what the model was calibrated with."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from models.detector import Detector
    from sensor.pipeline import Scored

HOUR_S = 3600.0
HOURS = 24
MUCH = 0.25
"""A feature with an index of stability above has another distribution now (Siddiqi, 2006)."""
LEAST_FLOWS = 2_000
"""With fewer nothing is said: chance alone makes an index of some hundredths then."""
_EVERY_S, _LOOKED_AT = 0.5, 256
"""So many flows are looked at in so long, at most: the features of all would cost too much."""
_NAMED = 3
_SCORES = "(scores)"
ADVICE = "learn again (flowvane learn; with --update BUNDLE, a model learnt here before)"


class Drift:
    """Compares flows that are no alerts with the model's reference, feature by feature.

    Nothing is known of features where the model keeps no reference; of the scores, always.
    """

    def __init__(self, detector: Detector, clock: Callable[[], float] = time.monotonic) -> None:
        """Compare with what `detector` was calibrated with; `clock`: seconds that only grow."""
        self._reference, self._clock = detector.reference, clock
        scores = detector.calibration.scores
        # Hundredths of the calibration: what a flow's score is counted by.
        at = np.linspace(0, len(scores) - 1, 101)[1:-1].astype(int)
        self._edges = np.unique(scores[at])
        below = np.searchsorted(scores, self._edges, side="right") / len(scores)
        self._expected = np.append(below, 1.0)
        self._hours: deque[list[NDArray[np.int64]]] = deque(maxlen=HOURS)
        self._hour: list[NDArray[np.int64]] | None = None
        self._next = self._tell_at = clock()
        self._hour_ends = clock() + HOUR_S

    def observe(self, scored: Scored, alerted: NDArray[np.bool_]) -> None:
        """Look at some of ``[B]`` flows, none of those that are `alerted`."""
        now = self._clock()
        while now >= self._hour_ends:
            self._hours.append(self._hour or [])
            self._hour, self._hour_ends = None, self._hour_ends + HOUR_S
        if now < self._next:
            return
        chosen = np.flatnonzero(~alerted)[:_LOOKED_AT]
        if not len(chosen):
            return
        self._next = now + _EVERY_S
        rows = scored.rows[chosen] if scored.rows.ndim == 2 else scored.rows[chosen, -1]
        where = np.searchsorted(self._edges, scored.scores.score[chosen].astype(np.float32))
        found = [np.bincount(where, minlength=len(self._edges) + 1)]
        if self._reference is not None:
            found += self._reference.counts(rows)
        self._hour = found if self._hour is None else _sum(self._hour, found)

    def _counts(self) -> list[NDArray[np.int64]] | None:
        """Counts of the last day; None while there are too few flows."""
        total: list[NDArray[np.int64]] | None = None
        # A copy: metrics are asked for by another thread.
        for hour in [*self._hours, self._hour or []]:
            if hour:
                total = hour if total is None else _sum(total, hour)
        return None if total is None or total[0].sum() < LEAST_FLOWS else total

    @property
    def flows(self) -> int:
        """How many flows were looked at in the last day."""
        counted = [hour[0].sum() for hour in [*self._hours, self._hour or []] if hour]
        return int(sum(counted))

    def features(self) -> dict[str, float]:
        """The index of stability of each feature; nothing while there are too few flows."""
        counts = self._counts()
        if counts is None or self._reference is None:
            return {}
        return self._reference.stability(counts[1:])

    def scores(self) -> float | None:
        """The largest difference between the shares of scores up to any, then and now.

        The statistic of Kolmogorov and Smirnov, of scores in hundredths of the calibration; None
        while there are too few flows.
        """
        counts = self._counts()
        if counts is None:
            return None
        now = counts[0].cumsum() / counts[0].sum()
        return float(np.abs(now - self._expected).max())

    def due(self) -> str | None:
        """:meth:`notice`, at most once an hour."""
        now = self._clock()
        if now < self._tell_at or (notice := self.notice()) is None:
            return None
        self._tell_at = now + HOUR_S
        return notice

    def notice(self) -> str | None:
        """What there is to say, and what to do about it; None while there is nothing."""
        far = {name: value for name, value in self.features().items() if value > MUCH}
        if (scores := self.scores()) is not None and scores > MUCH:
            far[_SCORES] = scores
        if not far:
            return None
        worst = sorted(far, key=lambda name: -far[name])[:_NAMED]
        named = ", ".join(f"{name} {far[name]:.2f}" for name in worst)
        more = f" and {len(far) - len(worst)} more" if len(far) > len(worst) else ""
        return f"the traffic has drifted from what the model learnt ({named}{more}): {ADVICE}"


def _sum(one: list[NDArray[np.int64]], other: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    return [a + b for a, b in zip(one, other, strict=True)]
