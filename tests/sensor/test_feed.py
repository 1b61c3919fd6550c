"""From scores to what is written: threshold, suppression, budget, groups, types of events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.flows import Ending, FlowBatch
from features.registry import SCHEMAS
from models.detector import Scores
from sensor.budget import AlertBudget
from sensor.eve import PLAIN, Style, event_lines
from sensor.feed import AlertFeed, Decided, EventWriter
from sensor.grouping import Groups, Schedule
from sensor.pipeline import Scored
from sensor.repeats import Repeats
from sensor.suppress import Suppression
from sensor.verdict import Verdict
from tests.helpers import eve_schemas, faults, make_flow, make_rows
from tests.sensor.test_verdict import WIDTH, Known

S = 1_000_000
START_US = 1_768_467_600_000_000


class Kept:
    """An output that keeps the lines."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.writes = 0

    def write(self, lines: Sequence[bytes]) -> None:
        self.events += map(json.loads, lines)
        self.writes += 1

    def close(self) -> None:
        """Nothing to close."""


def places(flows: FlowBatch) -> list[dict[str, str]]:
    return [{"in_iface": f"eth{origin}"} for origin in flows["origin"].tolist()]


def batch(
    p_values: list[float], second: float = 0.0, origin: int = 0, **fields: Any
) -> Scored:  # fmt: skip
    """Flows with these p-values, a source port each, that ended then."""
    count = len(p_values)
    flows = np.repeat(make_flow(), count)
    flows["src_port"] = 1024 + np.arange(count)
    flows["last_us"], flows["origin"] = START_US + int(second * S), origin
    for name, values in fields.items():
        flows[name] = values
    parts = np.tile(np.arange(WIDTH, dtype=float), (count, 1))
    p = np.array(p_values)
    scores = Scores(100.0 - p, np.zeros(count), parts, p)
    return Scored(flows, make_rows(SCHEMAS["kdd"], count), scores)


def feed_of(fpr: float = 0.01, **more: Any) -> AlertFeed:
    return AlertFeed(Verdict(Known(), fpr), **more)  # type: ignore[arg-type]


def ports(decided: Decided) -> list[int]:
    return [port - 1024 for port in decided.alerts.flows["src_port"].tolist()]


def test_without_anything_else_alerts_are_those_of_the_verdict() -> None:
    feed, scored = feed_of(), batch([0.5, 0.01, 0.02, 0.0001])
    decided = feed.push(scored)
    assert ports(decided) == [1, 3]
    assert decided.alerted.tolist() == [False, True, False, True]
    plain = feed.verdict.alerts(scored.flows, scored.rows, scored.scores)
    where = [{"in_iface": "eth0"}] * 2
    assert event_lines(decided.alerts, "known", where) == event_lines(plain, "known", where)
    assert len(feed.end().alerts) == len(feed.tick().alerts) == 0
    counters = feed.counters
    assert (counters.flows, counters.found, counters.alerts, counters.events) == (4, 2, 2, 2)


def test_suppressed_alerts_are_counted_and_take_no_budget(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("- {name: ours, port: 80}\n")
    suppression, budget = Suppression(path), AlertBudget(1, 1e-4, 0.01)
    feed = feed_of(suppression=suppression, budget=budget, clock=lambda: 0)
    decided = feed.push(batch([0.001] * 5 + [0.5], dst_port=[80, 80, 81, 80, 81, 80]))
    assert ports(decided) == [2]
    assert decided.alerted.tolist() == [False, False, True, False, False, False]
    counters = feed.counters
    assert (counters.found, counters.suppressed) == (5, 3)
    assert (counters.over_budget, counters.alerts) == (1, 1)
    assert suppression.counts == {"ours": 3}


def test_what_is_beyond_the_budget_is_not_learnt_as_normal() -> None:
    told: list[Any] = []

    class Recalibration:
        def corrected(self, scores: Scores) -> Scores:
            return scores

        def learn(self, flows: FlowBatch, scores: Scores, alerted: Any, *rest: Any) -> None:
            told.append(alerted.tolist())

    feed = feed_of(
        budget=AlertBudget(1, 1e-4, 0.01), clock=lambda: 0, recalibration=Recalibration()
    )
    decided = feed.push(batch([0.001, 0.5, 0.001]))
    assert decided.alerted.tolist() == [True, False, False]
    assert told == [[True, False, True]]


def test_a_flow_is_an_alert_once_though_it_was_reported_before_its_end() -> None:
    feed = feed_of(budget=AlertBudget(3, 1e-4, 0.01), clock=lambda: 0)
    early = {"ending": Ending.EARLY}
    # The second is none at first, and beyond the budget then.
    decided = feed.push(batch([0.001, 0.5, 0.001, 0.001], **early))
    assert ports(decided) == [0, 2, 3]
    decided = feed.push(batch([0.001, 0.001], second=1, **early))
    assert (ports(decided), decided.alerted.tolist()) == ([], [True, False])
    decided = feed.push(batch([0.001] * 3, second=2, origin=1))
    assert feed.counters.repeated == 1
    decided = feed.push(batch([0.001] * 4, second=2))
    assert decided.alerted.tolist() == [True, False, True, True]
    assert (feed.counters.alerts, feed.counters.repeated) == (3, 4)
    # It has ended: what has its name now is counted like any other.
    feed.push(batch([0.001], second=3))
    assert feed.counters.repeated == 4


def test_flows_that_were_alerted_on_are_remembered_in_bounded_memory() -> None:
    repeats = Repeats(2)
    flows = batch([0.001] * 3, ending=Ending.EARLY).flows
    repeats.add(flows)
    assert repeats.new(flows, np.arange(3)).tolist() == [True, False, False]
    repeats.add(flows[:0])


def test_a_budget_sets_the_threshold_below_the_rate() -> None:
    budget = AlertBudget(10, 1e-4, 0.01)
    budget.flows_per_hour = 1e4
    feed = feed_of(budget=budget, clock=lambda: 0)
    decided = feed.push(batch([0.01, 0.001, 0.0011, 0.0001]))
    assert ports(decided) == [1, 3]
    # Severity goes by the rate, which does not move.
    assert decided.alerts.severity.tolist() == [1, 1]


def test_a_group_is_told_once_and_then_by_its_count() -> None:
    now = 0
    feed = feed_of(groups=Groups(), clock=lambda: now)
    decided = feed.push(batch([0.001] * 1000, dst_port=np.arange(1000)))
    assert ports(decided) == [0]
    assert decided.alerted.all()
    assert feed.counters.alerts == 1000
    assert (feed.counters.events, feed.counters.told) == (1, 1)
    now = 10 * S
    later = feed.tick()
    assert later.alerts.reports is not None
    assert [report.count for report in later.alerts.reports] == [999]
    assert len(later.alerts.reasons[0]) == 5  # explained, though its batch has gone
    assert (feed.counters.events, feed.counters.told) == (2, 1000)


def test_only_what_is_written_is_explained() -> None:
    feed = feed_of(groups=Groups(), clock=lambda: 0)
    feed.push(batch([0.001] * 1000))
    detector: Any = feed.verdict._detector
    assert detector.asked == [1]


def test_with_groups_the_budget_is_of_events() -> None:
    now, budget = 0, AlertBudget(2, 1e-4, 0.01)
    feed = feed_of(groups=Groups(), budget=budget, clock=lambda: now)
    sources = np.repeat(make_flow(), 6)["src_ip"]
    sources[:, 15] = [1, 1, 2, 2, 3, 3]
    decided = feed.push(batch([0.001] * 6, src_ip=sources))
    assert ports(decided) == [0, 2]
    assert decided.alerted.tolist() == [True] * 4 + [False] * 2
    assert (feed.counters.alerts, feed.counters.over_budget) == (4, 2)
    now = 10 * S
    feed.tick()  # two updates
    now = 1800 * S  # a token an half hour, less the two
    feed.push(batch([0.001], second=1))
    assert feed.counters.over_budget == 3


def test_groups_of_files_go_by_the_time_of_flows() -> None:
    feed = feed_of(groups=Groups(Schedule(quiet_s=60)))
    assert len(feed.push(batch([0.001] * 3, second=0)).alerts) == 1
    assert len(feed.tick().alerts) == 0  # the clock on the wall means nothing
    assert len(feed.push(batch([0.9], second=30)).alerts) == 1  # an update: time goes on
    feed.push(batch([0.001] * 2, second=31))
    (end,) = feed.push(batch([0.9], second=91)).alerts.reports or []
    assert (end.event, end.count, end.total) == ("end", 2, 5)


def test_groups_of_files_end_with_the_origin() -> None:
    feed = feed_of(groups=Groups())
    # Two captures in one batch; the second was made earlier.
    first, second = batch([0.001] * 3, second=100), batch([0.001] * 2, second=0, origin=1)
    whole = Scored(
        np.concatenate([first.flows, second.flows]), np.concatenate([first.rows, second.rows]),
        batch([0.001] * 5).scores,
    )  # fmt: skip
    reports = feed.push(whole).alerts.reports or []
    assert [(each.event, each.count) for each in reports] == [
        ("first", 1),
        ("end", 2),
        ("first", 1),
    ]
    # A capture without any alert ends the groups of the one before, too.
    (end,) = feed.push(batch([0.9], origin=2)).alerts.reports or []
    assert (end.event, end.count) == ("end", 1)


@settings(max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_every_flow_found_is_accounted_for(data: st.DataObject) -> None:
    """Whatever is put together, nothing is counted twice or not at all."""
    now = 0
    grouped, live = data.draw(st.booleans()), data.draw(st.booleans())
    feed = feed_of(
        0.5,
        groups=Groups(Schedule(1, 2, 4, 3), most=3, wide=2) if grouped else None,
        budget=data.draw(st.none() | st.builds(lambda: AlertBudget(3, 1e-4, 0.5))),
        clock=(lambda: now) if live else None,
    )
    output = Kept()
    writer = EventWriter(output, "known", places, data.draw(
        st.sampled_from([("alert", "flow"), ("anomaly", "flow")])))  # fmt: skip
    alerted = 0
    for _ in range(data.draw(st.integers(1, 6))):
        p_values = data.draw(st.lists(st.sampled_from([0.001, 0.3, 0.9]), max_size=6))
        now += data.draw(st.integers(0, 3)) * S
        sources = np.repeat(make_flow(), len(p_values))["src_ip"]
        sources[:, 15] = data.draw(st.lists(st.integers(1, 3), min_size=len(p_values),
                                            max_size=len(p_values)))  # fmt: skip
        decided = feed.push(batch(p_values, now / S, data.draw(st.integers(0, 1)), src_ip=sources))
        writer.write(decided)
        alerted += int(decided.alerted.sum())
    writer.write(feed.tick())
    writer.write(feed.end())
    counters = feed.counters
    assert counters.found == (
        counters.suppressed + counters.repeated + counters.over_budget + counters.alerts
    )
    assert alerted == counters.alerts == counters.told
    kinds = [event["event_type"] for event in output.events]
    assert kinds.count("flow") == counters.flows
    assert len(kinds) - kinds.count("flow") == counters.events
    flows = [event["flow"]["alerted"] for event in output.events if event["event_type"] == "flow"]
    assert sum(flows) == counters.alerts
    if not grouped:
        assert counters.events == counters.alerts


@pytest.mark.parametrize("style", [PLAIN, Style(version=8, host="probe")])
@eve_schemas
def test_events_of_all_types_are_valid(style: Style) -> None:
    output = Kept()
    writer = EventWriter(output, "known", places, ("alert", "anomaly", "flow"), style)
    feed = feed_of(groups=Groups(), clock=lambda: 0)
    writer.write(feed.push(batch([0.001] * 4 + [0.5], origin=3)))
    writer.write(feed.end())
    kinds = [event["event_type"] for event in output.events]
    assert kinds == ["alert", "anomaly", *["flow"] * 5, "alert", "anomaly"]
    assert output.writes == 2
    assert {event["in_iface"] for event in output.events} == {"eth3"}
    for event in output.events:
        assert not [fault for fault in faults(event) if fault[0] == "8" or style is PLAIN]


def test_nothing_to_write_is_no_write() -> None:
    output = Kept()
    writer, feed = EventWriter(output, "known", places), feed_of()
    writer.write(feed.push(batch([0.5])))
    writer.write(feed.push(batch([])))
    writer.write(feed.end())
    assert output.writes == 0
