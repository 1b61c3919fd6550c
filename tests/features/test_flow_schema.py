"""The `flow` schema: its rules case by case, and its context against a naive reference."""

from __future__ import annotations

import collections
import ctypes
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import flow
from features.context import (
    FORGET_TICKS,
    HORIZONS_S,
    NAMES,
    TICKS,
    Capacities,
    ContextWindows,
    find,
    new_table,
    touch,
)
from features.flows import NEVER, Ending, FlowBatch, TcpFlag, empty_flows, pack_address
from features.ndpi import APPLICATIONS, CATEGORIES
from features.schema import FlowView
from features.stream import FeatureStream

steady = settings(max_examples=40, deadline=None, database=None, derandomize=True)

START_US = 1_700_000_000_000_000
SMALL = Capacities(hosts=64, pairs=64, uses=64, offers=64, habits=64, terms=64)
FIN, SYN, RST, ACK = TcpFlag.FIN, TcpFlag.SYN, TcpFlag.RST, TcpFlag.ACK
KINDS = {feature.name: feature for feature in flow.SCHEMA.features}


@dataclass(frozen=True)
class Flow:
    """What the context looks at, in plain words. UDP that fails is UDP without an answer."""

    at_s: float = 0.0
    src: str = "10.0.0.1"
    dst: str = "10.0.0.2"
    port: int = 53
    failed: bool = False
    sent: int = 100
    received: int = 100
    unreachable: int = 0
    name: bytes = b""
    fingerprint: bytes = b""

    @property
    def at_us(self) -> int:
        return START_US + round(self.at_s * 1e6)

    @property
    def service(self) -> tuple[int, int]:
        return (1, 0) if self.unreachable else (17, self.port)

    @property
    def bad(self) -> bool:
        return self.failed and not self.unreachable


def batch(flows: Sequence[Flow]) -> FlowBatch:
    """The flows as a meter hands them on."""
    rows = empty_flows(len(flows))
    for row, one in zip(rows, flows, strict=True):
        row["first_us"] = row["last_us"] = row["src_first_us"] = row["src_last_us"] = one.at_us
        row["src_ip"] = np.frombuffer(pack_address(one.src), np.uint8)
        row["dst_ip"] = np.frombuffer(pack_address(one.dst), np.uint8)
        row["ip_version"], row["protocol"], row["dst_port"] = 4, *one.service
        row["icmp_type"] = 3 if one.unreachable else 0
        row["src_packets"] = one.unreachable or 1
        row["dst_packets"] = 0 if one.failed else 1
        row["src_bytes"], row["dst_bytes"] = one.sent, one.received
        row["server_name"], row["client_fingerprint"] = one.name, one.fingerprint
    return rows


def context(flows: Sequence[Flow], capacities: Capacities = SMALL) -> dict[str, list[float]]:
    """The context of each flow."""
    windows = ContextWindows(capacities)
    rows = batch(flows)
    done, columns = windows.push(rows, flow.window_keys(rows))
    assert done == len(flows)
    assert windows.flush()[0] == 0
    return {name: column.tolist() for name, column in columns.items()}


# ---------------------------------------------------------------------------------------
# The context: a naive reference


def weights(times: Sequence[int], horizon_s: int) -> list[float]:
    """What flows that ended at `times` count at the last of them."""
    step = horizon_s * 1_000_000 // TICKS
    ages = [times[-1] // step - then // step for then in times]
    return [math.exp(-age / TICKS) if age < FORGET_TICKS else 0.0 for age in ages]


def reference(flows: Sequence[Flow]) -> dict[str, float]:
    """The context of the last of `flows`, from the definitions."""
    last, before = flows[-1], flows[:-1]
    times = list(itertools.accumulate((one.at_us for one in flows), max))
    result = {}

    def distinct(weight: list[float], things: Iterable[object], of: Iterable[bool]) -> float:
        latest = {thing: w for thing, w, counts in zip(things, weight, of, strict=True) if counts}
        return sum(latest.values())

    sent = [one.src == last.src for one in flows]
    came = [one.dst == last.dst for one in flows]
    for horizon, horizon_s in zip(("10s", "10m"), HORIZONS_S, strict=True):
        w = weights(times, horizon_s)

        def total(of: Iterable[bool], amount: Callable[[Flow], float], w: list[float] = w) -> float:
            return sum(
                x * amount(one) for x, one, counts in zip(w, flows, of, strict=True) if counts
            )

        def share(part: float, rest: float) -> float:
            return part / (part + rest) if part else 0.0

        both = [a and b for a, b in zip(sent, came, strict=True)]
        services: collections.Counter[object] = collections.Counter()
        for x, one, counts in zip(w, flows, sent, strict=True):
            services[one.service] += x if counts else 0  # type: ignore[assignment]
        whole = sum(services.values())
        parts = [part / whole for part in services.values() if part]
        result |= {
            f"src_flows_{horizon}": total(sent, lambda one: 1),
            f"src_failed_{horizon}": total(sent, lambda one: one.bad) / total(sent, lambda one: 1),
            f"src_peers_{horizon}": distinct(w, [one.dst for one in flows], sent),
            f"src_services_{horizon}": distinct(w, [one.service for one in flows], sent),
            f"src_service_entropy_{horizon}": -sum(part * math.log2(part) for part in parts),
            f"src_out_share_{horizon}": share(
                total(sent, lambda one: one.sent), total(sent, lambda one: one.received)
            ),
            f"dst_flows_{horizon}": total(came, lambda one: 1),
            f"dst_failed_{horizon}": total(came, lambda one: one.bad) / total(came, lambda one: 1),
            f"dst_peers_{horizon}": distinct(w, [one.src for one in flows], came),
            f"pair_flows_{horizon}": total(both, lambda one: 1),
        }
        if horizon == "10m":
            reached = [one.dst == last.src for one in flows]
            result |= {
                "src_unreachable_10m": total(reached, lambda one: one.unreachable),
                "pair_failed_10m": total(both, lambda one: one.bad) / total(both, lambda one: 1),
                "pair_out_share_10m": share(
                    total(both, lambda one: one.sent), total(both, lambda one: one.received)
                ),
            }
            for term in ("name", "fingerprint"):
                value = getattr(last, term)
                same = [bool(value) and getattr(one, term) == value for one in flows]
                result[f"{term}_peers_10m"] = distinct(w, [one.src for one in flows], same)
    pair_times = [t for t, one in zip(times, before, strict=False) if (one.src, one.dst) ==
                  (last.src, last.dst)]  # fmt: skip
    result["pair_gap"] = min((times[-1] - pair_times[-1]) / 1e6, 86_400) if pair_times else 86_400
    hosts = {one.src for one in before} | {one.dst for one in before}
    result |= {
        "src_new": last.src not in hosts,
        "dst_new": last.dst not in hosts,
        "pair_new": not pair_times,
        "src_service_new": (last.src, last.service) not in {(o.src, o.service) for o in before},
        "dst_service_new": (last.dst, last.service)
        not in {(o.dst, o.service) for o in before if not o.bad},
        "name_new": last.name != b"" and (last.src, last.name) not in
        {(o.src, o.name) for o in before},
        "fingerprint_new": last.fingerprint != b"" and (last.src, last.fingerprint) not in
        {(o.src, o.fingerprint) for o in before},
    }  # fmt: skip
    return result


address = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.4"])
gaps = st.sampled_from([0.0, 0.0, 0.000_001, 0.1, 0.2, 1.0, 9.9, 60.0, 3_000.0, 200_000.0, -0.5])


@st.composite
def streams(draw: st.DrawFn) -> list[Flow]:
    at, flows = 1000.0, []
    for _ in range(draw(st.integers(1, 25))):
        at += draw(gaps)
        flows.append(
            Flow(
                at_s=at,
                src=draw(address),
                dst=draw(address),
                port=draw(st.sampled_from([53, 80, 443])),
                failed=draw(st.booleans()),
                sent=draw(st.sampled_from([0, 60, 1_000_000])),
                received=draw(st.sampled_from([0, 60, 1_000_000])),
                unreachable=draw(st.sampled_from([0, 0, 0, 2])),
                name=draw(st.sampled_from([b"", b"a.example", b"b.example"])),
                fingerprint=draw(st.sampled_from([b"", b"t13d1516h2_8daaf6152771_e5627efa2ab1"])),
            )
        )
    return flows


@given(streams())
@steady
def test_the_context_is_what_its_definition_says(flows: list[Flow]) -> None:
    found = context(flows)
    assert set(found) == set(NAMES)
    for number in range(len(flows)):
        expected = reference(flows[: number + 1])
        assert set(expected) == set(NAMES)
        for name in NAMES:
            wanted = float(expected[name])
            assert found[name][number] == pytest.approx(wanted, rel=1e-4, abs=1e-4), name


@given(streams(), st.lists(st.integers(0, 25), max_size=5))
@steady
def test_how_flows_are_cut_into_pushes_changes_nothing(flows: list[Flow], edges: list[int]) -> None:
    rows = batch(flows)
    whole = FeatureStream(flow.SCHEMA, 1).push(rows)[1]
    stream = FeatureStream(flow.SCHEMA, 1)
    places = [0, *sorted(min(edge, len(flows)) for edge in edges), len(flows)]
    parts = [stream.push(rows[a:b])[1] for a, b in itertools.pairwise(places)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert stream.flush()[1].shape == (0, len(flow.SCHEMA.features))


# ---------------------------------------------------------------------------------------
# The context: by hand


def test_a_scan_grows_in_fan_out_and_failures() -> None:
    # A host that has talked to one server five times begins to try 200 others, 1 ms apart.
    flows = [Flow(at_s=number) for number in range(5)]
    flows += [
        Flow(at_s=5 + n / 1000, dst=f"10.0.1.{n + 1}", port=n + 1, failed=True) for n in range(200)
    ]
    found = context(flows, Capacities(512, 512, 512, 512, 512, 64))
    assert found["src_peers_10s"][:5] == [1.0] * 5
    scan = found["src_peers_10s"][5:]
    assert scan == sorted(scan)
    assert scan[-1] == pytest.approx(201, abs=1)
    assert found["src_services_10m"][-1] == pytest.approx(201, abs=1)
    assert found["src_failed_10s"][4] == 0.0
    assert found["src_failed_10s"][-1] == pytest.approx(200 / 205, abs=0.01)
    # 201 services, 5 of 205 flows to one of them.
    entropy = -(5 / 205 * math.log2(5 / 205) + 200 / 205 * math.log2(1 / 205))
    assert found["src_service_entropy_10m"][-1] == pytest.approx(entropy, abs=0.02)
    assert found["pair_new"] == [1.0] + [0.0] * 4 + [1.0] * 200
    assert found["dst_service_new"][4:] == [0.0] + [1.0] * 200
    assert found["dst_flows_10m"][-1] == 1.0


def test_a_flood_shows_at_its_destination() -> None:
    flows = [
        Flow(at_s=n / 1000, src=f"192.0.2.{n % 250 + 1}", port=80, failed=True) for n in range(1000)
    ]
    found = context(flows, Capacities(512, 512, 512, 512, 512, 64))
    assert found["dst_peers_10s"][-1] == pytest.approx(250, rel=0.01)
    assert found["dst_flows_10m"][-1] == pytest.approx(1000, rel=0.01)
    assert found["dst_failed_10s"][-1] == 1.0
    assert found["src_peers_10s"][-1] == 1.0


def test_first_times_are_told_once() -> None:
    flows = [
        Flow(0, "10.0.0.1", "10.0.0.2", 53),
        Flow(1, "10.0.0.1", "10.0.0.2", 80),  # known pair, new service on both sides
        Flow(2, "10.0.0.3", "10.0.0.2", 80),  # new source, to what others use
        Flow(3, "10.0.0.2", "10.0.0.3", 80),  # a server becomes a client: known hosts, new pair
        Flow(4, "10.0.0.1", "10.0.0.2", 22, failed=True),
        Flow(5, "10.0.0.1", "10.0.0.2", 22, failed=True),  # tried before, but never offered
        Flow(6, "10.0.0.1", "10.0.0.2", 22),
        Flow(7, "10.0.0.1", "10.0.0.2", 22),
    ]
    found = context(flows)
    assert found["src_new"] == [1, 0, 1, 0, 0, 0, 0, 0]
    assert found["dst_new"] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert found["pair_new"] == [1, 0, 1, 1, 0, 0, 0, 0]
    assert found["src_service_new"] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert found["dst_service_new"] == [1, 1, 0, 1, 1, 1, 1, 0]
    assert found["pair_gap"] == [86_400, 1, 86_400, 86_400, 3, 1, 1, 1]


def test_names_and_fingerprints_are_counted_by_the_sources_that_have_them() -> None:
    flows = [
        Flow(0, "10.0.0.1", name=b"a.example", fingerprint=b"f"),
        Flow(0, "10.0.0.3", name=b"a.example"),
        Flow(0, "10.0.0.3", name=b"a.example"),
        Flow(0, "10.0.0.3"),
        Flow(0, "10.0.0.4", name=b"b.example", fingerprint=b"f"),
    ]
    found = context(flows)
    assert found["name_peers_10m"] == [1, 2, 2, 0, 1]
    assert found["name_new"] == [1, 1, 0, 0, 1]
    assert found["fingerprint_peers_10m"] == [1, 0, 0, 0, 2]
    assert found["fingerprint_new"] == [1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("after_s", "short", "long"),
    [
        (0.0, 2.0, 2.0),
        (10.0, 1 + math.exp(-1), 1 + math.exp(-10 / 600)),
        (600.0, 1.0, 1 + math.exp(-1)),
        (3 * 3600.0, 1.0, 1.0),
    ],
)
def test_flows_fade_over_the_horizons(after_s: float, short: float, long: float) -> None:
    # START_US is a whole multiple of the short step; the long one is 12 s, so that is coarse.
    found = context([Flow(0), Flow(after_s)])
    assert found["src_flows_10s"][1] == pytest.approx(short, abs=1e-6)
    assert found["src_flows_10m"][1] == pytest.approx(long, abs=0.02)
    # The same peer and service are one, however often.
    assert found["src_peers_10s"][1] == found["src_peers_10m"][1] == 1.0
    assert found["src_services_10s"][1] == found["dst_peers_10m"][1] == 1.0


def test_a_late_flow_does_not_turn_the_clock_back() -> None:
    found = context([Flow(100), Flow(50), Flow(100)])
    assert found["src_flows_10s"] == [1.0, 2.0, 3.0]
    assert found["pair_gap"] == [86_400, 0, 0]


def test_a_host_that_talks_to_itself_is_one_host() -> None:
    found = context([Flow(0, "10.0.0.1", "10.0.0.1")])
    assert found["src_new"] == found["dst_new"] == [1.0]
    assert found["src_flows_10s"] == found["dst_flows_10s"] == [1.0]


# ---------------------------------------------------------------------------------------
# Bounded memory


@dataclass
class LeastRecent:
    """What a table should remember."""

    capacity: int
    forgotten: int = 0
    held: collections.OrderedDict[object, None] = field(default_factory=collections.OrderedDict)

    def touch(self, key: object) -> bool:
        """Whether `key` was there; now it is the newest."""
        known = key in self.held
        if not known and len(self.held) == self.capacity:
            self.held.popitem(last=False)
            self.forgotten += 1
        self.held[key] = None
        self.held.move_to_end(key)
        return known


# Keys that all want the same few slots.
crowded = st.sampled_from([low + (high << 40) for low in (0, 1, 15) for high in range(6)])


@given(st.lists(crowded, max_size=80), st.sampled_from([2, 4, 8]))
@steady
def test_tables_keep_the_most_recent_of_colliding_keys(keys: list[int], capacity: int) -> None:
    table, expected = new_table(capacity), LeastRecent(capacity)
    for key in keys:
        entry, known = touch(table, np.uint64(key))
        assert known == expected.touch(key)
        assert table.keys[entry] == key
    for key in set(keys):
        assert (find(table, np.uint64(key)) >= 0) == (key in expected.held)
    assert table.head[3] == expected.forgotten


@given(streams())
@steady
def test_the_oldest_hosts_and_pairs_are_forgotten_and_counted(flows: list[Flow]) -> None:
    windows = ContextWindows(Capacities(2, 2, 2, 2, 2, 2))
    rows = batch(flows)
    columns = windows.push(rows, flow.window_keys(rows))[1]
    hosts, pairs = LeastRecent(2), LeastRecent(2)
    for number, one in enumerate(flows):
        assert columns["src_new"][number] == (not hosts.touch(one.src))
        hosts.touch(one.dst)
        assert columns["pair_new"][number] == (not pairs.touch((one.src, one.dst)))
    assert windows.forgotten["hosts"] == hosts.forgotten
    assert windows.forgotten["pairs"] == pairs.forgotten
    assert max(windows.known.values()) <= 2
    for name, values in columns.items():
        assert np.isfinite(values).all(), name
        assert (values >= 0).all(), name


def strangers(first: int, count: int) -> FlowBatch:
    """`count` flows between 2 `count` hosts that nobody has seen before."""
    rows = empty_flows(count)
    numbers = np.arange(first, first + count)
    rows["first_us"] = rows["last_us"] = START_US + 100 * numbers
    for side, host in (("src", 2 * numbers), ("dst", 2 * numbers + 1)):
        rows[f"{side}_ip"][:, 10:12] = 255
        rows[f"{side}_ip"][:, 12:] = (host + (10 << 24)).astype(">u4").view("u1").reshape(-1, 4)
        rows[f"{side}_packets"], rows[f"{side}_bytes"] = 1, 60
    rows["ip_version"], rows["protocol"], rows["dst_port"] = 4, 17, 53
    return rows


@pytest.mark.parametrize("capacity", [Capacities(), Capacities(2**14, 2**13, 64, 64, 64, 64)])
def test_memory_is_bounded_under_a_million_hosts(capacity: Capacities) -> None:
    windows, chunk, size = ContextWindows(capacity), 50_000, 0
    for first in range(0, 550_000, chunk):
        rows = strangers(first, chunk)
        columns = windows.push(rows, flow.window_keys(rows))[1]
        size = size or windows.nbytes
        assert windows.nbytes == size < 200e6
        assert columns["pair_new"].all()
        assert (columns["src_flows_10m"] == 1).all()
        met = 2 * (first + chunk)
        assert windows.known["hosts"] == min(met, capacity.hosts)
        assert windows.forgotten["hosts"] == max(met - capacity.hosts, 0)
        if met == 1_000_000 and capacity == Capacities():
            assert not windows.forgotten["hosts"]
            assert not windows.forgotten["pairs"]
    # No two of 1.1 million addresses were taken for one.
    assert windows.known["hosts"] + windows.forgotten["hosts"] == 1_100_000


@pytest.mark.parametrize("wrong", [0, 1, 3, 1000])
def test_capacities_are_powers_of_two(wrong: int) -> None:
    with pytest.raises(ValueError, match="pairs"):
        Capacities(pairs=wrong)


def test_cost_of_a_flow(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints what a flow costs; the bound is loose, for machines with other work to do."""
    rows = np.concatenate([strangers(0, 2000)] * 5)
    rows["last_us"] = START_US + 100 * np.arange(len(rows))
    windows, stream, cost = ContextWindows(), FeatureStream(flow.SCHEMA, 1000), []
    for begin in range(0, len(rows), 1000):
        piece = rows[begin : begin + 1000]
        marks = [time.thread_time()]
        keys = flow.window_keys(piece)
        marks.append(time.thread_time())
        windows.push(piece, keys)
        marks.append(time.thread_time())
        stream.push(piece)
        marks.append(time.thread_time())
        cost.append(np.diff(marks) * 1e3)
    keys_us, windows_us, all_us = np.median(cost, axis=0)
    with capsys.disabled():
        print(  # noqa: T201
            f"\na flow in batches of 1,000: keys {keys_us:.2f} us, windows {windows_us:.2f} us, "
            f"FeatureStream.push with both {all_us:.2f} us"
        )
    assert keys_us + windows_us < 20
    assert all_us < 100


# ---------------------------------------------------------------------------------------
# The rules of a flow


def value(name: str, **fields: object) -> float | str:
    """What feature `name` says of one TCP flow of one source packet with `fields` set."""
    rows = empty_flows(1)
    rows["src_packets"], rows["protocol"], rows["ip_version"] = 1, 6, 4
    for key, content in fields.items():
        if key in ("src_ip", "dst_ip"):
            content = np.frombuffer(pack_address(str(content)), np.uint8)
        rows[key] = content
    feature = KINDS[name]
    assert feature.measure is not None
    found = float(np.asarray(feature.measure(FlowView(rows, {}, 1)), np.float64)[0])
    return feature.show(found) if feature.vocabulary else found


@pytest.mark.parametrize(
    ("src", "dst", "state"),
    [
        (SYN, 0, "S0"),
        (SYN | ACK, SYN | ACK, "S1"),
        (SYN | ACK | FIN, SYN | ACK | FIN, "SF"),
        (SYN | ACK | FIN | RST, SYN | ACK | FIN, "SF"),
        (SYN, RST | ACK, "REJ"),
        (SYN | ACK | FIN, SYN | ACK, "S2"),
        (SYN | ACK, SYN | ACK | FIN, "S3"),
        (SYN | ACK | RST, SYN | ACK, "RSTO"),
        (SYN | RST, SYN | ACK, "RSTO"),
        (SYN | ACK, SYN | ACK | RST, "RSTR"),
        (SYN | RST, 0, "RSTOS0"),
        (0, SYN | ACK | RST, "RSTRH"),
        (SYN | FIN, 0, "SH"),
        (0, SYN | ACK | FIN, "SHR"),
        (ACK, ACK, "OTH"),
        (0, 0, "OTH"),
    ],
)
def test_states_are_zeeks(src: int, dst: int, state: str) -> None:
    assert value("state", src_tcp_flags=src, dst_tcp_flags=dst, dst_packets=1) == state


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"dst_packets": 0}, 1),
        ({"src_tcp_flags": SYN, "dst_tcp_flags": RST | ACK, "dst_packets": 1}, 1),
        ({"src_tcp_flags": SYN | RST, "dst_tcp_flags": SYN | ACK, "dst_packets": 1}, 0),
        ({"src_tcp_flags": SYN, "dst_tcp_flags": SYN | RST, "dst_packets": 2}, 1),
        (
            {
                "src_tcp_flags": SYN,
                "dst_tcp_flags": SYN | RST,
                "dst_packets": 2,
                "dst_payload_bytes": 1,
            },
            0,
        ),
        ({"src_tcp_flags": ACK, "dst_tcp_flags": ACK, "dst_packets": 1}, 0),
        ({"protocol": 17, "dst_ip": "10.0.0.1"}, 1),
        ({"protocol": 17, "dst_ip": "10.0.0.1", "dst_packets": 1}, 0),
        ({"protocol": 17, "dst_ip": "224.0.0.251"}, 0),
        ({"protocol": 17, "dst_ip": "ff02::fb"}, 0),
        ({"protocol": 17, "dst_ip": "255.255.255.255"}, 0),
        ({"protocol": 1, "dst_ip": "10.0.0.1", "icmp_type": 8}, 1),
        ({"protocol": 1, "dst_ip": "10.0.0.1", "icmp_type": 3}, 0),
        ({"protocol": 58, "dst_ip": "fd00::1", "icmp_type": 128}, 1),
        ({"protocol": 58, "dst_ip": "fd00::1", "icmp_type": 1}, 0),
    ],
)
def test_what_fails(fields: dict[str, object], expected: int) -> None:
    assert value("failed", **fields) == expected


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("8.8.8.8", "public"), ("172.15.0.1", "public"), ("172.32.0.1", "public"),
        ("10.0.0.0", "private"), ("172.16.0.1", "private"), ("172.31.255.255", "private"),
        ("192.168.1.1", "private"), ("100.64.0.1", "private"), ("100.128.0.1", "public"),
        ("169.254.1.1", "link-local"), ("127.0.0.1", "loopback"), ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"), ("255.255.255.255", "broadcast"),
        ("0.0.0.0", "unspecified"), ("240.0.0.1", "reserved"), ("2001:db8::1", "public"),  # noqa: S104
        ("fc00::1", "private"), ("fdff::1", "private"), ("fe80::1", "link-local"),
        ("febf::1", "link-local"), ("fec0::1", "public"), ("::1", "loopback"),
        ("::", "unspecified"), ("::2", "public"), ("ff02::1", "multicast"),
    ],
)  # fmt: skip
def test_scopes(text: str, scope: str) -> None:
    if text == "::":  # pack_address keeps it apart from 0.0.0.0
        assert pack_address(text) != pack_address("0.0.0.0")  # noqa: S104
    assert value("src_scope", src_ip=text) == value("dst_scope", dst_ip=text) == scope


@pytest.mark.parametrize(
    ("ttl", "start", "hops"),
    [(0, "32", 32), (1, "32", 31), (32, "32", 0), (33, "64", 31), (64, "64", 0), (65, "128", 63),
     (128, "128", 0), (129, "255", 126), (255, "255", 0)],
)  # fmt: skip
def test_ttls_tell_where_they_started(ttl: int, start: str, hops: int) -> None:
    assert value("src_ttl_class", src_ttl=ttl) == start
    assert value("src_hops", src_ttl=ttl) == hops
    # A side that said nothing has none.
    assert value("dst_ttl_class", dst_ttl=ttl) == "(unknown)"
    assert value("dst_hops", dst_ttl=ttl) == 0


@pytest.mark.parametrize(
    ("port", "name"),
    [(0, "none"), (1, "system"), (22, "ssh"), (443, "https"), (1023, "system"),
     (1024, "registered"), (3389, "rdp"), (32767, "registered"), (32768, "ephemeral"),
     (51820, "wireguard"), (65535, "ephemeral")],
)  # fmt: skip
def test_port_classes(port: int, name: str) -> None:
    assert value("src_port_class", src_port=port) == value("dst_port_class", dst_port=port) == name


@pytest.mark.parametrize(
    ("text", "protocol", "application"),
    [
        (b"TLS.Google", "TLS", "Google"),
        (b"DNS", "DNS", "DNS"),
        (b"Unknown", "Unknown", "Unknown"),
        (b"QUIC.YouTube", "QUIC", "YouTube"),
        (b"TLS.NotYetKnown", "TLS", "(unknown)"),
        (b"TL", "(unknown)", "(unknown)"),
        (b"TLSx", "(unknown)", "(unknown)"),
        (b"", "(unknown)", "(unknown)"),
        (b"x" * 40, "(unknown)", "(unknown)"),
    ],
)
def test_applications(text: bytes, protocol: str, application: str) -> None:
    assert value("application_protocol", application=text) == protocol
    assert value("application", application=text) == application
    assert value("quic", application=text) == (protocol == "QUIC")
    assert value("tls", application=text) == (protocol in ("TLS", "QUIC"))


def test_every_declared_name_is_found() -> None:
    rows = empty_flows(len(APPLICATIONS))
    rows["application"] = [name.encode() for name in APPLICATIONS]
    measure = KINDS["application"].measure
    assert measure is not None
    assert np.asarray(measure(FlowView(rows, {}, 1))).tolist() == list(range(len(APPLICATIONS)))


# What users may define, and what is not there.
_OTHERS = ("User custom category", "Invalid category")


def test_the_declared_names_are_those_of_the_library() -> None:
    library = pytest.importorskip("_lib_engine")
    from nfstream.engine import create_engine, setup_dissector

    ffi, lib = create_engine()
    module = ctypes.c_void_p(int(ffi.cast("uintptr_t", setup_dissector(ffi, lib, 20))))
    ndpi = ctypes.CDLL(library.__file__)
    protocol, category = ndpi.ndpi_get_proto_name, ndpi.ndpi_category_get_name
    protocol.argtypes = category.argtypes = [ctypes.c_void_p, ctypes.c_uint16]
    protocol.restype = category.restype = ctypes.c_char_p
    count = ndpi.ndpi_get_num_protocols(module)
    assert [protocol(module, number).decode() for number in range(count)] == list(APPLICATIONS)
    names = dict.fromkeys((category(module, number) or b"").decode() for number in range(512))
    given_names = [name for name in names if name and not name.startswith(_OTHERS)]
    assert given_names == list(CATEGORIES)


def test_texts_by_shape() -> None:
    name = b"www.example.com"
    assert value("name", server_name=name) == 1
    assert value("name_length", server_name=name) == 15
    assert value("name_labels", server_name=name) == 3
    # w 3, dot 2, e 2, m 2, and x a p l c o 1 each.
    parts = [3, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    assert sum(parts) == 15
    entropy = -sum(part / 15 * math.log2(part / 15) for part in parts)
    assert value("name_entropy", server_name=name) == pytest.approx(entropy)
    for feature in ("name", "name_length", "name_labels", "name_entropy"):
        assert value(feature, server_name=b"") == 0
    assert value("name_labels", server_name=b"..a..b.") == 2
    assert value("name_entropy", server_name=b"aaaa") == 0


@pytest.mark.parametrize(
    ("ending", "closing"),
    [(Ending.IDLE, "idle"), (Ending.ACTIVE, "active"), (Ending.FIN, "fin"),
     (Ending.CAPTURE_END, "cut"), (Ending.EVICTED, "cut"), (Ending.SHUTDOWN, "cut"),
     (Ending.EARLY, "open")],
)  # fmt: skip
def test_closings(ending: Ending, closing: str) -> None:
    assert value("closed_by", ending=ending) == closing


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("packet_share", {"src_packets": 3, "dst_packets": 1}, 0.75),
        ("byte_share", {"src_bytes": 0, "dst_bytes": 0}, 0),
        ("payload_share", {"src_payload_bytes": 10, "dst_payload_bytes": 30}, 0.25),
        ("src_payload_part", {"src_packets": 4, "src_payload_packets": 1}, 0.25),
        ("dst_payload_part", {}, 0),
        ("src_rate", {"src_packets": 4, "last_us": 2_000_000}, 2),
        ("src_load", {"src_bytes": 100, "last_us": 2_000_000}, 400),
        ("src_load", {"src_bytes": 100}, 0),
        ("src_size_mean", {"src_bytes": 100, "src_packets": 3}, 100 / 3),
        ("answer_delay", {"src_first_us": 5, "dst_first_us": 1_000_005}, 1),
        ("answer_delay", {"src_first_us": 5}, 0),
        ("synack", {"syn_us": 0, "synack_us": 250_000}, 0.25),
        ("ackdat", {"synack_us": 0, "ack_us": NEVER}, 0),
        ("early_turns", {"early_payload": [5, -3, -2, 7, 0, 0, 0, 0]}, 2),
        ("early_turns", {"early_payload": [0] * 8}, 0),
        ("early_2", {"early_payload": [5, -3, 0, 0, 0, 0, 0, 0]}, -3),
    ],
)
def test_amounts(name: str, fields: dict[str, object], expected: float) -> None:
    assert value(name, **fields) == pytest.approx(expected)


def test_flags_are_letters() -> None:
    assert value("src_flags", src_tcp_flags=SYN | ACK | TcpFlag.ECE) == "SA"
    assert value("dst_flags", dst_tcp_flags=0) == "-"
    assert value("src_flags", src_tcp_flags=SYN, protocol=17) == "-"


def test_rows_are_already_what_a_sensor_measures() -> None:
    rows = np.random.default_rng(0).random((4, len(flow.SCHEMA.features)))
    np.testing.assert_array_equal(flow.SCHEMA.remeasure(rows, 1000, np.random.default_rng(0)), rows)
    assert all(feature.live for feature in flow.SCHEMA.features)
