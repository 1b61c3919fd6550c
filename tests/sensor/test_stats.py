"""`stats` events: what they count, how they are nested, when they come."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.flows import Ending
from sensor.budget import AlertBudget
from sensor.eve import Style
from sensor.feed import FeedCounters
from sensor.grouping import Groups
from sensor.meter.base import MeterCounters
from sensor.meter.compiled.live import LiveCounters
from sensor.outputs.base import Loss
from sensor.outputs.queued import OutputCounters
from sensor.stats import FlowTally, Statistics, StatsWriter
from tests.helpers import eve_schemas, faults, make_flow
from tests.sensor.test_feed import Kept, feed_of

counts = st.integers(0, 2**63 - 1)
START_US = 1_768_467_600_000_000


@settings(max_examples=40, deadline=None, database=None)
@given(
    live=st.builds(LiveCounters, **dict.fromkeys(vars(LiveCounters()).keys()
        - {"empty_origins", "problems"}, counts)) | st.builds(MeterCounters, counts, counts),
    fed=st.builds(FeedCounters, counts, counts, counts, counts, counts, counts),
    tally=st.builds(FlowTally, counts, counts, counts, counts), grouped=st.booleans(),
    style=st.builds(Style, st.sampled_from([7, 8]), st.none() | st.text(max_size=9)),
    time_us=counts,
)  # fmt: skip
@eve_schemas
def test_any_stats_event_is_valid(
    live: MeterCounters, fed: FeedCounters, tally: FlowTally, grouped: bool, style: Style,
    time_us: int,
) -> None:  # fmt: skip
    feed = feed_of(groups=Groups() if grouped else None)
    feed.counters = fed
    statistics = Statistics(live, feed)
    statistics.flows = tally
    event = statistics.event(time_us, style)
    assert not faults(event)
    assert all(type(value) is int for value in event["metadata"]["flowints"].values())


def test_a_stats_event_by_hand() -> None:
    now = 100.0
    counters = LiveCounters(
        read=90, received=100, kernel_drops=10, interface_drops=3, evicted=2, no_memory=1,
        not_metered=4, queue_full_flows=5, queue_full_packets=6, late_flows=7, late_packets=8,
        failed_packets=11,
    )  # fmt: skip
    feed = feed_of(groups=Groups(coarse=9), budget=AlertBudget(10, 1e-4, 0.01))
    feed.counters = FeedCounters(1000, 66, 10, 20, 30, 4, 5, 6)
    lines = OutputCounters(12, 4, Counter({Loss.DISK_FULL: 3, Loss.STOPPED: 2}), 1, 3)
    statistics = Statistics(counters, feed, lambda: lines, clock=lambda: now)
    flows = [
        make_flow(), make_flow(protocol=17), make_flow(protocol=1), make_flow(protocol=58),
        make_flow(protocol=47), make_flow(ending=Ending.EARLY),
    ]  # fmt: skip
    statistics.flows.add(np.concatenate(flows))
    statistics.flows.add(make_flow()[:0])
    now = 108.9
    assert statistics.event(START_US, Style(host="probe")) == {
        "timestamp": "2026-01-15T09:00:00.000000+0000",
        "event_type": "stats",
        "stats": {
            "uptime": 8,
            "capture": {"kernel_packets": 100, "kernel_drops": 10, "kernel_ifdrops": 3},
            "decoder": {"pkts": 90, "bytes": 5 * 210},
            "flow": {
                "total": 5, "tcp": 1, "udp": 1, "icmpv4": 1, "icmpv6": 1, "get_used": 2,
                "memcap": 1,
            },
            "detect": {"alert": 30, "alert_queue_overflow": 20, "alerts_suppressed": 10},
        },
        "metadata": {"flowints": {
            "flowvane_queue_full_flows": 5, "flowvane_queue_full_packets": 6,
            "flowvane_late_flows": 7, "flowvane_late_packets": 8, "flowvane_failed_packets": 11,
            "flowvane_not_metered": 4,
            "flowvane_alert_events": 4, "flowvane_alerts_repeated": 6,
            "flowvane_threshold_ppb": 10_000_000,
            "flowvane_groups": 0, "flowvane_alerts_coarse": 9,
            "flowvane_lines_written": 4, "flowvane_lines_queued": 3,
            "flowvane_lines_reconnects": 1, "flowvane_lines_lost_queue_full": 0,
            "flowvane_lines_lost_reader_gone": 0, "flowvane_lines_lost_disk_full": 3,
            "flowvane_lines_lost_too_long": 0, "flowvane_lines_lost_refused": 0,
            "flowvane_lines_lost_stopped": 2,
        }},
        "host": "probe",
    }  # fmt: skip


def test_a_meter_of_files_has_no_capture() -> None:
    event = Statistics(MeterCounters(read=7), feed_of()).event(0)
    assert "capture" not in event["stats"]
    assert event["stats"]["decoder"]["pkts"] == 7


def test_events_come_when_due_and_at_the_end_and_none_is_made_up_for() -> None:
    now = 0.0
    output: Any = Kept()
    statistics = Statistics(LiveCounters(), feed_of(), clock=lambda: now)
    writer = StatsWriter(output, 8.0, clock=lambda: now)
    seen = []
    for second in (1, 7.9, 8.1, 9, 15, 16, 40.5, 41, 47, 48):
        now = second
        writer.write(statistics)
        seen.append(len(output.events))
    assert seen == [0, 0, 1, 1, 1, 2, 3, 3, 3, 4]
    writer.write(statistics, last=True)
    assert [event["stats"]["uptime"] for event in output.events] == [8, 16, 40, 48, 48]
