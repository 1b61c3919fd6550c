"""From a score to a p-value, by held-out benign flows (split conformal prediction).

Beyond the highest of their scores the ranks say nothing more; there the p-value follows a
generalised Pareto tail, fitted to the highest scores (peaks over threshold: Pickands, 1975).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.schema import FloatArray

TAIL_SHARE = 0.02
"""Share of the scores, the highest ones, that the tail is fitted to."""
TAIL_ROWS = 50
"""With fewer of them no tail is fitted."""
BEYOND = 100.0
"""How far p-values go beyond the smallest that ranks can tell, as a factor: a tail fitted to so
few scores is no evidence for more."""


@dataclass(frozen=True, slots=True)
class Tail:
    """A generalised Pareto distribution of scores above a threshold.

    Attributes:
        threshold: score that it begins at.
        share: of benign flows above it.
        scale, shape: as Hosking and Wallis (1987) have sigma and -k; the shape is not negative,
            so no score is impossible.
    """

    threshold: float
    share: float
    scale: float
    shape: float

    def p_value(self, scores: NDArray[Any]) -> FloatArray:
        """The chance of a benign flow scoring as high as each of ``[B]``, from the threshold on."""
        excess = np.maximum(np.asarray(scores, np.float64) - self.threshold, 0.0) / self.scale
        if self.shape < _EXPONENTIAL:
            return np.asarray(self.share * np.exp(-excess))
        return np.asarray(self.share * (1.0 + self.shape * excess) ** (-1.0 / self.shape))


_EXPONENTIAL = 1e-6
"""A shape below is none."""


def fit_tail(ascending: NDArray[Any]) -> Tail | None:
    """Fit a tail to scores ``[N]`` by probability-weighted moments (Hosking and Wallis, 1987).

    None if there are too few, or all of the highest are equal.
    """
    count = int(len(ascending) * TAIL_SHARE)
    if count < TAIL_ROWS:
        return None
    threshold = float(ascending[-count - 1])
    excess = np.asarray(ascending[-count:], np.float64) - threshold
    mean = excess.mean()
    weighted = (excess * np.arange(count - 1, -1, -1)).mean() / (count - 1)
    if mean <= 0.0 or excess[0] == excess[-1]:
        return None
    shape = 2.0 - mean / (mean - 2.0 * weighted)
    scale = 2.0 * mean * weighted / (mean - 2.0 * weighted)
    if shape < _EXPONENTIAL:
        shape, scale = 0.0, mean
    return Tail(threshold, count / len(ascending), float(scale), float(shape))


class Calibration:
    """Scores of benign rows that took no part in training.

    For a new benign flow the p-value is valid whatever the model: P(p <= a) <= a for any `a` from
    :attr:`smallest_p` on, as long as the flow is exchangeable with the calibration rows (Vovk,
    Gammerman and Shafer, 2005). Smaller ones are an extrapolation.
    """

    def __init__(self, scores: NDArray[Any]) -> None:
        """Take the scores ``[N]`` of the held-out benign rows, in any order.

        Raises:
            ValueError: there are none, or one is not finite.
        """
        self.scores = np.sort(np.asarray(scores, np.float32))
        if not len(self.scores) or not np.isfinite(self.scores).all():
            raise ValueError("calibration needs finite scores, one at least")

    @property
    def count(self) -> int:
        """Number of calibration rows."""
        return len(self.scores)

    @property
    def smallest_p(self) -> float:
        """The smallest p-value that ranks can tell: that of a score above all of them."""
        return 1.0 / (self.count + 1)

    @property
    def least_p(self) -> float:
        """The smallest p-value there is."""
        return self.smallest_p / (1.0 if self.tail is None else BEYOND)

    @cached_property
    def tail(self) -> Tail | None:
        """What the highest scores tell of higher ones; None if they are too few."""
        return fit_tail(self.scores)

    def p_value(self, scores: NDArray[Any]) -> FloatArray:
        """``(1 + #{calibration >= score}) / (N + 1)`` of each score, ``[B]``.

        Of scores above all of them, the tail's p-value if that is smaller.
        """
        scores = np.asarray(scores, np.float32)
        below = np.searchsorted(self.scores, scores, side="left")
        p = np.asarray((1.0 + self.count - below) / (self.count + 1.0), np.float64)
        if self.tail is not None and (beyond := np.flatnonzero(below == self.count)).size:
            far = self.tail.p_value(scores[beyond])
            p[beyond] = np.clip(far, self.least_p, self.smallest_p)
        return p
