"""The `flow` schema on the wire: hand-computed captures through NFStream to feature values."""

from __future__ import annotations

import itertools
import math
import struct
from random import Random

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from examples import traffic
from examples.traffic import Host, Side, TcpConversation, tcp_frame, udp_frame
from features import flow
from features.flows import FlowBatch, unpack_address
from features.stream import FeatureStream
from sensor.reorder import ReorderBuffer
from tests import helpers

START_US = 1_700_000_000_000_000
CLIENT, SERVER = Side.CLIENT, Side.SERVER
ANN = Host("02:00:00:00:00:01", "10.0.0.1")
BOB = Host("02:00:00:00:00:02", "10.0.0.53", ttl=128)
EVE = Host("02:00:00:00:00:09", "10.0.0.9", ttl=255)
FAR = Host("02:00:00:00:00:fe", "93.184.216.34", ttl=50)
LINK = Host("02:00:00:00:00:01", "fe80::1", ttl=255)
MDNS = Host("33:33:00:00:00:fb", "ff02::fb")
# Three routers lie between the tap and him.
GUS = Host("02:00:00:00:00:fe", "10.0.7.7", ttl=61)
SHOP = Host("02:00:00:00:00:0b", "198.51.100.7")

HELLO, ANSWER = traffic.tls_hellos("www.example.org", Random(1))
HELLO_SIZE, ANSWER_SIZE = len(HELLO), len(ANSWER)
QUERY = traffic.dns_query(7, "www.example.org")


def at(seconds: float) -> int:
    return START_US + round(seconds * 1e6)


def tls_session() -> list[tuple[int, bytes]]:
    """A TLS connection of 12 segments, one of them sent twice."""
    talk = TcpConversation(ANN, FAR, 50_000, 443)
    talk.handshake(at(0), at(0.020), at(0.021))
    talk.segment(at(0.030), CLIENT, "PA", HELLO)
    talk.segment(at(0.055), SERVER, "PA", ANSWER)
    talk.segment(at(0.056), CLIENT, "A")
    seq = talk.next_seq(CLIENT)
    talk.segment(at(0.060), CLIENT, "PA", bytes(100))
    talk.segment(at(0.160), CLIENT, "PA", bytes(100), seq=seq)
    talk.segment(at(0.190), SERVER, "A", bytes(1000))
    talk.farewell(CLIENT, at(0.200), at(0.220), at(0.221))
    return list(talk.frames)


def gquic_hello(name: str) -> bytes:
    """The first datagram of a client of Google's QUIC, version Q046, which was not encrypted."""
    server = name.encode("ascii")
    hello = b"CHLO" + struct.pack("<HH4sI", 1, 0, b"SNI", len(server)) + server
    head = b"\xc3Q046\x50" + bytes(8) + b"\0\0\0\1" + bytes(12)
    stream = b"\xa0\x01\0" + struct.pack("<H", len(hello)) + hello
    return (head + stream).ljust(1350, b"\0")


def sent_again() -> list[tuple[int, bytes]]:
    """A TCP connection whose server sends 300 octets twice."""
    talk = TcpConversation(GUS, SHOP, 50_001, 5000)
    talk.handshake(at(245), at(245.010), at(245.012))
    seq = talk.next_seq(SERVER)
    talk.segment(at(245.020), SERVER, "PA", bytes(300))
    talk.segment(at(245.220), SERVER, "PA", bytes(300), seq=seq)
    talk.segment(at(245.222), CLIENT, "A")
    return list(talk.frames)


def capture() -> list[tuple[int, bytes]]:
    """All flows of the table, half a minute apart or more."""
    frames = tls_session()
    # A name is looked up, on VLAN 7.
    answer = traffic.dns_answer(7, "www.example.org", ["192.0.2.1"])
    frames += [
        (at(30), udp_frame(ANN, BOB, 40_001, 53, QUERY, vlan=7)),
        (at(30.004), udp_frame(BOB, ANN, 53, 40_001, answer, vlan=7)),
    ]
    # A closed UDP port, and the ICMP message that says so.
    probe = udp_frame(ANN, BOB, 40_002, 9_999, b"hello")
    refusal = Ether(src=BOB.mac, dst=ANN.mac) / IP(src=BOB.ip, dst=ANN.ip, ttl=128)
    frames += [
        (at(60), probe),
        (at(60.001), bytes(refusal / ICMP(type=3, code=3) / probe[14:42])),
    ]
    # A scan of three closed ports.
    for number in range(3):
        frames += [
            (at(90 + number / 100), tcp_frame(EVE, BOB, 60_000, number + 1, "S")),
            (at(90.001 + number / 100), tcp_frame(BOB, EVE, number + 1, 60_000, "RA")),
        ]
    frames += [
        (at(120), udp_frame(LINK, MDNS, 5353, 5353, b"")),
        (at(150), udp_frame(Host(ANN.mac, "0.0.0.0"), Host("ff:ff:ff:ff:ff:ff", "255.255.255.255"),  # noqa: S104
                            68, 67, bytes(300))),
    ]  # fmt: skip
    frames += [
        (at(180), traffic.icmp_echo_frame(EVE, ANN, 1, 1, bytes(56))),
        (at(180.002), traffic.icmp_echo_frame(ANN, EVE, 1, 1, bytes(56), reply=True)),
    ]
    # GTP-U: an IPv4 packet of Ann's within a tunnel.
    inner = udp_frame(ANN, FAR, 40_003, 4_000, b"within")[14:]
    header = b"\x30\xff" + len(inner).to_bytes(2, "big") + bytes(4)
    frames.append((at(210), udp_frame(BOB, EVE, 2152, 2152, header + inner)))
    frames.append((at(240), udp_frame(GUS, SHOP, 50_000, 443, gquic_hello("shop.example.org"))))
    frames += sent_again()
    # One datagram every 100 s: the record is closed after 1,800 s, then by the capture's end.
    frames += [(at(300 + 100 * n), udp_frame(EVE, ANN, 60_001, 514, b"<13>up")) for n in range(20)]
    return sorted(frames)


@pytest.fixture(scope="module", params=helpers.METERS)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FlowBatch, np.ndarray]:
    """The flows of the capture with their rows, in one run of a meter."""
    path = tmp_path_factory.mktemp("flow") / "all.pcap"
    traffic.write_pcap(path, capture())
    order = ReorderBuffer(flow.SCHEMA.meter.idle_timeout_s)
    batches = [order.push(batch) for batch in helpers.metered(path, "flow", request.param)]
    stream = FeatureStream(flow.SCHEMA, 1000)
    return stream.push(np.concatenate([*batches, order.flush()]))


FLOWS = {
    "tls": ("10.0.0.1", 50_000, 443),
    "dns": ("10.0.0.1", 40_001, 53),
    "refused": ("10.0.0.1", 40_002, 9_999),
    "refusal": ("10.0.0.53", 0, 0),
    "scan 1": ("10.0.0.9", 60_000, 1),
    "scan 3": ("10.0.0.9", 60_000, 3),
    "mdns": ("fe80:0000:0000:0000:0000:0000:0000:0001", 5353, 5353),
    "dhcp": ("0.0.0.0", 68, 67),  # noqa: S104
    "ping": ("10.0.0.9", 0, 0),
    "tunnel": ("10.0.0.1", 40_003, 4_000),
    "quic": ("10.0.7.7", 50_000, 443),
    "sent again": ("10.0.7.7", 50_001, 5000),
    "syslog": ("10.0.0.9", 60_001, 514),
}


def entropy(text: str) -> float:
    parts = [text.count(letter) / len(text) for letter in set(text)]
    return -sum(part * math.log2(part) for part in parts)


# The TLS connection, frame by frame: headers are 54 octets, and times in ms.
SENT = [54, 54, 54 + HELLO_SIZE, 54, 154, 154, 54, 54]
SENT_MS = [0, 21, 30, 56, 60, 160, 200, 221]
GOT = [54, 54 + ANSWER_SIZE, 1054, 54]
GOT_MS = [20, 55, 190, 220]


def mean(values: list[int]) -> float:
    return sum(values) / len(values)


def stddev(values: list[int]) -> float:
    return math.sqrt(sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1))


def gaps(times: list[int]) -> list[int]:
    return [after - before for before, after in itertools.pairwise(times)]


# Frame octets of the name's lookup (a VLAN tag is 4) and of the datagram to the closed port.
QUERY_SIZE, REFUSED_SIZE = 42 + 4 + len(QUERY), 42 + len(b"hello")
ANSWERED_SIZE = 42 + 4 + len(traffic.dns_answer(7, "www.example.org", ["192.0.2.1"]))


def fade(steps: int) -> float:
    """What is left of 1 after so many fiftieths of a horizon.

    A step of the 10 s is 0.2 s long, and one of the 10 min 12 s. The capture begins 8 s into
    such a step, so that second t lies in number (8 + t) // 12: 0 s in 0, 30 s in 3, 60 s in 5,
    90 s in 8, 210 s in 18.
    """
    return math.exp(-steps / 50)


# At the tunnel's end Ann has looked at a web page (0 s), looked up a name (30 s), been refused
# (60 s), and sent the tunnel's datagram: four services, of 18, 15, 13 and 0 steps ago.
ANNS = [fade(18), fade(15), fade(13), 1.0]
# To the name server came, when the scan's third flow ends, Ann's two flows and Eve's three; at
# 90 s those of Ann were 300 and 150 short steps ago, 5 and 3 long ones.
TO_BOB_SHORT, TO_BOB_LONG = fade(300) + fade(150) + 3, fade(5) + fade(3) + 3

Expected = float | str
TABLE: list[tuple[str, str, Expected, str]] = [
    ("tls", "duration", 0.221, "SYN at 0, last ACK at 221 ms"),
    ("tls", "proto", "tcp", "protocol 6"),
    ("dns", "proto", "udp", "protocol 17"),
    ("refusal", "proto", "icmp", "protocol 1"),
    ("tls", "ipv6", 0, "IPv4"),
    ("mdns", "ipv6", 1, "IPv6"),
    ("tls", "vlan", 0, "untagged"),
    ("dns", "vlan", 1, "tagged with VLAN 7"),
    ("tls", "tunnel", 0, "plain"),
    ("tunnel", "tunnel", 1, "within GTP-U"),
    ("tls", "closed_by", "idle", "silent for 120 s before the capture ends"),
    ("syslog", "closed_by", "active", "a packet each 100 s for 1,900 s"),
    ("syslog rest", "closed_by", "cut", "still open when the capture ends"),
    ("syslog", "src_packets", 18, "those of the first 1,800 s"),
    ("syslog rest", "src_packets", 2, "the others"),
    ("tls", "state", "SF", "handshake and both FINs"),
    ("scan 1", "state", "REJ", "SYN, then RST by the destination"),
    ("dns", "state", "answered", "UDP both ways"),
    ("refused", "state", "unanswered", "UDP one way"),
    ("tls", "failed", 0, "established"),
    ("scan 1", "failed", 1, "reset at once"),
    ("refused", "failed", 1, "no answer"),
    ("mdns", "failed", 0, "multicast has no answer"),
    ("dhcp", "failed", 0, "broadcast has no answer"),
    ("refusal", "failed", 0, "an ICMP message asks for no answer"),
    ("refusal", "icmp_kind", "unreachable", "type 3"),
    ("ping", "icmp_kind", "echo", "type 8 came first"),
    ("tls", "icmp_kind", "(unknown)", "not ICMP"),
    ("tls", "src_packets", 8, "SYN, ACK, hello, ACK, data twice, FIN, ACK"),
    ("tls", "dst_packets", 4, "SYN-ACK, hello, data, FIN"),
    ("tls", "src_bytes", sum(SENT), "8 headers of 54 octets and the payloads"),
    ("tls", "dst_bytes", sum(GOT), "4 headers of 54 octets and the payloads"),
    ("dns", "src_bytes", 42 + 4 + len(QUERY), "Ethernet, VLAN tag, IPv4, UDP and the query"),
    ("tls", "src_payload_bytes", HELLO_SIZE + 200, "hello and 100 octets twice"),
    ("tls", "dst_payload_bytes", ANSWER_SIZE + 1000, "hello and 1,000 octets"),
    ("tls", "src_size_mean", mean(SENT), "bytes / packets"),
    ("tls", "dst_size_mean", mean(GOT), "bytes / packets"),
    ("refused", "dst_size_mean", 0, "it was silent"),
    ("tls", "src_size_max", max(SENT), "the hello"),
    ("tls", "dst_size_max", 1054, "the data"),
    ("tls", "src_size_stddev", stddev(SENT), "over 8 frames"),
    ("tls", "dst_size_stddev", stddev(GOT), "over 4 frames"),
    ("dns", "src_size_stddev", 0, "one frame"),
    ("tls", "src_payload_part", 3 / 8, "hello and data twice"),
    ("tls", "dst_payload_part", 2 / 4, "hello and data"),
    ("tls", "src_push_part", 3 / 8, "hello and data twice"),
    ("tls", "dst_push_part", 1 / 4, "the hello; the data came without PSH"),
    ("tls", "src_rate", 8 / 0.221, "8 packets in 221 ms"),
    ("tls", "dst_rate", 4 / 0.221, "4 packets in 221 ms"),
    ("refused", "src_rate", 0, "one packet has no duration"),
    ("tls", "src_load", 8 * sum(SENT) / 0.221, "bits in 221 ms"),
    ("tls", "dst_load", 8 * sum(GOT) / 0.221, "bits in 221 ms"),
    ("tls", "src_interval_mean", mean(gaps(SENT_MS)) / 1e3, "7 gaps"),
    ("tls", "dst_interval_mean", mean(gaps(GOT_MS)) / 1e3, "3 gaps"),
    ("tls", "src_interval_stddev", stddev(gaps(SENT_MS)) / 1e3, "7 gaps"),
    ("tls", "dst_interval_stddev", stddev(gaps(GOT_MS)) / 1e3, "3 gaps"),
    ("tls", "src_interval_max", 0.1, "before the data was sent again"),
    ("tls", "dst_interval_max", 0.135, "between hello and data"),
    ("syslog", "src_interval_mean", 100, "one each 100 s"),
    ("tls", "src_flags", "FSPA", "all but RST and URG"),
    ("tls", "dst_flags", "FSPA", "all but RST and URG"),
    ("scan 1", "src_flags", "S", "a SYN alone"),
    ("scan 1", "dst_flags", "RA", "RST and ACK"),
    ("dns", "src_flags", "-", "UDP has none"),
    ("tls", "src_retransmitted", 1, "100 octets sent again"),
    ("tls", "dst_retransmitted", 0, "each octet once"),
    ("sent again", "dst_retransmitted", 1, "300 octets sent again"),
    ("sent again", "src_retransmitted", 0, "by the server"),
    ("tls", "src_window", 65535, "field of the SYN"),
    ("tls", "dst_window", 65535, "field of the SYN-ACK"),
    ("dns", "src_window", 0, "UDP has none"),
    ("tls", "src_ttl_class", "64", "64 at the tap"),
    ("tls", "dst_ttl_class", "64", "50 at the tap"),
    ("dns", "dst_ttl_class", "128", "128 at the tap"),
    ("scan 1", "src_ttl_class", "255", "255 at the tap"),
    ("refused", "dst_ttl_class", "(unknown)", "it was silent"),
    ("tls", "src_hops", 0, "64 - 64"),
    ("quic", "src_hops", 3, "64 - 61"),
    ("tls", "dst_hops", 14, "64 - 50"),
    ("tls", "src_port_class", "ephemeral", "50000"),
    ("tls", "dst_port_class", "https", "443"),
    ("dns", "dst_port_class", "dns", "53"),
    ("refused", "dst_port_class", "registered", "9999"),
    ("scan 1", "dst_port_class", "system", "1"),
    ("dhcp", "src_port_class", "dhcp", "68"),
    ("ping", "dst_port_class", "none", "ICMP has no ports"),
    ("tls", "src_scope", "private", "10/8"),
    ("tls", "dst_scope", "public", "93.184.216.34"),
    ("mdns", "src_scope", "link-local", "fe80::/10"),
    ("mdns", "dst_scope", "multicast", "ff00::/8"),
    ("dhcp", "src_scope", "unspecified", "all zero"),
    ("dhcp", "dst_scope", "broadcast", "255.255.255.255"),
    ("tls", "packet_share", 8 / 12, "8 of 12 packets"),
    ("tls", "byte_share", sum(SENT) / (sum(SENT) + sum(GOT)), "its part of the frames"),
    ("tls", "payload_share", (HELLO_SIZE + 200) / (HELLO_SIZE + ANSWER_SIZE + 1200), "its part"),
    ("scan 1", "payload_share", 0, "there is no payload"),
    ("tls", "answer_delay", 0.020, "SYN to SYN-ACK"),
    ("dns", "answer_delay", 0.004, "query to answer"),
    ("refused", "answer_delay", 0, "no answer"),
    ("tls", "synack", 0.020, "SYN at 0, SYN-ACK at 20 ms"),
    ("tls", "ackdat", 0.001, "SYN-ACK at 20, ACK at 21 ms"),
    ("scan 1", "synack", 0, "there was no SYN-ACK"),
    ("tls", "early_1", HELLO_SIZE, "the client's hello"),
    ("tls", "early_2", -ANSWER_SIZE, "the server's hello"),
    ("tls", "early_3", 100, "data"),
    ("tls", "early_4", 100, "data again"),
    ("tls", "early_5", -1000, "the server's data"),
    ("tls", "early_6", 0, "there were five"),
    ("syslog", "early_6", 6, "each datagram has 6 octets"),
    ("syslog", "early_7", 6, "each datagram has 6 octets"),
    ("syslog", "early_8", 6, "the last that is kept"),
    ("tls", "early_turns", 3, "client, server, client, client, server"),
    ("dns", "early_turns", 1, "query, answer"),
    ("tls", "application_protocol", "TLS", "the client's hello"),
    ("dns", "application_protocol", "DNS", "the query"),
    ("scan 1", "application_protocol", "Unknown", "no payload, no known port"),
    ("tls", "application", "TLS", "nothing known of the server's name"),
    ("syslog", "application", "Syslog", "port and content"),
    ("tls", "category", "Web", "nDPI's category of TLS"),
    ("dns", "category", "Network", "nDPI's category of DNS"),
    ("tls", "tls", 1, "TLS"),
    ("dns", "tls", 0, "plain DNS"),
    ("tls", "quic", 0, "TLS over TCP"),
    ("quic", "quic", 1, "the client's hello"),
    ("quic", "tls", 1, "QUIC brings its own"),
    ("tls", "name", 1, "SNI"),
    ("dns", "name", 1, "the name that is asked for"),
    ("refused", "name", 0, "none"),
    ("tls", "name_length", 15, "www.example.org"),
    ("tls", "name_labels", 3, "www, example, org"),
    ("tls", "name_entropy", entropy("www.example.org"), "its letters"),
    ("tls", "fingerprint", 1, "JA4 of the hello"),
    ("dns", "fingerprint", 0, "none"),
    # Context: all of Ann's flows before and the flow itself, faded in steps of 12 s.
    ("tls", "src_new", 1, "the first flow of all"),
    ("dns", "src_new", 0, "Ann was seen"),
    ("dns", "dst_new", 1, "the name server was not"),
    ("dns", "pair_new", 1, "Ann's first flow to it"),
    ("refused", "pair_new", 0, "her second"),
    ("refused", "pair_gap", 29.996, "30.004 s to 60 s"),
    ("refused", "src_service_new", 1, "no flow to UDP port 9999 before"),
    ("dns", "name_new", 0, "Ann had named www.example.org in TLS"),
    ("dns", "name_peers_10m", 1, "Ann alone, however often"),
    ("tls", "fingerprint_new", 1, "the first with it"),
    ("scan 3", "src_services_10s", 3, "ports 1, 2 and 3 within 20 ms"),
    ("scan 3", "src_service_entropy_10s", math.log2(3), "one flow each"),
    ("scan 3", "src_peers_10s", 1, "all at one host"),
    ("scan 3", "src_failed_10s", 1, "all reset"),
    ("scan 3", "pair_flows_10s", 3, "all to one host"),
    ("scan 3", "dst_service_new", 1, "port 3 was never offered"),
    ("tunnel", "src_unreachable_10m", math.exp(-13 / 50), "one message, 13 steps of 12 s ago"),
    ("scan 3", "src_flows_10s", 3, "three within 20 ms"),
    ("scan 3", "src_flows_10m", 3, "three within 20 ms"),
    ("tunnel", "src_flows_10m", sum(ANNS), "Ann's four flows"),
    ("scan 3", "src_failed_10m", 1, "all reset"),
    ("tunnel", "src_failed_10m", (fade(13) + 1) / sum(ANNS), "refused, and not answered"),
    ("tunnel", "src_peers_10m", 1 + fade(13), "the far host now, the name server at 60 s"),
    ("tunnel", "src_services_10m", sum(ANNS), "each once"),
    ("tunnel", "src_service_entropy_10m", -sum(w / sum(ANNS) * math.log2(w / sum(ANNS))
                                               for w in ANNS), "four services, one flow each"),
    ("scan 3", "src_service_entropy_10m", math.log2(3), "one flow each"),
    ("scan 3", "src_out_share_10s", 0.5, "three SYNs of 54 octets, three resets of 54"),
    ("tls", "src_out_share_10s", sum(SENT) / (sum(SENT) + sum(GOT)), "Ann's only flow"),
    ("dns", "src_out_share_10m", (fade(3) * sum(SENT) + QUERY_SIZE)
     / (fade(3) * (sum(SENT) + sum(GOT)) + QUERY_SIZE + ANSWERED_SIZE), "the page and the name"),
    ("scan 3", "dst_flows_10s", TO_BOB_SHORT, "Ann's two and three of the scan"),
    ("scan 3", "dst_flows_10m", TO_BOB_LONG, "Ann's two and three of the scan"),
    ("scan 3", "dst_failed_10s", (fade(150) + 3) / TO_BOB_SHORT, "all but the name's lookup"),
    ("scan 3", "dst_failed_10m", (fade(3) + 3) / TO_BOB_LONG, "all but the name's lookup"),
    ("scan 3", "dst_peers_10s", 1 + fade(150), "Eve now, Ann at 60 s"),
    ("scan 3", "dst_peers_10m", 1 + fade(3), "Eve now, Ann at 60 s"),
    ("refused", "pair_flows_10m", 1 + fade(2), "the name's lookup was at 30 s"),
    ("refused", "pair_failed_10m", 1 / (1 + fade(2)), "the name was answered"),
    ("refused", "pair_out_share_10m", (fade(2) * QUERY_SIZE + REFUSED_SIZE)
     / (fade(2) * (QUERY_SIZE + ANSWERED_SIZE) + REFUSED_SIZE), "only the name was answered"),
    ("tls", "name_new", 1, "Ann's first flow that names it"),
    ("tls", "fingerprint_peers_10m", 1, "Ann alone"),
]  # fmt: skip


@pytest.fixture(scope="module")
def rows(measured: tuple[FlowBatch, np.ndarray]) -> dict[str, np.ndarray]:
    """The row of each named flow."""
    named: dict[str, np.ndarray] = {}
    for one, row in zip(*measured, strict=True):
        ends = unpack_address(one["src_ip"], one["ip_version"]), one["src_port"], one["dst_port"]
        for name, key in FLOWS.items():
            if key == ends:
                named[f"{name} rest" if name in named else name] = row
    return named


@pytest.mark.parametrize(
    ("name", "feature", "expected", "why"), TABLE, ids=[f"{row[0]}-{row[1]}" for row in TABLE]
)
def test_features_on_the_wire(
    rows: dict[str, np.ndarray], name: str, feature: str, expected: Expected, why: str
) -> None:
    declared = flow.SCHEMA.features[flow.SCHEMA.names.index(feature)]
    found = float(rows[name][flow.SCHEMA.names.index(feature)])
    if isinstance(expected, str):
        assert declared.show(found) == expected, why
    else:
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-4), why


def test_every_feature_is_in_the_table() -> None:
    assert {row[1] for row in TABLE} == set(flow.SCHEMA.names)


def test_every_packet_is_metered_once(measured: tuple[FlowBatch, np.ndarray]) -> None:
    flows, found = measured
    assert int((flows["src_packets"] + flows["dst_packets"]).sum()) == len(capture())
    assert np.isfinite(found).all()
