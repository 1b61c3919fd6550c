"""What NFStream's flow record lacks, gathered packet by packet in an NFPlugin.

Runs in NFStream's own meter process; :class:`Extra` travels with the flow. Header layouts:
RFC 791, RFC 8200, RFC 9293, RFC 792/4443.
"""

from __future__ import annotations

from typing import Any

from nfstream import NFPlugin

from features.flows import NEVER
from sensor.meter.cic_state import CicState
from sensor.meter.content import Content
from sensor.meter.early import Early
from sensor.meter.plaintext import FTP_COMMANDS, HTTP_METHODS, MOST_HEAD, UNTIL_CLOSE
from sensor.meter.states import TcpStates

_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_HALF = 1 << 31
_SEQUENCE = (1 << 32) - 1
_FTP_PORT = 21
_REMEMBERED = 1 << 16
"""Connections, the latest, that a meter still knows when their flow has ended."""


class Side:
    """State of one direction of a flow; sequence numbers are None before the first segment."""

    __slots__ = (
        "base", "before_ms", "flags", "next_seq", "retransmitted", "ttl", "urgent", "window",
    )  # fmt: skip

    def __init__(self) -> None:
        self.before_ms = NEVER
        self.ttl: int | None = None
        self.base = 0
        self.window = 0
        self.flags = 0
        self.urgent = 0
        self.retransmitted = 0
        self.next_seq: int | None = None


Ends = tuple[int, frozenset[tuple[str, int]]]
"""Protocol, and the address and port of either side."""


class Connection:
    """What is kept of a connection when its flow has ended, times in milliseconds.

    Attributes:
        src: address and port of the flow's source.
        last_ms: when its source and its destination were last heard of, in any flow.
        syn_ms, synack_ms, ack_ms: its set-up.
    """

    __slots__ = ("ack_ms", "last_ms", "src", "syn_ms", "synack_ms")

    def __init__(self, src: tuple[str, int]) -> None:
        self.src = src
        self.last_ms = (NEVER, NEVER)
        self.syn_ms = self.synack_ms = self.ack_ms = NEVER


class Extra:
    """What is kept of a flow beside NFStream's record; times in milliseconds, NFStream's unit."""

    __slots__ = (
        "ack_ms", "body_left", "cic", "content", "dst", "dst_payload", "early", "ends",
        "ftp_commands", "ftp_logins", "http_body", "http_head", "http_requests", "icmp_code",
        "icmp_type", "known", "src", "src_payload", "syn_ms", "synack_ms", "tcp_states",
    )  # fmt: skip

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.src = Side()
        self.dst = Side()
        self.known = False
        self.cic = CicState()
        self.early = Early()
        self.src_payload = 0
        self.dst_payload = 0
        self.syn_ms = NEVER
        self.synack_ms = NEVER
        self.ack_ms = NEVER
        self.icmp_type = 0
        self.icmp_code = 0
        self.http_requests = 0
        self.http_body = 0
        self.http_head = b""
        self.body_left = 0
        self.ftp_commands = 0
        self.ftp_logins = 0
        self.tcp_states = TcpStates()
        self.content: Content | None = None


class ExtraPlugin(NFPlugin):  # type: ignore[misc]
    """Keeps an :class:`Extra` in each flow's ``udps``."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[Ends, Connection] = {}

    def _remember(self, packet: Any, extra: Extra) -> None:
        """Note whether an earlier flow had these addresses and ports, either way, and what lasts.

        A flow that goes on with a connection has the set-up times of the one before, as Argus's
        records have them, and knows when either side was last heard of. One that begins with a SYN
        is set up anew.
        """
        src = packet.src_ip, packet.src_port
        known = self._seen.get(extra.ends)
        if known is None:
            self._enter(extra.ends, Connection(src))
            return
        extra.known = True
        last_ms = known.last_ms if known.src == src else known.last_ms[::-1]
        extra.src.before_ms, extra.dst.before_ms = last_ms
        if not (packet.protocol == _TCP and packet.syn):
            extra.syn_ms, extra.synack_ms = known.syn_ms, known.synack_ms
            extra.ack_ms = known.ack_ms

    def _enter(self, ends: Ends, connection: Connection) -> None:
        self._seen[ends] = connection
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def on_expire(self, flow: Any) -> None:
        """A flow has ended: keep what another one of its connection is to know of it."""
        extra: Extra = flow.udps
        known = self._seen.get(extra.ends)
        if known is None:
            known = Connection((flow.src_ip, flow.src_port))
            self._enter(extra.ends, known)
        known.src = flow.src_ip, flow.src_port
        known.last_ms = (
            flow.src2dst_last_seen_ms if flow.src2dst_packets else extra.src.before_ms,
            flow.dst2src_last_seen_ms if flow.dst2src_packets else extra.dst.before_ms,
        )
        known.syn_ms, known.synack_ms, known.ack_ms = extra.syn_ms, extra.synack_ms, extra.ack_ms

    def on_init(self, packet: Any, flow: Any) -> None:
        """First packet of a flow."""
        sides = (packet.src_ip, packet.src_port), (packet.dst_ip, packet.dst_port)
        extra = Extra((packet.protocol, frozenset(sides)))
        flow.udps = extra
        self._remember(packet, extra)
        extra.content = Content.of(packet.protocol, packet.src_port, packet.dst_port)
        ip = packet.ip_packet
        at = packet.ip_size - packet.transport_size
        if packet.protocol in (_ICMP, _ICMP6) and packet.transport_size >= 2 <= len(ip) - at:
            extra.icmp_type, extra.icmp_code = ip[at], ip[at + 1]
        self._packet(packet, flow, extra)

    def on_update(self, packet: Any, flow: Any) -> None:
        """Every later packet of a flow."""
        self._packet(packet, flow, flow.udps)

    def _packet(self, packet: Any, flow: Any, extra: Extra) -> None:
        extra.cic.update(packet)
        extra.early.update(packet, flow)
        ip = packet.ip_packet
        side = extra.dst if packet.direction else extra.src
        if side.ttl is None:
            side.ttl = ip[8] if packet.ip_version == 4 else ip[7]
        if packet.direction:
            extra.dst_payload += packet.payload_size
        else:
            extra.src_payload += packet.payload_size
        if packet.protocol != _TCP or packet.transport_size < 20:
            return
        at = packet.ip_size - packet.transport_size
        if len(ip) < at + 20:
            return
        _segment(packet, ip, at, side, extra.known)
        _handshake(packet, extra)
        extra.tcp_states.update(packet.direction, ip[at + 13])
        if packet.payload_size:
            begin = packet.ip_size - packet.payload_size
            payload = ip[begin : begin + packet.payload_size]  # Ethernet's padding is no text
            _payload(packet, flow, extra, payload)
            if extra.content is not None:
                seq = int.from_bytes(ip[at + 4 : at + 8], "big")
                extra.content.feed(packet.direction, seq, payload, packet.payload_size)


def _segment(packet: Any, ip: bytes, at: int, side: Side, known: bool) -> None:
    """Flags, base sequence number, window, and whether the segment repeats sequence space."""
    seq = int.from_bytes(ip[at + 4 : at + 8], "big")
    flags = ip[at + 13]
    side.urgent += packet.urg
    length = packet.payload_size + packet.syn + packet.fin
    if side.next_seq is None:
        # Of a connection under way that it does not know, Argus takes the number before the first
        # segment as its sender's base: that of the SYN, had it come just then. Else the first.
        # A reset in answer has no number of its own but 0: there it takes the one acknowledged.
        side.base = seq
        if not (packet.syn or packet.direction or known):
            reset = packet.rst and packet.ack and seq == 0
            first = int.from_bytes(ip[at + 8 : at + 12], "big") if reset else seq
            side.base = (first - 1) & _SEQUENCE
        side.window = int.from_bytes(ip[at + 14 : at + 16], "big")
        side.next_seq = (seq + length) & _SEQUENCE
    elif length:
        ahead = (seq - side.next_seq) & _SEQUENCE
        if ahead >= _HALF:
            side.retransmitted += 1
        end = (seq + length) & _SEQUENCE
        if ((end - side.next_seq) & _SEQUENCE) < _HALF:
            side.next_seq = end
    side.flags |= flags


def _handshake(packet: Any, extra: Extra) -> None:
    """Times of SYN, SYN-ACK and the ACK that follows, the first of each."""
    if packet.syn and not packet.ack and not packet.direction:
        if extra.syn_ms == NEVER:
            extra.syn_ms = packet.time
    elif packet.syn and packet.ack and packet.direction:
        if extra.synack_ms == NEVER and extra.syn_ms != NEVER:
            extra.synack_ms = packet.time
    elif (
        packet.ack
        and not packet.direction
        and not packet.rst
        and extra.ack_ms == NEVER
        and extra.synack_ms != NEVER
    ):
        extra.ack_ms = packet.time


def _payload(packet: Any, flow: Any, extra: Extra, payload: bytes) -> None:
    """HTTP requests and response bodies, FTP commands and logins, as far as plain text shows."""
    if packet.direction:
        if extra.http_head or payload.startswith(b"HTTP/1."):
            _response(packet, extra, payload)
        elif extra.body_left:
            seen = min(packet.payload_size, extra.body_left)
            extra.http_body += seen
            extra.body_left -= seen
        elif flow.dst_port == _FTP_PORT and payload.startswith(b"230"):
            extra.ftp_logins += 1
    elif payload.startswith(HTTP_METHODS):
        extra.http_requests += 1
    elif flow.dst_port == _FTP_PORT:
        for line in payload.split(b"\n")[:64]:
            if line.split(b" ", 1)[0].strip().upper() in FTP_COMMANDS:
                extra.ftp_commands += 1


def _response(packet: Any, extra: Extra, payload: bytes) -> None:
    """A packet of an HTTP/1 response's head, which may go over several packets."""
    before = len(extra.http_head)
    head = extra.http_head + payload
    if b"\r\n\r\n" not in head:
        extra.http_head = head if len(head) < MOST_HEAD else b""
        return
    extra.http_head = b""
    extra.body_left, seen = _response_body(head, before + packet.payload_size)
    extra.http_body += seen


def _response_body(payload: bytes, size: int) -> tuple[int, int]:
    """Of an HTTP/1 response with a whole head: body bytes yet to come, and those here already.

    `payload` may be cut by the snapshot length; `size` is its length on the wire.
    """
    head, separator, _ = payload.partition(b"\r\n\r\n")
    here = size - len(head) - len(separator)
    status = head[9:12]
    if status[:1] == b"1" or status in (b"204", b"304"):
        return 0, 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            expected = int(value.strip()[:18])
            here = min(here, expected)
            return expected - here, here
    return UNTIL_CLOSE, here
