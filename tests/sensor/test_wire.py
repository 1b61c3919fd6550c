"""From packets to feature rows: what each feature says of traffic whose answer is known.

Every case is one conversation of a client with an address of its own; all of them lie in one
capture, which is metered twice, under the settings of either schema. What is expected was
worked out by hand from the packets, and the comments say how.

Frames without options: Ethernet 14, IPv4 20 or IPv6 40, TCP 20, UDP 8, ICMP 8 octets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.snmp import SNMP
from scapy.packet import Packet, Raw

from examples import traffic
from examples.traffic import Frame, Host, Side, TcpConversation
from features import kdd, unsw_nb15
from features.flows import NEVER, Ending, TcpFlag, pack_address, unpack_address
from features.schema import Schema
from sensor.captures import CaptureSpool, chain
from sensor.meter.base import MeterCounters
from sensor.pipeline import measure
from tests.helpers import METERS

C, S = Side.CLIENT, Side.SERVER
START_US = 1_700_000_000_000_000  # a whole second
SERVER = Host("02:00:00:00:00:02", "192.0.2.7", ttl=57)
SERVER6 = Host("02:00:00:00:00:02", "2001:db8::7", ttl=57)
PORT = 40_000

Segment = tuple[float, Side, str, bytes] | tuple[float, Side, str]
"""When (ms after the beginning), who, flags, payload."""
HELLO: list[Segment] = [(0, C, "S"), (1, S, "SA"), (2, C, "A")]


@dataclass
class Case:
    """A conversation, and what is to be said of it; values of categories are terms."""

    frames: list[Frame]
    flow: dict[str, object] = field(default_factory=dict)
    unsw: dict[str, object] = field(default_factory=dict)
    kdd: dict[str, object] = field(default_factory=dict)


Build = Callable[[Host], Case]
CASES: dict[str, Build] = {}


def case(build: Build) -> Build:
    """Add a case; its function's name is its name."""
    CASES[build.__name__] = build
    return build


def client_of(name: str) -> Host:
    """The client of a case: an address that no other has."""
    number = list(CASES).index(name) + 1
    return Host("02:00:00:00:00:01", f"10.1.{number // 200}.{number % 200 + 1}")


def ms(value: float) -> int:
    """Microseconds since the epoch of a time in ms after the beginning."""
    return START_US + round(value * 1000)


def tcp(client: Host, script: Iterable[Segment], port: int = 7777, **more: Any) -> list[Frame]:
    """A TCP connection of these segments; sequence numbers begin at 1000 and 5000."""
    server = more.pop("server", SERVER)
    numbers = {"client_isn": 1000, "server_isn": 5000} | more
    talk = TcpConversation(client, server, PORT, port, **numbers)
    for time, side, flags, *payload in script:
        talk.segment(ms(time), side, flags, b"".join(payload))
    return talk.frames


def udp(
    client: Host, messages: Iterable[tuple[float, Side, bytes]], port: int = 7777, **more: Any
) -> list[Frame]:
    """Datagrams."""
    timed = [(ms(time), side, payload) for time, side, payload in messages]
    return traffic.udp_exchange(client, more.pop("server", SERVER), PORT, port, timed, **more)


def scapy(client: Host, *layers: Packet | bytes, time: float = 0, back: bool = False) -> Frame:
    """One frame of scapy's making between client and server."""
    source, target = (SERVER, client) if back else (client, SERVER)
    packet: Packet = Ether(src=source.mac, dst=target.mac)
    for layer in layers:
        packet = packet / layer
    return ms(time), bytes(packet)


# ---------------------------------------------------------------------------------------
# TCP, once in full


@case
def whole_connection(client: Host) -> Case:
    frames = tcp(
        client,
        [
            (0, C, "S"),
            (10, S, "SA"),
            (15, C, "A"),
            (20, C, "PA", b"q" * 100),
            (50, S, "PA", b"r" * 300),
            (55, C, "A"),
            (60, C, "FA"),
            (70, S, "FA"),
            (75, C, "A"),
        ],
    )
    return Case(
        frames,
        flow={
            "first_us": START_US,
            "last_us": ms(75),
            "src_first_us": START_US,
            "src_last_us": ms(75),
            "dst_first_us": ms(10),
            "dst_last_us": ms(70),
            "syn_us": START_US,
            "synack_us": ms(10),
            "ack_us": ms(15),
            "src_packets": 6,
            "dst_packets": 3,
            "src_bytes": 424,  # 6 * 54 + 100
            "dst_bytes": 462,  # 3 * 54 + 300
            "src_payload_bytes": 100,
            "dst_payload_bytes": 300,
            "src_piat_mean_us": 15_000,  # 15, 5, 35, 5 and 15 ms
            "dst_piat_mean_us": 30_000,  # 40 and 20 ms
            "src_piat_stddev_us": pytest.approx(150**0.5 * 1000),  # squares 0+100+400+100+0, by 4
            "dst_piat_stddev_us": pytest.approx(200**0.5 * 1000),
            "src_tcp_base": 1000,
            "dst_tcp_base": 5000,
            "src_retransmitted": 0,
            "dst_retransmitted": 0,
            "src_window": 65_535,
            "dst_window": 65_535,
            "src_ttl": 64,
            "dst_ttl": 57,
            "src_tcp_flags": TcpFlag.SYN | TcpFlag.ACK | TcpFlag.PSH | TcpFlag.FIN,
            "dst_tcp_flags": TcpFlag.SYN | TcpFlag.ACK | TcpFlag.PSH | TcpFlag.FIN,
            "src_port": PORT,
            "dst_port": 7777,
            "vlan_id": 0,
            "protocol": 6,
            "ip_version": 4,
            "tunnel_id": 0,
            "icmp_type": 0,
            "icmp_code": 0,
        },
        unsw={
            "dur": 0.075,
            "proto": "tcp",
            "service": "-",
            "state": "FIN",
            "spkts": 6,
            "dpkts": 3,
            "sbytes": 424,
            "dbytes": 462,
            "rate": 8 / 0.075,  # nine packets, the first begins the time
            "sttl": 64,
            "dttl": 57,
            "sload": 8 * (424 - 70) / 0.075,  # 424 // 6 = 70
            "dload": 8 * (462 - 154) / 0.075,
            "sloss": 0,
            "dloss": 0,
            "sinpkt": 15,
            "dinpkt": 30,
            "sjit": 11,  # by 5: 120, whose root is 10.95
            "djit": 10,
            "swin": 255,  # the most that was published
            "dwin": 255,
            "stcpb": 1000,
            "dtcpb": 5000,
            "tcprtt": 0.015,
            "synack": 0.010,
            "ackdat": 0.005,
            "smean": 71,  # 70.67
            "dmean": 154,
            "trans_depth": 0,
            "response_body_len": 0,
            "is_ftp_login": 0,
            "ct_ftp_cmd": 0,
            "ct_flw_http_mthd": 0,
            "ct_state_ttl": 0,  # no class has these TTLs
            "is_sm_ips_ports": 0,
        },
        kdd={
            "duration": 0,
            "protocol_type": "tcp",
            "service": "other",
            "flag": "SF",
            "src_bytes": 100,
            "dst_bytes": 300,
            "land": 0,
            "urgent": 0,
        },
    )


@case
def duration_of_2750_ms(client: Host) -> Case:
    # KDD counts whole seconds.
    return Case(tcp(client, [*HELLO, (2750, C, "A")]), unsw={"dur": 2.75}, kdd={"duration": 2})


@case
def times_within_a_millisecond(client: Host) -> Case:
    # 0.4 and 1.6 ms are milliseconds 0 and 1 to NFStream's clock.
    frames = udp(client, [(0.4, C, b"a"), (1.6, C, b"b")])
    return Case(frames, unsw={"dur": 0.001, "sinpkt": 1, "rate": 1000, "sload": 8 * 43 / 0.001})


@case
def one_packet(client: Host) -> Case:
    # No duration: no rate, no load, no interval.
    return Case(
        udp(client, [(0, C, b"abc")]),
        flow={"dst_first_us": NEVER, "dst_last_us": NEVER, "dst_ttl": 0, "src_bytes": 45},
        unsw={
            "dur": 0, "rate": 0, "sload": 0, "dload": 0, "sinpkt": 0, "dinpkt": 0, "smean": 45,
            "dmean": 0, "state": "INT", "dttl": 0, "proto": "udp",
        },
        kdd={"src_bytes": 3, "dst_bytes": 0, "protocol_type": "udp", "flag": "SF"},
    )  # fmt: skip


@case
def datagrams_both_ways(client: Host) -> Case:
    return Case(
        udp(client, [(0, C, b"x" * 20), (4, S, b"y" * 58), (10, C, b"x" * 20)]),
        unsw={
            "state": "CON", "spkts": 2, "dpkts": 1, "sbytes": 124, "dbytes": 100, "smean": 62,
            "sload": 8 * 62 / 0.01, "dload": 0, "sinpkt": 10, "dinpkt": 0, "tcprtt": 0,
        },
        kdd={"src_bytes": 40, "dst_bytes": 58},
    )  # fmt: skip


@case
def small_windows(client: Host) -> Case:
    talk = TcpConversation(client, SERVER, PORT, 7777)
    talk.segment(ms(0), C, "S", window=100)
    talk.segment(ms(1), S, "SA", window=254)
    return Case(talk.frames, unsw={"swin": 100, "dwin": 254})


@case
def laboratory_hosts(client: Host) -> Case:
    # FIN with TTLs of 254 and 252 is class 1 of the published rows.
    talk = TcpConversation(client, SERVER, PORT, 7777)
    for number, (side, flags) in enumerate([(C, "S"), (S, "SA"), (C, "A"), (C, "FA"), (S, "FA")]):
        talk.segment(ms(number), side, flags, ttl=254 if side is C else 252)
    return Case(talk.frames, unsw={"state": "FIN", "ct_state_ttl": 1})


@case
def under_way(client: Host) -> Case:
    # Without SYNs the first segment's sender has the number before it as its base: that of the
    # SYN, had it come just then. The other side has its first number. As Argus has it.
    talk = TcpConversation(client, SERVER, PORT, 7777, client_isn=0, server_isn=7000)
    talk.segment(ms(0), C, "PA", b"x")
    talk.segment(ms(1), S, "A")
    return Case(talk.frames, unsw={"stcpb": 2**32 - 1, "dtcpb": 7000, "sloss": 0, "dloss": 0})


@case
def a_reset_of_what_was_not_seen(client: Host) -> Case:
    # Its own number is 0, as that of an answer to a SYN: the base is told by what it acknowledges.
    talk = TcpConversation(client, SERVER, PORT, 7777)
    talk.segment(ms(0), C, "RA", seq=0, ack=78)
    return Case(talk.frames, unsw={"stcpb": 77, "dtcpb": 0, "state": "RST"})


@case
def padded_frames(client: Host) -> Case:
    # A switch's mirror port shows 60 octets of the 54; the rest is padding, not payload.
    frames = tcp(client, [*HELLO, (3, C, "PA", b"12")], pad=True)
    return Case(
        frames,
        flow={"src_bytes": 180, "dst_bytes": 60, "src_payload_bytes": 2, "dst_payload_bytes": 0},
        kdd={"src_bytes": 2, "dst_bytes": 0},
    )


@case
def tcp_options_are_no_payload(client: Host) -> Case:
    # A Linux SYN has 20 octets of options, later segments 12.
    linux = Host(client.mac, client.ip, stack=traffic.LINUX)
    server = Host(SERVER.mac, SERVER.ip, ttl=57, stack=traffic.LINUX)
    frames = tcp(linux, [*HELLO, (3, C, "PA", b"x" * 10)], server=server)
    return Case(
        frames,
        flow={
            "src_bytes": 74 + 66 + 76,
            "dst_bytes": 74,
            "src_payload_bytes": 10,
            "src_window": 64_240,  # of the SYN, not the scaled one of later segments
            "dst_window": 64_240,
        },
    )


@case
def ip_options_are_no_payload(client: Host) -> Case:
    ip = IP(src=client.ip, dst=SERVER.ip, ttl=33, options=[IPOption_NOP()] * 8)
    frame = scapy(client, ip, TCP(sport=5, dport=6, flags="S", seq=78, window=999), b"hello")
    return Case(
        [frame],
        flow={
            "src_payload_bytes": 5, "src_tcp_base": 78, "src_window": 999, "src_ttl": 33,
            "src_tcp_flags": TcpFlag.SYN, "src_bytes": 67,
        },
    )  # fmt: skip


@case
def the_first_packet_gives_ttl_and_window(client: Host) -> Case:
    talk = TcpConversation(client, SERVER, PORT, 7777)
    talk.segment(ms(0), C, "S", ttl=128, window=8192)
    talk.segment(ms(1), S, "SA", ttl=200, window=4096)
    talk.segment(ms(2), C, "A", ttl=1, window=1)
    talk.segment(ms(3), S, "A", ttl=2, window=2)
    return Case(
        talk.frames,
        flow={"src_ttl": 128, "dst_ttl": 200, "src_window": 8192, "dst_window": 4096},
        unsw={"sttl": 128, "dttl": 200},
    )


@case
def sequence_numbers_wrap(client: Host) -> Case:
    # The numbers pass 2^32 within the payload; nothing is sent twice.
    script: list[Segment] = [*HELLO, (3, C, "PA", b"x" * 9), (4, C, "PA", b"y" * 9), (5, C, "FA")]
    return Case(
        tcp(client, script, client_isn=2**32 - 5, server_isn=2**32 - 1),
        flow={"src_tcp_base": 2**32 - 5, "dst_tcp_base": 2**32 - 1, "src_retransmitted": 0},
        unsw={"stcpb": 2**32 - 5, "dtcpb": 2**32 - 1, "sloss": 0, "dloss": 0},
    )


# ---------------------------------------------------------------------------------------
# Retransmissions and urgent data


@case
def retransmissions(client: Host) -> Case:
    talk = TcpConversation(client, SERVER, PORT, 7777, client_isn=1000, server_isn=5000)
    talk.segment(ms(0), C, "S")
    talk.segment(ms(1), C, "S", seq=1000)  # the SYN again: 1
    talk.segment(ms(2), S, "SA")
    talk.segment(ms(3), S, "SA", seq=5000)  # of the server: 1
    talk.segment(ms(4), C, "A")
    talk.segment(ms(5), C, "PA", b"x" * 100)
    talk.segment(ms(6), C, "PA", b"x" * 100, seq=1001)  # the same data: 2
    talk.segment(ms(7), C, "PA", b"x" * 150, seq=1051)  # half old, half new: 3
    talk.segment(ms(8), C, "PA", b"x" * 10)  # new
    talk.segment(ms(9), S, "A")
    talk.segment(ms(10), S, "A")  # acknowledgements repeat nothing
    talk.segment(ms(11), S, "A", seq=5000)  # nor does a keep-alive without data
    talk.segment(ms(12), C, "FA")
    talk.segment(ms(13), C, "FA", seq=talk.next_seq(C) - 1)  # the FIN again: 4
    return Case(
        talk.frames,
        flow={"src_retransmitted": 4, "dst_retransmitted": 1, "syn_us": ms(0), "synack_us": ms(2)},
        # SYN and SYN-ACK count when first seen.
        unsw={"sloss": 4, "dloss": 1, "synack": 0.002, "ackdat": 0.002, "tcprtt": 0.004},
    )


@case
def a_hole_is_no_retransmission(client: Host) -> Case:
    # The second of three segments passed elsewhere.
    talk = TcpConversation(client, SERVER, PORT, 7777, client_isn=1000)
    talk.handshake(ms(0), ms(1), ms(2))
    talk.segment(ms(3), C, "PA", b"x" * 100)
    talk.segment(ms(4), C, "PA", b"x" * 100, seq=1201)
    return Case(talk.frames, flow={"src_retransmitted": 0})


@case
def urgent_packets(client: Host) -> Case:
    script: list[Segment] = [
        *HELLO, (3, C, "PAU", b"!"), (4, C, "AU", b"!"), (5, S, "AU", b"?"), (6, S, "A"),
    ]  # fmt: skip
    return Case(
        tcp(client, script),
        flow={"src_urgent": 2, "dst_urgent": 1},
        kdd={"urgent": 3},
    )


# ---------------------------------------------------------------------------------------
# States


def state(name: str, script: Sequence[Segment], unsw: str, flag: str) -> None:
    """A case of a TCP connection that ends in these states."""
    CASES[name] = lambda client: Case(tcp(client, script), unsw={"state": unsw}, kdd={"flag": flag})


state("unanswered_syn", [(0, C, "S")], "REQ", "S0")
state("answered_syn", [(0, C, "S"), (1, S, "SA")], "ACC", "S1")
state("established", [*HELLO, (3, C, "PA", b"x")], "CON", "S1")
state("closed_by_both", [*HELLO, (3, C, "FA"), (4, S, "FA"), (5, C, "A")], "FIN", "SF")
state("closed_by_both_server_first", [*HELLO, (3, S, "FA"), (4, C, "FA"), (5, S, "A")], "FIN", "SF")
state("closed_by_the_client_alone", [*HELLO, (3, C, "FA"), (4, S, "A")], "FIN", "S2")
state("closed_by_the_server_alone", [*HELLO, (3, S, "FA"), (4, C, "A")], "FIN", "S3")
state("syn_and_fin_without_answer", [(0, C, "S"), (1, C, "F")], "FIN", "SH")
state("refused", [(0, C, "S"), (1, S, "RA")], "RST", "REJ")
state("reset_by_the_client", [*HELLO, (3, C, "PA", b"x"), (4, C, "RA")], "RST", "RSTO")
state("reset_by_the_server", [*HELLO, (3, C, "PA", b"x"), (4, S, "RA")], "RST", "RSTR")
state("given_up_by_the_client", [(0, C, "S"), (1, C, "R")], "RST", "RSTOS0")
state("half_open_scan", [(0, C, "S"), (1, S, "SA"), (2, C, "R")], "RST", "RSTO")
state("closed_then_reset_by_the_server", [*HELLO, (3, C, "FA"), (4, S, "RA")], "RST", "RSTR")
state("middle_of_a_connection", [(0, C, "A", b"x"), (1, S, "A", b"y")], "CON", "OTH")
state("middle_unanswered", [(0, C, "PA", b"x")], "CON", "OTH")
state("lone_reset", [(0, C, "R")], "RST", "OTH")


@case
def lone_syn_ack(client: Host) -> Case:
    # What comes back from a flood with forged sources. Bro saw no SYN here: OTH, not S0, which
    # would make it a SYN error in the rates of all its neighbours.
    frames = tcp(client, [(0, C, "SA")])
    flow: dict[str, object] = {"syn_us": NEVER, "synack_us": NEVER}
    return Case(frames, flow, unsw={"state": "ACC"}, kdd={"flag": "OTH"})


@case
def the_server_is_not_seen(client: Host) -> Case:
    # Argus believes the side that it sees: it would not go on without an answer.
    frames = tcp(client, [(0, C, "S"), (2, C, "A"), (3, C, "PA", b"x")])
    return Case(frames, unsw={"state": "CON"})


@case
def an_rst_completes_no_handshake(client: Host) -> Case:
    return Case(
        tcp(client, [(0, C, "S"), (5, S, "SA"), (7, C, "RA")]),
        flow={"ack_us": NEVER},
        unsw={"synack": 0.005, "tcprtt": 0.005, "ackdat": 0},
    )


# ---------------------------------------------------------------------------------------
# ICMP and others


@case
def ping(client: Host) -> Case:
    frames = []
    for number in range(3):
        request = traffic.icmp_echo_frame(client, SERVER, 7, number, b"x" * 56)
        reply = traffic.icmp_echo_frame(SERVER, client, 7, number, b"x" * 56, reply=True)
        frames += [(ms(1000 * number), request), (ms(1000 * number + 8), reply)]
    return Case(
        frames,
        flow={
            "protocol": 1, "icmp_type": 8, "icmp_code": 0, "src_port": 0, "dst_port": 0,
            "src_ttl": 64, "dst_ttl": 57, "src_bytes": 294, "dst_bytes": 294,  # 3 * (42 + 56)
            "src_packets": 3, "dst_packets": 3,
        },
        unsw={
            "proto": "icmp", "state": "ECO", "service": "-", "dur": 2.008, "sinpkt": 1000,
            "sbytes": 294,
        },
        kdd={"protocol_type": "icmp", "service": "eco_i", "flag": "SF", "duration": 2},
    )  # fmt: skip


@case
def ping_in_kdds_octets(client: Host) -> Case:
    # KDD counts the ICMP message with its header: its pings of death have 1480 octets, all that
    # an Ethernet frame leaves for IP's payload, and an empty ping has 8.
    frame = traffic.icmp_echo_frame(client, SERVER, 7, 0, b"")
    return Case([(ms(0), frame)], kdd={"src_bytes": 8})


def icmp(name: str, kind: int, code: int, unsw: str, service: str) -> None:
    """A case of one ICMP message."""

    def build(client: Host) -> Case:
        about = IP(src=SERVER.ip, dst="10.9.9.9") / UDP(sport=53, dport=99)
        frame = scapy(client, IP(src=client.ip, dst=SERVER.ip), ICMP(type=kind, code=code), about)
        return Case(
            [frame],
            flow={"icmp_type": kind, "icmp_code": code},
            unsw={"proto": "icmp", "state": unsw},
            kdd={"service": service, "protocol_type": "icmp"},
        )

    CASES[name] = build


icmp("host_unreachable", 3, 1, "URH", "urh_i")
icmp("net_unreachable", 3, 0, "URN", "urp_i")
icmp("port_unreachable", 3, 3, "INT", "urp_i")
icmp("time_exceeded", 11, 0, "INT", "tim_i")
icmp("redirect", 5, 1, "INT", "red_i")
icmp("lone_echo_reply", 0, 0, "INT", "ecr_i")


def other_protocol(name: str, number: int, payload: bytes, proto: str) -> None:
    """A case of a protocol without ports."""

    def build(client: Host) -> Case:
        ip = IP(src=client.ip, dst=SERVER.ip, proto=number)
        return Case(
            [scapy(client, ip, Raw(payload))],
            flow={"protocol": number, "src_port": 0, "dst_port": 0},
            unsw={"proto": proto, "state": "INT", "sbytes": 34 + len(payload)},
            kdd={"protocol_type": "(unknown)", "service": "other", "flag": "SF"},
        )

    CASES[name] = build


other_protocol("esp", 50, bytes(30), "esp")
other_protocol("ospf", 89, b"\2\1\0\x18" + bytes(20), "ospf")
other_protocol("unassigned", 200, bytes(30), "unas")


@case
def vlan(client: Host) -> Case:
    # The tag's four octets are part of the frame.
    return Case(
        udp(client, [(0, C, b"abc"), (1, S, b"abc")], vlan=42),
        flow={"vlan_id": 42, "src_bytes": 49, "src_payload_bytes": 3},
        unsw={"sbytes": 49, "dbytes": 49, "state": "CON"},
    )


@case
def vlan_in_vlan(client: Host) -> Case:
    ip = IP(src=client.ip, dst=SERVER.ip)
    frame = scapy(client, Dot1Q(vlan=7), Dot1Q(vlan=42), ip, UDP(sport=5, dport=6), b"abc")
    return Case([frame], flow={"vlan_id": 42, "src_bytes": 53, "src_payload_bytes": 3})


@case
def the_same_endpoint_twice(client: Host) -> Case:
    # The land attack.
    frame = traffic.tcp_frame(client, client, 139, 139, "S")
    return Case(
        [(ms(0), frame)],
        unsw={"is_sm_ips_ports": 1},
        kdd={"land": 1, "flag": "S0", "service": "netbios_ssn"},
    )


@case
def the_same_address_with_two_ports(client: Host) -> Case:
    frame = traffic.tcp_frame(client, client, 139, 140, "S")
    return Case([(ms(0), frame)], unsw={"is_sm_ips_ports": 0}, kdd={"land": 0})


@case
def the_same_ports_on_two_addresses(client: Host) -> Case:
    frame = traffic.udp_frame(client, SERVER, 123, 123, b"x")
    return Case([(ms(0), frame)], unsw={"is_sm_ips_ports": 0}, kdd={"land": 0})


@case
def first_fragment(client: Host) -> Case:
    # Later fragments have no ports and belong to no flow.
    ip = {"src": client.ip, "dst": SERVER.ip}
    first = scapy(client, IP(**ip, flags="MF"), UDP(sport=5, dport=6), b"x" * 16)
    later = scapy(client, IP(**ip, frag=3), b"x" * 16, time=1)
    return Case([first, later], unsw={"spkts": 1, "sbytes": 58})


# ---------------------------------------------------------------------------------------
# IPv6


def six(client: Host) -> Host:
    """The client's IPv6 self."""
    return Host(client.mac, f"2001:db8::{client.ip.split('.')[2]}:{client.ip.split('.')[3]}", 61)


@case
def tcp_over_ipv6(client: Host) -> Case:
    script: list[Segment] = [*HELLO, (3, C, "PA", b"x" * 10), (8, C, "FA"), (9, S, "FA")]
    return Case(
        tcp(six(client), script, port=22, server=SERVER6),
        flow={
            "ip_version": 6, "src_ttl": 61, "dst_ttl": 57, "src_bytes": 306,  # 4 * 74 + 10
            "src_payload_bytes": 10, "src_tcp_base": 1000, "dst_tcp_base": 5000,
            "syn_us": ms(0), "synack_us": ms(1), "ack_us": ms(2),
        },
        unsw={"proto": "tcp", "state": "FIN", "sttl": 61, "tcprtt": 0.002, "sbytes": 306},
        kdd={"flag": "SF", "service": "ssh", "src_bytes": 10},
    )  # fmt: skip


@case
def udp_over_ipv6(client: Host) -> Case:
    return Case(
        udp(six(client), [(0, C, b"abc"), (2, S, b"defg")], server=SERVER6),
        flow={"ip_version": 6, "src_payload_bytes": 3, "dst_payload_bytes": 4, "src_bytes": 65},
        unsw={"state": "CON", "dur": 0.002},
    )


@case
def ping_over_ipv6(client: Host) -> Case:
    ends = {"src": six(client).ip, "dst": SERVER6.ip}
    back = {"src": SERVER6.ip, "dst": six(client).ip}
    frames = [
        scapy(client, IPv6(**ends, hlim=61), ICMPv6EchoRequest(data=b"x" * 10)),
        scapy(client, IPv6(**back, hlim=57), ICMPv6EchoReply(data=b"x" * 10), time=4, back=True),
    ]
    return Case(
        frames,
        flow={"protocol": 58, "icmp_type": 128, "icmp_code": 0, "src_bytes": 72, "dst_packets": 1},
        unsw={"proto": "ipv6-icmp", "state": "ECO", "dur": 0.004},
        kdd={"protocol_type": "icmp", "service": "eco_i", "flag": "SF"},
    )


@case
def unreachable_over_ipv6(client: Host) -> Case:
    ip = IPv6(src=six(client).ip, dst=SERVER6.ip)
    about = IPv6(src=SERVER6.ip, dst="2001:db8::99") / UDP(sport=53, dport=99)
    return Case(
        [scapy(client, ip, ICMPv6DestUnreach(code=4), about)],
        flow={"icmp_type": 1, "icmp_code": 4},
        unsw={"state": "INT"},
        kdd={"service": "urp_i"},
    )


@case
def extension_headers(client: Host) -> Case:
    # A destination-options header of 8 octets before TCP.
    ip = IPv6(src=six(client).ip, dst=SERVER6.ip, hlim=61)
    syn = TCP(sport=5, dport=6, flags="S", seq=77, window=512)
    return Case(
        [scapy(client, ip, IPv6ExtHdrDestOpt(), syn, b"abc")],
        flow={
            "protocol": 6, "src_port": 5, "dst_port": 6, "src_tcp_base": 77, "src_window": 512,
            "src_payload_bytes": 3, "src_ttl": 61, "src_tcp_flags": TcpFlag.SYN,
        },
    )  # fmt: skip


@case
def first_fragment_over_ipv6(client: Host) -> Case:
    ip = IPv6(src=six(client).ip, dst=SERVER6.ip)
    datagram = UDP(sport=5, dport=6, len=24) / Raw(b"x" * 8)
    first = scapy(client, ip, IPv6ExtHdrFragment(offset=0, m=1, id=9), datagram)
    later = scapy(client, ip, IPv6ExtHdrFragment(offset=2, m=0, id=9), b"x" * 8, time=1)
    return Case([first, later], unsw={"spkts": 1})


# ---------------------------------------------------------------------------------------
# Services


def tcp_service(
    name: str, port: int, unsw: str, service: str, *messages: tuple[Side, bytes]
) -> None:
    """A case of a TCP connection on `port` that says `messages`."""

    def build(client: Host) -> Case:
        said = [(3 + number, side, "PA", text) for number, (side, text) in enumerate(messages)]
        end = 3 + len(said)
        script = [*HELLO, *said, (end, C, "FA"), (end + 1, S, "FA"), (end + 2, C, "A")]
        return Case(tcp(client, script, port), unsw={"service": unsw}, kdd={"service": service})

    CASES[name] = build


def udp_service(
    name: str, port: int, unsw: str, service: str, *messages: tuple[Side, bytes]
) -> None:
    """The same of UDP."""

    def build(client: Host) -> Case:
        said = [(number, side, text) for number, (side, text) in enumerate(messages)]
        return Case(udp(client, said, port), unsw={"service": unsw}, kdd={"service": service})

    CASES[name] = build


_TLS = traffic.tls_hellos("www.example.com", Random(1))
_GET = b"GET / HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"
_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_SSH = (C, b"SSH-2.0-OpenSSH_9.2p1\r\n"), (S, b"SSH-2.0-OpenSSH_9.2p1\r\n")
_SMTP = (
    (S, b"220 mail.example.com ESMTP Postfix\r\n"),
    (C, b"EHLO client.example.com\r\n"),
    (S, b"250-mail.example.com\r\n250 SIZE 10240000\r\n"),
    (C, b"MAIL FROM:<a@example.com>\r\n"),
    (S, b"250 2.1.0 Ok\r\n"),
)
_POP3 = (
    (S, b"+OK POP3 server ready\r\n"),
    (C, b"USER ann\r\n"),
    (S, b"+OK\r\n"),
    (C, b"PASS secret\r\n"),
    (S, b"+OK logged in\r\n"),
    (C, b"STAT\r\n"),
    (S, b"+OK 0 0\r\n"),
)
_DNS = (
    (C, traffic.dns_query(7, "www.example.com")),
    (S, traffic.dns_answer(7, "www.example.com", ["192.0.2.80"])),
)
tcp_service("tls", 443, "ssl", "http_443", (C, _TLS[0]), (S, _TLS[1]))
tcp_service("tls_elsewhere", 9443, "ssl", "other", (C, _TLS[0]), (S, _TLS[1]))
tcp_service("ssh", 22, "ssh", "ssh", *_SSH)
tcp_service("ssh_elsewhere", 2222, "ssh", "other", *_SSH)
tcp_service("smtp", 25, "smtp", "smtp", *_SMTP)
tcp_service("pop3", 110, "pop3", "pop_3", *_POP3)
tcp_service("http_on_80", 80, "http", "http", (C, _GET), (S, _EMPTY))
tcp_service("http_elsewhere", 8001, "http", "http_8001", (C, _GET), (S, _EMPTY))
tcp_service("nothing_said_on_80", 80, "-", "http")
tcp_service("privileged_port", 999, "-", "private", (C, b"\x81\x82\x83"))
tcp_service("port_of_x11", 6010, "-", "X11", (C, b"\x81\x82\x83"))
udp_service("dns", 53, "dns", "domain_u", *_DNS)
udp_service("ntp", 123, "-", "ntp_u", (C, traffic.ntp_message(START_US, from_server=False)))
udp_service("snmp", 161, "snmp", "private", (C, bytes(SNMP(community="public", PDU=SNMP().PDU))))


@case
def dhcp(client: Host) -> Case:
    options = [("message-type", "discover"), ("param_req_list", [1, 3, 6]), "end"]
    message = BOOTP(chaddr=bytes(16), xid=7) / DHCP(options=options)
    frame = scapy(client, IP(src=client.ip, dst=SERVER.ip), UDP(sport=68, dport=67), message)
    return Case([frame], unsw={"service": "dhcp"}, kdd={"service": "private"})


@case
def name_asked_for(client: Host) -> Case:
    messages = [(number, side, text) for number, (side, text) in enumerate(_DNS)]
    return Case(udp(client, messages, 53), flow={"server_name": b"www.example.com"})


# ---------------------------------------------------------------------------------------
# HTTP


def head(*fields: str, status: str = "200 OK") -> bytes:
    """The head of a response."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()


def http(name: str, requests: int, body: int, *messages: tuple[Side, bytes]) -> None:
    """A case of these messages; how many requests, and octets of response bodies."""

    def build(client: Host) -> Case:
        said = [(3 + number, side, "PA", text) for number, (side, text) in enumerate(messages)]
        return Case(
            tcp(client, [*HELLO, *said], 80),
            flow={"http_requests": requests, "http_body_bytes": body},
            unsw={
                "trans_depth": min(requests, 1),
                "response_body_len": body,
                "ct_flw_http_mthd": requests,
            },
        )

    CASES[name] = build


REQUEST = (C, _GET)
http("body_in_one_packet", 1, 10, REQUEST, (S, head("Content-Length: 10") + b"0123456789"))
http(
    "body_over_three_packets", 1, 2500, REQUEST,
    (S, head("Server: x", "content-length:2500") + b"a" * 1000), (S, b"b" * 1000), (S, b"c" * 500),
)  # fmt: skip
http("head_alone_then_body", 1, 7, REQUEST, (S, head("Content-Length: 7")), (S, b"1234567"))
http(
    "no_more_than_announced", 1, 5, REQUEST,
    (S, head("Content-Length: 5") + b"123"), (S, b"45 and what is no body"),
)  # fmt: skip
http(
    "two_requests", 2, 13, REQUEST, (S, head("Content-Length: 3") + b"abc"),
    REQUEST, (S, head("Content-Length: 10") + b"0123456789"),
)  # fmt: skip
# Without a length the body lasts until the connection closes. Of a chunked one all that is sent
# is counted: two chunks of 4 octets in 9 each, and the 5 of the last.
http(
    "chunked", 1, 9 + 9 + 5, REQUEST,
    (S, head("Transfer-Encoding: chunked") + b"4\r\nabcd\r\n"), (S, b"4\r\nefgh\r\n0\r\n\r\n"),
)  # fmt: skip
http(
    "until_close", 1, 1300, REQUEST,
    (S, head("Connection: close") + b"x" * 300), (S, b"y" * 1000),
)  # fmt: skip
# The length is that of the body that is not sent; what follows it is none.
http(
    "not_modified", 1, 0, REQUEST,
    (S, head("Content-Length: 500", status="304 Not Modified")), (S, b"x" * 100),
)  # fmt: skip
http(
    "no_content_then_content", 2, 3, REQUEST, (S, head(status="204 No Content")),
    REQUEST, (S, head("Content-Length: 3") + b"abc"),
)  # fmt: skip
http(
    "continue", 1, 2, (C, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
    (S, head(status="100 Continue")), (C, b"12345"), (S, head("Content-Length: 2") + b"ok"),
)  # fmt: skip
http(
    "answer_to_head", 2, 4, (C, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (S, head("Content-Length: 999")), REQUEST, (S, head("Content-Length: 4") + b"1234"),
)  # fmt: skip
http(
    "upload", 1, 0, (C, b"PUT /x HTTP/1.1\r\nContent-Length: 2000\r\n\r\n" + b"x" * 1000),
    (C, b"x" * 1000), (S, head("Content-Length: 0", status="201 Created")),
)  # fmt: skip
http(
    "head_over_two_packets", 1, 6, REQUEST,
    (S, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nSet-Cookie: " + b"x" * 900),
    (S, b"x" * 900 + b"\r\n\r\n" + b"123456"),
)  # fmt: skip
http("not_http", 0, 0, (C, b"GETAWAY"), (S, b"HTTPS?"), (C, b"POST"))


# ---------------------------------------------------------------------------------------
# FTP


def ftp(name: str, commands: int, logins: int, *messages: tuple[Side, bytes]) -> None:
    """A case of these messages; how many commands and logins."""

    def build(client: Host) -> Case:
        said = [(3 + number, side, "PA", text) for number, (side, text) in enumerate(messages)]
        return Case(
            tcp(client, [*HELLO, *said], 21),
            flow={"ftp_commands": commands, "ftp_logins": logins},
            unsw={"is_ftp_login": logins, "ct_ftp_cmd": int(commands > 0), "service": "ftp"},
            kdd={"service": "ftp"},
        )

    CASES[name] = build


GREETING = (S, b"220 ftp.example.com FTP server ready\r\n")
ftp(
    "ftp_login", 4, 1, GREETING, (C, b"USER ann\r\n"), (S, b"331 Password required\r\n"),
    (C, b"PASS secret\r\n"), (S, b"230 Logged in\r\n"), (C, b"LIST\r\n"), (S, b"226 Done\r\n"),
    (C, b"QUIT\r\n"), (S, b"221 Bye\r\n"),
)  # fmt: skip
ftp(
    "ftp_login_refused", 2, 0, GREETING, (C, b"user ann\r\n"), (S, b"331 Password required\r\n"),
    (C, b"pass wrong\r\n"), (S, b"530 Login incorrect\r\n"),
)  # fmt: skip
ftp(
    "ftp_lines_in_one_packet", 3, 0, GREETING, (C, b"USER ann\r\nSYST\r\nFEAT\r\nNONSENSE\r\n"),
    (S, b"331 Password required\r\n"),
)  # fmt: skip


@case
def ftp_commands_elsewhere(client: Host) -> Case:
    # Only the control port's commands are FTP's: others have words like these, too.
    script: list[Segment] = [*HELLO, (3, C, "PA", b"USER ann\r\n"), (4, S, "PA", b"230 x\r\n")]
    return Case(tcp(client, script, 2121), unsw={"is_ftp_login": 0, "ct_ftp_cmd": 0})


# ---------------------------------------------------------------------------------------
# Timeouts


@case
def seconds_apart(client: Host) -> Case:
    # 59.9 s are less than either timeout of either schema.
    return Case(
        udp(client, [(0, C, b"a"), (59_900, C, b"b")]),
        unsw={"dur": 59.9, "spkts": 2, "sinpkt": 59_900},
        kdd={"duration": 59},
    )


@case
def idle_for_70_s(client: Host) -> Case:
    # UNSW's 60 s cut it, KDD's 120 s do not; the first of the records is looked at.
    return Case(
        udp(client, [(0, C, b"a"), (70_000, C, b"b")]),
        unsw={"dur": 0, "spkts": 1},
        kdd={"duration": 70, "src_bytes": 2},
    )


@case
def active_for_80_s(client: Host) -> Case:
    # UNSW's record ends before 60 s; the packet at 60 s begins the next.
    return Case(
        udp(client, [(20_000.0 * number, C, b"a") for number in range(5)]),
        unsw={"dur": 40, "spkts": 3, "sinpkt": 20_000},
        kdd={"duration": 80, "src_bytes": 5},
    )


@case
def goes_on_after_65_s(client: Host) -> Case:
    # The second record is of a connection whose set-up Argus remembers.
    return Case(
        tcp(client, [*HELLO, (3, C, "PA", b"a"), (65_000, C, "PA", b"b"), (65_004, S, "A")]),
        unsw={"synack": 0.001, "ackdat": 0.001, "tcprtt": 0.002, "spkts": 3},
        kdd={"duration": 65, "flag": "S1"},
    )


@case
def begins_anew_after_65_s(client: Host) -> Case:
    # A SYN on the same ports is a connection of its own.
    return Case(
        tcp(client, HELLO) + tcp(client, [(65_000, C, "S"), (65_007, S, "SA"), (65_010, C, "A")]),
        unsw={"synack": 0.001, "ackdat": 0.001, "tcprtt": 0.002},
    )


@case
def the_last_packet(client: Host) -> Case:
    # Keeps the capture open for 90 s.
    return Case(udp(client, [(90_000, C, b"a")]), unsw={"dur": 0})


# ---------------------------------------------------------------------------------------
# Metering


@dataclass
class Record:
    """A flow with its row, by feature name; categories as terms."""

    flow: Any
    row: dict[str, object]


@dataclass
class Metered:
    """All records of a capture by client address, in order of first time."""

    records: list[Record]
    counters: MeterCounters

    def of(self, address: str) -> list[Record]:
        packed = pack_address(address)
        found = [each for each in self.records if bytes(each.flow["src_ip"]) == packed]
        return sorted(found, key=lambda each: int(each.flow["first_us"]))


def meter(paths: Sequence[Path], schema: Schema, by: str) -> Metered:
    """Meter and measure files as the triage command does."""
    records = []
    with CaptureSpool() as spool:
        captures = [spool.open(path) for path in paths]
        assert not any(capture.problem for capture in captures)
        chains = chain(captures, schema.meter.idle_timeout_s * 1_000_000)
        used = METERS[by](chains, schema.meter)
        for batch in measure(used, schema, 1000):
            for flow, values in zip(batch.flows, batch.rows, strict=True):
                row = {
                    feature.name: feature.show(value) if feature.vocabulary else float(value)
                    for feature, value in zip(schema.features, values, strict=True)
                }
                records.append(Record(flow, row))
    return Metered(records, used.counters)


def built() -> dict[str, Case]:
    """All cases with their clients."""
    return {name: build(client_of(name)) for name, build in CASES.items()}


NOT_IP = 3
"""Frames in the capture that are no IP."""


def crowd() -> list[Frame]:
    """Datagrams among few hosts and ports, so that every count has something to count."""
    rng = Random(5)
    frames = []
    for number in range(60):
        source, target = (
            Host("02:00:00:00:00:03", f"10.{net}.0.{rng.randint(1, 3)}") for net in (3, 4)
        )
        ports = PORT + rng.randint(0, 30), rng.choice([53, 5000])
        frames.append((ms(50 * number), traffic.udp_frame(source, target, *ports, b"x")))
    return frames


def capture_frames() -> list[Frame]:
    """What lies in the capture, in order of time."""
    frames = crowd() + [frame for each in built().values() for frame in each.frames]
    arp = bytes(Ether(src=SERVER.mac, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=SERVER.ip))
    frames += [(ms(number), arp) for number in range(NOT_IP)]
    return sorted(frames, key=lambda frame: frame[0])


# Captures of their own, far from each other in time.
EPOCH_CLIENT, LATE_CLIENT, ROTATED_CLIENT, SNAP_CLIENT, SIMPLE_CLIENT = (
    Host("02:00:00:00:00:01", f"10.2.0.{number}") for number in range(1, 6)
)
HOUR_US = 3_600_000_000
LATE_US = 2_208_988_800_000_000  # 2040


def handshake_at(client: Host, start_us: int) -> list[Frame]:
    """SYN, SYN-ACK after 20 ms, ACK after 30, and FIN after 50."""
    talk = TcpConversation(client, SERVER, PORT, 7777)
    talk.handshake(start_us, start_us + 20_000, start_us + 30_000)
    talk.segment(start_us + 50_000, C, "FA")
    return talk.frames


def other_captures(directory: Path) -> list[Path]:
    """The captures of their own."""
    rotated = handshake_at(ROTATED_CLIENT, START_US + HOUR_US)
    reply = head("Content-Length: 1000") + b"x" * 1000
    snapped = tcp(SNAP_CLIENT, [*HELLO, (3, C, "PA", _GET), (4, S, "PA", reply)], 80)
    files = {
        "epoch.pcap": handshake_at(EPOCH_CLIENT, 0),
        "late.pcap": handshake_at(LATE_CLIENT, LATE_US),
        "rotated-1.pcap": rotated[:2],
        "rotated-2.pcap": rotated[2:],
        "snapped.pcap": [(time + 2 * HOUR_US, frame) for time, frame in snapped],
    }
    for name, frames in files.items():
        # 128 octets hold the headers of the response, and a little of its body.
        traffic.write_pcap(directory / name, frames, snaplen=128 if "snap" in name else 65_535)
    (directory / "simple.pcapng").write_bytes(simple_packets(START_US + 3 * HOUR_US))
    return [directory / name for name in [*files, "simple.pcapng"]]


def simple_packets(start_us: int) -> bytes:
    """A pcapng with a packet that has a time, and one that has none."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    frame = traffic.udp_frame(SIMPLE_CLIENT, SERVER, PORT, 7777, b"abc")
    timed = struct.pack("<IIIII", 0, start_us >> 32, start_us & 0xFFFFFFFF, len(frame), len(frame))
    return (
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        + block(1, struct.pack("<HHI", 1, 0, 65_535))
        + block(6, timed + frame)
        + block(3, struct.pack("<I", len(frame)) + frame)
    )


@pytest.fixture(scope="module", params=METERS)
def by(request: pytest.FixtureRequest) -> str:
    """The meter: what a packet means does not depend on it."""
    return str(request.param)


@pytest.fixture(scope="module")
def unsw(by: str, tmp_path_factory: pytest.TempPathFactory) -> Metered:
    directory = tmp_path_factory.mktemp("wire")
    traffic.write_pcap(directory / "cases.pcap", capture_frames())
    return meter([directory / "cases.pcap", *other_captures(directory)], unsw_nb15.SCHEMA, by)


@pytest.fixture(scope="module")
def kdd99(by: str, tmp_path_factory: pytest.TempPathFactory) -> Metered:
    path = tmp_path_factory.mktemp("wire") / "cases.pcapng"
    traffic.write_pcapng(path, capture_frames())
    return meter([path], kdd.SCHEMA, by)


def record_of(metered: Metered, name: str) -> Record:
    """The first record of a case's client, whichever IP version it speaks."""
    client = client_of(name)
    found = metered.of(client.ip) or metered.of(six(client).ip)
    assert found, "no flow of this client"
    return found[0]


def check(found: dict[str, object], expected: dict[str, object]) -> None:
    """Every expected value is found; numbers to nine digits."""
    wrong = {
        name: (found[name], value)
        for name, value in expected.items()
        if (
            found[name] != pytest.approx(value, rel=1e-9, abs=1e-12)
            if isinstance(value, int | float)
            else found[name] != value
        )
    }
    assert not wrong, f"(found, expected): {wrong}"


@pytest.mark.parametrize("name", CASES)
def test_flow(name: str, unsw: Metered) -> None:
    flow = record_of(unsw, name).flow
    check({field: flow[field].item() for field in flow.dtype.names if flow[field].shape == ()},
          CASES[name](client_of(name)).flow)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_unsw_row(name: str, unsw: Metered) -> None:
    check(record_of(unsw, name).row, CASES[name](client_of(name)).unsw)


@pytest.mark.parametrize("name", CASES)
def test_kdd_row(name: str, kdd99: Metered) -> None:
    check(record_of(kdd99, name).row, CASES[name](client_of(name)).kdd)


@pytest.mark.parametrize("schema", [unsw_nb15.SCHEMA, kdd.SCHEMA], ids=["unsw", "kdd"])
def test_every_feature_that_is_live_has_a_case(schema: Schema) -> None:
    tested = {
        name
        for each in built().values()
        for name in (each.unsw if schema is unsw_nb15.SCHEMA else each.kdd)
    }
    # Windows are tested over the whole capture, below and in test_windows.py.
    # KDD's content features have a file of their own, test_wire_kdd.py.
    elsewhere = {"wrong_fragment", *kdd.SCHEMA.names[9:22]} if schema is kdd.SCHEMA else set()
    assert set(schema.select(live=True)) - set(schema.windows().names) - elsewhere == tested


def test_addresses_are_those_of_the_packets(unsw: Metered) -> None:
    flow = record_of(unsw, "whole_connection").flow
    assert unpack_address(flow["dst_ip"], 4) == SERVER.ip
    flow = record_of(unsw, "tcp_over_ipv6").flow
    assert unpack_address(flow["src_ip"], 6) == unpack_address(
        pack_address(six(client_of("tcp_over_ipv6")).ip), 6
    )
    assert unpack_address(flow["dst_ip"], 6) == "2001:0db8:0000:0000:0000:0000:0000:0007"


def test_counters_account_for_every_packet(unsw: Metered, kdd99: Metered) -> None:
    frames = len(capture_frames())
    # ARP, and the later fragments of the two fragmented datagrams.
    assert kdd99.counters.not_metered == NOT_IP + 2
    assert kdd99.counters.read == frames
    assert kdd99.counters.metered == frames - NOT_IP - 2
    for metered in (unsw, kdd99):
        assert metered.counters.problems == []
        assert metered.counters.lost == 0
        assert metered.counters.flows == len(metered.records)
        packets = sum(int(r.flow["src_packets"] + r.flow["dst_packets"]) for r in metered.records)
        assert metered.counters.metered == packets


def test_records_say_why_they_ended(unsw: Metered, kdd99: Metered) -> None:
    def endings(metered: Metered, name: str) -> list[Ending]:
        return [Ending(each.flow["ending"]) for each in metered.of(client_of(name).ip)]

    # The capture is 90 s long.
    assert endings(unsw, "one_packet") == [Ending.IDLE]
    assert endings(kdd99, "one_packet") == [Ending.CAPTURE_END]
    assert endings(unsw, "idle_for_70_s") == [Ending.IDLE, Ending.CAPTURE_END]
    assert endings(kdd99, "idle_for_70_s") == [Ending.CAPTURE_END]
    assert endings(unsw, "active_for_80_s") == [Ending.ACTIVE, Ending.CAPTURE_END]
    assert endings(unsw, "the_last_packet") == [Ending.CAPTURE_END]


def test_a_cut_flow_goes_on_in_a_record_of_its_own(unsw: Metered) -> None:
    first, second = unsw.of(client_of("active_for_80_s").ip)
    assert (first.row["spkts"], first.row["dur"]) == (3, 40)
    assert (second.row["spkts"], second.row["dur"]) == (2, 20)
    assert int(second.flow["first_us"]) == ms(60_000)


def test_a_connection_that_goes_on_keeps_its_set_up(unsw: Metered) -> None:
    _, second = unsw.of(client_of("goes_on_after_65_s").ip)
    check(second.row, {"synack": 0.001, "ackdat": 0.001, "tcprtt": 0.002, "spkts": 1, "dur": 0.004})
    # From the client's packet at 3 ms to that at 65 s, from the server's at 1 ms to 65.004 s.
    check(second.row, {"sinpkt": 64_997, "dinpkt": 65_003, "sjit": 0, "djit": 0})
    _, second = unsw.of(client_of("begins_anew_after_65_s").ip)
    check(second.row, {"synack": 0.007, "ackdat": 0.003, "tcprtt": 0.01, "spkts": 2})


def test_rows_come_in_order_of_last_time(unsw: Metered, kdd99: Metered) -> None:
    for metered in (unsw, kdd99):
        for origin in {int(each.flow["origin"]) for each in metered.records}:
            times = [
                int(each.flow["last_us"])
                for each in metered.records
                if int(each.flow["origin"]) == origin
            ]
            assert times == sorted(times)


def test_unsw_counts_are_those_of_the_definition(unsw: Metered) -> None:
    main = int(record_of(unsw, "one_packet").flow["origin"])
    records = [each for each in unsw.records if int(each.flow["origin"]) == main]
    assert len(records) > 100  # more than one block

    def keys(each: Record) -> dict[str, object]:
        src, dst = bytes(each.flow["src_ip"]), bytes(each.flow["dst_ip"])
        second = int(each.flow["last_us"]) // 1_000_000
        service = each.row["service"]
        return {
            "ct_srv_src": (service, src),
            "ct_srv_dst": (service, dst),
            "ct_dst_ltm": (dst, second),
            "ct_src_ltm": (src, second),
            "ct_src_dport_ltm": (src, int(each.flow["dst_port"]), second),
            "ct_dst_sport_ltm": (dst, int(each.flow["src_port"]), second),
            "ct_dst_src_ltm": (dst, src, second),
        }

    for start in range(0, len(records), 100):
        block = records[start : start + 100]
        known = [keys(each) for each in block]
        for each, own in zip(block, known, strict=True):
            for name, key in own.items():
                assert each.row[name] == sum(other[name] == key for other in known), name


def test_kdd_counts_are_those_of_the_definition(kdd99: Metered) -> None:
    records = kdd99.records

    def service(each: Record) -> tuple[int, int]:
        flow = each.flow
        icmp = flow["protocol"] in (1, 58)
        return int(flow["protocol"]), int(flow["icmp_type"] if icmp else flow["dst_port"])

    for number, each in enumerate(records):
        now = int(each.flow["last_us"])
        near = [r for r in records[: number + 1] if now - int(r.flow["last_us"]) <= 2_000_000]
        last = records[max(0, number - 254) : number + 1]
        for window, count, srv_count in (
            (near, "count", "srv_count"),
            (last, "dst_host_count", "dst_host_srv_count"),
        ):
            host = [r for r in window if (r.flow["dst_ip"] == each.flow["dst_ip"]).all()]
            assert each.row[count] == len(host)
            assert each.row[srv_count] == sum(service(r) == service(each) for r in window)


# ---------------------------------------------------------------------------------------
# Captures of their own


def test_files_that_were_rotated_are_one_capture(unsw: Metered) -> None:
    (record,) = unsw.of(ROTATED_CLIENT.ip)
    check(record.row, {"spkts": 3, "dpkts": 1, "dur": 0.05, "tcprtt": 0.03, "state": "FIN"})


def test_captures_apart_know_nothing_of_each_other(unsw: Metered) -> None:
    # All of them went to the same server.
    for client in (ROTATED_CLIENT, SNAP_CLIENT, LATE_CLIENT, EPOCH_CLIENT, SIMPLE_CLIENT):
        (record,) = unsw.of(client.ip)
        check(record.row, {"ct_srv_dst": 1, "ct_dst_ltm": 1, "ct_dst_src_ltm": 1})


def test_a_short_snapshot_length_hides_octets_but_not_their_number(unsw: Metered) -> None:
    (record,) = unsw.of(SNAP_CLIENT.ip)
    reply = 54 + len(head("Content-Length: 1000")) + 1000
    check(record.row, {"dbytes": 54 + reply, "response_body_len": 1000, "ct_flw_http_mthd": 1})


def test_times_beyond_2038_are_right(unsw: Metered) -> None:
    (record,) = unsw.of(LATE_CLIENT.ip)
    assert int(record.flow["first_us"]) == LATE_US
    check(record.row, {"dur": 0.05, "synack": 0.02, "tcprtt": 0.03, "spkts": 3})


def test_a_capture_whose_clock_begins_at_zero_is_measured_like_any_other(unsw: Metered) -> None:
    # Tools that write times relative to the first packet give it the time 0.
    (record,) = unsw.of(EPOCH_CLIENT.ip)
    assert int(record.flow["first_us"]) == 0
    assert int(record.flow["syn_us"]) == 0
    check(record.row, {"dur": 0.05, "synack": 0.02, "tcprtt": 0.03, "sinpkt": 25, "spkts": 3})


def test_a_packet_without_a_time_has_that_of_the_one_before(unsw: Metered) -> None:
    (record,) = unsw.of(SIMPLE_CLIENT.ip)
    assert int(record.flow["first_us"]) == int(record.flow["last_us"]) == START_US + 3 * HOUR_US
    check(record.row, {"spkts": 2, "dur": 0})
