"""Flows leave the buffer in order of last time, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.flows import FlowBatch, empty_flows
from sensor.reorder import SLACK_US, ReorderBuffer

steady = settings(max_examples=50, deadline=None, database=None, derandomize=True)

IDLE_S = 2
HORIZON_US = IDLE_S * 1_000_000 + SLACK_US
START_US = 1_700_000_000_000_000
SECOND = 1_000_000


def batch(last_us: Sequence[int], first_port: int = 0) -> FlowBatch:
    """Flows that end at these times (µs after the start), told apart by their source port."""
    flows = empty_flows(len(last_us))
    flows["last_us"] = START_US + np.array(last_us, np.int64)
    flows["first_us"] = START_US
    flows["src_port"] = np.arange(first_port, first_port + len(last_us))
    return flows


def pushed(buffer: ReorderBuffer, batches: Sequence[FlowBatch]) -> list[FlowBatch]:
    """What each push, and the flush at the end, let go."""
    return [*(buffer.push(flows) for flows in batches), buffer.flush()]


def times(flows: FlowBatch) -> list[int]:
    values: list[int] = (flows["last_us"] - START_US).tolist()
    return values


any_batches = st.lists(st.lists(st.integers(0, 30 * SECOND), max_size=6), max_size=12)


@st.composite
def punctual_batches(draw: st.DrawFn) -> list[list[int]]:
    """Batches in which no flow ends more than the horizon before any that came earlier."""
    latest, result = HORIZON_US, []
    for _ in range(draw(st.integers(0, 12))):
        earliest = latest - HORIZON_US
        ends = draw(st.lists(st.integers(earliest, earliest + 6 * SECOND), max_size=6))
        result.append(ends)
        latest = max([latest, *ends])
    return result


def numbered(batches: Sequence[Sequence[int]]) -> list[FlowBatch]:
    """The batches, every flow with a port of its own."""
    flows, port = [], 0
    for ends in batches:
        flows.append(batch(ends, port))
        port += len(ends)
    return flows


@given(batches=any_batches)
@steady
def test_nothing_is_lost_or_doubled(batches: list[list[int]]) -> None:
    flows = numbered(batches)
    out = pushed(ReorderBuffer(IDLE_S), flows)
    assert Counter(row.tobytes() for part in out for row in part) == Counter(
        row.tobytes() for part in flows for row in part
    )


@given(batches=punctual_batches())
@steady
def test_flows_that_are_punctual_leave_in_order(batches: list[list[int]]) -> None:
    buffer = ReorderBuffer(IDLE_S)
    out = np.concatenate([empty_flows(), *pushed(buffer, numbered(batches))])
    assert times(out) == sorted(times(out))
    assert buffer.late == 0


@given(batches=any_batches)
@steady
def test_flows_are_in_order_if_none_was_late(batches: list[list[int]]) -> None:
    buffer = ReorderBuffer(IDLE_S)
    out = np.concatenate([empty_flows(), *pushed(buffer, numbered(batches))])
    if not buffer.late:
        assert times(out) == sorted(times(out))


@given(batches=any_batches)
@steady
def test_what_each_push_lets_go_is_in_order(batches: list[list[int]]) -> None:
    for part in pushed(ReorderBuffer(IDLE_S), numbered(batches)):
        assert times(part) == sorted(times(part))


@given(batches=any_batches)
@steady
def test_late_is_what_ends_in_a_second_that_was_let_go(batches: list[list[int]]) -> None:
    buffer = ReorderBuffer(IDLE_S)
    late, passed = 0, None
    for flows in numbered(batches):
        seconds = [(START_US + time) // SECOND for time in times(flows)]
        late += sum(passed is not None and second < passed for second in seconds)
        buffer.push(flows)
        if len(flows):
            # All that ended in whole seconds before this have been let go.
            safe = (int(flows["last_us"].max()) - HORIZON_US) // SECOND
            passed = safe if passed is None else max(passed, safe)
    assert buffer.late == late


@given(batches=any_batches, seed=st.integers(0, 2**32 - 1))
@steady
def test_the_order_within_a_push_makes_no_difference(batches: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    flows = numbered(batches)
    shuffled = [rng.permutation(part) for part in flows]
    one, other = ReorderBuffer(IDLE_S), ReorderBuffer(IDLE_S)
    for left, right in zip(pushed(one, flows), pushed(other, shuffled), strict=True):
        assert left.tobytes() == right.tobytes()
    assert one.late == other.late


@pytest.mark.parametrize(
    "name",
    [
        "first_us", "src_port", "dst_port", "src_ip", "dst_ip", "protocol", "vlan_id", "tunnel_id",
    ],
)  # fmt: skip
def test_flows_that_end_together_are_ordered_by_what_tells_them_apart(name: str) -> None:
    # Whatever is part of a flow's key: the same packet may pass in two VLANs or tunnels.
    flows = batch([5, 5, 5])
    flows["src_port"] = 7
    for number, row in enumerate(flows):
        row[name] = number
    orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]]
    results = {
        np.concatenate(pushed(ReorderBuffer(IDLE_S), [flows[order]])).tobytes() for order in orders
    }
    assert len(results) == 1


def test_ties_are_ordered_by_first_time() -> None:
    flows = batch([5, 5, 5])
    flows["first_us"] = START_US + np.array([3, 1, 2])
    out = np.concatenate(pushed(ReorderBuffer(IDLE_S), [flows]))
    assert out["first_us"].tolist() == [START_US + 1, START_US + 2, START_US + 3]


def test_flows_wait_one_idle_timeout_and_the_slack() -> None:
    # START_US is a whole second. With a flow at 3.0 s, nothing that ended in the second that
    # began at 0 can be let go before a flow of 4.0 s (1 s later than timeout and slack) came.
    buffer = ReorderBuffer(IDLE_S)
    assert times(buffer.push(batch([500_000]))) == []
    assert times(buffer.push(batch([3_999_999], 1))) == []
    assert times(buffer.push(batch([4_000_000], 2))) == [500_000]
    assert times(buffer.flush()) == [3_999_999, 4_000_000]
    assert times(buffer.flush()) == []


def test_a_late_flow_is_passed_on_at_once_and_counted() -> None:
    buffer = ReorderBuffer(IDLE_S)
    buffer.push(batch([20 * SECOND]))
    assert times(buffer.push(batch([1 * SECOND], 1))) == [1 * SECOND]
    assert buffer.late == 1
    assert times(buffer.flush()) == [20 * SECOND]


def test_an_empty_push_changes_nothing() -> None:
    buffer = ReorderBuffer(IDLE_S)
    assert len(buffer.push(empty_flows())) == 0
    buffer.push(batch([5]))
    assert len(buffer.push(empty_flows())) == 0
    assert times(buffer.flush()) == [5]


def test_times_before_the_epoch_have_an_order_too() -> None:
    flows = empty_flows(3)
    flows["last_us"] = [-1, -2_500_000, 0]
    out = ReorderBuffer(IDLE_S)
    out.push(flows)
    assert out.flush()["last_us"].tolist() == [-2_500_000, -1, 0]


@given(batches=any_batches, most=st.integers(1, 12))
@steady
def test_no_more_flows_are_held_than_allowed(batches: list[list[int]], most: int) -> None:
    flows, buffer = numbered(batches), ReorderBuffer(IDLE_S, most)
    given, taken, out = 0, 0, []
    for part in flows:
        given += len(part)
        out.append(buffer.push(part))
        taken += len(out[-1])
        assert given - taken <= most
    out.append(buffer.flush())
    assert Counter(row.tobytes() for part in out for row in part) == Counter(
        row.tobytes() for part in flows for row in part
    )


@given(ends=st.lists(st.integers(0, 30 * SECOND), max_size=60), most=st.integers(1, 12))
@steady
def test_flows_that_come_in_order_leave_in_order_however_few_are_held(
    ends: list[int], most: int
) -> None:
    # As those come that a full flow table pushes out.
    buffer = ReorderBuffer(IDLE_S, most)
    flows = batch(sorted(ends))
    out = np.concatenate([empty_flows(), *pushed(buffer, np.split(flows, range(3, len(flows), 3)))])
    assert times(out) == sorted(ends)


def test_as_long_as_there_is_room_flows_wait_their_time() -> None:
    one, other = ReorderBuffer(IDLE_S, 3), ReorderBuffer(IDLE_S)
    flows = numbered([[0], [SECOND], [2 * SECOND], [9 * SECOND], [10 * SECOND]])
    for left, right in zip(pushed(one, flows), pushed(other, flows), strict=True):
        assert left.tobytes() == right.tobytes()
