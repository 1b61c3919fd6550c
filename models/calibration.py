"""From a score to a p-value, by held-out benign flows (split conformal prediction)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.schema import FloatArray


class Calibration:
    """Scores of benign rows that took no part in training.

    For a new benign flow the p-value is valid whatever the model: P(p <= a) <= a, as long as
    the flow is exchangeable with the calibration rows (Vovk, Gammerman and Shafer, 2005).
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
        """The p-value of a score above all of them."""
        return 1.0 / (self.count + 1)

    def p_value(self, scores: NDArray[Any]) -> FloatArray:
        """``(1 + #{calibration >= score}) / (N + 1)`` of each score, ``[B]``."""
        below = np.searchsorted(self.scores, np.asarray(scores, np.float32), side="left")
        return np.asarray((1.0 + self.count - below) / (self.count + 1.0), np.float64)
