"""`stats` events: the sensor's counters, nested as Suricata nests its own (docs/eve.md)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.flows import Ending, FlowBatch
from sensor.drift import MUCH, Drift
from sensor.eve import PARTS_OF_P, PLAIN, Style, encode, timestamp
from sensor.feed import AlertFeed
from sensor.meter.base import MeterCounters
from sensor.outputs.base import Loss, Output
from sensor.outputs.queued import OutputCounters
from sensor.pipeline import Scored

_PROTOCOLS = {"tcp": 6, "udp": 17, "icmpv4": 1, "icmpv6": 58}
_CAPTURE = {
    "kernel_packets": "received", "kernel_drops": "kernel_drops",
    "kernel_ifdrops": "interface_drops",
}  # fmt: skip
"""Suricata's names of what :class:`sensor.meter.compiled.live.LiveCounters` counts."""
_OURS = (
    "queue_full_flows", "queue_full_packets", "late_flows", "late_packets", "failed_packets",
    "not_metered",
)  # fmt: skip
"""Counters that Suricata has no name for, where the meter has them."""


@dataclass
class FlowTally:
    """Flows that have ended, and their bytes; reports on flows that go on are not counted."""

    total: int = 0
    bytes: int = 0
    tcp: int = 0
    udp: int = 0
    icmpv4: int = 0
    icmpv6: int = 0

    def add(self, flows: FlowBatch) -> None:
        """Count ``[B]`` flows."""
        ended = flows["ending"] != Ending.EARLY
        counts = np.bincount(flows["protocol"][ended], minlength=256)
        self.total += int(counts.sum())
        for name, number in _PROTOCOLS.items():
            setattr(self, name, getattr(self, name) + int(counts[number]))
        for side in ("src_bytes", "dst_bytes"):
            self.bytes += int(flows[side][ended].sum())


class Statistics:
    """What a `stats` event is made of: all since the start."""

    def __init__(
        self, counters: MeterCounters, feed: AlertFeed,
        written: Callable[[], OutputCounters] | None = None,
        drift: Drift | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Begin to count.

        Args:
            counters: the meter's, which it keeps up to date.
            feed: decides on alerts.
            written: what became of the lines of all outputs together, where that is counted.
            drift: compares the flows with what the model learnt; None for not at all.
            clock: seconds that only grow.
        """
        self.flows = FlowTally()
        self._counters, self._feed, self._clock = counters, feed, clock
        self._written, self.drift = written, drift
        self._begun = clock()

    def add(self, scored: Scored, alerted: NDArray[np.bool_]) -> None:
        """Count ``[B]`` flows, of which some are alerts."""
        self.flows.add(scored.flows)
        if self.drift is not None:
            self.drift.observe(scored, alerted)

    def event(self, time_us: int, style: Style = PLAIN) -> dict[str, Any]:
        """The event, as of `time_us` after the epoch."""
        event: dict[str, Any] = {
            "timestamp": timestamp(time_us),
            "event_type": "stats",
            "stats": self._nested(),
            "metadata": {"flowints": self._ours()},
        }
        if self.drift is not None and (notice := self.drift.notice()):
            event["metadata"]["flowvars"] = [{"key": "flowvane_drift", "value": notice}]
        if style.host is not None:
            event["host"] = style.host
        return event

    def _nested(self) -> dict[str, Any]:
        """What Suricata has a name for."""
        counters, feed, flows = self._counters, self._feed.counters, self.flows
        capture = {
            name: int(getattr(counters, own))
            for name, own in _CAPTURE.items()
            if hasattr(counters, own)
        }
        return {
            "uptime": int(self._clock() - self._begun),
            **({"capture": capture} if capture else {}),
            "decoder": {"pkts": counters.read, "bytes": flows.bytes},
            "flow": {
                "total": flows.total,
                **{name: getattr(flows, name) for name in _PROTOCOLS},
                "get_used": counters.evicted,
                "memcap": int(getattr(counters, "no_memory", 0)),
            },
            "detect": {
                "alert": feed.alerts,
                "alert_queue_overflow": feed.over_budget,
                "alerts_suppressed": feed.suppressed,
            },
        }

    def _ours(self) -> dict[str, int]:
        """What it has none for."""
        feed = self._feed
        ours = {name: int(getattr(self._counters, name, 0)) for name in _OURS}
        ours |= {
            "alert_events": feed.counters.events,
            "alerts_repeated": feed.counters.repeated,
            "threshold_ppb": round(feed.threshold * PARTS_OF_P),
        }
        if feed.groups is not None:
            ours |= {"groups": len(feed.groups), "alerts_coarse": feed.groups.coarse}
        if feed.recalibration is not None:
            ours["recalibration_flows"] = feed.recalibration.flows
        if self.drift is not None:
            ours |= _parts(self.drift)
        if self._written is not None:
            lines = self._written()
            ours |= {
                "lines_written": lines.written, "lines_queued": lines.queued,
                "lines_reconnects": lines.reconnects,
                **{f"lines_lost_{cause}": lines.dropped[cause] for cause in Loss},
            }  # fmt: skip
        return {f"flowvane_{name}": value for name, value in ours.items()}


def _parts(drift: Drift) -> dict[str, int]:
    """Drift in millionths, once enough flows were seen: no other numbers are allowed."""
    features, scores = drift.features(), drift.scores()
    found = {"drift_flows": drift.flows}
    if features:
        found["drift_features"] = sum(value > MUCH for value in features.values())
        found["drift_most_ppm"] = round(max(features.values()) * 1e6)
    if scores is not None:
        found["drift_scores_ppm"] = round(scores * 1e6)
    return found


class StatsWriter:
    """Writes a `stats` event to one output every so often, and at the end."""

    def __init__(
        self, output: Output, every_s: float, style: Style = PLAIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Write to `output` every `every_s` seconds of `clock`, which only grows."""
        self._output, self._every_s, self._style, self._clock = output, every_s, style, clock
        self._due = clock() + every_s

    def write(self, statistics: Statistics, *, last: bool = False) -> None:
        """Write the event if it is due, or is the last one.

        Raises:
            OutputError: the output refused.
        """
        now = self._clock()
        if now < self._due and not last:
            return
        # From when it was due, so that they do not drift, but none is made up for.
        self._due += self._every_s * (1 + max(now - self._due, 0.0) // self._every_s)
        self._output.write([encode(statistics.event(time.time_ns() // 1000, self._style))])
