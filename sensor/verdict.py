"""Which scored flows are alerts, how severe, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from features.flows import FlowBatch
from features.schema import FloatArray
from models.calibration import Calibration
from sensor.errors import UsageError

if TYPE_CHECKING:
    from models.detector import Detector, Scores

DEFAULT_FPR = 0.01
TOP_FEATURES = 5
"""Features named in an alert."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature of an anomalous flow: seen, expected, and its part of the score in nats."""

    feature: str
    observed: str
    expected: str
    part: float


@dataclass(frozen=True, slots=True)
class Alert:
    """A flow that does not fit: one row of a FlowBatch and what the model says of it."""

    flow: Any
    score: float
    p_value: float
    severity: int
    reasons: tuple[Reason, ...]


def check_rate(fpr: float, model: str, calibration: Calibration) -> None:
    """Refuse a false-positive rate that a model cannot keep.

    Raises:
        UsageError: it is none, or the calibration cannot tell so small a rate from none.
    """
    if not 0.0 < fpr < 1.0:
        raise UsageError(f"--fpr {fpr:g}: give a rate between 0 and 1, e.g. 0.01")
    if fpr < calibration.smallest_p:
        raise UsageError(
            f"--fpr {fpr:g}: model {model} was calibrated on {calibration.count} benign flows "
            f"and can tell rates down to {calibration.smallest_p:.2g}"
        )


class Verdict:
    """Alerts on flows whose p-value is at most the wanted false-positive rate."""

    def __init__(self, detector: Detector, fpr: float = DEFAULT_FPR) -> None:
        """Set the rate of benign flows that may be alerted.

        Raises:
            UsageError: :func:`check_rate` refuses it.
        """
        check_rate(fpr, detector.name, detector.calibration)
        self._detector = detector
        self._fpr = fpr

    def alerts(self, flows: FlowBatch, rows: FloatArray, scores: Scores) -> Iterator[Alert]:
        """The alerts among ``[B]`` flows with their rows ``[B, F]`` and scores, in order."""
        chosen = np.flatnonzero(scores.p_value <= self._fpr)
        if not len(chosen):
            return
        expected = self._detector.expected(rows[chosen])
        for place, at in enumerate(chosen):
            yield Alert(
                flow=flows[at],
                score=float(scores.score[at]),
                p_value=float(scores.p_value[at]),
                severity=self.severity(float(scores.p_value[at])),
                reasons=self._reasons(rows[at], scores.parts[at], expected[place]),
            )

    def severity(self, p_value: float) -> int:
        """1 (high) to 3, as Suricata counts: a tenth of the wanted rate is 1, a third 2."""
        if p_value <= self._fpr / 10:
            return 1
        return 2 if p_value <= self._fpr / 3 else 3

    def _reasons(
        self, row: FloatArray, parts: FloatArray, expected: FloatArray
    ) -> tuple[Reason, ...]:
        features = self._detector.features
        columns = self._detector.columns
        # Stable, so that equal parts are named in the schema's order.
        order = np.argsort(-parts, kind="stable")[:TOP_FEATURES]
        return tuple(
            Reason(
                feature=features[at].name,
                observed=features[at].show(float(row[columns[at]])),
                expected=features[at].show(float(expected[at])),
                part=float(parts[at]),
            )
            for at in order
            if parts[at] > 0.0
        )
