"""The connection windows against references written from their definitions, and by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import kdd, unsw_nb15
from features.flows import FlowBatch, TcpState, empty_flows, pack_address
from features.registry import SCHEMAS
from features.schema import FloatArray, Schema
from features.stream import FeatureStream
from features.windows import BlockCounts, KddWindows, count_equal, mix_keys
from tests.helpers import as_record

steady = settings(max_examples=40, deadline=None, database=None, derandomize=True)
few = settings(steady, max_examples=15)

START_US = 1_700_000_000_000_000

# How far both sides got, of a connection in each of Bro's states.
_T = TcpState
STATES = {
    "SF": (_T.CLOSED, _T.CLOSED),
    "S0": (_T.SYN_SENT, _T.INACTIVE),
    "S1": (_T.ESTABLISHED, _T.ESTABLISHED),
    "S2": (_T.CLOSED, _T.ESTABLISHED),
    "S3": (_T.ESTABLISHED, _T.CLOSED),
    "SH": (_T.CLOSED, _T.INACTIVE),
    "REJ": (_T.SYN_SENT, _T.RESET),
    "RSTO": (_T.RESET, _T.ESTABLISHED),
    "RSTR": (_T.ESTABLISHED, _T.RESET),
    "RSTOS0": (_T.RESET, _T.INACTIVE),
    "OTH": (_T.PARTIAL, _T.PARTIAL),
}
SYN_ERROR = {"S0", "S1", "S2", "S3", "SH"}
REJ_ERROR = {"REJ", "RSTO", "RSTR", "RSTOS0"}


@dataclass(frozen=True)
class Flow:
    """What the windows look at, in plain words."""

    last_us: int = START_US
    src: str = "10.0.0.1"
    dst: str = "10.0.0.2"
    sport: int = 1024
    dport: int = 80
    protocol: int = 6
    icmp_type: int = 0
    state: str = "SF"
    application: bytes = b""


def batch(flows: Sequence[Flow]) -> FlowBatch:
    """The flows as a meter hands them on, 10 ms long each."""
    rows = empty_flows(len(flows))
    for row, flow in zip(rows, flows, strict=True):
        row["first_us"], row["last_us"] = flow.last_us - 10_000, flow.last_us
        row["src_first_us"], row["src_last_us"] = row["first_us"], row["last_us"]
        row["src_packets"] = row["src_bytes"] = row["ip_version"] = 4
        row["src_payload_bytes"] = bool(flow.application)
        row["src_ip"] = np.frombuffer(pack_address(flow.src), np.uint8)
        row["dst_ip"] = np.frombuffer(pack_address(flow.dst), np.uint8)
        row["src_port"], row["dst_port"] = flow.sport, flow.dport
        row["protocol"], row["icmp_type"] = flow.protocol, flow.icmp_type
        row["application"] = flow.application
        if flow.protocol == 6:
            row["src_tcp_state"], row["dst_tcp_state"] = STATES[flow.state]
    return rows


def rows_of(schema: Schema, flows: Sequence[Flow], clock_us: int = 1) -> dict[str, list[float]]:
    """Columns of the flows' rows."""
    stream = FeatureStream(schema, clock_us)
    rows = np.concatenate([stream.push(batch(flows))[1], stream.flush()[1]])
    return {name: rows[:, column].tolist() for column, name in enumerate(schema.names)}


def cut_at(count: int, edges: Sequence[int]) -> list[slice]:
    """Slices of ``range(count)`` between `edges`; some may be empty."""
    places = [0, *sorted(min(edge, count) for edge in edges), count]
    return [slice(begin, end) for begin, end in itertools.pairwise(places)]


# ---------------------------------------------------------------------------------------
# Keys


def test_equal_rows_get_equal_keys_and_others_do_not() -> None:
    words = np.array(list(itertools.product([0, 1, 2, 2**63, 2**64 - 1], repeat=3)), np.uint64)
    keys = mix_keys(words)
    assert len(set(keys.tolist())) == len(words)
    np.testing.assert_array_equal(mix_keys(words[::-1].copy()), keys[::-1])
    assert mix_keys(words[:0]).shape == (0,)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=30))
@steady
def test_count_equal_counts_each_column_apart(pairs: list[tuple[int, int]]) -> None:
    keys = np.array(pairs, np.uint64).reshape(-1, 2)
    expected = [[sum(other[at] == row[at] for other in pairs) for at in (0, 1)] for row in pairs]
    assert count_equal(keys).tolist() == expected


# ---------------------------------------------------------------------------------------
# Blocks


def block_reference(keys: Sequence[int], length: int) -> list[int]:
    """How many of its block have the key of each."""
    counts = []
    for number, key in enumerate(keys):
        start = number // length * length
        counts.append(list(keys[start : start + length]).count(key))
    return counts


@given(
    keys=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=60),
    length=st.sampled_from([1, 2, 3, 7, 100]),
    edges=st.lists(st.integers(0, 60), max_size=6),
)
@steady
def test_blocks_count_as_the_reference_does(
    keys: list[tuple[int, int]], length: int, edges: list[int]
) -> None:
    windows = BlockCounts(("a", "b"), length)
    done: list[int] = []
    counted: dict[str, list[float]] = {"a": [], "b": []}
    results = []
    pushed = 0
    for part in cut_at(len(keys), edges):
        columns = np.array(keys[part], np.uint64).reshape(-1, 2)
        results.append(windows.push(empty_flows(), {"a": columns[:, 0], "b": columns[:, 1]}))
        pushed += len(columns)
        done.append(results[-1][0])
        # As soon as it is full a block is complete, and not before.
        assert sum(done) == pushed // length * length
    results.append(windows.flush())
    for count, values in results:
        for name, column in values.items():
            assert len(column) == count
            counted[name] += column.tolist()
    for at, name in enumerate(("a", "b")):
        assert counted[name] == block_reference([key[at] for key in keys], length)


def test_after_a_flush_the_blocks_begin_anew() -> None:
    windows = BlockCounts(("a",), 2)
    one = {"a": np.array([5], np.uint64)}
    assert windows.push(empty_flows(), one)[0] == 0
    assert windows.flush()[1]["a"].tolist() == [1]
    assert windows.push(empty_flows(), one)[0] == 0
    assert windows.flush()[1]["a"].tolist() == [1]
    assert windows.flush()[0] == 0


def test_unsw_counts_by_hand() -> None:
    web, other = b"HTTP", b""
    second = START_US
    flows = [
        # 0: the flow that all others are like, in one thing or another.
        Flow(second, "10.0.0.1", "10.0.0.9", 1000, 80, application=web),
        # 1: the same in all.
        Flow(second + 1, "10.0.0.1", "10.0.0.9", 1000, 80, application=web),
        # 2: the same in all, but within the next second.
        Flow(second + 999_999 + 1, "10.0.0.1", "10.0.0.9", 1000, 80, application=web),
        # 3: another service, and other ports.
        Flow(second + 1_000_000, "10.0.0.1", "10.0.0.9", 2000, 22, application=other),
        # 4: another source, and 3's source port.
        Flow(second + 1_000_000, "10.0.0.2", "10.0.0.9", 2000, 80, application=web),
        # 5: another destination, and a source port of its own.
        Flow(second + 1_500_000, "10.0.0.1", "10.0.0.8", 3000, 80, application=web),
    ]
    rows = rows_of(unsw_nb15.SCHEMA, flows)
    # Service and source: 0, 1, 2 and 5 are web from .1; 3 speaks nothing; 4 is from .2.
    assert rows["ct_srv_src"] == [4, 4, 4, 1, 1, 4]
    # Service and destination: 0, 1, 2 and 4 are web to .9.
    assert rows["ct_srv_dst"] == [4, 4, 4, 1, 4, 1]
    # Destination in the same second: 0 and 1; then 2, 3 and 4 to .9, and 5 alone to .8.
    assert rows["ct_dst_ltm"] == [2, 2, 3, 3, 3, 1]
    # Source in the same second: 0 and 1; then 2, 3 and 5 from .1, and 4 alone from .2.
    assert rows["ct_src_ltm"] == [2, 2, 3, 3, 1, 3]
    # Source and destination port: 2 and 5 from .1 to 80; 3 to 22; 4 from .2.
    assert rows["ct_src_dport_ltm"] == [2, 2, 2, 1, 1, 2]
    # Destination and source port: 2 to .9 from 1000; 3 and 4 from 2000; 5 to .8.
    assert rows["ct_dst_sport_ltm"] == [2, 2, 1, 2, 2, 1]
    # Source and destination: 2 and 3 from .1 to .9.
    assert rows["ct_dst_src_ltm"] == [2, 2, 2, 2, 1, 1]


def test_unsw_counts_end_with_their_block_of_100() -> None:
    rows = rows_of(unsw_nb15.SCHEMA, [Flow()] * 130)
    for name in unsw_nb15.SCHEMA.windows().names:
        assert rows[name] == [100.0] * 100 + [30.0] * 30


def test_unsw_counts_know_services_by_what_is_spoken_not_by_port() -> None:
    web = b"HTTP.Google"
    flows = [Flow(dport=80, application=web), Flow(dport=8080, application=b"HTTP"), Flow(dport=80)]
    assert rows_of(unsw_nb15.SCHEMA, flows)["ct_srv_src"] == [2, 2, 1]


# ---------------------------------------------------------------------------------------
# KDD's windows


def service_of(flow: Flow) -> tuple[int, int]:
    """Bro's service: protocol and responder's port, or ICMP type."""
    return flow.protocol, flow.icmp_type if flow.protocol in (1, 58) else flow.dport


def rates_reference(same: Sequence[Flow], flow: Flow, other: str) -> dict[str, float]:
    """Shares of `same`, the flows to the same host (`other` = service) or service (host)."""
    of = service_of if other == "service" else _host
    flags = [each.state if each.protocol == 6 else "SF" for each in same]
    different = len({of(each) for each in same})
    return {
        "serror": printed(sum(flag in SYN_ERROR for flag in flags), len(same)),
        "rerror": printed(sum(flag in REJ_ERROR for flag in flags), len(same)),
        "same": printed(sum(of(each) == of(flow) for each in same), len(same)),
        "diff": printed(different, len(same)) if different > 1 else 0.0,
        "port": printed(sum(each.sport == flow.sport for each in same), len(same)),
    }


def printed(part: int, whole: int) -> float:
    """A single-precision quotient, printed with two decimals."""
    return float(f"{float(np.float32(part / whole)):.2f}")


def _host(flow: Flow) -> str:
    return flow.dst


def kdd_reference(flows: Sequence[Flow], number: int) -> dict[str, float]:
    """Features 23-41 of `flows[number]`, from their definitions."""
    flow = flows[number]
    past = [each for each in flows[: number + 1] if flow.last_us - each.last_us <= 2_000_000]
    result = {}
    for window, prefix in ((past[-511:], ""), (flows[max(0, number - 254) : number + 1], "dst_")):
        hosts = [each for each in window if each.dst == flow.dst]
        services = [each for each in window if service_of(each) == service_of(flow)]
        by_host = rates_reference(hosts, flow, "service")
        by_service = rates_reference(services, flow, "host")
        if not prefix:
            result |= {
                "count": len(hosts),
                "srv_count": len(services),
                "serror_rate": by_host["serror"],
                "srv_serror_rate": by_service["serror"],
                "rerror_rate": by_host["rerror"],
                "srv_rerror_rate": by_service["rerror"],
                "same_srv_rate": by_host["same"],
                "diff_srv_rate": by_host["diff"],
                "srv_diff_host_rate": by_service["diff"],
            }
        else:
            result |= {
                "dst_host_count": len(hosts),
                "dst_host_srv_count": len(services),
                "dst_host_same_srv_rate": by_host["same"],
                "dst_host_diff_srv_rate": by_host["diff"],
                "dst_host_same_src_port_rate": by_host["port"],
                "dst_host_srv_diff_host_rate": by_service["diff"],
                "dst_host_serror_rate": by_host["serror"],
                "dst_host_srv_serror_rate": by_service["serror"],
                "dst_host_rerror_rate": by_host["rerror"],
                "dst_host_srv_rerror_rate": by_service["rerror"],
            }
    return result


def check_kdd(flows: Sequence[Flow]) -> None:
    """The rows say exactly what the reference says."""
    rows = rows_of(kdd.SCHEMA, flows)
    for number in range(len(flows)):
        for name, expected in kdd_reference(flows, number).items():
            assert rows[name][number] == expected, (number, name)


some_flows = st.builds(
    Flow,
    dst=st.sampled_from(["10.0.0.2", "10.0.0.3", "2001:db8::1"]),
    sport=st.sampled_from([1024, 1025]),
    dport=st.sampled_from([80, 22, 4444, 4445]),
    protocol=st.sampled_from([6, 6, 6, 17, 1]),
    icmp_type=st.sampled_from([0, 8]),
    state=st.sampled_from(list(STATES)),
)


@given(
    flows=st.lists(some_flows, min_size=1, max_size=40),
    gaps=st.lists(st.sampled_from([0, 1, 500_000, 999_999, 2_000_000, 2_000_001]), min_size=40),
)
@steady
def test_kdd_windows_count_as_the_reference_does(flows: list[Flow], gaps: list[int]) -> None:
    times = itertools.accumulate(gaps, initial=START_US)
    check_kdd([Flow(**{**vars(flow), "last_us": t}) for flow, t in zip(flows, times, strict=False)])


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_kdd_windows_forget_as_the_reference_does(seed: int, slow: bool) -> None:
    rng = np.random.default_rng(seed)
    states = list(STATES)
    flows = [
        Flow(
            START_US + number * (20_000 if slow else 1_000),
            dst=f"10.0.0.{rng.integers(2, 4)}",
            dport=int(rng.choice([80, 22, 9999])),
            state=states[rng.integers(len(states))],
        )
        for number in range(650)
    ]
    check_kdd(flows)


def test_kdd_windows_are_two_seconds_and_255_connections_long() -> None:
    # One connection each millisecond: the time window is bounded by 511, the host's by 255.
    rows = rows_of(kdd.SCHEMA, [Flow(START_US + number * 1000) for number in range(600)])
    assert rows["count"] == [min(number + 1, 511) for number in range(600)]
    assert rows["dst_host_count"] == [min(number + 1, 255) for number in range(600)]
    # One each 0.5 s: now, and 0.5, 1, 1.5 and 2 s ago.
    rows = rows_of(kdd.SCHEMA, [Flow(START_US + number * 500_000) for number in range(8)])
    assert rows["srv_count"] == [1, 2, 3, 4, 5, 5, 5, 5]
    # A microsecond more than two seconds is too long.
    rows = rows_of(kdd.SCHEMA, [Flow(), Flow(START_US + 2_000_001)])
    assert rows["count"] == [1, 1]
    assert rows["dst_host_count"] == [1, 2]


def test_kdd_time_does_not_go_back_with_a_flow_that_ended_late() -> None:
    late = START_US - 60_000_000
    times = [START_US, START_US + 1_000_000, late, START_US + 2_500_000, START_US + 3_100_000]
    # The late one is there as the second one is: from 1.0 s to 3.0 s.
    counts = rows_of(kdd.SCHEMA, [Flow(last_us=time) for time in times])["count"]
    assert counts == [1, 2, 3, 3, 2]
    # However the stream is cut.
    stream = FeatureStream(kdd.SCHEMA, 1)
    rows = [stream.push(batch([Flow(last_us=time)]))[1] for time in times]
    assert np.concatenate(rows)[:, kdd.SCHEMA.names.index("count")].tolist() == counts


def test_kdd_windows_keep_no_more_than_511_flows() -> None:
    # Every host and port another, so that every key is new: the entries are used again.
    count = 20_000
    flows = empty_flows(count)
    flows["protocol"] = 6
    flows["dst_ip"][:, 12:] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
    flows["dst_port"] = np.arange(count) % 65_521
    flows["last_us"] = START_US + np.arange(count) * 100
    windows = KddWindows()
    before = sum(value.nbytes for value in vars(windows).values())
    for part in range(0, count, 1000):
        _, columns = windows.push(
            flows[part : part + 1000], kdd.window_keys(flows[part : part + 1000])
        )
        assert (columns["count"] == 1).all()
        assert (columns["dst_host_srv_count"] == 1).all()
    assert sum(value.nbytes for value in vars(windows).values()) == before < 200_000


def test_kdd_windows_by_hand() -> None:
    flows = [
        Flow(START_US, dst="10.0.0.9", dport=80, sport=1, state="S0"),
        Flow(START_US + 100, dst="10.0.0.9", dport=80, sport=2, state="REJ"),
        Flow(START_US + 200, dst="10.0.0.8", dport=80, sport=2, state="SF"),
        Flow(START_US + 300, dst="10.0.0.9", dport=22, sport=2, state="SF"),
        # Three seconds later only the host's window remembers.
        Flow(START_US + 3_000_000, dst="10.0.0.9", dport=80, sport=2, state="RSTO"),
    ]
    rows = rows_of(kdd.SCHEMA, flows)
    expected = {
        "count": [1, 2, 1, 3, 1],
        "srv_count": [1, 2, 3, 1, 1],
        "serror_rate": [1, 0.5, 0, 0.33, 0],  # S0 of one, two and three to .9
        "srv_serror_rate": [1, 0.5, 0.33, 0, 0],
        "rerror_rate": [0, 0.5, 0, 0.33, 1],
        "srv_rerror_rate": [0, 0.5, 0.33, 0, 1],
        "same_srv_rate": [1, 1, 1, 0.33, 1],
        "diff_srv_rate": [0, 0, 0, 0.67, 0],  # 80 and 22 among three
        "srv_diff_host_rate": [0, 0, 0.67, 0, 0],  # .9 and .8 among three
        "dst_host_count": [1, 2, 1, 3, 4],
        "dst_host_srv_count": [1, 2, 3, 1, 4],
        "dst_host_same_srv_rate": [1, 1, 1, 0.33, 0.75],  # 80 three times of four
        "dst_host_diff_srv_rate": [0, 0, 0, 0.67, 0.5],  # two services among four
        "dst_host_same_src_port_rate": [1, 0.5, 1, 0.67, 0.75],
        "dst_host_srv_diff_host_rate": [0, 0, 0.67, 0, 0.5],  # two hosts among four
        "dst_host_serror_rate": [1, 0.5, 0, 0.33, 0.25],
        "dst_host_srv_serror_rate": [1, 0.5, 0.33, 0, 0.25],
        "dst_host_rerror_rate": [0, 0.5, 0, 0.33, 0.5],  # REJ and RSTO of four
        "dst_host_srv_rerror_rate": [0, 0.5, 0.33, 0, 0.5],
    }
    assert set(expected) == set(kdd.SCHEMA.windows().names)
    for name, values in expected.items():
        assert rows[name] == pytest.approx(values), name


def test_kdd_unnamed_ports_are_services_of_their_own() -> None:
    flows = [Flow(dport=4444), Flow(dport=4445), Flow(dport=4444)]
    rows = rows_of(kdd.SCHEMA, flows)
    other = float(kdd.SERVICES.index("other"))
    assert rows["service"] == [other] * 3
    assert rows["srv_count"] == [1, 1, 2]
    assert rows["diff_srv_rate"] == [0, 1, pytest.approx(0.67)]


def test_kdd_flags_are_bros() -> None:
    rows = rows_of(kdd.SCHEMA, [Flow(state=state) for state in STATES])
    assert [kdd.FLAGS[int(code)] for code in rows["flag"]] == list(STATES)


# ---------------------------------------------------------------------------------------
# The stream


every_schema = pytest.mark.parametrize("schema", list(SCHEMAS.values()), ids=list(SCHEMAS))


def pushed(
    schema: Schema, flows: FlowBatch, parts: Sequence[slice], clock_us: int
) -> tuple[FlowBatch, FloatArray]:
    """Flows and rows of a stream that got `flows` in `parts`."""
    stream = FeatureStream(schema, clock_us)
    results = [stream.push(flows[part]) for part in parts] + [stream.flush()]
    for done, rows in results:
        assert rows.shape == (len(done), len(schema.features))
    return (
        np.concatenate([done for done, _ in results]),
        np.concatenate([rows for _, rows in results]),
    )


@every_schema
@given(
    some=st.lists(some_flows, max_size=12),
    count=st.integers(0, 260),
    edges=st.lists(st.integers(0, 260), max_size=8),
    clock_us=st.sampled_from([1, 1000]),
)
@few
def test_cutting_the_stream_changes_nothing(
    schema: Schema, some: list[Flow], count: int, edges: list[int], clock_us: int
) -> None:
    flows = batch([some[number % len(some)] for number in range(count)] if some else [])
    flows["last_us"] += np.arange(len(flows)) * 7_919
    # The VLAN tells every flow from all others.
    flows["vlan_id"] = np.arange(len(flows))
    flows = as_record(schema, flows)
    whole, rows = pushed(schema, flows, [slice(0, len(flows))], clock_us)
    assert whole.tobytes() == flows.tobytes()  # each once, in order, as it went in
    done, pieces = pushed(schema, flows, cut_at(len(flows), edges), clock_us)
    assert done.tobytes() == flows.tobytes()
    np.testing.assert_array_equal(pieces, rows)


@every_schema
def test_one_flow_at_a_time_is_the_same_stream(schema: Schema) -> None:
    flows = batch([Flow(START_US + 1000 * n, dport=80 + n % 3) for n in range(230)])
    flows = as_record(schema, flows)
    _, rows = pushed(schema, flows, [slice(0, 230)], 1)
    done, pieces = pushed(schema, flows, [slice(n, n + 1) for n in range(230)], 1)
    assert done.tobytes() == flows.tobytes()
    np.testing.assert_array_equal(pieces, rows)


@every_schema
def test_an_empty_stream_has_no_rows(schema: Schema) -> None:
    stream = FeatureStream(schema, 1000)
    for done, rows in (stream.flush(), stream.push(empty_flows(0, schema.record)), stream.flush()):
        assert len(done) == 0
        assert rows.shape == (0, len(schema.features))


@every_schema
def test_the_stream_leaves_the_flows_as_they_are(schema: Schema) -> None:
    flows = as_record(schema, batch([Flow(START_US + 123_456)] * 3))
    before = flows.tobytes()
    done, _ = pushed(schema, flows, [slice(0, 3)], 1_000_000)
    assert flows.tobytes() == before == done.tobytes()


def test_times_are_cut_to_the_clock_and_never_stays_never() -> None:
    # 999 us and 1000 us after the epoch of a millisecond clock are one tick apart.
    flows = batch([Flow(START_US + 10_999), Flow(START_US + 11_000)])
    flows["first_us"] = START_US + 10_000
    assert rows_of_batch(flows, 1) == [0.000999, 0.001]
    assert rows_of_batch(flows, 1000) == [0.0, 0.001]


def rows_of_batch(flows: FlowBatch, clock_us: int) -> list[float]:
    """UNSW's `dur` of the flows on a clock."""
    stream = FeatureStream(unsw_nb15.SCHEMA, clock_us)
    rows = np.concatenate([stream.push(flows)[1], stream.flush()[1]])
    values: list[float] = rows[:, unsw_nb15.SCHEMA.names.index("dur")].tolist()
    return values
