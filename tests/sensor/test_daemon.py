"""What `flowvane run` does between flows, on a meter that needs no interface."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.flows import FlowBatch, empty_flows
from sensor import daemon
from sensor.daemon import Stages
from sensor.destinations import Destinations
from sensor.feed import AlertFeed, EventWriter
from sensor.grouping import Groups, Schedule
from sensor.meter.base import RunCounters
from sensor.meter.compiled.live import LiveCounters
from sensor.pipeline import Scorer
from sensor.report import Console
from sensor.stats import Statistics, StatsWriter
from sensor.suppress import Suppression
from sensor.verdict import Verdict
from tests.helpers import make_flow, untrained
from tests.sensor.test_feed import Kept

DETECTOR = untrained("kdd", "gaussian")


class Acts:
    """A live meter that hands on flows, and does something between."""

    def __init__(self, *acts: FlowBatch | Callable[[], None]) -> None:
        self.clock_us, self.progress_us = 1000, None
        self.counters: RunCounters = LiveCounters()
        self.closed = False
        self.stalled_s, self.waiting = 0.0, 0
        self._acts = acts

    def flows(self) -> Generator[FlowBatch, None, None]:
        for act in self._acts:
            if callable(act):
                act()
                yield empty_flows()
            else:
                self.counters.flows += len(act)
                yield act

    def notices(self) -> list[str]:
        return []

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done once a second is done at every turn, and flows are scored at once."""
    monkeypatch.setattr(daemon, "_TICK_S", 0.0)
    monkeypatch.setattr("sensor.live.SCORING_AGE_S", 0.0)


def stages_of(meter: Any, feed: AlertFeed, output: Kept, *stats: StatsWriter) -> Stages:
    """What flows go through, with an output that keeps the events."""
    writer = EventWriter(output, "m", daemon.places(["eth0"]))
    outputs = Destinations([writer], stats)
    return Stages(meter, Scorer(DETECTOR), feed, outputs, Statistics(meter.counters, feed))


def scan(count: int) -> FlowBatch:
    flows = np.repeat(make_flow(), count)
    flows["dst_port"] = np.arange(1, count + 1)
    return flows


def test_groups_are_told_of_though_no_flows_come() -> None:
    now, output = 0, Kept()

    def later() -> None:
        nonlocal now
        now += 10_000_000

    feed = AlertFeed(Verdict(DETECTOR, 0.999), groups=Groups(Schedule()), clock=lambda: now)
    stats: Any = Kept()
    meter = Acts(scan(1000), later, later, scan(24), later)
    stages = stages_of(meter, feed, output, StatsWriter(stats, 3600.0))
    summary = daemon.run(stages, Console())
    told = [event["alert"]["metadata"] for event in output.events]
    assert summary.feed.alerts == sum(int(each["count"][0]) for each in told) > 900
    assert {each["group_event"][0] for each in told} >= {"first", "update"}
    assert {event["in_iface"] for event in output.events} == {"eth0"}
    (last,) = stats.events  # the one of the end
    assert last["stats"]["flow"]["total"] == 1024
    assert last["stats"]["detect"]["alert"] == summary.feed.alerts
    assert meter.closed


def test_rules_are_in_use_once_they_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = tmp_path / "rules.yaml", Kept()
    path.write_text("[]\n")

    def write(text: str) -> Callable[[], None]:
        def act() -> None:
            path.unlink()
            path.write_text(text)

        return act

    feed = AlertFeed(Verdict(DETECTOR, 0.999), suppression=Suppression(path), clock=lambda: 0)
    better, worse = write("- source: 10.0.0.0/8\n"), write("- sauce: 10.0.0.0/8\n")
    meter = Acts(scan(10), better, scan(10), worse, scan(10))
    summary = daemon.run(stages_of(meter, feed, output), Console())
    assert 0 < summary.feed.alerts == len(output.events) <= 10
    assert feed.counters.suppressed == 2 * summary.feed.alerts
    assert f" alerts, {feed.counters.suppressed} suppressed in 30 flows" in summary.line
    out, err = capsys.readouterr()
    assert out == f"{path}: read anew, rules: 1\n"
    assert err == (
        f"flowvane: warning: {path}:1: there is no 'sauce'; is it source?; "
        "the rules before it go on\n"
    )
