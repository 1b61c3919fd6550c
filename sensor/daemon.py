"""`flowvane run`: interfaces in, EVE alerts out, until a signal ends it."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import FrameType

from models.detector import Detector
from sensor.errors import UsageError
from sensor.feed import AlertFeed, Decided, EventWriter, Places
from sensor.live import measure_live, score_live
from sensor.meter.compiled.live import LiveCounters, LiveMeter
from sensor.pipeline import Measured
from sensor.report import Console
from sensor.stats import Statistics, StatsWriter
from sensor.suppress import Suppression

_TICK_S = 1.0


@dataclass
class RunSummary:
    """What a run did; `forgotten` is as in :class:`sensor.triage.TriageSummary`."""

    meter: LiveCounters
    alerts: int = 0
    seconds: float = 0.0
    forgotten: Counter[str] = field(default_factory=Counter)

    @property
    def losses(self) -> str:
        """The losses by cause, as a part of a line."""
        meter = self.meter
        return (
            f"lost: {meter.kernel_drops:,} packets to a full kernel buffer, "
            f"{meter.unread:,} left in it, {meter.interface_drops:,} to the interface, "
            f"{meter.queue_full_packets:,} ({meter.queue_full_flows:,} flows) to a full queue, "
            f"{meter.no_memory:,} to lack of memory, "
            f"{meter.late_packets:,} ({meter.late_flows:,} flows) to lack of time at the end"
        )

    @property
    def line(self) -> str:
        """All of it in one line."""
        meter = self.meter
        early = f", {meter.early:,} reports before the end" if meter.early else ""
        return (
            f"{self.alerts:,} alerts in {meter.flows:,} flows ({meter.evicted:,} pushed out of a "
            f"full table{early}), {meter.received:,} packets in: {meter.metered:,} in flows, "
            f"{meter.not_metered:,} not IP; {self.losses}; {self.seconds:.1f} s"
        )


@contextmanager
def stopped_by_signals(meter: LiveMeter) -> Iterator[None]:
    """SIGTERM and SIGINT end the capture, and with it everything, in order; more change nothing."""

    def stop(number: int, frame: FrameType | None) -> None:
        meter.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def monotonic_us() -> int:
    """Microseconds that never go back, for budget and groups of alerts."""
    return time.monotonic_ns() // 1000


def places(interfaces: Sequence[str]) -> Places:
    """What the events of flows say of where they were seen."""
    each = [{"in_iface": name} for name in interfaces]
    return lambda flows: [each[origin] for origin in flows["origin"].tolist()]


def run(
    meter: LiveMeter,
    detector: Detector,
    feed: AlertFeed,
    writers: Sequence[EventWriter],
    console: Console,
    stats: Sequence[StatsWriter] = (),
) -> RunSummary:
    """Score the flows of a live meter and write what `feed` decides, until the meter is stopped.

    Every flow that the meter hands on is scored. Though no flows come, groups are told of,
    counters are written, and rules of suppression are read anew, within about a second.

    Raises:
        OutputError: the events cannot be written; the capture has ended.
    """
    summary, begun = RunSummary(meter.counters), time.monotonic()
    statistics = Statistics(meter.counters, feed)

    def once_a_second() -> None:
        if feed.suppression is not None:
            _poll(feed.suppression, console)
        _write(feed.tick(), writers)
        for each in stats:
            each.write(statistics)

    with closing(meter):
        measured = measure_live(meter, detector.schema, detector.clock_us, summary.forgotten)
        telling = _between(measured, meter, console, once_a_second)
        for scored in score_live(telling, detector, summary.forgotten):
            statistics.flows.add(scored.flows)
            _write(feed.push(scored), writers)
        _write(feed.end(), writers)
    for each in stats:
        each.write(statistics, last=True)
    summary.alerts = feed.counters.alerts
    summary.seconds = time.monotonic() - begun
    return summary


def _poll(suppression: Suppression, console: Console) -> None:
    """Have changed rules read anew, and tell of it."""
    try:
        if told := suppression.poll():
            console.say(told)
    except UsageError as error:
        console.warn(str(error))


def _write(decided: Decided, writers: Sequence[EventWriter]) -> None:
    for writer in writers:
        writer.write(decided)


def _between(
    measured: Iterator[Measured], meter: LiveMeter, console: Console,
    once_a_second: Callable[[], None],
) -> Iterator[Measured]:  # fmt: skip
    """The same items; on the way notices are told, and what is to be done once a second is."""
    due = time.monotonic()
    for item in measured:
        for line in meter.notices():
            console.warn(line)
        if time.monotonic() >= due:
            due = time.monotonic() + _TICK_S
            once_a_second()
        yield item
