"""`flowvane run`: interfaces in, EVE alerts out, until a signal ends it."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import FrameType

from models.detector import Detector
from sensor.eve import event_lines
from sensor.live import measure_live, score_live
from sensor.meter.compiled.live import LiveCounters, LiveMeter
from sensor.outputs.base import Output
from sensor.pipeline import Measured
from sensor.report import Console
from sensor.verdict import Verdict


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


def run(
    meter: LiveMeter,
    interfaces: Sequence[str],
    detector: Detector,
    verdict: Verdict,
    output: Output,
    console: Console,
) -> RunSummary:
    """Score the flows of a live meter and write the alerts, until the meter is stopped.

    Every flow that the meter hands on is scored and, if it is an alert, written.

    Raises:
        OutputError: the alerts cannot be written; the capture has ended.
    """
    summary, begun = RunSummary(meter.counters), time.monotonic()
    places = [{"in_iface": name} for name in interfaces]
    with closing(meter):
        measured = measure_live(meter, detector.schema, detector.clock_us, summary.forgotten)
        telling = _telling(measured, meter, console)
        for scored in score_live(telling, detector, summary.forgotten):
            alerts = verdict.alerts(scored.flows, scored.rows, scored.scores)
            seen_on = [places[origin] for origin in alerts.flows["origin"].tolist()]
            output.write(event_lines(alerts, detector.name, seen_on))
            summary.alerts += len(alerts)
    summary.seconds = time.monotonic() - begun
    return summary


def _telling(
    measured: Iterator[Measured], meter: LiveMeter, console: Console
) -> Iterator[Measured]:
    """The same items; what the meter has to say of its interfaces is told on the way."""
    for item in measured:
        for line in meter.notices():
            console.warn(line)
        yield item
