"""CICFlowMeter's 78 columns, each against a value worked out by hand from packets made here.

One capture, metered once. Times are in milliseconds from its start, sizes in octets.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import stdev

import numpy as np
import pytest

from examples import traffic
from features import cic
from features.flows import FlowBatch
from features.schema import FloatArray
from features.stream import FeatureStream
from sensor.captures import CaptureSpool, chain
from sensor.meter.stock import CLOCK_US
from tests.helpers import METERS

NOP = b"\x01"
START_US = 1_768_467_600_000_000
CLIENT = traffic.Host("02:00:00:00:00:01", "10.0.0.1")
SERVER = traffic.Host("02:00:00:00:00:02", "10.0.0.2")


@dataclass(frozen=True)
class P:
    """A packet: when, from the client (f) or the server (b), flags ("" for UDP), what."""

    ms: int
    way: str
    flags: str = ""
    payload: int = 0
    header: int = 20
    window: int = 500
    pad: bool = False


# A handshake with ECN and 40-octet headers, two requests, three answers, 6.02 s of silence
# before the last, and a goodbye whose first FIN does not end the flow.
WEB = (
    P(0, "f", "SEC", header=40, window=64240), P(10, "b", "SAE", header=40, window=65160),
    P(20, "f", "A", header=32), P(30, "f", "PA", 100, 32), P(60, "b", "A", header=32),
    P(80, "b", "PA", 500, 32), P(100, "f", "PA", 50, 32), P(160, "b", "PA", 300, 32),
    P(180, "f", "A", header=32), P(6200, "b", "PAU", 20, 32), P(6210, "f", "FA", header=32),
    P(6300, "b", "FA", header=32), P(6310, "f", "A", header=32),
)  # fmt: skip
WEB_GAPS = [10, 10, 10, 30, 20, 20, 60, 20, 6020, 10, 90, 10]
WEB_FWD_GAPS = [20, 10, 70, 80, 6030, 100]
WEB_BWD_GAPS = [50, 20, 80, 6040, 100]

# Backward: a bulk of 5, cut by a request; 3 packets, too few, cut by 1.6 s; a bulk of 4.
# Forward: a bulk of 4 after a lone reset, with more than 5 s of silence around it.
BULKS = (
    P(0, "f", "PA", 10),
    *(P(ms, "b", "A", 1000) for ms in (100, 200, 300, 400)), P(600, "b", "PA", 500),
    P(700, "f", "PA", 10), *(P(ms, "b", "A", 7) for ms in (800, 900, 1000)),
    *(P(ms, "b", "A", 100) for ms in (2600, 2700, 2800, 2900)),
    P(8000, "f", "R"), *(P(ms, "f", "PA", 30) for ms in (14000, 14010, 14020, 14030)),
)  # fmt: skip

FLOWS: dict[str, tuple[int, int, tuple[P, ...]]] = {
    "web": (40001, 443, WEB),
    "bulks": (40002, 80, BULKS),
    "dns": (50001, 53, (P(0, "f", payload=30, pad=True), P(5, "b", payload=90))),
    # Two stretches of activity that silence ended, and one packet after them.
    "beats": (50002, 9999, tuple(P(ms, "f", payload=4) for ms in (0, 100, 6100, 6300, 12300))),
    # A mirror port shows the six octets of padding; they are no payload.
    "syn": (40003, 22, (P(0, "f", "S", window=1024, pad=True),)),
    "xmas": (40004, 50000, (P(0, "f", "FPU", pad=True), P(1, "b", "RA", pad=True))),
    "refused": (40005, 7, (P(0, "f", "S"), P(0, "b", "RA", pad=True))),
}


def frames() -> list[traffic.Frame]:
    made = []
    for client_port, server_port, packets in FLOWS.values():
        for packet in packets:
            client, server = (CLIENT, client_port), (SERVER, server_port)
            source, target = (client, server) if packet.way == "f" else (server, client)
            ends = (source[0], target[0], source[1], target[1])
            payload = b"x" * packet.payload
            if packet.flags:
                frame = traffic.tcp_frame(
                    *ends, packet.flags, payload=payload, window=packet.window,
                    options=NOP * (packet.header - 20), pad=packet.pad,
                )  # fmt: skip
            else:
                frame = traffic.udp_frame(*ends, payload, pad=packet.pad)
            made.append((START_US + packet.ms * 1000, frame))
    made.append((START_US, traffic.icmp_echo_frame(CLIENT, SERVER, 1, 1, b"x" * 40)))
    made.append((START_US + 3000, traffic.icmp_echo_frame(SERVER, CLIENT, 1, 1, b"x" * 40,
                                                           reply=True)))  # fmt: skip
    return sorted(made, key=lambda frame: frame[0])


@pytest.fixture(scope="module", params=METERS)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, FloatArray]:
    """The row of each flow, by its name."""
    path = tmp_path_factory.mktemp("cic") / "all.pcap"
    traffic.write_pcap(path, frames())
    with CaptureSpool() as spool:
        chains = chain([spool.open(path)], cic.SCHEMA.meter.idle_timeout_s * 1_000_000)
        meter = METERS[request.param](chains, cic.SCHEMA.meter)
        flows: FlowBatch = np.concatenate(list(meter.flows()))
    assert meter.counters.problems == []
    stream = FeatureStream(cic.SCHEMA, CLOCK_US)
    done, rows = stream.push(flows)
    assert len(done) == len(flows) == len(FLOWS) + 1
    names = {client_port: name for name, (client_port, *_) in FLOWS.items()} | {0: "ping"}
    return {names[int(flow["src_port"])]: row for flow, row in zip(done, rows, strict=True)}


PORT = cic.PORT_CLASSES.index
US = 1000.0
"""Microseconds in a millisecond, the unit of the times above."""

CASES: list[tuple[str, str, float, str]] = [
    ("web", "Destination Port", PORT("https"), "443"),
    ("dns", "Destination Port", PORT("domain"), "53"),
    ("syn", "Destination Port", PORT("ssh"), "22"),
    ("refused", "Destination Port", PORT("system"), "7 has no term and is below 1024"),
    ("beats", "Destination Port", PORT("user"), "9999 is between 1024 and 49151"),
    ("xmas", "Destination Port", PORT("dynamic"), "50000 is above 49151"),
    ("ping", "Destination Port", PORT("none"), "ICMP has none"),
    ("web", "Flow Duration", 6310 * US, "first packet to last, past the FIN at 6210"),
    ("syn", "Flow Duration", 0, "one packet"),
    ("web", "Total Fwd Packets", 7, "those marked f"),
    ("web", "Total Backward Packets", 6, "those marked b"),
    ("syn", "Total Backward Packets", 0, "no answer"),
    ("web", "Total Length of Fwd Packets", 150, "100 + 50"),
    ("syn", "Total Length of Fwd Packets", 0, "padding is no payload"),
    ("ping", "Total Length of Fwd Packets", 0, "payload is that of TCP and UDP"),
    ("web", "Total Length of Bwd Packets", 820, "500 + 300 + 20"),
    ("web", "Fwd Packet Length Max", 100, "0 0 100 50 0 0 0"),
    ("web", "Fwd Packet Length Min", 0, "a bare SYN"),
    ("dns", "Fwd Packet Length Min", 30, "one query of 30"),
    ("syn", "Fwd Packet Length Max", 0, "the tool has 6 here, the padding"),
    ("web", "Fwd Packet Length Mean", 150 / 7, "150 in 7"),
    ("web", "Fwd Packet Length Std", sqrt((100**2 + 50**2 - 150**2 / 7) / 6), "of a sample"),
    ("dns", "Fwd Packet Length Std", 0, "one packet"),
    ("web", "Bwd Packet Length Max", 500, "0 0 500 300 20 0"),
    ("web", "Bwd Packet Length Min", 0, "a bare SYN-ACK"),
    ("dns", "Bwd Packet Length Min", 90, "one answer of 90"),
    ("syn", "Bwd Packet Length Max", 0, "no packet"),
    ("web", "Bwd Packet Length Mean", 820 / 6, "820 in 6"),
    ("syn", "Bwd Packet Length Mean", 0, "no packet"),
    ("web", "Bwd Packet Length Std", stdev([0, 0, 500, 300, 20, 0]), "of a sample"),
    ("web", "Flow Bytes/s", 970 / 6.31, "150 + 820 in 6.31 s"),
    ("refused", "Flow Bytes/s", 0, "no duration: the tool has NaN"),
    ("web", "Flow Packets/s", 13 / 6.31, "13 in 6.31 s"),
    ("refused", "Flow Packets/s", 0, "no duration: the tool has Infinity"),
    ("web", "Flow IAT Mean", 6310 * US / 12, "12 gaps"),
    ("web", "Flow IAT Std", stdev(WEB_GAPS) * US, "of a sample"),
    ("dns", "Flow IAT Std", 0, "one gap"),
    ("web", "Flow IAT Max", 6020 * US, "180 to 6200"),
    ("web", "Flow IAT Min", 10 * US, "0 to 10"),
    ("web", "Fwd IAT Total", 6310 * US, "0 to 6310"),
    ("dns", "Fwd IAT Total", 0, "one forward packet"),
    ("web", "Fwd IAT Mean", 6310 * US / 6, "6 gaps"),
    ("web", "Fwd IAT Std", stdev(WEB_FWD_GAPS) * US, "of a sample"),
    ("web", "Fwd IAT Max", 6030 * US, "180 to 6210"),
    ("web", "Fwd IAT Min", 10 * US, "20 to 30"),
    ("web", "Bwd IAT Total", 6290 * US, "10 to 6300"),
    ("web", "Bwd IAT Mean", 6290 * US / 5, "5 gaps"),
    ("web", "Bwd IAT Std", stdev(WEB_BWD_GAPS) * US, "of a sample"),
    ("web", "Bwd IAT Max", 6040 * US, "160 to 6200"),
    ("web", "Bwd IAT Min", 20 * US, "60 to 80"),
    ("dns", "Bwd IAT Min", 0, "one backward packet"),
    ("web", "Fwd PSH Flags", 2, "at 30 and 100; the tool looks at the first packet only"),
    ("web", "Bwd PSH Flags", 3, "at 80, 160 and 6200; the tool always has 0"),
    ("xmas", "Fwd URG Flags", 1, "FIN, PSH and URG"),
    ("web", "Fwd URG Flags", 0, "none of its packets"),
    ("web", "Bwd URG Flags", 1, "at 6200"),
    ("web", "Fwd Header Length", 40 + 6 * 32, "with options, without IP's"),
    ("dns", "Fwd Header Length", 8, "UDP's; the tool has a TCP header's"),
    ("ping", "Fwd Header Length", 0, "neither TCP nor UDP"),
    ("web", "Bwd Header Length", 40 + 5 * 32, "with options, without IP's"),
    ("web", "Fwd Packets/s", 7 / 6.31, "7 in 6.31 s"),
    ("web", "Bwd Packets/s", 6 / 6.31, "6 in 6.31 s"),
    ("syn", "Fwd Packets/s", 0, "no duration"),
    ("dns", "Min Packet Length", 30, "30 and 90"),
    ("beats", "Min Packet Length", 4, "a direction without packets does not count"),
    ("web", "Max Packet Length", 500, "of both directions"),
    ("dns", "Packet Length Mean", 60, "(30 + 90) / 2; the tool has (30 + 30 + 90) / 3"),
    ("web", "Packet Length Mean", 970 / 13, "13 packets, not 14"),
    ("web", "Packet Length Std", stdev([0] * 8 + [100, 50, 500, 300, 20]), "of a sample"),
    ("dns", "Packet Length Variance", 1800, "30^2 + 30^2"),
    ("web", "FIN Flag Count", 2, "6210 and 6300"),
    ("web", "SYN Flag Count", 2, "SYN and SYN-ACK"),
    ("bulks", "RST Flag Count", 1, "at 8000"),
    ("web", "RST Flag Count", 0, "none"),
    ("web", "PSH Flag Count", 5, "2 forward, 3 backward"),
    ("web", "ACK Flag Count", 12, "all but the SYN"),
    ("web", "URG Flag Count", 1, "at 6200"),
    ("web", "CWE Flag Count", 1, "CWR: the SYN's, which asks for ECN"),
    ("web", "ECE Flag Count", 2, "the SYN's and the SYN-ACK's"),
    ("web", "Down/Up Ratio", 6 / 7, "not cut to 0, as by the tool"),
    ("syn", "Down/Up Ratio", 0, "no answer"),
    ("web", "Average Packet Size", 970 / 13, "970 in 13"),
    ("web", "Avg Fwd Segment Size", 150 / 7, "150 in 7"),
    ("web", "Avg Bwd Segment Size", 820 / 6, "820 in 6"),
    ("web", "Fwd Header Length.1", 40 + 6 * 32, "Fwd Header Length again"),
    ("bulks", "Fwd Avg Bytes/Bulk", 120, "4 of 30, one bulk"),
    ("bulks", "Fwd Avg Packets/Bulk", 4, "4 in one bulk"),
    ("bulks", "Fwd Avg Bulk Rate", 120 / 0.03, "120 from 14000 to 14030"),
    ("web", "Fwd Avg Bytes/Bulk", 0, "no 4 packets with payload in a row"),
    ("bulks", "Bwd Avg Bytes/Bulk", (4500 + 400) / 2, "4 * 1000 + 500, and 4 * 100"),
    ("bulks", "Bwd Avg Packets/Bulk", (5 + 4) / 2, "5 and 4; 3 are too few"),
    ("bulks", "Bwd Avg Bulk Rate", 4900 / 0.8, "100 to 600 and 2600 to 2900"),
    ("web", "Bwd Avg Packets/Bulk", 0, "no 4 packets with payload in a row"),
    ("web", "Subflow Fwd Packets", 7 / 2, "6.02 s of silence divide it in two"),
    ("bulks", "Subflow Fwd Packets", 7 / 4, "1.6, 5.1 and 6 s divide it in four"),
    ("web", "Subflow Fwd Bytes", 150 / 2, "two subflows"),
    ("web", "Subflow Bwd Packets", 6 / 2, "two subflows"),
    ("web", "Subflow Bwd Bytes", 820 / 2, "two subflows"),
    ("web", "Init_Win_bytes_forward", 64240, "the SYN's"),
    ("dns", "Init_Win_bytes_forward", 0, "UDP has no window: the tool has -1"),
    ("web", "Init_Win_bytes_backward", 65160, "the SYN-ACK's; the tool has the last one's"),
    ("syn", "Init_Win_bytes_backward", 0, "no answer: the tool has -1"),
    ("web", "act_data_pkt_fwd", 2, "at 30 and 100"),
    ("dns", "act_data_pkt_fwd", 1, "the query; the tool leaves the first packet out"),
    ("web", "min_seg_size_forward", 32, "the SYN has 40, all others 32"),
    ("dns", "min_seg_size_forward", 8, "UDP's header"),
    ("web", "Active Mean", 180 * US, "0 to 180; nothing ended 6200 to 6310"),
    ("beats", "Active Mean", 150 * US, "0 to 100 and 6100 to 6300"),
    ("bulks", "Active Mean", 2900 * US, "0 to 2900; the reset alone lasted no time"),
    ("beats", "Active Std", 50 * sqrt(2) * US, "100 and 200"),
    ("web", "Active Std", 0, "one"),
    ("beats", "Active Max", 200 * US, "6100 to 6300"),
    ("beats", "Active Min", 100 * US, "0 to 100"),
    ("bulks", "Idle Mean", 5550 * US, "2900 to 8000 and 8000 to 14000"),
    ("web", "Idle Mean", 6020 * US, "180 to 6200"),
    ("dns", "Idle Mean", 0, "no 5 s without a packet"),
    ("bulks", "Idle Std", 450 * sqrt(2) * US, "5100 and 6000"),
    ("bulks", "Idle Max", 6000 * US, "8000 to 14000"),
    ("bulks", "Idle Min", 5100 * US, "2900 to 8000"),
]


@pytest.mark.parametrize(
    ("flow", "feature", "expected", "why"), CASES, ids=[f"{case[1]}-{case[0]}" for case in CASES]
)
def test_a_feature_is_what_the_packets_say(
    flow: str, feature: str, expected: float, why: str, measured: dict[str, FloatArray]
) -> None:
    value = measured[flow][cic.SCHEMA.names.index(feature)]
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-6), why


def test_the_table_has_every_feature_and_a_value_other_than_zero_for_each() -> None:
    assert {case[1] for case in CASES} == set(cic.SCHEMA.names)
    assert {case[1] for case in CASES if case[2]} == set(cic.SCHEMA.names)
