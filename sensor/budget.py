"""An alert budget: so many alerts an hour, in the place of a false-positive rate.

No labels are needed: were p-values of this network's flows uniform, a threshold of *budget / flows
an hour* would keep the budget by itself. They seldom are, so the threshold is corrected by how many
alerts there were.
"""

from __future__ import annotations

import math

from sensor.errors import UsageError

HOUR_US = 3_600_000_000
STEP_US = HOUR_US // 10
"""How often the threshold is set anew."""
_START_US = HOUR_US // 60
"""Flows an hour are reckoned from this time on, at the start."""
_SMOOTH = 0.25
"""Weight of the last step in the flows an hour: they follow within half an hour."""
_GROWTH = 2.0
"""The flows an hour grow by this factor a step at most: a flood shall not hide itself."""
_GAIN = 1.0
"""By which power of e an hour without any alert raises the threshold."""
_OVERRUN = 10.0
"""More than so many times the budget count as so many: what a burst can do is bounded."""
_LEAST, _MOST = 1 / 64, 4.0
"""Bounds of the correction."""
_EXTRA_STEPS = 100


class AlertBudget:
    """Sets the p-value threshold so that about `per_hour` alerts an hour are admitted.

    Every six minutes the threshold becomes ``correction * per_hour / flows an hour``. The flows an
    hour are a running mean. The correction is multiplied by ``exp(0.1 (1 - alerts / budgeted))``,
    so it stays where alerts come at the rate wanted; it is within 1/64 and 4.

    The threshold stays within the smallest p-value that the model can tell and `most_p`: on a
    network with few flows there are fewer alerts than the budget, not odder ones.

    What the threshold cannot keep, a bucket does: it holds `per_hour` alerts, full at first, and
    is refilled at that rate. So no hour has more than twice the budget, and no long time more than
    the budget.
    """

    def __init__(self, per_hour: float, smallest_p: float, most_p: float) -> None:
        """Set the budget, an alert an hour or more, and the bounds of the threshold.

        Raises:
            UsageError: the budget is less, or no number.
        """
        if not 1.0 <= per_hour < math.inf:
            raise UsageError(f"an alert budget of {per_hour:g} an hour: give 1 or more")
        self.per_hour = per_hour
        self.correction = 1.0
        self.flows_per_hour: float | None = None
        self.refused = 0
        self._bounds = smallest_p, max(most_p, smallest_p)
        self._tokens = per_hour
        self._now_us: int | None = None
        self._elapsed_us = 0
        self._flows = 0
        self._wanted = 0

    @property
    def threshold(self) -> float:
        """The largest p-value of an alert, now."""
        rate = self.flows_per_hour
        if rate is None:
            rate = self._flows * HOUR_US / max(self._elapsed_us, _START_US)
        least, most = self._bounds
        return min(max(self.correction * self.per_hour / max(rate, 1.0), least), most)

    def go_on_from(self, before: AlertBudget) -> None:
        """Take over what another budget knows of the traffic, and what it has left."""
        self.correction, self.flows_per_hour = before.correction, before.flows_per_hour
        self.refused = before.refused
        self._tokens = min(before._tokens, self.per_hour)
        self._now_us, self._elapsed_us = before._now_us, before._elapsed_us
        self._flows, self._wanted = before._flows, before._wanted

    def count(self, flows: int, now_us: int) -> None:
        """Take note of flows, and of the time; where that goes back, no time has passed."""
        passed_us = max(now_us - self._now_us, 0) if self._now_us is not None else 0
        self._now_us = now_us
        self._flows += flows
        self._elapsed_us += passed_us
        self._tokens = min(self._tokens + self.per_hour * passed_us / HOUR_US, self.per_hour)
        for _ in range(min(self._elapsed_us // STEP_US, _EXTRA_STEPS)):
            self._step()
        self._elapsed_us %= STEP_US

    def take(self) -> bool:
        """Ask for an alert: whether it is within the budget."""
        self._wanted += 1
        if self._tokens < 1.0:
            self.refused += 1
            return False
        self._tokens -= 1.0
        return True

    def charge(self, alerts: int) -> None:
        """Take note of events that are not asked for: updates of a group that was admitted."""
        self._tokens = max(self._tokens - alerts, -self.per_hour)

    def _step(self) -> None:
        """Set the threshold for the next step by what came in this one."""
        hours = STEP_US / HOUR_US
        seen, budgeted = self._flows / hours, self.per_hour * hours
        capped = self.threshold >= self._bounds[1]
        before = self.flows_per_hour
        if before is None:
            self.flows_per_hour = seen
        else:
            # Below this many the threshold is at its upper bound anyway.
            most = _GROWTH * max(before, self.per_hour / self._bounds[1])
            self.flows_per_hour = before + _SMOOTH * (min(seen, most) - before)
        raised = 1.0 - min(self._wanted / budgeted, _OVERRUN)
        if raised < 0.0 or not capped:
            corrected = self.correction * math.exp(_GAIN * hours * raised)
            self.correction = min(max(corrected, _LEAST), _MOST)
        self._flows = self._wanted = 0
