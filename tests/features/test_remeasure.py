"""Published rows as the sensor would have measured them, and the formulas behind it."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import kdd
from features.flows import FlowBatch, empty_flows
from features.schema import FloatArray
from features.stream import FeatureStream
from features.unsw_nb15 import (
    PROTOCOLS,
    SCHEMA,
    jitter_on_clock,
    load_bps,
    mean_size,
    rate_pps,
    remeasure,
)
from training.datasets import DATASETS
from training.datasets.base import Table

steady = settings(max_examples=40, deadline=None, database=None, derandomize=True)

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("FLOWVANE_CORPUS") or ROOT.parent / "shared" / "data")
corpus = pytest.mark.skipif(
    not (CORPUS / "unsw-nb15").is_dir(),
    reason=f"no UNSW-NB15 files at {CORPUS}; set FLOWVANE_CORPUS to where they are",
)

AT = {name: column for column, name in enumerate(SCHEMA.names)}
CLOCKS = st.sampled_from([1, 10, 1000, 10_000])


def row(**values: float) -> FloatArray:
    """One row ``[1, 42]``, 0 where not said."""
    rows = np.zeros((1, len(AT)))
    for name, value in values.items():
        rows[0, AT[name]] = value
    return rows


def random_rows(seed: int, count: int = 50) -> FloatArray:
    """Rows that hang together as published ones do: times in µs, every packet twice."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, len(AT)))

    def put(name: str, values: object) -> None:
        rows[:, AT[name]] = values

    dur_us = rng.choice([0, 1, 9, 999, 1000, 123_456, 59_999_999], count)
    dur_us = np.where(rng.random(count) < 0.5, dur_us, rng.integers(0, 60_000_000, count))
    synack_us = (dur_us * rng.random(count) * (rng.random(count) < 0.5)).astype(np.int64)
    tcprtt_us = np.where(synack_us > 0, (synack_us + dur_us) // 2, 0)
    put("dur", dur_us / 1e6)
    put("synack", synack_us / 1e6)
    put("tcprtt", tcprtt_us / 1e6)
    put("ackdat", (tcprtt_us - synack_us) / 1e6)
    for side in "sd":
        packets = 2 * rng.choice([0 if side == "d" else 1, 1, 2, 5, 400], count)
        span_us = np.where(packets > 2, (dur_us * rng.random(count)).astype(np.int64), 0)
        put(f"{side}pkts", packets)
        put(f"{side}bytes", packets * rng.integers(28, 1500, count))
        put(f"{side}inpkt", span_us / 1e3 / np.maximum(packets - 1, 1))
        put(f"{side}jit", rng.random(count) * 100)
        put(f"{side}ttl", rng.choice([0, 31, 62, 254], count))
        put(f"{side}tcpb", rng.integers(0, 2**32, count))
    for name in ("proto", "state", "ct_srv_src", "ct_dst_ltm", "trans_depth", "is_sm_ips_ports"):
        put(name, rng.integers(0, 2, count))
    return rows


def col(rows: FloatArray, name: str) -> FloatArray:
    values: FloatArray = rows[:, AT[name]]
    return values


class OnTheTick:
    """A random generator whose every flow begins right with a tick."""

    def random(self, count: int) -> FloatArray:
        return np.zeros(count)


def again(rows: FloatArray, clock_us: int, seed: int = 0) -> FloatArray:
    """Remeasured with a generator of its own."""
    return remeasure(rows, clock_us, np.random.default_rng(seed))


# ---------------------------------------------------------------------------------------
# One copy of each packet, whole frames


@pytest.mark.parametrize(
    ("recorded", "packets"), [(10, 5), (2, 1), (400, 200), (0, 0), (1, 1), (11, 6)]
)
def test_copies_are_counted_once(recorded: int, packets: int) -> None:
    for side in "sd":
        result = again(row(dur=1.0, **{f"{side}pkts": recorded, f"{side}bytes": 60 * recorded}), 1)
        assert col(result, f"{side}pkts") == packets


def test_a_frame_has_14_octets_more_than_published() -> None:
    # Ten records of 40 octets: five packets of 54.
    result = again(
        row(dur=1.0, spkts=10, sbytes=400, smean=40, dpkts=2, dbytes=2000, dmean=1000), 1
    )
    assert col(result, "sbytes") == 5 * (40 + 14)
    assert col(result, "smean") == 54
    assert col(result, "dbytes") == 1014
    assert col(result, "dmean") == 1014


def test_a_side_that_was_silent_stays_silent() -> None:
    result = again(row(dur=1.0, spkts=10, sbytes=400), 1000)
    for name in ("dpkts", "dbytes", "dmean", "dload", "dinpkt"):
        assert col(result, name) == 0


def test_mean_intervals_are_those_between_packets_not_between_copies() -> None:
    # Packets at 0, 10, 20, 30 and 40 ms, each twice: published is 40 ms / 9.
    result = again(row(dur=0.04, spkts=10, sbytes=400, sinpkt=40 / 9), 1000)
    assert col(result, "sinpkt") == pytest.approx(10.0)
    # Two copies of one packet 10 us apart are one packet.
    result = again(row(dur=0.00001, spkts=2, sbytes=80, sinpkt=0.01), 1)
    assert col(result, "sinpkt") == 0


def test_jitter_is_that_of_one_copys_intervals() -> None:
    # Packets at 0, 10 and 30 ms: intervals of 10 and 20 ms, whose standard deviation is 5 ms.
    # Recorded twice: 0, 10, 0, 20 and 0 ms, mean 6, mean square 100, standard deviation 8.
    recorded = {"dur": 0.03, "spkts": 6, "sbytes": 240, "sinpkt": 6.0}
    assert col(again(row(**recorded, sjit=8.0), 1), "sjit") == pytest.approx(5.0)
    # Where Argus slipped by 1000 it published the root of 1000 * 100 - 6 * 6, more than could be.
    slipped = (1000 * 100 - 6 * 6) ** 0.5
    assert col(again(row(**recorded, sjit=slipped), 1), "sjit") == pytest.approx(5.0)
    # Two packets have one interval, which varies from nothing.
    lone = {"dur": 0.03, "spkts": 4, "sbytes": 160, "sinpkt": 10.0}
    assert col(again(row(**lone, sjit=14.14), 1), "sjit") == 0


def test_an_interval_since_the_record_before_is_one_of_a_single_copy() -> None:
    # A packet 60 s after the last copy of one of the record before, twice: published is 60 s / 2.
    alone = {"dur": 0.0, "spkts": 2, "sbytes": 80, "sinpkt": 30_000.0, "sjit": 30_000.0}
    assert col(again(row(**alone), 1000), "sinpkt") == 60_000
    assert col(again(row(**alone), 1000), "sjit") == 0
    # The laboratory's ARP requests, of which it recorded some once.
    asked = {"dur": 0.0, "spkts": 1, "sbytes": 46, "sinpkt": 60_000.688}
    assert col(again(row(**asked), 1), "sinpkt") == pytest.approx(60_000.688)
    # Three packets at 0, 10 and 30 ms, 60 s after the record before.
    gaps = np.array([60_000.0, 10.0, 20.0])
    copies = np.array([*gaps, 0.0, 0.0, 0.0])
    recorded = {"dur": 0.03, "dpkts": 6, "dbytes": 240, "dinpkt": copies.mean()}
    slipped = (1000 * (copies**2).mean() - copies.mean() ** 2) ** 0.5
    for jitter in (copies.std(), slipped):
        result = again(row(**recorded, djit=jitter), 1)
        assert col(result, "dpkts") == 3
        assert col(result, "dinpkt") == pytest.approx(gaps.mean())
        assert col(result, "djit") == pytest.approx(gaps.std(), abs=0.001)


def test_intervals_that_are_longer_than_the_flow_by_rounding_are_its_own() -> None:
    # As a pair of ARP requests is published: the two records are taken for copies of one packet.
    result = again(row(dur=59.999989, spkts=2, sbytes=92, sinpkt=60_000.578), 1)
    assert col(result, "sinpkt") == 0


def test_jitter_is_rounded_to_the_clock() -> None:
    jitter = np.array([12.3456, 0.4, 0.0])
    assert jitter_on_clock(jitter, 1000).tolist() == [12, 0, 0]
    assert jitter_on_clock(jitter, 10) == pytest.approx([12.35, 0.4, 0])
    assert jitter_on_clock(jitter, 1) == pytest.approx([12.346, 0.4, 0])


@given(seed=st.integers(0, 2**32 - 1), clock_us=CLOCKS)
@steady
def test_other_columns_and_the_rows_given_are_left_alone(seed: int, clock_us: int) -> None:
    rows = random_rows(seed)
    before = rows.copy()
    result = again(rows, clock_us)
    np.testing.assert_array_equal(rows, before)
    measured = {"dur", "rate", "synack", "tcprtt", "ackdat"} | {
        f"{side}{what}"
        for side in "sd"
        for what in ("pkts", "bytes", "load", "inpkt", "jit", "mean")
    }
    for name in AT:
        if name not in measured:
            np.testing.assert_array_equal(col(result, name), col(rows, name), name)


def test_the_same_seed_gives_the_same_rows() -> None:
    rows = random_rows(1)
    np.testing.assert_array_equal(again(rows, 1000, 5), again(rows, 1000, 5))


# ---------------------------------------------------------------------------------------
# The clock


@given(seed=st.integers(0, 2**32 - 1), clock_us=CLOCKS)
@steady
def test_times_are_whole_ticks_and_less_than_one_off(seed: int, clock_us: int) -> None:
    rows = random_rows(seed)
    result = again(rows, clock_us, seed)
    tick_s = clock_us / 1e6
    for name in ("dur", "synack", "tcprtt", "ackdat"):
        ticks = col(result, name) / tick_s
        np.testing.assert_allclose(ticks, np.round(ticks), atol=1e-4, err_msg=name)
    for name in ("dur", "synack", "tcprtt"):
        off = np.abs(col(result, name) - col(rows, name))
        assert off.max() < tick_s * (1 + 1e-6), name


@given(seed=st.integers(0, 2**32 - 1))
@steady
def test_a_clock_of_a_microsecond_hardly_changes_a_duration(seed: int) -> None:
    rows = random_rows(seed)
    off = np.abs(col(again(rows, 1, seed), "dur") - col(rows, "dur"))
    assert off.max() < 2e-6


@given(seed=st.integers(0, 2**32 - 1), clock_us=CLOCKS)
@steady
def test_intervals_are_at_most_a_tick_over_their_gaps_off(seed: int, clock_us: int) -> None:
    rows = random_rows(seed)
    result = again(rows, clock_us, seed)
    for side in "sd":
        recorded, packets = col(rows, f"{side}pkts"), col(result, f"{side}pkts")
        several = packets > 1
        span = col(rows, f"{side}inpkt") * np.maximum(recorded - 1, 0)
        off = np.abs(col(result, f"{side}inpkt") * (packets - 1) - span)
        assert (off[several] < clock_us / 1e3 * (1 + 1e-6)).all()
        assert (col(result, f"{side}inpkt")[~several] == 0).all()


@given(seed=st.integers(0, 2**32 - 1), clock_us=CLOCKS)
@steady
def test_times_that_fit_the_clock_stay(seed: int, clock_us: int) -> None:
    once = again(random_rows(seed), clock_us, 1)
    twice = again(once, clock_us, 2)
    for name in ("dur", "synack", "tcprtt", "ackdat"):
        np.testing.assert_allclose(col(twice, name), col(once, name), atol=1e-9, err_msg=name)


def test_a_tick_that_is_no_binary_fraction_is_still_one_tick() -> None:
    # 1.001 s are 1001 ticks of a millisecond clock, though 1.001 * 1000 falls short of that, even
    # of a flow that began right with a tick.
    assert 1.001 * 1000 < 1001
    for dur in (0.001, 0.29, 1.001, 1.1, 59.999):
        result = remeasure(row(dur=dur), 1000, OnTheTick())  # type: ignore[arg-type]
        assert result[0, AT["dur"]] == pytest.approx(dur, abs=1e-12)


def test_the_beginning_within_a_tick_decides_how_an_interval_comes_out() -> None:
    # Half a tick is seen as a whole one by half of the flows.
    rows = np.repeat(row(dur=0.0005), 4000, axis=0)
    seen = col(again(rows, 1000), "dur")
    assert set(seen.tolist()) == {0.0, 0.001}
    assert 0.45 < (seen > 0).mean() < 0.55


@given(seed=st.integers(0, 2**32 - 1), clock_us=CLOCKS)
@steady
def test_times_of_one_flow_share_their_beginning(seed: int, clock_us: int) -> None:
    rows = random_rows(seed)
    result = again(rows, clock_us, seed)
    dur, tcprtt, synack = (col(result, name) for name in ("dur", "tcprtt", "synack"))
    np.testing.assert_array_equal(col(result, "ackdat"), tcprtt - synack)
    # What is longer never comes out shorter.
    assert (synack <= tcprtt).all()
    assert (tcprtt <= dur).all()
    sent = col(result, "sinpkt") * np.maximum(col(result, "spkts") - 1, 0) / 1e3
    assert (sent <= dur + 1e-9).all()
    no_handshake = col(rows, "tcprtt") == 0
    assert (tcprtt[no_handshake] == 0).all()
    assert (synack[no_handshake] == 0).all()


# ---------------------------------------------------------------------------------------
# Rates


@given(seed=st.integers(0, 2**32 - 1), clock_us=CLOCKS)
@steady
def test_rates_follow_from_the_remeasured_columns(seed: int, clock_us: int) -> None:
    for values in again(random_rows(seed), clock_us, seed):
        of = dict(zip(SCHEMA.names, values.tolist(), strict=True))
        dur = of["dur"]
        rate = (of["spkts"] + of["dpkts"] - 1) / dur if dur else 0
        assert of["rate"] == pytest.approx(rate)
        for side in "sd":
            packets, octets = of[f"{side}pkts"], of[f"{side}bytes"]
            load = 8 * (octets - octets // packets) / dur if dur and packets else 0
            assert of[f"{side}load"] == pytest.approx(load)
            mean = octets / packets if packets else 0
            assert abs(of[f"{side}mean"] - mean) <= 0.5


def test_formulas_by_hand() -> None:
    def one(value: float) -> FloatArray:
        return np.array([value])

    # Three packets, 300 octets in 2 s: 8 * (300 - 100) / 2 bit/s and (3 - 1) / 2 packets/s.
    assert load_bps(one(300), one(3), one(2.0)) == 800
    assert load_bps(one(301), one(3), one(2.0)) == 804  # the mean packet is whole octets
    assert load_bps(one(60), one(1), one(2.0)) == 0
    assert rate_pps(one(3), one(2.0)) == 1
    for packets, dur in ((0, 1.0), (3, 0.0), (0, 0.0)):
        assert load_bps(one(0), one(packets), one(dur)) == 0
    assert rate_pps(one(3), one(0.0)) == 0
    assert mean_size(one(5), one(2)) == 3  # half-way cases up
    assert mean_size(one(7), one(2)) == 4
    assert mean_size(one(0), one(0)) == 0


# ---------------------------------------------------------------------------------------
# The two ways to a row meet


@given(
    src=st.lists(st.tuples(st.integers(0, 5000), st.integers(46, 1500)), min_size=1, max_size=8),
    dst=st.lists(st.tuples(st.integers(0, 5000), st.integers(46, 1500)), max_size=8),
    since=st.tuples(*[st.just(0) | st.integers(30_000, 119_999)] * 2),
)
@steady
def test_a_remeasured_row_is_what_the_sensor_measures(
    src: list[tuple[int, int]], dst: list[tuple[int, int]], since: tuple[int, int]
) -> None:
    # Time in ms after the flow began, and octets from the IP header on, of each packet; time since
    # an earlier record, 0 without one.
    sides = {"s": sorted([(0, src[0][1]), *src[1:]]), "d": sorted(dst)}
    last_ms = max(time for packets in sides.values() for time, _ in packets)
    # As the laboratory recorded it: every packet twice, octets without Ethernet's header.
    published = row(dur=last_ms / 1e3)
    flows = empty_flows(1)
    flows["first_us"], flows["last_us"] = 1_000_000, 1_000_000 + last_ms * 1000
    for short, side, since_ms in (("s", "src", since[0]), ("d", "dst", since[1])):
        packets = sides[short]
        sizes = [size for _, size in packets]
        published[0, AT[f"{short}pkts"]] = 2 * len(packets)
        published[0, AT[f"{short}bytes"]] = 2 * sum(sizes)
        if not packets:
            continue
        begin, end = packets[0][0], packets[-1][0]
        gaps = np.diff([time for time, _ in packets])
        between_copies = [0.0] * len(packets)
        recorded = [*gaps, *between_copies]
        if since_ms:
            recorded.append(since_ms)
            flows[f"{side}_before_us"] = 1_000_000 + (begin - since_ms) * 1000
        published[0, AT[f"{short}inpkt"]] = np.mean(recorded)
        published[0, AT[f"{short}jit"]] = np.std(recorded)
        flows[f"{side}_piat_stddev_us"] = np.std(gaps, ddof=1) * 1000 if len(gaps) > 1 else 0
        flows[f"{side}_packets"] = len(packets)
        flows[f"{side}_bytes"] = sum(sizes) + 14 * len(packets)
        flows[f"{side}_first_us"] = 1_000_000 + begin * 1000
        flows[f"{side}_last_us"] = 1_000_000 + end * 1000
    seen, result = seen_on(flows, 1000), again(published, 1000, 4)
    for name in ("dur", "rate"):
        assert col(result, name) == pytest.approx(col(seen, name)), name
    for side in "sd":
        for what in ("pkts", "bytes", "mean", "inpkt", "load"):
            name = f"{side}{what}"
            assert col(result, name) == pytest.approx(col(seen, name)), name
    # On a fine clock, where the two roads to a root do not round to different ticks.
    seen, result = seen_on(flows, 1), again(published, 1, 4)
    for name in ("sjit", "djit"):
        assert col(result, name) == pytest.approx(col(seen, name), abs=0.0011), name


def seen_on(flows: FlowBatch, clock_us: int) -> FloatArray:
    """What the sensor measures of flows."""
    stream = FeatureStream(SCHEMA, clock_us)
    return np.concatenate([stream.push(flows)[1], stream.flush()[1]])


# ---------------------------------------------------------------------------------------
# KDD


def test_kdd_durations_end_with_the_active_timeout() -> None:
    rows = np.zeros((5, 41))
    rows[:, 0] = [0, 1, 1800, 1801, 58_329]
    rows[:, 4] = 7
    before = rows.copy()
    result = kdd.remeasure(rows, 1000, np.random.default_rng(0))
    assert result[:, 0].tolist() == [0, 1, 1800, 1800, 1800]
    np.testing.assert_array_equal(result[:, 1:], before[:, 1:])
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(kdd.remeasure(result, 1000, np.random.default_rng(1)), result)


def test_kdd_durations_are_whole_seconds_of_the_wire() -> None:
    seconds = np.array([0.0, 0.999999, 1.0, 1799.5, 1800.0])
    assert kdd.duration_s(seconds, 1800).tolist() == [0, 0, 1, 1799, 1800]


# ---------------------------------------------------------------------------------------
# The published rows


@functools.cache
def published_rows() -> Table:
    """The published testing set, read once."""
    return DATASETS["unsw-nb15"].load(CORPUS, "test")


@corpus
def test_the_laboratory_recorded_every_packet_twice() -> None:
    rows = published_rows().rows
    proto = col(rows, "proto")
    chosen = rows[(proto == PROTOCOLS.index("tcp")) | (proto == PROTOCOLS.index("udp"))]
    even = (col(chosen, "spkts") % 2 == 0) & (col(chosen, "dpkts") % 2 == 0)
    assert len(chosen) > 50_000
    assert even.mean() >= 0.99
