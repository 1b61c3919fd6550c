"""CICFlowMeter's columns: what the published rows hold, and how they are brought to our meaning."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev, variance

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import cic
from features.cic import PORT_CLASSES, SCHEMA, port_codes, remeasure, sample_variance
from features.schema import FloatArray
from training.datasets import DATASETS

steady = settings(max_examples=60, deadline=None, database=None, derandomize=True)

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("FLOWVANE_CORPUS") or ROOT.parent / "shared" / "data")
corpus = pytest.mark.skipif(
    not (CORPUS / "cicids2017").is_dir(), reason=f"no CICIDS2017 at {CORPUS}; set FLOWVANE_CORPUS"
)
AT = {name: column for column, name in enumerate(SCHEMA.names)}
USED = SCHEMA.select(live=True, testbed=False)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---------------------------------------------------------------------------------------
# What is declared


def test_it_has_the_78_columns_that_are_published() -> None:
    assert len(SCHEMA.names) == 78
    assert SCHEMA.names[0] == "Destination Port"
    assert SCHEMA.names[-1] == "Idle Min"
    assert SCHEMA.names.index("Fwd Header Length.1") == 55
    assert (SCHEMA.meter.idle_timeout_s, SCHEMA.meter.active_timeout_s) == (120, 120)


def test_every_feature_is_live_and_some_are_left_out_of_models() -> None:
    assert all(feature.live for feature in SCHEMA.features)
    left = {feature.name for feature in SCHEMA.features if feature.testbed}
    assert len(left) == 24
    assert {name for name in left if "Flag" in name} == {n for n in AT if "Flag" in n}
    assert {name for name in left if "ulk" in name} == {n for n in AT if "ulk" in n}


@pytest.mark.parametrize(
    ("port", "term"),
    [(0, "none"), (21, "ftp"), (53, "domain"), (80, "http"), (8080, "http"), (443, "https"),
     (1023, "system"), (1024, "user"), (49151, "user"), (49152, "dynamic"), (65535, "dynamic")],
)  # fmt: skip
def test_a_port_is_its_service_or_its_range(port: int, term: str) -> None:
    (code,) = port_codes(np.array([port]))
    assert PORT_CLASSES[int(code)] == term


def test_a_variance_is_a_samples() -> None:
    values = [3.0, 5.0, 10.0]
    (found,) = sample_variance(*(np.array([x]) for x in (134.0, 18.0, 3.0)))
    assert found == pytest.approx(variance(values))
    assert sample_variance(*(np.array([x]) for x in (9.0, 3.0, 1.0))).tolist() == [0.0]


# ---------------------------------------------------------------------------------------
# The tool's errors, made here and undone


@dataclass(frozen=True)
class Packet:
    """Microseconds since the flow began, direction, payload, TCP header, flags."""

    us: int
    forward: bool
    payload: int
    header: int
    flags: frozenset[str]


def _spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def row_of(packets: list[Packet], *, tcp: bool, tool: bool) -> FloatArray:
    """The row of a flow: with the tool's errors, or as our features mean it.

    Bulks and subflows are left 0. For the tool, the last packet is a FIN where it has one.
    """
    row: dict[str, float] = dict.fromkeys(SCHEMA.names, 0.0)
    times = [packet.us for packet in packets]
    dur = times[-1]
    ways = {"Fwd": [p for p in packets if p.forward], "Bwd": [p for p in packets if not p.forward]}
    row["Destination Port"] = PORT_CLASSES.index("user")
    row["Flow Duration"] = dur
    row["Total Fwd Packets"], row["Total Backward Packets"] = map(len, ways.values())

    def iat(name: str, at: list[int]) -> None:
        gaps = [float(b - a) for a, b in itertools.pairwise(at)]
        if name != "Flow":
            row[f"{name} IAT Total"] = sum(gaps)
        if gaps:
            row[f"{name} IAT Mean"], row[f"{name} IAT Std"] = mean(gaps), _spread(gaps)
            row[f"{name} IAT Max"], row[f"{name} IAT Min"] = max(gaps), min(gaps)

    iat("Flow", times)
    for way, sent in ways.items():
        sizes = [float(p.payload) for p in sent]
        iat(way, [p.us for p in sent])
        row[f"Total Length of {way} Packets"] = sum(sizes)
        if sizes:
            name = f"{way} Packet Length"
            row[f"{name} Max"], row[f"{name} Min"] = max(sizes), min(sizes)
            row[f"{name} Mean"], row[f"{name} Std"] = mean(sizes), _spread(sizes)
            row[f"Avg {way} Segment Size"] = mean(sizes)
        header = 20 if tool and not tcp else None  # the tool has some TCP header's length
        row[f"{way} Header Length"] = sum(header or p.header for p in sent)
        row[f"{way} Packets/s"] = len(sent) / dur * 1e6 if dur else 0.0
    row["Fwd Header Length.1"] = row["Fwd Header Length"]
    row["min_seg_size_forward"] = 20 if tool and not tcp else min(p.header for p in ways["Fwd"])
    row["act_data_pkt_fwd"] = sum(p.payload > 0 for p in ways["Fwd"][tool:])
    sizes = [float(p.payload) for p in packets]
    row["Average Packet Size"] = mean(sizes)
    if tool:
        sizes = [sizes[0], *sizes]
        row["Average Packet Size"] = sum(sizes) / len(packets)
    row["Min Packet Length"], row["Max Packet Length"] = min(sizes), max(sizes)
    row["Packet Length Mean"], row["Packet Length Std"] = mean(sizes), _spread(sizes)
    row["Packet Length Variance"] = row["Packet Length Std"] ** 2
    if dur:
        total = row["Total Length of Fwd Packets"] + row["Total Length of Bwd Packets"]
        row["Flow Bytes/s"] = total / dur * 1e6
        row["Flow Packets/s"] = len(packets) / dur * 1e6
    ratio = len(ways["Bwd"]) / len(ways["Fwd"])
    row["Down/Up Ratio"] = float(int(ratio)) if tool else ratio
    for flag, heading in cic.PUBLISHED_FLAGS.items():
        row[f"{heading if tool else flag} Flag Count"] = flag in packets[0].flags
    window = float(1000 if tcp else -1 if tool else 0)
    row["Init_Win_bytes_forward"] = window
    # Idle times; the tool does not look before a FIN.
    idle, active, begin = [], [], 0
    for before, packet in itertools.pairwise(packets):
        if packet.us - before.us > 5_000_000 and not (tool and "FIN" in packet.flags):
            idle.append(float(packet.us - before.us))
            if before.us > begin:
                active.append(float(before.us - begin))
            begin = packet.us
    for name, spans in (("Idle", idle), ("Active", active)):
        if spans:
            row[f"{name} Mean"], row[f"{name} Std"] = mean(spans), _spread(spans)
            row[f"{name} Max"], row[f"{name} Min"] = max(spans), min(spans)
    return np.array([row[name] for name in SCHEMA.names], np.float64)


@st.composite
def flows(draw: st.DrawFn) -> tuple[list[Packet], bool]:
    """A flow as the tool cuts it: a FIN is its last packet, and its first one is forward."""
    tcp = draw(st.booleans())
    count = draw(st.integers(2, 12))
    gaps = draw(st.lists(st.sampled_from([0, 1, 40, 999, 1000, 250_000, 5_000_000]),
                         min_size=count - 1, max_size=count - 1))  # fmt: skip
    if draw(st.booleans()):  # idle time, once at most: more before a FIN is not told by a row
        gaps[draw(st.integers(0, count - 2))] = draw(st.integers(5_000_001, 90_000_000))
    at = np.cumsum([0, *gaps]).tolist()
    flags = draw(st.frozensets(st.sampled_from(["SYN", "PSH", "ACK", "URG", "ECE", "CWE"])))
    fin = tcp and draw(st.booleans())
    packets = []
    for number, us in enumerate(at):
        carried = flags if number == 0 else frozenset({"ACK"})
        if fin and number == count - 1:
            carried |= {"FIN"}
        packets.append(
            Packet(
                us=us,
                forward=number == 0 or draw(st.booleans()),
                payload=draw(st.sampled_from([0, 0, 1, 100, 1448])),
                header=32 if tcp else 8,
                flags=carried if tcp else frozenset(),
            )
        )
    return packets, tcp


@given(flow=flows())
@steady
def test_the_tools_errors_are_undone(flow: tuple[list[Packet], bool]) -> None:
    packets, tcp = flow
    published = row_of(packets, tcp=tcp, tool=True)
    before = published.copy()
    result = remeasure(published[None], 1, rng())[0]
    np.testing.assert_array_equal(published, before)
    expected = row_of(packets, tcp=tcp, tool=False)
    for name in SCHEMA.names:
        assert result[AT[name]] == pytest.approx(expected[AT[name]], rel=1e-6, abs=1e-4), name


def test_padding_is_no_payload() -> None:
    bare = frozenset({"ACK"})
    packets = [Packet(0, True, 6, 20, bare), Packet(10, False, 6, 20, bare),
               Packet(20, False, 300, 20, bare), Packet(30, True, 6, 20, bare)]  # fmt: skip
    result = remeasure(row_of(packets, tcp=True, tool=True)[None], 1, rng())[0]
    row = dict(zip(SCHEMA.names, result.tolist(), strict=True))
    assert row["Total Length of Fwd Packets"] == row["Fwd Packet Length Max"] == 0
    assert row["act_data_pkt_fwd"] == 0
    assert row["Bwd Packet Length Min"] == row["Min Packet Length"] == 0
    # How many of its packets were padded, a row with others does not tell.
    assert row["Total Length of Bwd Packets"] == 306


@given(flow=flows(), clock_us=st.sampled_from([10, 1000, 10_000]), seed=st.integers(0, 99))
@steady
def test_times_on_a_coarse_clock_hang_together(
    flow: tuple[list[Packet], bool], clock_us: int, seed: int
) -> None:
    packets, tcp = flow
    published = row_of(packets, tcp=tcp, tool=True)
    row = dict(zip(SCHEMA.names, remeasure(published[None], clock_us, rng(seed))[0].tolist(),
                   strict=True))  # fmt: skip
    exact = dict(zip(SCHEMA.names, published.tolist(), strict=True))
    assert all(np.isfinite(value) and value >= 0 for value in row.values())
    dur = row["Flow Duration"]
    assert dur % clock_us == 0
    assert abs(dur - exact["Flow Duration"]) < clock_us
    counts = {"Flow": len(packets), "Fwd": row["Total Fwd Packets"],
              "Bwd": row["Total Backward Packets"]}  # fmt: skip
    for way, count in counts.items():
        low, mid, high = (row[f"{way} IAT {part}"] for part in ("Min", "Mean", "Max"))
        assert low - 1e-6 <= mid <= high + 1e-6
        assert high <= dur
        if count <= 2:
            assert row[f"{way} IAT Std"] == 0
            assert low == pytest.approx(mid) == pytest.approx(high)
    assert row["Fwd IAT Total"] <= dur
    for name, packets_ in (("Flow", len(packets)), ("Fwd", counts["Fwd"])):
        assert row[f"{name} Packets/s"] == pytest.approx(packets_ / dur * 1e6 if dur else 0.0)


# ---------------------------------------------------------------------------------------
# The published rows


@functools.cache
def published() -> FloatArray:
    """The distinct rows of the sample, those without duration left out."""
    rows = DATASETS["cicids2017"].load(CORPUS, "sample-distinct").rows
    return rows[rows[:, AT["Flow Duration"]] > 0]


def col(name: str) -> FloatArray:
    return published()[:, AT[name]]


def n_fwd() -> FloatArray:
    return col("Total Fwd Packets")


def n_bwd() -> FloatArray:
    return col("Total Backward Packets")


def packets_() -> FloatArray:
    return n_fwd() + n_bwd()


def payload() -> FloatArray:
    return col("Total Length of Fwd Packets") + col("Total Length of Bwd Packets")


def first() -> FloatArray:
    """The first packet's length, if the mean's sum has it twice over one packet more."""
    return np.round(col("Packet Length Mean") * (packets_() + 1) - payload())


def double_variance() -> FloatArray:
    """Sample variance of all lengths and the first once more."""
    squares = first() ** 2
    for way, count in (("Fwd", n_fwd()), ("Bwd", n_bwd())):
        std, middle = col(f"{way} Packet Length Std"), col(f"{way} Packet Length Mean")
        squares = squares + np.maximum(count - 1, 0) * std**2 + count * middle**2
    return sample_variance(squares, payload() + first(), packets_() + 1)


def per_gap(way: str, count: FloatArray) -> FloatArray:
    return np.where(count > 1, col(f"{way} IAT Total") / np.maximum(count - 1, 1), 0.0)


THREE_DIGITS = 6e-3
"""The samples give values of 10^7 and more in three digits."""

CLAIMS: dict[str, tuple[Callable[[], FloatArray], Callable[[], FloatArray], float, float]] = {
    # name: published, formula, relative difference allowed, share of rows at least
    "first packet twice in Average Packet Size": (
        lambda: col("Average Packet Size"), lambda: (payload() + first()) / packets_(), 1e-4, 0.9999
    ),
    "Average Packet Size is Packet Length Mean, over n for n + 1": (
        lambda: col("Average Packet Size"),
        lambda: col("Packet Length Mean") * (packets_() + 1) / packets_(), 1e-6, 1.0,
    ),
    "first packet twice in Packet Length Variance, a sample's": (
        lambda: col("Packet Length Variance"), double_variance, THREE_DIGITS, 0.9999
    ),
    "that length is whole and between the forward extremes": (
        lambda: np.clip(first(), col("Fwd Packet Length Min"), col("Fwd Packet Length Max")),
        first, 1e-6, 0.9999,
    ),
    "Fwd Packet Length Mean": (
        lambda: col("Fwd Packet Length Mean"),
        lambda: col("Total Length of Fwd Packets") / n_fwd(), 1e-6, 0.9999,
    ),
    "Flow Packets/s": (
        lambda: col("Flow Packets/s"), lambda: packets_() / col("Flow Duration") * 1e6, 1e-6, 0.9999
    ),
    "Flow Bytes/s": (
        lambda: col("Flow Bytes/s"),
        lambda: payload() / col("Flow Duration") * 1e6, THREE_DIGITS, 0.9999,
    ),
    "Flow IAT Mean": (
        lambda: col("Flow IAT Mean"),
        lambda: col("Flow Duration") / (packets_() - 1), THREE_DIGITS, 1.0,
    ),
    "Fwd IAT Mean": (
        lambda: col("Fwd IAT Mean"), lambda: per_gap("Fwd", n_fwd()), 1.2e-2, 1.0
    ),
    "Bwd IAT Mean": (
        lambda: col("Bwd IAT Mean"), lambda: per_gap("Bwd", n_bwd()), 1.2e-2, 1.0
    ),
    "a standard deviation is a sample's: that of two gaps": (
        lambda: np.where(packets_() == 3, col("Flow IAT Std"), 0.0),
        lambda: np.where(packets_() == 3, (col("Flow IAT Max") - col("Flow IAT Min")) / 2**0.5, 0),
        THREE_DIGITS, 0.9999,
    ),
    "Down/Up Ratio is cut to an integer": (
        lambda: col("Down/Up Ratio"), lambda: n_bwd() // n_fwd(), 0, 1.0
    ),
    "subflows are totals": (lambda: col("Subflow Fwd Packets"), n_fwd, 0, 1.0),
    "bulks are never found": (
        lambda: sum((col(name) for name in AT if "ulk" in name), np.zeros(1)),
        lambda: np.zeros(len(published())), 0, 1.0,
    ),
    "SYN Flag Count is the first packet's PSH": (
        lambda: col("SYN Flag Count"), lambda: col("Fwd PSH Flags"), 0, 1.0
    ),
    "CWE Flag Count is the first packet's URG": (
        lambda: col("CWE Flag Count"), lambda: col("Fwd URG Flags"), 0, 1.0
    ),
    "flags are 0 or 1": (
        lambda: col("ACK Flag Count") * (1 - col("ACK Flag Count")),
        lambda: np.zeros(len(published())), 0, 1.0,
    ),
    "act_data_pkt_fwd leaves out the first packet": (
        lambda: np.where(col("Fwd Packet Length Min") > 0, col("act_data_pkt_fwd"), 0),
        lambda: np.where(col("Fwd Packet Length Min") > 0, n_fwd() - 1, 0), 0, 1.0,
    ),
    "no backward window is -1": (
        lambda: np.where(n_bwd() == 0, col("Init_Win_bytes_backward"), -1),
        lambda: np.full(len(published()), -1.0), 0, 1.0,
    ),
}  # fmt: skip


@corpus
@pytest.mark.parametrize("claim", CLAIMS)
def test_published_rows_hold_what_we_say(claim: str, record_property: Callable[..., None]) -> None:
    found, formula, allowed, least = CLAIMS[claim]
    share = float(np.isclose(found(), formula(), rtol=allowed, atol=1e-2).mean())
    record_property("share", share)
    assert share >= least, f"{100 * share:.3f} % of {len(published()):,} rows"


@corpus
def test_a_flow_cut_at_its_fin_has_a_gap_that_is_not_idle() -> None:
    gap = (col("Flow IAT Max") > 5_000_100) & (col("Idle Max") == 0)
    assert gap.sum() > 2_000
    # None of them is UDP, which has no FIN.
    assert (col("Init_Win_bytes_forward")[gap] >= 0).all()


@corpus
def test_udp_headers_are_not_udps() -> None:
    udp = (col("Init_Win_bytes_forward") < 0) & (
        col("Destination Port") != PORT_CLASSES.index("none")
    )
    assert float((col("min_seg_size_forward")[udp] == 8).mean()) < 0.01


@corpus
@pytest.mark.parametrize("clock_us", [1, 1000])
def test_remeasured_rows_are_what_a_sensor_can_measure(clock_us: int) -> None:
    rows = DATASETS["cicids2017"].load(CORPUS, "sample").rows
    result = remeasure(rows, clock_us, rng())
    assert np.isfinite(result).all()
    negative = [name for name in SCHEMA.names if (result[:, AT[name]] < 0).any()]
    assert negative == []
    np.testing.assert_array_equal(result, remeasure(rows, clock_us, rng()))
    # The first packet counts once.
    total = result[:, AT["Total Length of Fwd Packets"]]
    total = total + result[:, AT["Total Length of Bwd Packets"]]
    packets = result[:, AT["Total Fwd Packets"]] + result[:, AT["Total Backward Packets"]]
    np.testing.assert_allclose(result[:, AT["Average Packet Size"]], total / packets)
