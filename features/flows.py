"""The flow record: what a meter hands on about one finished flow.

A *FlowBatch* is a numpy structured array of dtype :data:`FLOW_DTYPE`, one row a finished
flow. *Source* (``src``) is the side that sent the flow's first packet, *destination*
(``dst``) the other one, as in RFC 7011's biflow terms (RFC 5103, section 2).

Times are microseconds since the Unix epoch, whatever the clock of the meter; a meter with
a coarser clock says so (:attr:`sensor.meter.Meter.clock_us`).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

FlowBatch = NDArray[np.void]
"""One row a finished flow, shape ``[B]``: dtype :data:`FLOW_DTYPE`, or one that has more fields
after those (:mod:`features.zeek_conn`)."""

NEVER = -1
"""In a time field: this did not happen."""

EARLY_PACKETS = 8
"""How many of a flow's first packets with payload are kept by size and direction."""


class Ending(IntEnum):
    """Why a flow's record was closed."""

    IDLE = 0
    """No packet for the idle timeout."""
    ACTIVE = 1
    """The flow reached the active timeout; what follows is a new record."""
    FIN = 2
    """TCP said goodbye (FIN or RST) and the linger time passed."""
    CAPTURE_END = 3
    """The capture ended while the flow was still open."""
    EVICTED = 4
    """The flow table was full and this flow was the least recently seen."""
    SHUTDOWN = 5
    """The sensor was told to stop."""
    EARLY = 6
    """It goes on: a report at a set age or number of packets, before the one of its end."""
    UNKNOWN = 7
    """Whoever made the record does not say."""


class TcpFlag(IntEnum):
    """Bits of the TCP flags octet (RFC 9293, section 3.1)."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


class TcpState(IntEnum):
    """How far one side of a TCP connection got; Zeek's endpoint states."""

    INACTIVE = 0
    """It sent nothing."""
    SYN_SENT = 1
    """It sent a SYN, not answered."""
    SYN_ACK_SENT = 2
    """It sent a SYN-ACK to a SYN that was not seen."""
    PARTIAL = 3
    """It was seen in the midst of a connection only."""
    ESTABLISHED = 4
    """Its SYN was answered, or was the answer."""
    CLOSED = 5
    """It sent a FIN."""
    RESET = 6
    """It sent a RST."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column of the flow record."""

    name: str
    dtype: str | tuple[str, int]
    unit: str
    meaning: str


def _both(name: str, dtype: str, unit: str, meaning: str) -> tuple[Field, Field]:
    return (
        Field(f"src_{name}", dtype, unit, f"{meaning}, sent by the source"),
        Field(f"dst_{name}", dtype, unit, f"{meaning}, sent by the destination"),
    )


FLOW_FIELDS: tuple[Field, ...] = (
    Field("first_us", "i8", "us", "time of the first packet"),
    Field("last_us", "i8", "us", "time of the last packet"),
    *_both("first_us", "i8", "us", "time of the first packet, or NEVER"),
    *_both("last_us", "i8", "us", "time of the last packet, or NEVER"),
    *_both(
        "before_us",
        "i8",
        "us",
        "time of the last packet of earlier records of these ends, or NEVER",
    ),
    Field("syn_us", "i8", "us", "time of the source's first SYN without ACK, or NEVER"),
    Field("synack_us", "i8", "us", "time of the destination's first SYN-ACK, or NEVER"),
    Field("ack_us", "i8", "us", "time of the ACK that completed the handshake, or NEVER"),
    *_both("packets", "u8", "packets", "packets"),
    *_both("bytes", "u8", "bytes", "bytes of whole frames, as on the wire"),
    *_both("payload_bytes", "u8", "bytes", "transport payload bytes"),
    *_both("piat_mean_us", "f8", "us", "mean time between packets"),
    *_both("piat_stddev_us", "f8", "us", "sample standard deviation of the time between packets"),
    *_both("tcp_base", "u4", "1", "initial TCP sequence number, or the one before the first seen"),
    *_both("retransmitted", "u4", "packets", "TCP segments that repeat sequence space"),
    *_both("urgent", "u4", "packets", "TCP packets with URG"),
    *_both("window", "u2", "bytes", "TCP window field of the first packet, not scaled"),
    *_both("ttl", "u1", "hops", "IP TTL or hop limit of the first packet"),
    *_both("tcp_flags", "u1", "bits", "union of all TCP flags"),
    *_both("payload_packets", "u4", "packets", "packets with transport payload"),
    *_both("push_packets", "u4", "packets", "TCP packets with PSH"),
    *_both("size_max", "u4", "bytes", "largest frame"),
    *_both("size_stddev", "f8", "bytes", "sample standard deviation of the frame sizes"),
    Field(
        "early_payload",
        ("i4", EARLY_PACKETS),
        "bytes",
        "sizes of the first payloads, negative where the destination sent them, then 0",
    ),
    Field("category", "S24", "name", "application category as nDPI names it, e.g. Web"),
    Field("client_fingerprint", "S40", "name", "JA4 of a TLS or QUIC client, HASSH of an SSH one"),
    Field("src_ip", ("u1", 16), "address", "source address; IPv4 as ::ffff:a.b.c.d"),
    Field("dst_ip", ("u1", 16), "address", "destination address; IPv4 as ::ffff:a.b.c.d"),
    Field("src_port", "u2", "port", "source port, 0 where the protocol has none"),
    Field("dst_port", "u2", "port", "destination port, 0 where the protocol has none"),
    Field("vlan_id", "u2", "1", "innermost IEEE 802.1Q VLAN id, 0 without a tag"),
    Field("protocol", "u1", "1", "IP protocol number"),
    Field("ip_version", "u1", "1", "4 or 6"),
    Field("tunnel_id", "u1", "1", "tunnel kind as nDPI numbers them, 0 for none"),
    Field("icmp_type", "u1", "1", "ICMP type of the first packet, 0 for other protocols"),
    Field("icmp_code", "u1", "1", "ICMP code of the first packet, 0 for other protocols"),
    Field("wrong_fragments", "u4", "fragments", "IPv4 fragments that do not fit their datagram"),
    Field("ending", "u1", "enum", "why the record was closed, an Ending"),
    Field("origin", "u4", "1", "index of the capture that the flow was seen in"),
    Field("http_requests", "u4", "requests", "HTTP/1 request lines from the source"),
    Field("http_body_bytes", "u8", "bytes", "HTTP/1 response body bytes from the destination"),
    Field("ftp_commands", "u4", "commands", "FTP commands from the source"),
    Field("ftp_logins", "u4", "logins", "FTP logins accepted (reply 230)"),
    Field("src_tcp_state", "u1", "enum", "how far the source's side of TCP got, a TcpState"),
    Field("dst_tcp_state", "u1", "enum", "how far the destination's side of TCP got, a TcpState"),
    Field("hot", "u4", "indicators", "hot indicators in the session's text"),
    Field("failed_logins", "u4", "logins", "refused logins in the session's text"),
    Field("logged_in", "u1", "1", "1 after a login in the session's text"),
    Field("compromised", "u4", "conditions", "signs of a compromise in the session's text"),
    Field("root_shell", "u1", "1", "1 after a root prompt in the session's text"),
    Field("su_attempted", "u1", "1", "1 after `su root`, 2 if a root prompt followed"),
    Field("root_accesses", "u4", "lines", "lines of the session's text that name root"),
    Field("file_creations", "u4", "commands", "commands that make files"),
    Field("shells", "u4", "commands", "commands that start a shell"),
    Field("access_files", "u4", "commands", "commands that name access control files"),
    Field("host_login", "u1", "1", "1 if the user name is a hot one"),
    Field("guest_login", "u1", "1", "1 if the user name is a guest's"),
    Field("application", "S40", "name", "application as nDPI names it, e.g. TLS.Google"),
    Field("server_name", "S80", "name", "requested server name (HTTP Host, TLS SNI, DNS query)"),
    # What CICFlowMeter's columns need (features/cic.py). Payload is that of TCP and UDP.
    *_both("payload_min", "u4", "bytes", "smallest transport payload of a packet"),
    *_both("payload_max", "u4", "bytes", "largest transport payload of a packet"),
    *_both("payload_squares", "f8", "bytes^2", "sum of the squared transport payload lengths"),
    *_both("data_packets", "u4", "packets", "packets with transport payload"),
    *_both("header_bytes", "u8", "bytes", "TCP and UDP header bytes, options included"),
    *_both("header_min", "u4", "bytes", "smallest TCP or UDP header of a packet"),
    *_both("push", "u4", "packets", "TCP packets with PSH"),
    *_both("piat_max_us", "f8", "us", "longest time between packets"),
    *_both("piat_min_us", "f8", "us", "shortest time between packets"),
    *_both("bulks", "u4", "bulks", "runs of at least 4 packets with payload"),
    *_both("bulk_packets", "u8", "packets", "packets of those runs"),
    *_both("bulk_bytes", "u8", "bytes", "payload bytes of those runs"),
    *_both("bulk_span", "f8", "us", "time from first to last packet, summed over those runs"),
    Field("piat_stddev_us", "f8", "us", "sample standard deviation of the time between packets"),
    Field("piat_max_us", "f8", "us", "longest time between packets of either direction"),
    Field("piat_min_us", "f8", "us", "shortest time between packets of either direction"),
    Field("fin_packets", "u4", "packets", "TCP packets with FIN"),
    Field("syn_packets", "u4", "packets", "TCP packets with SYN"),
    Field("rst_packets", "u4", "packets", "TCP packets with RST"),
    Field("ack_packets", "u4", "packets", "TCP packets with ACK"),
    Field("cwr_packets", "u4", "packets", "TCP packets with CWR"),
    Field("ece_packets", "u4", "packets", "TCP packets with ECE"),
    Field("subflows", "u4", "subflows", "stretches of packets less than 1 s apart"),
    Field("active_mean", "f8", "us", "mean length of the stretches that an idle time ended"),
    Field("active_stddev", "f8", "us", "sample standard deviation of those lengths"),
    Field("active_max", "f8", "us", "longest of those stretches"),
    Field("active_min", "f8", "us", "shortest of those stretches"),
    Field("idle_mean", "f8", "us", "mean of the times over 5 s without a packet"),
    Field("idle_stddev", "f8", "us", "sample standard deviation of those times"),
    Field("idle_max", "f8", "us", "longest of those times"),
    Field("idle_min", "f8", "us", "shortest of those times"),
)

FLOW_DTYPE = np.dtype([(field.name, field.dtype) for field in FLOW_FIELDS])

_V4_PREFIX = bytes(10) + b"\xff\xff"


def empty_flows(count: int = 0, record: np.dtype[np.void] = FLOW_DTYPE) -> FlowBatch:
    """A FlowBatch of `count` rows that are all zero, with every optional time NEVER.

    `record` is the dtype, :data:`FLOW_DTYPE` or one with more fields.
    """
    flows = np.zeros(count, record)
    for side in ("src", "dst"):
        for name in ("first_us", "last_us", "before_us"):
            flows[f"{side}_{name}"] = NEVER
    for name in ("syn_us", "synack_us", "ack_us"):
        flows[name] = NEVER
    return flows


def _octets(record: np.dtype[np.void]) -> np.dtype[np.void]:
    """A row as plain octets.

    Numpy copies it at once, not field by field, which takes 20 times as long;
    :meth:`numpy.ndarray.take` does so too, an index does not.
    """
    return np.dtype((np.void, record.itemsize))


def copy_flows(flows: FlowBatch) -> FlowBatch:
    """A copy of ``[B]`` rows."""
    return np.ascontiguousarray(flows).view(_octets(flows.dtype)).copy().view(flows.dtype)


def join_flows(parts: Sequence[FlowBatch]) -> FlowBatch:
    """The rows of several FlowBatches of one dtype as one ``[B]``."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return empty_flows()
    record = parts[0].dtype
    plain = [np.ascontiguousarray(part).view(_octets(record)) for part in parts]
    return np.concatenate(plain).view(record)


def pack_address(text: str) -> bytes:
    """The 16 bytes of an IPv4 or IPv6 address; IPv4 becomes ``::ffff:a.b.c.d``.

    Raises:
        ValueError: `text` is not an address.
    """
    address = ipaddress.ip_address(text)
    return _V4_PREFIX + address.packed if address.version == 4 else address.packed


def unpack_address(packed: Any, ip_version: int) -> str:
    """The text of 16 address bytes; IPv6 is spelled out in full, as Suricata does."""
    raw = bytes(packed)
    if ip_version == 4:
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return raw.hex(":", -2)


def address_keys(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Two 64-bit words an address, shape ``[B, 2]``, for comparing addresses at speed."""
    return np.ascontiguousarray(packed).view(np.uint64)
