"""Flows that are reported more than once: entered into windows once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.context import ContextWindows
from features.flow import SCHEMA
from features.flows import Ending, FlowBatch, empty_flows, join_flows
from features.once import OnceAFlow
from features.schema import MOST_EARLY, Columns, EarlyReports
from features.stream import FeatureStream
from tests.helpers import make_flow


def report(flow: int, last_s: float, ending: Ending, **fields: object) -> FlowBatch:
    return make_flow(
        src_port=flow, first_us=0, last_us=round(last_s * 1e6), ending=ending, **fields
    )  # fmt: skip


def pushed(windows: OnceAFlow | ContextWindows, *flows: FlowBatch) -> Columns:
    whole = join_flows(flows) if flows else empty_flows()
    count, columns = windows.push(whole, SCHEMA.window_keys(whole))
    assert count == len(whole)
    return columns


def test_an_early_report_and_its_end_are_one_flow() -> None:
    columns = pushed(
        OnceAFlow(ContextWindows()),
        report(1, 1.0, Ending.EARLY),
        report(2, 2.0, Ending.IDLE),
        report(1, 3.0, Ending.EARLY),
        report(1, 4.0, Ending.IDLE),
        report(3, 4.0, Ending.IDLE),
    )
    # Flow 1 came first; all its reports have the context of the first.
    flows = columns["src_flows_10m"]
    assert flows[0] == flows[2] == flows[3]
    assert columns["src_new"].tolist() == [1, 0, 1, 1, 0]
    alone = pushed(
        ContextWindows(),
        report(1, 1.0, Ending.EARLY),
        report(2, 2.0, Ending.IDLE),
        report(3, 4.0, Ending.IDLE),
    )
    np.testing.assert_array_equal(flows[[0, 1, 4]], alone["src_flows_10m"])


def test_flows_of_the_same_ends_that_follow_each_other_are_two() -> None:
    first = report(1, 1.0, Ending.EARLY)
    second = report(1, 3.0, Ending.EARLY)
    second["first_us"] = 2_000_000
    columns = pushed(OnceAFlow(ContextWindows()), first, report(1, 1.5, Ending.IDLE), second)
    assert columns["pair_new"].tolist() == [1, 1, 0]


def test_what_is_open_too_long_is_forgotten_and_counted() -> None:
    windows = OnceAFlow(ContextWindows(), most_open=2)
    pushed(windows, *(report(flow, 1.0, Ending.EARLY) for flow in (1, 2, 3)))
    assert windows.forgotten["open flows"] == 1
    columns = pushed(windows, *(report(flow, 2.0, Ending.IDLE) for flow in (1, 2, 3)))
    assert columns["src_new"].tolist() == [0, 0, 0]
    assert columns["pair_gap"][0] == pytest.approx(1.0)  # entered again
    assert columns["pair_gap"][1] == 0.0  # as at its first report


reports = st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=25)


@settings(max_examples=50, deadline=None, database=None, derandomize=True)
@given(reports, st.lists(st.integers(0, 25)))
def test_it_is_the_windows_of_first_reports_however_they_are_cut(
    told: list[tuple[int, bool]], cuts: list[int]
) -> None:
    flows, first, begun = [], [], dict.fromkeys((1, 2, 3), 0)
    open_since: dict[int, int] = {}
    for number, (flow, early) in enumerate(told):
        row = report(flow, 1.0 + number, Ending.EARLY if early else Ending.IDLE)
        row["first_us"] = begun[flow]
        flows.append(row)
        first.append(open_since.setdefault(flow, number))
        if not early:
            del open_since[flow]
            begun[flow] = 1_000_000 * (number + 1)
    edges = sorted({0, len(flows), *(cut for cut in cuts if cut < len(flows))})
    windows = OnceAFlow(ContextWindows())
    parts = [pushed(windows, *flows[a:b]) for a, b in pairwise(edges)]
    entered = sorted(set(first))
    expected = pushed(ContextWindows(), *(flows[number] for number in entered))
    for name in windows.names if flows else ():
        got = np.concatenate([part[name] for part in parts])
        np.testing.assert_array_equal(got, expected[name][np.searchsorted(entered, first)])


def test_a_report_of_a_flow_that_goes_on_is_closed_by_nothing() -> None:
    stream = FeatureStream(SCHEMA, 1)
    _, rows = stream.push(report(1, 1.0, Ending.EARLY))
    (at,) = SCHEMA.index(["closed_by"])
    assert SCHEMA.features[at].show(rows[0, at]) == "open"


@pytest.mark.parametrize(
    ("given_as", "said"),
    [
        ({"ages_s": (2.0, 1.0)}, "ages must be above 0 and grow"),
        ({"packets": (3, 3)}, "numbers of packets must be above 0 and grow"),
        ({"packets": (0,)}, "above 0"),
        ({"ages_s": tuple(range(1, MOST_EARLY + 2))}, f"{MOST_EARLY} at most"),
    ],
)
def test_early_reports_that_make_no_sense_are_refused(
    given_as: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        EarlyReports(**given_as)
