"""Groups of alerts: what is told, when, and that no alert is lost count of."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.flows import FlowBatch, unpack_address
from sensor.grouping import Groups, Schedule, Told
from sensor.identity import flow_ids
from sensor.verdict import Found
from tests.helpers import make_flow

S = 1_000_000


def found_of(flows: FlowBatch, scores: list[float] | None = None) -> Found:
    """Alerts on flows; each score is its number, unless given."""
    count = len(flows)
    score = np.arange(count, dtype=float) if scores is None else np.array(scores)
    return Found(flows, score, np.full(count, 0.001), np.full(count, 2), np.zeros((count, 3)),
                 np.zeros(count), np.ones((count, 3)))  # fmt: skip


def scan(*ports: int, **fields: Any) -> FlowBatch:
    """Flows of one pair, a port each."""
    flows = np.repeat(make_flow(**fields), len(ports))
    flows["dst_port"] = ports
    return flows


def brief(told: list[Told]) -> list[tuple[str, int, int]]:
    return [(report.event, report.count, report.total) for _, report in told]


# Any stream


@settings(max_examples=100, deadline=None, database=None)
@given(data=st.data())
def test_the_counts_of_all_events_are_the_alerts(data: st.DataObject) -> None:
    few = st.integers(1, 4)
    groups = Groups(Schedule(2, 2, 10, 5), most=data.draw(st.integers(1, 6)), wide=data.draw(few))
    admit = data.draw(st.sampled_from([lambda: True, lambda: len(groups) < 3]))
    told: list[Told] = []
    taken, sent, now = 0, 0, 0
    for _ in range(data.draw(st.integers(1, 12))):
        size = data.draw(st.integers(0, 8))
        flows = np.repeat(make_flow(), size)
        flows["src_port"] = np.arange(sent, sent + size)  # each has a flow_id of its own
        for name in ("src_ip", "dst_ip"):
            flows[name][:, 15] = data.draw(st.lists(few, min_size=size, max_size=size))
        flows["protocol"] = data.draw(st.lists(st.sampled_from([6, 17]), min_size=size,
                                               max_size=size))  # fmt: skip
        flows["origin"] = data.draw(st.integers(0, 1))
        now += data.draw(st.integers(0, 6)) * S
        more, mask = groups.push(found_of(flows), now, admit)
        told += more
        taken, sent = taken + int(mask.sum()), sent + size
        assert len(groups) <= groups.most + 2 * 2  # kinds of origins are always there
    told += groups.end()
    assert sum(report.count for _, report in told) == taken
    assert len(groups) == 0
    assert not groups._fan
    totals: Counter[int] = Counter()
    seen: set[int] = set()
    for alert, report in told:
        assert len(alert) == 1
        assert report.count >= 1
        assert (report.event == "first") == (report.number not in seen)
        seen.add(report.number)
        totals[report.number] += report.count
    last = {report.number: report.total for _, report in told}
    assert last == totals


# By hand


def test_a_scan_is_told_at_once_and_then_by_its_count() -> None:
    groups = Groups()
    told, taken = groups.push(found_of(scan(*range(1, 10_001))), 0)
    assert taken.all()
    ((alert, report),) = told
    assert (report.event, report.by, report.count, report.total) == ("first", "pair", 1, 1)
    assert (report.low_port, report.high_port) == (1, 1)
    assert [report.number] == flow_ids(alert.flows)
    assert report.since_us == int(alert.flows["last_us"][0])
    assert groups.due(9 * S) == []
    ((worst, update),) = groups.due(10 * S)
    assert (update.event, update.count, update.total) == ("update", 9_999, 10_000)
    assert update.number == report.number
    assert (update.low_port, update.high_port) == (1, 10_000)
    assert worst.score.tolist() == [9_999.0]
    assert int(worst.flows["dst_port"][0]) == 10_000
    assert groups.end() == []  # all has been told


def test_intervals_grow_and_quiet_ends_a_group() -> None:
    groups = Groups(Schedule(first_s=10, factor=3, most_s=60, quiet_s=100))
    events = []
    for second in range(400):
        told, _ = groups.push(found_of(scan(80)[: second <= 250]), second * S)
        events += [(second, *each) for each in brief(told)]
    # Due after 10 s, then 30, then 60 at most; the last alert is at 250.
    assert events == [
        (0, "first", 1, 1), (10, "update", 10, 11), (40, "update", 30, 41),
        (100, "update", 60, 101), (160, "update", 60, 161), (220, "update", 60, 221),
        (280, "update", 30, 251),
    ]  # fmt: skip
    assert len(groups) == 0
    assert brief(groups.push(found_of(scan(80)), 500 * S)[0]) == [("first", 1, 1)]


def test_a_group_that_ends_tells_what_has_not_been_told() -> None:
    groups = Groups(Schedule(first_s=1000, quiet_s=60))
    groups.push(found_of(scan(80, 81, 82)), 0)
    assert brief(groups.due(60 * S)) == [("end", 2, 3)]
    assert len(groups) == 0


@pytest.mark.parametrize(
    "other",
    [
        {"src_ip": "10.0.0.9"}, {"dst_ip": "10.0.0.9"}, {"protocol": 17},
        {"src_payload_bytes": 1}, {"origin": 1},
    ],
)  # fmt: skip
def test_sources_destinations_kinds_and_origins_are_kept_apart(other: dict[str, Any]) -> None:
    groups = Groups()
    flows = np.concatenate([make_flow(), make_flow(**other), make_flow(src_port=9, dst_port=9)])
    assert brief(groups.push(found_of(flows), 0)[0]) == [("first", 1, 1)] * 2
    assert brief(groups.end()) == [("end", 1, 2)]


def spread(count: int, name: str, **fields: Any) -> FlowBatch:
    """Flows with an address each in the field `name`."""
    flows = np.repeat(make_flow(**fields), count)
    octets = np.arange(count, dtype=">u4").view(np.uint8).reshape(-1, 4)
    flows[name][:, 12:] = octets + np.array([11, 0, 0, 0], np.uint8)
    return flows


@pytest.mark.parametrize(
    ("name", "by"), [("src_ip", "destination"), ("dst_ip", "source")], ids=["flood", "sweep"]
)
def test_many_sources_or_destinations_become_one_group(name: str, by: str) -> None:
    groups = Groups(wide=20)
    told, _ = groups.push(found_of(spread(10_000, name)), 0)
    assert [report.by for _, report in told] == ["pair"] * 20 + [by]
    assert groups.coarse == 0
    # A pair that has a group of its own stays in it.
    assert groups.push(found_of(spread(3, name)), 1 * S)[0] == []
    told = groups.due(10 * S)
    counted = sorted((report.by, report.count) for _, report in told)
    assert counted == sorted([(by, 9_979), *[("pair", 1)] * 3])
    # When the groups of pairs have ended, others can begin.
    groups.due(3600 * S)
    assert len(groups) == 0
    assert brief(groups.push(found_of(spread(1, name)), 3600 * S)[0]) == [("first", 1, 1)]


def test_memory_is_bounded_and_what_that_merges_is_counted() -> None:
    groups = Groups(most=100, wide=1000)
    flows = spread(5_000, "src_ip")
    flows["dst_ip"] = flows["src_ip"][::-1]
    told, taken = groups.push(found_of(flows), 0)
    assert taken.all()
    assert [report.by for _, report in told] == ["pair"] * 100 + ["kind"]
    assert len(groups) == 101
    assert groups.coarse == 4_900
    assert brief(groups.end()) == [("end", 4_899, 4_900)]


def test_what_is_not_admitted_leaves_nothing() -> None:
    groups = Groups()
    told, taken = groups.push(found_of(scan(1, 2, 3)), 0, lambda: False)
    assert (told, taken.tolist(), len(groups)) == ([], [False] * 3, 0)


def test_an_event_is_about_the_most_anomalous_since_the_last() -> None:
    groups = Groups()
    groups.push(found_of(scan(1, 2, 3, 4), [9.0, 1.0, 5.0, 2.0]), 0)
    groups.push(found_of(scan(5, 6), [4.0, 5.0]), 1 * S)
    ((worst, _),) = groups.due(10 * S)
    assert (worst.score[0], int(worst.flows["dst_port"][0])) == (5.0, 3)
    assert unpack_address(worst.flows["src_ip"][0], 4) == "10.0.0.1"
    groups.push(found_of(scan(7), [0.5]), 20 * S)
    ((worst, _),) = groups.end()
    assert worst.score[0] == 0.5


def test_a_group_keeps_no_batch() -> None:
    groups = Groups()
    found = found_of(scan(*range(1, 1001)))
    groups.push(found, 0)
    (group,) = groups._groups.values()
    assert group.worst is not None
    for name in Found.__slots__:
        kept, given = getattr(group.worst, name), getattr(found, name)
        assert not np.shares_memory(kept, given)
        assert kept.base is None or kept.base.size <= kept.size
