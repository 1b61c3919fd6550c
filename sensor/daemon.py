"""`flowvane run`: interfaces, or a log, in; EVE alerts out; until a signal ends it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from models.detector import Detector
from sensor.destinations import Destinations, told
from sensor.errors import UsageError
from sensor.feed import AlertFeed, FeedCounters, Places
from sensor.live import measure_live, score_live
from sensor.meter.base import LiveSource, RunCounters
from sensor.outputs.queued import OutputCounters
from sensor.pipeline import Measured, Scored, Scorer
from sensor.report import Console
from sensor.stats import Statistics
from sensor.suppress import Suppression

_TICK_S = 1.0

Turn = Callable[[], None]
"""Something to be done between two batches: at each of them, twenty times a second or more."""


@dataclass
class Stages:
    """All that flows go through; between two batches, what scores and decides may be replaced.

    Attributes:
        meter: makes flows of packets, or of what a log says.
        scorer: scores them.
        feed: decides which are alerts.
        outputs: where events go.
        statistics: counts since the start.
        forgotten: what windows forgot, as :func:`sensor.pipeline.measure` counts it.
    """

    meter: LiveSource
    scorer: Scorer[Detector]
    feed: AlertFeed
    outputs: Destinations
    statistics: Statistics
    forgotten: Counter[str] = field(default_factory=Counter)


@dataclass
class RunSummary:
    """What a run did."""

    meter: RunCounters
    feed: FeedCounters
    events: OutputCounters = field(default_factory=OutputCounters)
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """All of it in one line."""
        feed = self.feed
        beside = f", {feed.suppressed:,} suppressed" if feed.suppressed else ""
        beside += f", {feed.repeated:,} again of flows that go on" if feed.repeated else ""
        beside += f", {feed.over_budget:,} beyond the budget" if feed.over_budget else ""
        return (
            f"{feed.alerts:,} alerts{beside} in {self.meter.told}; {told(self.events)}; "
            f"{self.seconds:.1f} s"
        )


def monotonic_us() -> int:
    """Microseconds that never go back, for budget and groups of alerts."""
    return time.monotonic_ns() // 1000


def places(interfaces: Sequence[str]) -> Places:
    """What the events of flows say of where they were seen."""
    each = [{"in_iface": name} for name in interfaces]
    return lambda flows: [each[origin] for origin in flows["origin"].tolist()]


def run(
    stages: Stages, console: Console, turns: Sequence[Turn] = (),
    observe: Callable[[Scored, float], None] | None = None,
) -> RunSummary:  # fmt: skip
    """Score the flows of a live meter and write what is decided, until it is stopped or fails.

    Every flow that the meter hands on is scored. Though no flows come, `turns` are taken, groups
    are told of, counters are written, and rules of suppression are read anew, within about a
    second.

    Args:
        stages: what flows go through.
        console: is told what the meter and the outputs have to say.
        turns: what is done between two batches.
        observe: told of each batch, and how many seconds it took.

    Raises:
        BaseException: what a defect of a part raised in a thread of its own; the capture has ended.
    """
    meter, feed, outputs = stages.meter, stages.feed, stages.outputs
    summary, begun = RunSummary(meter.counters, feed.counters), time.monotonic()
    schema, clock_us = stages.scorer.detector.schema, stages.scorer.detector.clock_us
    with closing(meter):
        measured = measure_live(meter, schema, clock_us, stages.forgotten)
        for scored in score_live(_between(measured, stages, console, turns), stages.scorer):
            scored_at = time.monotonic()
            decided = feed.push(scored)
            outputs.write(decided)
            if decided.scored is not None:
                stages.statistics.add(decided.scored, decided.alerted)
                if observe is not None:
                    took_s = stages.scorer.took_s + time.monotonic() - scored_at
                    observe(decided.scored, took_s)
        outputs.write(feed.end())
    outputs.write_stats(stages.statistics, last=True)
    _tell(stages, console)
    summary.seconds = time.monotonic() - begun
    return summary


def _between(
    measured: Iterator[Measured], stages: Stages, console: Console, turns: Sequence[Turn]
) -> Iterator[Measured]:
    """The same items; on the way, what is due is done."""
    due = time.monotonic()
    for item in measured:
        _tell(stages, console)
        for turn in turns:
            turn()
        if time.monotonic() >= due:
            due = time.monotonic() + _TICK_S
            _once_a_second(stages, console)
        yield item


def _tell(stages: Stages, console: Console) -> None:
    """Tell what the meter and the outputs have to say."""
    for line in stages.meter.notices() + stages.outputs.notices():
        console.warn(line)


def _once_a_second(stages: Stages, console: Console) -> None:
    if stages.feed.suppression is not None:
        _poll(stages.feed.suppression, console)
    if (drift := stages.statistics.drift) is not None and (notice := drift.due()):
        console.warn(notice)
    stages.outputs.write(stages.feed.tick())
    stages.outputs.write_stats(stages.statistics)


def _poll(suppression: Suppression, console: Console) -> None:
    """Have changed rules read anew, and tell of it."""
    try:
        if said := suppression.poll():
            console.say(said)
    except UsageError as error:
        console.warn(str(error))
