"""Which scored flows are alerts, how severe, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from features.flows import FlowBatch, join_flows
from features.schema import Feature, FloatArray
from models.attribution import attribute, rest_of, usual_values
from models.calibration import Calibration
from models.reference import Reference
from sensor.errors import UsageError

if TYPE_CHECKING:
    from models.detector import Scores
    from models.kinds.base import ModelKind

DEFAULT_FPR = 0.01
TOP_FEATURES = 5
"""Features named in an alert."""


class Reason(NamedTuple):
    """One feature of an anomalous flow.

    Attributes:
        feature: its name.
        observed, expected: its value, and what the model expects of it given all others.
        part: its part of the score.
        percentile: where the value lies among benign ones, 0 to 100
            (:meth:`models.reference.Reference.percentiles`); None where the model does not know.
        usual, usual_low, usual_high: what is usual among benign flows
            (:class:`models.attribution.Usual`); None where the model does not know.
    """

    feature: str
    observed: str
    expected: str
    part: float
    percentile: float | None = None
    usual: str | None = None
    usual_low: float | None = None
    usual_high: float | None = None


Reasons = tuple[Reason, ...]


class Remainder(NamedTuple):
    """What of a score is in no reason: it and their parts add up to the score.

    Attributes:
        other: parts of all features that are no reason.
        rest: what is no feature's.
        rest_of: what that is of (:func:`models.attribution.rest_of`).
    """

    other: float
    rest: float
    rest_of: str


@dataclass(frozen=True, slots=True)
class GroupReport:
    """What one event says of a group of alerts (:mod:`sensor.grouping`).

    Attributes:
        number: what tells the group from others: the `flow_id` of its first alert.
        event: `first`, `update` or `end`.
        by: what its alerts share: `pair` (source and destination), `source`, `destination` or
            `kind` alone.
        count: alerts since the group's event before this one.
        total: alerts so far.
        since_us: time of the first.
        low_port, high_port: the lowest and the highest destination port so far.
    """

    number: int
    event: str
    by: str
    count: int
    total: int
    since_us: int
    low_port: int
    high_port: int


@dataclass(frozen=True, slots=True)
class Alerts:
    """Flows that do not fit, in the order they came: ``[A]`` each.

    `reports` is None, or says for each of which group it is.
    """

    flows: FlowBatch
    score: FloatArray
    p_value: FloatArray
    severity: NDArray[np.int_]
    reasons: list[Reasons]
    remainders: list[Remainder]
    reports: list[GroupReport] | None = None

    def __len__(self) -> int:
        return len(self.flows)

    @property
    def each_report(self) -> list[GroupReport] | list[None]:
        """The report on the group of each alert; None for each, if they are not grouped."""
        return [None] * len(self) if self.reports is None else self.reports


@dataclass(frozen=True, slots=True)
class Found:
    """Flows that do not fit, not yet explained: ``[A]`` each.

    `rows` is what was scored, `rest` and `parts` are what the scores are made of.
    """

    flows: FlowBatch
    score: FloatArray
    p_value: FloatArray
    severity: NDArray[np.int_]
    rows: FloatArray
    rest: FloatArray
    parts: FloatArray

    def __len__(self) -> int:
        return len(self.flows)

    def take(self, chosen: NDArray[np.intp]) -> Found:
        """Copies of some."""
        # Taking copies whole rows; an index, field by field.
        return Found(*(getattr(self, name).take(chosen, axis=0) for name in Found.__slots__))

    @staticmethod
    def join(parts: Sequence[Found]) -> Found:
        """Several as one; there is one at least."""
        if len(parts) == 1:
            return parts[0]
        flows = join_flows([part.flows for part in parts])
        others = Found.__slots__[1:]
        return Found(
            flows, *(np.concatenate([getattr(part, name) for part in parts]) for name in others)
        )


def check_rate(fpr: float, model: str, calibration: Calibration) -> None:
    """Refuse a false-positive rate that a model cannot keep.

    Raises:
        UsageError: it is none, or the calibration cannot tell so small a rate from none.
    """
    if not 0.0 < fpr < 1.0:
        raise UsageError(f"--fpr {fpr:g}: give a rate between 0 and 1, e.g. 0.01")
    if fpr < calibration.least_p:
        raise UsageError(
            f"--fpr {fpr:g}: model {model} was calibrated on {calibration.count} benign flows "
            f"and can tell rates down to {calibration.least_p:.2g}"
        )


class Explains(Protocol):
    """What is asked of a model beside its scores."""

    @property
    def name(self) -> str:
        """As alerts give it."""

    @property
    def kind(self) -> ModelKind[Any]:
        """Of which kind it is."""

    @property
    def config(self) -> Any:
        """Its sizes."""

    @property
    def calibration(self) -> Calibration:
        """Held-out benign scores."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those that it uses."""

    @property
    def columns(self) -> NDArray[np.intp]:
        """Where rows have them."""

    @property
    def reference(self) -> Reference | None:
        """How they are distributed among benign flows, if that is known."""

    def expected(self, rows: FloatArray) -> FloatArray:
        """What it expects of each feature, ``[B, U]``."""


class Verdict:
    """Alerts on flows whose p-value is at most the wanted false-positive rate."""

    def __init__(self, detector: Explains, fpr: float = DEFAULT_FPR) -> None:
        """Set the rate of benign flows that may be alerted.

        Raises:
            UsageError: :func:`check_rate` refuses it.
        """
        check_rate(fpr, detector.name, detector.calibration)
        self._detector = detector
        self._rest_of = rest_of(detector.kind.name, detector.config)
        reference = detector.reference
        self._usual = None if reference is None else usual_values(reference, detector.features)
        self.fpr = fpr

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._detector.name

    def alerts(self, flows: FlowBatch, rows: FloatArray, scores: Scores) -> Alerts:
        """The alerts among ``[B]`` flows.

        Args:
            flows: the flows.
            rows: what was scored, ``[B, F]``, or windows ``[B, W, F]`` that end with it.
            scores: of the flows.
        """
        return self.explain(self.find(flows, rows, scores, self.chosen(scores)))

    def chosen(self, scores: Scores, threshold: float | None = None) -> NDArray[np.intp]:
        """Which flows have a p-value of at most the threshold; the wanted rate, unless given."""
        return np.flatnonzero(scores.p_value <= (self.fpr if threshold is None else threshold))

    def find(
        self, flows: FlowBatch, rows: FloatArray, scores: Scores, chosen: NDArray[np.intp]
    ) -> Found:
        """What is to be known of `chosen` flows, ``[A]``; the rest is as for :meth:`alerts`."""
        p_value = scores.p_value[chosen]
        return Found(
            flows=flows.take(chosen),
            score=scores.score[chosen],
            p_value=p_value,
            severity=self._severity(p_value),
            rows=rows[chosen],
            rest=scores.rest[chosen],
            parts=scores.parts[chosen],
        )

    def explain(self, found: Found, reports: list[GroupReport] | None = None) -> Alerts:
        """The alerts, with their reasons, and with reports on their groups if there are any."""
        reasons, other = self._reasons(found.rows, found.parts)
        remainders = [
            Remainder(*each, self._rest_of)
            for each in zip(other.tolist(), found.rest.tolist(), strict=True)
        ]
        return Alerts(
            found.flows, found.score, found.p_value, found.severity, reasons, remainders, reports
        )

    def _severity(self, p_value: FloatArray) -> NDArray[np.int_]:
        """1 (high) to 3, as Suricata counts: a tenth of the wanted rate is 1, a third 2."""
        return np.where(p_value <= self.fpr / 10, 1, np.where(p_value <= self.fpr / 3, 2, 3))

    def _reasons(self, rows: FloatArray, parts: FloatArray) -> tuple[list[Reasons], FloatArray]:
        """The reasons of alerts with rows as scored and parts ``[A, U]``, the largest first.

        And ``[A]``, the sum of the parts that are in none.
        """
        order, largest, other = attribute(parts, TOP_FEATURES)
        if not len(rows):
            return [], other
        features, columns = self._detector.features, self._detector.columns
        expected = self._detector.expected(rows)
        own = rows if rows.ndim == 2 else rows[:, -1]
        reference = self._detector.reference
        names, was, should = (np.empty(order.shape, object) for _ in range(3))
        ranks, usual, low, high = (np.full(order.shape, None, object) for _ in range(4))
        for at in np.unique(order):
            alert, place = np.nonzero(order == at)
            names[alert, place] = features[at].name
            was[alert, place] = features[at].show_all(own[alert, columns[at]].tolist())
            should[alert, place] = features[at].show_all(expected[alert, at].tolist())
            if self._usual is not None:
                usual[alert, place], low[alert, place], high[alert, place] = self._usual[at]
        if reference is not None:
            ranks[:] = np.take_along_axis(reference.percentiles(own).round(1), order, axis=1)
        told = (names, was, should, largest, ranks, usual, low, high)
        listed = (column.tolist() for column in told)
        reasons = [
            tuple(reason for reason in map(Reason, *alert) if reason.part > 0.0)
            for alert in zip(*listed, strict=True)
        ]
        return reasons, other
