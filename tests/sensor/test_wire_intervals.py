"""UNSW-NB15's times between packets over several records of a connection, worked out by hand.

As Argus has it, the first interval of a record is that since the same side's last packet in an
earlier one, if it is less than 120 s. Records end after 60 s, and after 60 s without a packet.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from examples import traffic
from examples.traffic import Frame, Host, Side, TcpConversation
from features import unsw_nb15
from features.flows import pack_address
from sensor.captures import CaptureSpool, chain
from sensor.pipeline import measure
from tests.helpers import METERS

START_US = 1_700_000_000_000_000
SERVER = Host("02:00:00:00:00:02", "192.0.2.7")
C, S = Side.CLIENT, Side.SERVER
PORT, TO_PORT = 40_000, 7777
COLUMNS = ("spkts", "dpkts", "sinpkt", "dinpkt", "sjit", "djit")

Rows = list[tuple[float, ...]]


def us(seconds: float) -> int:
    return START_US + round(seconds * 1e6)


def datagrams(client: Host, *said: tuple[float, Side]) -> list[Frame]:
    exchange = [(us(at), side, b"x") for at, side in said]
    return traffic.udp_exchange(client, SERVER, PORT, TO_PORT, exchange)


def segments(client: Host, *said: tuple[float, Side, str]) -> list[Frame]:
    talk = TcpConversation(client, SERVER, PORT, TO_PORT)
    for at, side, flags in said:
        talk.segment(us(at), side, flags)
    return talk.frames


def four_records(client: Host) -> tuple[list[Frame], Rows]:
    said = [(0, C), (1, S), (50, C), (51, S), (70, C), (110, C), (111, S), (140, C), (215, C),
            (216, S)]  # fmt: skip
    return datagrams(client, *said), [
        (2, 2, 50_000, 50_000, 0, 0),
        # From 70 s on: 20 and 40 s after the client's packets at 50 and 70, whose mean is 30 and
        # standard deviation 10; 60 s after the server's at 51.
        (2, 1, 30_000, 60_000, 10_000, 0),
        # From 140 s on: 30 s after the one at 110; the server is silent.
        (1, 0, 30_000, 0, 0, 0),
        # After 75 s of silence; the server's packet before was two records ago, at 111.
        (1, 1, 75_000, 105_000, 0, 0),
    ]


def the_other_side_speaks_first(client: Host) -> tuple[list[Frame], Rows]:
    said = [(0, C, "S"), (1, S, "SA"), (2, C, "A"), (65, S, "A"), (66, C, "A"), (67, S, "A"),
            (130, C, "A"), (133, S, "A")]  # fmt: skip
    return segments(client, *said), [
        (2, 1, 2000, 0, 0, 0),
        # The server is this record's source: 64 and 2 s after its packets at 1 and 65, mean 33,
        # standard deviation 31; the client speaks 64 s after 2.
        (2, 1, 33_000, 64_000, 31_000, 0),
        # The client is the source again: 64 s after 66, and the server 66 s after 67.
        (1, 1, 64_000, 66_000, 0, 0),
    ]


def a_new_connection(client: Host) -> tuple[list[Frame], Rows]:
    # A SYN sets the connection up anew, but Argus keeps one record of these ports.
    return segments(client, (0, C, "S"), (1, S, "SA"), (70, C, "S"), (73, S, "SA")), [
        (1, 1, 0, 0, 0, 0),
        (1, 1, 70_000, 72_000, 0, 0),
    ]


def silent_for_120_s(client: Host) -> tuple[list[Frame], Rows]:
    return datagrams(client, (0, C), (119.999, C), (239.999, C)), [
        (1, 0, 0, 0, 0, 0),
        (1, 0, 119_999, 0, 0, 0),
        (1, 0, 0, 0, 0, 0),
    ]


def another_protocol(client: Host) -> tuple[list[Frame], Rows]:
    frames = segments(client, (0, C, "S")) + datagrams(client, (70, C))
    return frames, [(1, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0)]


def another_port(client: Host) -> tuple[list[Frame], Rows]:
    other = traffic.udp_frame(client, SERVER, PORT + 1, TO_PORT, b"x")
    return [*datagrams(client, (0, C)), (us(70), other)], [(1, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0)]


def to_itself(client: Host) -> tuple[list[Frame], Rows]:
    frame = traffic.udp_frame(client, client, PORT, PORT, b"x")
    return [(us(at), frame) for at in (0, 70)], [(1, 0, 0, 0, 0, 0), (1, 0, 70_000, 0, 0, 0)]


def pings(client: Host) -> tuple[list[Frame], Rows]:
    frames = []
    for at in (0, 70):
        for host, target, kind, after in ((client, SERVER, 8, 0), (SERVER, client, 0, 0.5)):
            layers = Ether(src=host.mac, dst=target.mac) / IP(src=host.ip, dst=target.ip)
            frames.append((us(at + after), bytes(layers / ICMP(type=kind))))
    return frames, [(1, 1, 0, 0, 0, 0), (1, 1, 70_000, 70_000, 0, 0)]


CASES = (
    four_records, the_other_side_speaks_first, a_new_connection, silent_for_120_s,
    another_protocol, another_port, to_itself, pings,
)  # fmt: skip


def rows_of(path: Path, meter: str) -> dict[bytes, list[tuple[int, tuple[float, ...]]]]:
    """First time and columns of each record, by both addresses, put in order."""
    schema = unsw_nb15.SCHEMA
    columns = [schema.names.index(name) for name in COLUMNS]
    found: dict[bytes, list[tuple[int, tuple[float, ...]]]] = {}
    with CaptureSpool() as spool:
        chains = chain([spool.open(path)], schema.meter.idle_timeout_s * 1_000_000)
        for measured in measure(METERS[meter](chains, schema.meter), schema, 1000):
            for flow, row in zip(measured.flows, measured.rows, strict=True):
                ends = b"".join(sorted((bytes(flow["src_ip"]), bytes(flow["dst_ip"]))))
                values = tuple(row[columns].tolist())
                found.setdefault(ends, []).append((int(flow["first_us"]), values))
    return found


@pytest.mark.parametrize("meter", METERS)
def test_intervals_go_on_over_records(tmp_path: Path, meter: str) -> None:
    clients = [Host("02:00:00:00:00:01", f"10.0.0.{number + 1}") for number in range(len(CASES))]
    made = [build(client) for build, client in zip(CASES, clients, strict=True)]
    path = tmp_path / "records.pcap"
    traffic.write_pcap(path, sorted(frame for frames, _ in made for frame in frames))
    found = rows_of(path, meter)
    for build, client, (_, expected) in zip(CASES, clients, made, strict=True):
        other = client if build is to_itself else SERVER
        ends = b"".join(sorted((pack_address(client.ip), pack_address(other.ip))))
        rows = [values for _, values in sorted(found.pop(ends))]
        assert len(rows) == len(expected), build.__name__
        for row, values in zip(rows, expected, strict=True):
            assert row == pytest.approx(values), build.__name__
    assert not found
