"""Keeps p-values honest while traffic drifts: they are corrected by the flows of the last day.

What is normal today may score higher than it did when the model was calibrated, or lower. The
correction is bounded three ways, so that nobody walks the threshold away:

- no source and no destination, whatever it does, raises a p-value by itself: at each score, the
  one with the most flows above it is left out (with it, p-values are only lowered: where all flows
  are one host's, leaving it out leaves nothing to go by);
- of alerts, no more are taken for normal than twice as many as were promised;
- no p-value is raised by more than a factor of :data:`RAISED`, nor lowered by more than
  :data:`LOWERED`.

The last one holds whoever sends what, from how many hosts and for how long: a flow with a p-value
of at most `promised / RAISED` by the model alone is always an alert. The others only make it
costlier to come that far.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.flows import FlowBatch
from features.history import host_keys
from features.schema import FloatArray

if TYPE_CHECKING:
    from models.calibration import Calibration
    from models.detector import Scores

STEP_US = 600_000_000
"""The correction is made anew so often."""
STEPS = 144
"""It is made of so many steps: a day."""
PRIOR = 1_000
"""What the model's own calibration counts beside the flows of the day, as a number of flows."""
RAISED = 1.25
"""By which factor a p-value may be raised at most: a poisoner with many hosts comes that far."""
LOWERED = 10.0
"""By which factor it may be lowered at most: so many times the alerts a flood of low scores has."""
PROMISED = 2.0
"""So many times the promised number of alerts may count as normal."""
KEPT = 1_024
"""Of each step the flows with the highest scores are kept, and as many of the others at random."""

_SEEN = np.dtype(
    [
        ("score", np.float32),
        ("weight", np.float32),
        ("src", np.uint64),
        ("dst", np.uint64),
        ("alerted", np.bool_),
    ]
)


class Recalibration:
    """Corrects p-values by recent flows.

    Of a score with a p-value `q` by the model's calibration, a share `s` of the `n` flows of the
    last day that score as high, and `t` without the one host that has the most of them, the p-value
    is ``(PRIOR q + n r) / (PRIOR + n)`` with ``r = max(t, min(q, s))``, but between ``q / LOWERED``
    and ``RAISED q``.
    """

    def __init__(self, calibration: Calibration, seed: int = 0, raised: float = RAISED) -> None:
        """Begin with what the model knows.

        Args:
            calibration: the model's.
            seed: chooses the flows that are kept.
            raised: the factor that a p-value may be raised by at most, 1 or more.
        """
        self._calibration = calibration
        self.raised = raised
        self._rng = np.random.default_rng(seed)
        self._steps: deque[NDArray[np.void]] = deque(maxlen=STEPS)
        self._step: list[NDArray[np.void]] = []
        self._held = 0
        self._begun_us: int | None = None
        self._recent: _Recent | None = None

    @property
    def flows(self) -> int:
        """How many flows the correction rests on."""
        return 0 if self._recent is None else round(self._recent.flows)

    def corrected(self, scores: Scores) -> Scores:
        """The scores, with p-values as of today."""
        if self._recent is None:
            return scores
        own, flows = scores.p_value, self._recent.flows
        of_all, of_others = self._recent.shares_at(scores.score)
        share = np.maximum(of_others, np.minimum(own, of_all))
        p = (PRIOR * own + flows * share) / (PRIOR + flows)
        p = np.minimum(np.clip(p, own / LOWERED, own * self.raised), 1.0)
        return replace(scores, p_value=np.maximum(p, self._calibration.least_p))

    def learn(
        self, flows: FlowBatch, scores: Scores, alerted: NDArray[np.bool_], promised: float,
        now_us: int,
    ) -> None:  # fmt: skip
        """Take note of ``[B]`` flows.

        Args:
            flows: the flows.
            scores: of them.
            alerted: which of them are alerts, or would be but for the budget.
            promised: the share of benign flows that may be alerts.
            now_us: the time, in microseconds; where it goes back, none has passed.
        """
        if self._begun_us is None:
            self._begun_us = now_us
        passed = (now_us - self._begun_us) // STEP_US
        if passed > 0:
            self._end(passed, promised)
            self._begun_us += passed * STEP_US
        seen = np.empty(len(flows), _SEEN)
        seen["score"], seen["weight"] = scores.score, 1.0
        seen["src"], seen["dst"] = host_keys(flows, "src"), host_keys(flows, "dst")
        seen["alerted"] = alerted
        self._step.append(seen)
        self._held += len(seen)
        if self._held > 8 * KEPT:
            self._step = [self._thinned(np.concatenate(self._step))]
            self._held = len(self._step[0])

    def go_on_from(self, before: Recalibration) -> None:
        """Take over what another has seen, if its model is calibrated by the same scores."""
        if np.array_equal(self._calibration.scores, before._calibration.scores):
            self._steps, self._step, self._held = before._steps, before._step, before._held
            self._begun_us, self._recent = before._begun_us, before._recent

    def _end(self, passed: int, promised: float) -> None:
        """End this step, and those after it that nothing came in; what was seen counts now."""
        none = np.empty(0, _SEEN)
        self._steps.append(self._thinned(np.concatenate([none, *self._step])))
        self._steps.extend([none] * min(passed - 1, STEPS))
        self._step, self._held = [], 0
        self._recent = _Recent.of(np.concatenate(self._steps), promised)

    def _thinned(self, seen: NDArray[np.void]) -> NDArray[np.void]:
        """The highest scores, and of the others a sample that stands for them."""
        if len(seen) <= 2 * KEPT:
            return seen
        order = np.argpartition(seen["score"], len(seen) - KEPT)
        highest, others = seen[order[-KEPT:]], seen[order[:-KEPT]]
        # One that stands for many is as likely to be kept as those many were (Efraimidis and
        # Spirakis, 2006); all that are kept then stand for equally many.
        keys = self._rng.exponential(size=len(others)) / others["weight"]
        total = float(others["weight"].sum())
        chosen = others[np.argpartition(keys, KEPT)[:KEPT]].copy()
        chosen["weight"] = total / KEPT
        return np.concatenate([highest, chosen])


@dataclass(frozen=True, slots=True)
class _Recent:
    """Flows of the last day: scores ascending ``[N]``, and the shares that score as high.

    Attributes:
        scores: ``[N]``.
        shares: ``[2, N]``, of all flows, and without the host that has the most of those.
        flows: how many there were.
    """

    scores: NDArray[np.float32]
    shares: FloatArray
    flows: float

    @staticmethod
    def of(seen: NDArray[np.void], promised: float) -> _Recent | None:
        """What the flows say; None if there are none."""
        seen = _normal(seen[np.argsort(-seen["score"], kind="stable")], promised)
        if not len(seen):
            return None
        weight = seen["weight"].astype(np.float64)
        above = np.cumsum(weight)
        alone = np.maximum(_most_by_one(seen["src"], weight), _most_by_one(seen["dst"], weight))
        rest = above[-1] - alone
        others = np.divide(above - alone, rest, out=np.zeros(len(rest)), where=rest > 0)
        shares = np.stack([above / above[-1], others])
        # Where scores are equal, all of them score as high.
        last = np.append(np.flatnonzero(np.diff(seen["score"])), len(seen) - 1)
        return _Recent(seen["score"][last][::-1], shares[:, last][:, ::-1], float(above[-1]))

    def shares_at(self, scores: FloatArray) -> FloatArray:
        """The shares ``[2, B]`` of flows that score as high as each of ``[B]``."""
        at = np.searchsorted(self.scores, np.asarray(scores, np.float32), side="left")
        found: FloatArray = np.pad(self.shares, ((0, 0), (0, 1)))[:, at]
        return found


def _normal(descending: NDArray[np.void], promised: float) -> NDArray[np.void]:
    """The flows that may be normal: of alerts, the lowest, not many more than were promised."""
    alerted = descending["alerted"]
    weight = np.where(alerted, descending["weight"], 0.0)[::-1].cumsum()[::-1]
    most = PROMISED * promised * descending["weight"].sum()
    return np.compress(~alerted | (weight <= most), descending)


def _most_by_one(hosts: NDArray[np.uint64], weight: FloatArray) -> FloatArray:
    """Of flows ``[N]`` in order, the most that one host has among those up to each."""
    order = np.argsort(hosts, kind="stable")
    own = weight[order].cumsum()
    first = np.flatnonzero(np.append(True, np.diff(hosts[order]) != 0))
    before = np.repeat(own[first] - weight[order][first], np.diff(np.append(first, len(own))))
    so_far = np.empty(len(own))
    so_far[order] = own - before
    return np.asarray(np.maximum.accumulate(so_far), np.float64)
