"""From scored flows to the alerts that are written: threshold, suppression, budget, grouping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.flows import FlowBatch, empty_flows
from sensor.budget import AlertBudget
from sensor.eve import PLAIN, Style, alert_events, anomaly_events, encode, flow_events
from sensor.grouping import Groups, Told
from sensor.outputs.base import Output
from sensor.pipeline import Scored
from sensor.recalibration import Recalibration
from sensor.repeats import Repeats
from sensor.suppress import Suppression
from sensor.verdict import Alerts, Found, Verdict


@dataclass
class FeedCounters:
    """What became of scored flows.

    ``found = suppressed + repeated + over_budget + alerts``. Without groups ``alerts = events =
    told``; with groups an event counts several alerts, and ``alerts = told`` when all groups have
    ended.

    Attributes:
        flows: scored.
        found: those with a p-value of at most the threshold.
        suppressed: found, but suppressed by a rule.
        over_budget: found, but more than the budget.
        alerts: the rest.
        events: alert events made of them.
        told: alerts that those count.
        repeated: found, but of a flow whose early report was an alert.
    """

    flows: int = 0
    found: int = 0
    suppressed: int = 0
    over_budget: int = 0
    alerts: int = 0
    events: int = 0
    told: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Decided:
    """What there is to write after a batch.

    Attributes:
        alerts: the alerts to be written, ``[A]``; also of flows before this batch, if grouped.
        scored: the batch, ``[B]``, with p-values as they were decided on, or None after no batch.
        alerted: which of its flows are alerts, are counted in one, or were before, ``[B]``.
    """

    alerts: Alerts
    scored: Scored | None
    alerted: NDArray[np.bool_]


class Deciders(NamedTuple):
    """What decides which flows are alerts; None for none."""

    verdict: Verdict
    suppression: Suppression | None = None
    budget: AlertBudget | None = None
    groups: Groups | None = None
    recalibration: Recalibration | None = None


class AlertFeed:
    """Decides which alerts are written.

    A flow is an alert if its p-value is at most the threshold: the verdict's rate, or the budget's,
    which stays below that rate. Suppressed alerts count for nothing else. A flow that is reported
    early, too, is one alert, the first of its records that is. With groups, the budget
    is asked for the first alert of a group, and charged for what is told of it later.
    """

    def __init__(
        self, verdict: Verdict, *, suppression: Suppression | None = None,
        budget: AlertBudget | None = None, groups: Groups | None = None,
        recalibration: Recalibration | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:  # fmt: skip
        """Set what decides beside the verdict.

        Args:
            verdict: finds and explains alerts.
            suppression, budget, groups, recalibration: None for none.
            clock: microseconds that never go back, for budget and groups; None for files: the time
                is that of the flows then, and groups end where an origin ends.
        """
        self.verdict, self.suppression = verdict, suppression
        self.budget, self.groups, self.recalibration = budget, groups, recalibration
        self.counters = FeedCounters()
        self._clock = clock
        self._repeats = Repeats()
        self._origin, self._time_us = -1, 0

    @property
    def threshold(self) -> float:
        """The largest p-value of an alert, now."""
        return self.verdict.fpr if self.budget is None else self.budget.threshold

    def push(self, scored: Scored) -> Decided:
        """Decide on a batch of flows."""
        flows, counters, raw = scored.flows, self.counters, scored.scores
        now_us = self._now(flows)
        if self.recalibration is not None:
            scored = replace(scored, scores=self.recalibration.corrected(raw))
        if self.budget is not None:
            self.budget.count(len(flows), now_us)
        chosen = self.verdict.chosen(scored.scores, self.threshold)
        counters.flows += len(flows)
        counters.found += len(chosen)
        if self.suppression is not None:
            kept = self.suppression.kept(flows.take(chosen), self.verdict.model)
            counters.suppressed += len(chosen) - int(kept.sum())
            chosen = chosen[kept]
        odd = np.zeros(len(flows), bool)
        odd[chosen] = True
        new = self._repeats.new(flows, chosen)
        counters.repeated += len(chosen) - int(new.sum())
        alerted = np.zeros(len(flows), bool)
        alerted[chosen[~new]] = True
        chosen = chosen[new]
        found = self.verdict.find(flows, scored.rows, scored.scores, chosen)
        alerts, admitted = self._admitted(found, flows)
        counters.over_budget += len(admitted) - int(admitted.sum())
        counters.alerts += int(admitted.sum())
        self._repeats.add(flows.take(chosen[admitted]))
        alerted[chosen[admitted]] = True
        if self.recalibration is not None:
            self.recalibration.learn(flows, raw, odd, self.threshold, now_us)
        return Decided(self._counted(alerts), scored, alerted)

    def tick(self) -> Decided:
        """What there is to tell though no flows came: call it once a second or more often."""
        told = self.groups.due(self._clock()) if self.groups is not None and self._clock else []
        return self._later(told)

    def end(self) -> Decided:
        """End all groups."""
        return self._later(self.groups.end() if self.groups is not None else [])

    def use(self, deciders: Deciders) -> Decided:
        """Decide by others from now on; what there is to tell of groups, which end with it.

        Counters go on, and so does the budget: what it had spent is spent.
        """
        decided = self.end()
        verdict, suppression, budget, groups, recalibration = deciders
        if suppression is not None and self.suppression is not None:
            suppression.counts.update(self.suppression.counts)
        if budget is not None and self.budget is not None:
            budget.go_on_from(self.budget)
        if groups is not None and self.groups is not None:
            groups.coarse += self.groups.coarse
        if recalibration is not None and self.recalibration is not None:
            recalibration.go_on_from(self.recalibration)
        self.verdict, self.suppression, self.budget = verdict, suppression, budget
        self.groups, self.recalibration = groups, recalibration
        return decided

    def _later(self, told: list[Told]) -> Decided:
        self._charge(told)
        return Decided(self._counted(self._explained(told)), None, np.zeros(0, bool))

    def _now(self, flows: FlowBatch) -> int:
        if self._clock is not None:
            return self._clock()
        return int(flows["last_us"][-1]) if len(flows) else self._time_us

    def _admitted(self, found: Found, flows: FlowBatch) -> tuple[Alerts, NDArray[np.bool_]]:
        """The alerts to be written, and which of ``[A]`` are within the budget."""
        if self.groups is not None:
            told, taken = self._grouped(found, flows, self.groups)
            return self._explained(told), taken
        taken = np.ones(len(found), bool)
        if self.budget is not None:
            taken[:] = [self.budget.take() for _ in range(len(found))]
            found = found.take(np.flatnonzero(taken))
        return self.verdict.explain(found), taken

    def _grouped(
        self, found: Found, flows: FlowBatch, groups: Groups
    ) -> tuple[list[Told], NDArray[np.bool_]]:
        """What there is to tell of groups, and which alerts they took."""
        admit = self.budget.take if self.budget is not None else (lambda: True)
        told: list[Told] = []
        taken: list[NDArray[np.bool_]] = []
        for part in self._by_time(found):
            told += self._pass_to(part.flows, groups)
            more, which = groups.push(part, self._time_us, admit)
            told += more
            taken.append(which)
        told += self._pass_to(flows, groups)
        self._charge(told)
        return told, np.concatenate(taken)

    def _pass_to(self, flows: FlowBatch, groups: Groups) -> list[Told]:
        """Let time pass to that of the last of some flows; what there is to tell of groups then."""
        now_us, told = self._now(flows), []
        if self._clock is None and len(flows) and int(flows["origin"][-1]) != self._origin:
            self._origin, self._time_us = int(flows["origin"][-1]), now_us
            told = groups.end()
        self._time_us = max(self._time_us, now_us)
        return told + groups.due(self._time_us)

    def _by_time(self, found: Found) -> list[Found]:
        """The alerts in parts that share a clock: all, or those of an origin."""
        origins = found.flows["origin"].astype(np.int64)
        edges = np.flatnonzero(np.diff(origins)) + 1
        if self._clock is not None or not len(edges):
            return [found]
        return [found.take(part) for part in np.split(np.arange(len(found)), edges)]

    def _charge(self, told: list[Told]) -> None:
        if self.budget is not None:
            self.budget.charge(sum(report.event != "first" for _, report in told))

    def _explained(self, told: list[Told]) -> Alerts:
        if not told:
            none = np.empty(0)
            return Alerts(empty_flows(), none, none, none.astype(int), [], [], [])
        return self.verdict.explain(
            Found.join([each for each, _ in told]), [report for _, report in told]
        )

    def _counted(self, alerts: Alerts) -> Alerts:
        self.counters.events += len(alerts)
        reports = alerts.reports
        self.counters.told += (
            len(alerts) if reports is None else sum(each.count for each in reports)
        )
        return alerts


Places = Callable[[FlowBatch], Sequence[Mapping[str, str]]]
"""Where each of ``[B]`` flows was seen: ``{"in_iface": …}``, ``{"pcap_filename": …}``, or nothing
for Zeek's connections, which have a uid."""


def nowhere(flows: FlowBatch) -> Sequence[Mapping[str, str]]:
    """:data:`Places` of flows that no interface and no capture is known of."""
    return [{}] * len(flows)


TYPES = ("alert", "anomaly", "flow")


class EventWriter:
    """Writes what was decided to one output."""

    def __init__(
        self, output: Output, model: str, places: Places, types: Iterable[str] = ("alert",),
        style: Style = PLAIN,
    ) -> None:  # fmt: skip
        """Write events of these types (:data:`TYPES`) in this style.

        `model` is the name that events give; it may be changed between two writes.
        """
        self.output, self.model = output, model
        self._places, self._style = places, style
        self._types = frozenset(types)

    def write(self, decided: Decided) -> None:
        """Write the events, one write for all of them; none, if there are none.

        Raises:
            OutputError: the output refused.
        """
        lines: list[bytes] = []
        alerts, scored = decided.alerts, decided.scored
        for name, events in (("alert", alert_events), ("anomaly", anomaly_events)):
            if name in self._types and len(alerts):
                places = self._places(alerts.flows)
                lines += map(encode, events(alerts, self.model, places, self._style))
        if "flow" in self._types and scored is not None:
            each = flow_events(
                scored.flows, scored.scores, decided.alerted, self.model,
                self._places(scored.flows), self._style,
            )  # fmt: skip
            lines += map(encode, each)
        if lines:
            self.output.write(lines)
