"""Builds network traffic exactly as it would lie in a capture file.

Three layers, each usable alone:

* one packet: :func:`tcp_frame`, :func:`udp_frame`, :func:`icmp_echo_frame` make octets fast;
  :func:`tcp_packet`, :func:`udp_packet`, :func:`icmp_echo_packet` make the same as scapy
  packets, to be bent further by a test;
* one conversation: :class:`TcpConversation` numbers the segments and takes the time of each
  from its caller; :func:`udp_exchange` is its like for UDP; :class:`TcpSession` takes the
  times from the :class:`Path` between the hosts, and segments and acknowledges;
* one file: :func:`write_pcap`, :func:`write_pcapng`.

Times are whole microseconds since the Unix epoch and are never floating point on their way
into a file. Sizes are octets. Frames are Ethernet II without frame check sequence.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path as FilePath
from random import Random

from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

Frame = tuple[int, bytes]
"""When a frame passed the tap (µs since the epoch), and its octets."""

FRAME_MIN = 60
"""Octets that Ethernet pads a shorter frame to, the check sequence not counted."""

_ICMP, _TCP, _UDP = 1, 6, 17
_FLAG_BITS = {letter: 1 << bit for bit, letter in enumerate("FSRPAUEC")}
_ETHERTYPE_VLAN = 0x8100
_DONT_FRAGMENT = 0x4000


# ---------------------------------------------------------------------------------------
# Hosts


@dataclass(frozen=True, slots=True)
class Stack:
    """How a TCP implementation shows on the wire."""

    window: int = 65535
    """Octets it offers in its SYN; later segments offer the same, scaled."""
    mss: int = 1460
    """Octets of TCP options and payload in a segment, at most."""
    mss_option: bool = False
    """Whether its SYN carries the MSS option."""
    sack: bool = False
    """Whether its SYN permits selective acknowledgements."""
    window_scale: int = 0
    """Bits it asks to scale its window by; 0 sends no option."""
    timestamps: bool = False
    """Whether it offers RFC 7323 timestamps (12 octets in every segment when both do)."""


PLAIN = Stack()
"""No options at all: every TCP header is 20 octets."""
LINUX = Stack(window=64240, mss_option=True, sack=True, window_scale=7, timestamps=True)
WINDOWS = Stack(window=64240, mss_option=True, sack=True, window_scale=8)


@dataclass(frozen=True, slots=True)
class Host:
    """A host as the tap sees it: far hosts show their router's MAC and fewer TTL."""

    mac: str
    ip: str
    """IPv4 or IPv6; both hosts of a packet need the same version."""
    ttl: int = 64
    """TTL (hop limit) of its packets at the tap."""
    stack: Stack = PLAIN


class Side(IntEnum):
    """Who of a conversation."""

    CLIENT = 0
    SERVER = 1

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side(1 - self)


# ---------------------------------------------------------------------------------------
# One packet, as octets


def internet_checksum(data: bytes) -> int:
    """RFC 1071 checksum of `data`, 0..65535."""
    if len(data) % 2:
        data += b"\0"
    # 2^16 = 1 modulo 65535, so the ones' complement sum of the words is one remainder,
    # except that words that are not all zero never sum to zero, but to its other form.
    number = int.from_bytes(data, "big")
    return 0xFFFF - (number % 0xFFFF or (0xFFFF if number else 0))


@lru_cache(maxsize=8192)
def _ip_octets(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


@lru_cache(maxsize=8192)
def _mac_octets(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def _flag_bits(flags: str) -> int:
    return sum(_FLAG_BITS[letter] for letter in flags)


def _with_checksum(message: bytes, at: int, pseudo_header: bytes, zero: int = 0) -> bytes:
    """`message` with its checksum field, two octets from `at`, filled in."""
    checksum = internet_checksum(pseudo_header + message) or zero
    return message[:at] + checksum.to_bytes(2, "big") + message[at + 2 :]


def _pseudo_header(source: Host, target: Host, protocol: int, octets: int) -> bytes:
    # IPv6 has 32-bit fields here, but the sum over the words is the same.
    return _ip_octets(source.ip) + _ip_octets(target.ip) + struct.pack("!HH", protocol, octets)


def _frame(
    source: Host,
    target: Host,
    protocol: int,
    message: bytes,
    ip_id: int,
    ttl: int | None,
    vlan: int | None,
    pad: bool,
) -> bytes:
    """`message`, its checksum filled in, behind IP and Ethernet headers."""
    src, dst = _ip_octets(source.ip), _ip_octets(target.ip)
    if len(src) != len(dst):
        raise ValueError(f"{source.ip} and {target.ip} are of different IP versions")
    hops = source.ttl if ttl is None else ttl
    if len(src) == 4:
        ethertype = 0x0800
        header = struct.pack(
            "!BBHHHBBH4s4s",
            *(0x45, 0, 20 + len(message), ip_id & 0xFFFF, _DONT_FRAGMENT, hops, protocol, 0),
            *(src, dst),
        )
        header = _with_checksum(header, 10, b"")
    else:
        ethertype = 0x86DD
        header = struct.pack("!IHBB", 6 << 28, len(message), protocol, hops) + src + dst
    link = _mac_octets(target.mac) + _mac_octets(source.mac)
    if vlan is not None:
        link += struct.pack("!HH", _ETHERTYPE_VLAN, vlan)
    frame = link + ethertype.to_bytes(2, "big") + header + message
    return frame.ljust(FRAME_MIN, b"\0") if pad else frame


def tcp_frame(
    source: Host,
    target: Host,
    source_port: int,
    target_port: int,
    flags: str,
    *,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    window: int = 65535,
    options: bytes = b"",
    ip_id: int = 0,
    ttl: int | None = None,
    vlan: int | None = None,
    pad: bool = False,
) -> bytes:
    """One TCP segment.

    Args:
        source: who sends it.
        target: who it goes to.
        source_port: the sender's port.
        target_port: the receiver's port.
        flags: letters of "FSRPAUEC".
        seq: sequence number, taken modulo 2^32.
        ack: acknowledgement number, taken modulo 2^32.
        payload: application octets.
        window: the window field as sent, i.e. already scaled.
        options: encoded TCP options, a multiple of 4 octets.
        ip_id: IPv4 identification, taken modulo 2^16; IPv6 has none.
        ttl: instead of the source's own.
        vlan: 802.1Q VLAN identifier.
        pad: whether to pad to Ethernet's minimum, as a switch's mirror port shows it.
    """
    if len(options) % 4:
        raise ValueError(f"TCP options of {len(options)} octets, not a multiple of 4")
    header_words = 5 + len(options) // 4
    segment = struct.pack(
        "!HHIIBBHHH",
        *(source_port, target_port, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF),
        *(header_words << 4, _flag_bits(flags), window, 0, 0),
    )
    segment += options + payload
    segment = _with_checksum(segment, 16, _pseudo_header(source, target, _TCP, len(segment)))
    return _frame(source, target, _TCP, segment, ip_id, ttl, vlan, pad)


def udp_frame(
    source: Host,
    target: Host,
    source_port: int,
    target_port: int,
    payload: bytes = b"",
    *,
    ip_id: int = 0,
    ttl: int | None = None,
    vlan: int | None = None,
    pad: bool = False,
) -> bytes:
    """One UDP datagram; arguments as of :func:`tcp_frame`."""
    datagram = struct.pack("!HHHH", source_port, target_port, 8 + len(payload), 0) + payload
    pseudo_header = _pseudo_header(source, target, _UDP, len(datagram))
    # 0 would mean that there is no checksum (RFC 768).
    datagram = _with_checksum(datagram, 6, pseudo_header, zero=0xFFFF)
    return _frame(source, target, _UDP, datagram, ip_id, ttl, vlan, pad)


def icmp_echo_frame(
    source: Host,
    target: Host,
    identifier: int,
    sequence: int,
    payload: bytes = b"",
    *,
    reply: bool = False,
    ip_id: int = 0,
    ttl: int | None = None,
    vlan: int | None = None,
    pad: bool = False,
) -> bytes:
    """One ICMP (IPv4) echo request or reply; further arguments as of :func:`tcp_frame`."""
    message = struct.pack("!BBHHH", 0 if reply else 8, 0, 0, identifier, sequence) + payload
    message = _with_checksum(message, 2, b"")
    return _frame(source, target, _ICMP, message, ip_id, ttl, vlan, pad)


# ---------------------------------------------------------------------------------------
# One packet, as scapy has it: slower, and every field can still be changed


def _below_transport(
    source: Host, target: Host, ip_id: int, ttl: int | None, vlan: int | None
) -> Packet:
    hops = source.ttl if ttl is None else ttl
    link: Packet = Ether(src=source.mac, dst=target.mac)
    if vlan is not None:
        link = link / Dot1Q(vlan=vlan)
    if ":" in source.ip:
        return link / IPv6(src=source.ip, dst=target.ip, hlim=hops)
    return link / IP(src=source.ip, dst=target.ip, ttl=hops, id=ip_id, flags="DF")


def tcp_packet(
    source: Host,
    target: Host,
    source_port: int,
    target_port: int,
    flags: str,
    *,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    window: int = 65535,
    ip_id: int = 0,
    ttl: int | None = None,
    vlan: int | None = None,
) -> Packet:
    """:func:`tcp_frame` as a scapy packet, whose checksums are made when it is encoded."""
    segment = TCP(
        sport=source_port, dport=target_port, flags=flags, seq=seq, ack=ack, window=window
    )
    packet = _below_transport(source, target, ip_id, ttl, vlan) / segment
    return packet / Raw(payload) if payload else packet


def udp_packet(
    source: Host,
    target: Host,
    source_port: int,
    target_port: int,
    payload: bytes = b"",
    *,
    ip_id: int = 0,
    ttl: int | None = None,
    vlan: int | None = None,
) -> Packet:
    """:func:`udp_frame` as a scapy packet."""
    below = _below_transport(source, target, ip_id, ttl, vlan)
    packet = below / UDP(sport=source_port, dport=target_port)
    return packet / Raw(payload) if payload else packet


def icmp_echo_packet(
    source: Host,
    target: Host,
    identifier: int,
    sequence: int,
    payload: bytes = b"",
    *,
    reply: bool = False,
    ip_id: int = 0,
    ttl: int | None = None,
    vlan: int | None = None,
) -> Packet:
    """:func:`icmp_echo_frame` as a scapy packet."""
    message = ICMP(type=0 if reply else 8, id=identifier, seq=sequence)
    packet = _below_transport(source, target, ip_id, ttl, vlan) / message
    return packet / Raw(payload) if payload else packet


# ---------------------------------------------------------------------------------------
# Conversations with every time given


class TcpConversation:
    """One TCP connection, segment by segment, at times the caller gives.

    It knows sequence and acknowledgement numbers, options and windows. A segment
    acknowledges all that the other side has sent by earlier calls, whatever their times.
    """

    def __init__(
        self,
        client: Host,
        server: Host,
        client_port: int,
        server_port: int,
        *,
        client_isn: int = 0,
        server_isn: int = 0,
        client_clock_ms: int = 0,
        server_clock_ms: int = 0,
        client_ip_id: int = 0,
        server_ip_id: int = 0,
        vlan: int | None = None,
        pad: bool = False,
    ) -> None:
        """Set up a connection that has sent nothing.

        Args:
            client: who opens it.
            server: who is called.
            client_port: the client's port.
            server_port: the server's port.
            client_isn: sequence number of the client's SYN.
            server_isn: sequence number of the server's SYN.
            client_clock_ms: what the client's timestamp option adds to the time in ms.
            server_clock_ms: the same for the server.
            client_ip_id: IPv4 identification of the client's first packet; counts up.
            server_ip_id: the same for the server.
            vlan: 802.1Q VLAN identifier of every frame.
            pad: whether to pad frames to Ethernet's minimum.
        """
        self.frames: list[Frame] = []
        """What passed the tap so far, in the order of the calls."""
        self._hosts = (client, server)
        self._ports = (client_port, server_port)
        self._next_seq = [client_isn, server_isn]
        self._synchronised = [False, False]
        self._clock_ms = (client_clock_ms, server_clock_ms)
        self._ip_id = [client_ip_id, server_ip_id]
        self._sent_us: tuple[list[int], list[int]] = ([], [])
        self._vlan = vlan
        self._pad = pad
        stacks = (client.stack, server.stack)
        self._timestamps = stacks[0].timestamps and stacks[1].timestamps
        self._scaled = stacks[0].window_scale > 0 and stacks[1].window_scale > 0

    @property
    def max_payload(self) -> int:
        """Octets of payload that fit into a segment."""
        mss = min(host.stack.mss for host in self._hosts)
        return mss - 12 if self._timestamps else mss

    def next_seq(self, side: Side) -> int:
        """Sequence number that the next segment of `side` gets."""
        return self._next_seq[side] & 0xFFFFFFFF

    def segment(
        self,
        time_us: int,
        sender: Side,
        flags: str = "A",
        payload: bytes = b"",
        *,
        seq: int | None = None,
        ack: int | None = None,
        window: int | None = None,
        ttl: int | None = None,
        heard_us: int | None = None,
    ) -> None:
        """Send one segment.

        Args:
            time_us: when it passes the tap.
            sender: who sends it.
            flags: letters of "FSRPAUEC".
            payload: application octets.
            seq: instead of the next one; the counter goes on from the highest sent.
            ack: instead of all that the other side sent.
            window: the window field as sent, instead of the stack's own.
            ttl: instead of the sender's own.
            heard_us: the sender knows what passed the tap up to then; decides the echoed
                timestamp only. `time_us` by default.
        """
        receiver = sender.other
        first = self._next_seq[sender] if seq is None else seq
        if ack is None:
            ack = self._next_seq[receiver] if "A" in flags else 0
        stack = self._hosts[sender].stack
        if window is None:
            scale = stack.window_scale if self._scaled and "S" not in flags else 0
            window = stack.window >> scale
        frame = tcp_frame(
            self._hosts[sender],
            self._hosts[receiver],
            self._ports[sender],
            self._ports[receiver],
            flags,
            seq=first,
            ack=ack,
            payload=payload,
            window=window,
            options=self._options(sender, flags, time_us, heard_us),
            ip_id=self._ip_id[sender],
            ttl=ttl,
            vlan=self._vlan,
            pad=self._pad,
        )
        self.frames.append((time_us, frame))
        self._ip_id[sender] += 1
        self._sent_us[sender].append(time_us)
        after = first + len(payload) + ("S" in flags) + ("F" in flags)
        self._next_seq[sender] = max(self._next_seq[sender], after)

    def _options(self, sender: Side, flags: str, time_us: int, heard_us: int | None) -> bytes:
        stack, opening = self._hosts[sender].stack, "S" in flags
        options = b""
        if opening and stack.mss_option:
            options += struct.pack("!BBH", 2, 4, stack.mss)
        if opening and stack.sack:
            options += struct.pack("!BB", 4, 2)
        offered = stack.timestamps and opening and "A" not in flags
        if self._timestamps or offered:
            if not opening:
                options += b"\1\1"
            echo = self._timestamp_heard(sender, time_us if heard_us is None else heard_us)
            options += struct.pack("!BBII", 8, 10, self._timestamp(sender, time_us), echo)
        if opening and stack.window_scale and (self._scaled or "A" not in flags):
            options += struct.pack("!BBBB", 1, 3, 3, stack.window_scale)
        return options + b"\1" * (-len(options) % 4)

    def _timestamp(self, side: Side, time_us: int) -> int:
        return (time_us // 1000 + self._clock_ms[side]) & 0xFFFFFFFF

    def _timestamp_heard(self, listener: Side, until_us: int) -> int:
        """Timestamp of what `listener` last heard; 0 before it heard anything."""
        times = self._sent_us[listener.other]
        heard = bisect_right(times, until_us)
        return self._timestamp(listener.other, times[heard - 1]) if heard else 0

    def handshake(self, syn_us: int, synack_us: int, ack_us: int) -> None:
        """Open the connection with the usual three segments."""
        self.segment(syn_us, Side.CLIENT, "S")
        self.segment(synack_us, Side.SERVER, "SA")
        self.segment(ack_us, Side.CLIENT, "A")

    def farewell(self, first: Side, fin_us: int, answer_us: int, ack_us: int) -> None:
        """Close by FIN from `first`, FIN from the other side, and the last ACK."""
        self.segment(fin_us, first, "FA")
        self.segment(answer_us, first.other, "FA")
        self.segment(ack_us, first, "A")


def udp_exchange(
    client: Host,
    server: Host,
    client_port: int,
    server_port: int,
    messages: Iterable[tuple[int, Side, bytes]],
    *,
    client_ip_id: int = 0,
    server_ip_id: int = 0,
    vlan: int | None = None,
    pad: bool = False,
) -> list[Frame]:
    """Datagrams between two ports: `messages` are (time in µs, sender, payload)."""
    hosts, ports = (client, server), (client_port, server_port)
    ip_ids = [client_ip_id, server_ip_id]
    frames = []
    for time_us, sender, payload in messages:
        frame = udp_frame(
            hosts[sender],
            hosts[sender.other],
            ports[sender],
            ports[sender.other],
            payload,
            ip_id=ip_ids[sender],
            vlan=vlan,
            pad=pad,
        )
        ip_ids[sender] += 1
        frames.append((time_us, frame))
    return frames


# ---------------------------------------------------------------------------------------
# Conversations whose times follow from the path


@dataclass(frozen=True, slots=True)
class Path:
    """The way between two hosts, with the tap somewhere on it."""

    client_us: float
    """Median one-way delay between client and tap, µs."""
    server_us: float
    """Median one-way delay between tap and server, µs."""
    jitter: float = 0.06
    """Standard deviation of a delay's natural logarithm (delays are log-normal)."""
    bits_per_s: float = 1e8
    """Rate at which either side's segments can follow each other."""

    def delay(self, side: Side, rng: Random) -> float:
        """One packet's delay between `side` and the tap, either way, µs."""
        median = self.client_us if side is Side.CLIENT else self.server_us
        return median * rng.lognormvariate(0.0, self.jitter)


@dataclass(slots=True)
class _OwedAck:
    """Segments received and not yet acknowledged."""

    segments: int
    due_us: float


class TcpSession:
    """One TCP connection between hosts that take turns to talk, timed by a path.

    Knows the handshake, segmentation, slow start, delayed acknowledgements and closing. A
    side acts some time after its *news*: the last thing it received or sent.
    """

    FIRST_WINDOW = 10
    """Segments a side may send before it hears of the first (RFC 6928)."""
    MAX_WINDOW = 64
    """Segments in flight at most."""
    DELAYED_ACK_US = 40_000
    """How long a lone segment waits for an answer to ride on, µs."""
    WORK_US = 60.0
    """Median time a host takes to react, µs."""

    def __init__(
        self,
        conversation: TcpConversation,
        path: Path,
        rng: Random,
        start_us: int,
        *,
        ack_every: int = 2,
    ) -> None:
        """Set up a connection that has sent nothing.

        Args:
            conversation: where the segments go.
            path: what the times follow from.
            rng: where chance comes from.
            start_us: when the client decides to connect.
            ack_every: full segments per acknowledgement, fewer than FIRST_WINDOW.
        """
        self._wire = conversation
        self._path = path
        self._rng = rng
        self._ack_every = ack_every
        self._news_us = [float(start_us), float(start_us)]
        self._tap_us = [0, 0]
        self._arrived_us = [0.0, 0.0]
        self._window = [self.FIRST_WINDOW, self.FIRST_WINDOW]
        self._owed: list[_OwedAck | None] = [None, None]

    @property
    def frames(self) -> list[Frame]:
        """What passed the tap so far."""
        return self._wire.frames

    def news_us(self, side: Side) -> float:
        """When `side` last received or sent something, µs."""
        return self._news_us[side]

    def connect(self) -> None:
        """Open the connection."""
        arrived = self._transmit(Side.CLIENT, self._news_us[Side.CLIENT], "S")
        heard = self._transmit(Side.SERVER, arrived + self._work(), "SA")
        acked = heard + self._work()
        self._news_us = [acked, self._transmit(Side.CLIENT, acked, "A")]

    def send(self, sender: Side, data: bytes, after_us: float = 0.0) -> None:
        """`sender` writes `data`, `after_us` after its news."""
        receiver = sender.other
        now = self._news_us[sender] + after_us
        self._acknowledge_due(sender, now)
        self._owed[sender] = None  # what is still owed rides on the data
        size = self._wire.max_payload
        in_flight = 0
        acks: deque[tuple[float, int]] = deque()
        arrived = self._news_us[receiver]
        for start in range(0, len(data), size):
            while in_flight >= self._window[sender]:
                heard, segments = acks.popleft()
                now = max(now, heard)
                in_flight = max(0, in_flight - segments)
                self._window[sender] = min(self.MAX_WINDOW, self._window[sender] + segments)
            payload = data[start : start + size]
            self._acknowledge_due(receiver, now)
            arrived = self._transmit(
                sender, now, "PA" if start + size >= len(data) else "A", payload
            )
            now += (len(payload) + 66) * 8e6 / self._path.bits_per_s
            in_flight += 1
            owed = self._owed[receiver] or _OwedAck(0, arrived + self.DELAYED_ACK_US)
            owed.segments += 1
            if owed.segments >= self._ack_every:
                heard = self._transmit(receiver, arrived + self._work(), "A")
                acks.append((heard, owed.segments))
                self._owed[receiver] = None
            else:
                self._owed[receiver] = owed
        self._news_us[sender] = now
        self._news_us[receiver] = max(self._news_us[receiver], arrived)

    def close(self, first: Side, after_us: float = 0.0, answer_us: float = 0.0) -> None:
        """Close by FIN, from `first` and `answer_us` later from the other side."""
        second = first.other
        now = self._news_us[first] + after_us
        self._acknowledge_due(first, now)
        self._acknowledge_due(second, now)
        arrived = self._transmit(first, now, "FA")
        if answer_us > self.DELAYED_ACK_US:
            self._transmit(second, arrived + self._work(), "A")
        answered = arrived + self._work() + answer_us
        heard = self._transmit(second, answered, "FA")
        self._transmit(first, heard + self._work(), "A")
        self._owed = [None, None]
        self._news_us[first], self._news_us[second] = heard, answered

    def abort(self, side: Side, after_us: float = 0.0) -> None:
        """`side` ends the connection by RST."""
        now = self._news_us[side] + after_us
        self._acknowledge_due(side, now)
        self._acknowledge_due(side.other, now)
        self._owed = [None, None]
        self._news_us[side] = now
        self._news_us[side.other] = self._transmit(side, now, "RA")

    def leave_open(self) -> None:
        """Nobody says more: acknowledge what is still owed."""
        for side in Side:
            owed = self._owed[side]
            if owed is not None:
                self._acknowledge_due(side, owed.due_us)

    def _work(self) -> float:
        return self._rng.lognormvariate(0.0, 0.5) * self.WORK_US

    def _acknowledge_due(self, side: Side, now_us: float) -> None:
        """Let `side` send the acknowledgement it owes if nothing it rides on came in time."""
        owed = self._owed[side]
        if owed is not None and owed.due_us <= now_us:
            self._owed[side] = None
            # Later segments may have come between the first one's arrival and its due time.
            self._transmit(side, max(owed.due_us, self._arrived_us[side]), "A")

    def _transmit(self, sender: Side, at_us: float, flags: str, payload: bytes = b"") -> float:
        """Send one segment at the sender's time `at_us`; return when it arrives."""
        out = self._path.delay(sender, self._rng)
        # Neither the way to the tap nor the way from it lets a packet overtake another.
        tap_us = max(round(at_us + out), self._tap_us[sender] + 1)
        self._tap_us[sender] = tap_us
        self._wire.segment(tap_us, sender, flags, payload, heard_us=round(at_us - out))
        receiver = sender.other
        arrived = max(tap_us + self._path.delay(receiver, self._rng), self._arrived_us[receiver])
        self._arrived_us[receiver] = arrived
        return arrived


# ---------------------------------------------------------------------------------------
# What applications say, where it is not plain text


def dns_query(identifier: int, name: str, record: str = "A") -> bytes:
    """Encode a recursive query for the address ("A" or "AAAA") of `name`."""
    return bytes(DNS(id=identifier, rd=1, qd=DNSQR(qname=name, qtype=record)))


def dns_answer(
    identifier: int, name: str, addresses: Iterable[str], record: str = "A", ttl_s: int = 300
) -> bytes:
    """Encode the answer to :func:`dns_query`; no addresses means that there is no such record."""
    records = [DNSRR(rrname=name, type=record, ttl=ttl_s, rdata=ip) for ip in addresses]
    question = DNSQR(qname=name, qtype=record)
    return bytes(DNS(id=identifier, qr=1, rd=1, ra=1, qd=question, an=records))


def ntp_message(time_us: int, *, from_server: bool) -> bytes:
    """Encode an NTPv4 client or server message (RFC 5905) sent at `time_us`."""
    seconds, rest_us = divmod(time_us, 1_000_000)
    # NTP counts from 1900, and fractions in 2^-32 s.
    stamp = struct.pack("!II", (seconds + 2_208_988_800) & 0xFFFFFFFF, (rest_us << 32) // 1_000_000)
    if not from_server:
        return struct.pack("!BBbb", 0x23, 0, 6, -20) + bytes(36) + stamp
    head = struct.pack("!BBbbII4s", 0x24, 2, 6, -23, 0x120, 0x4A0, b"\xc0\x00\x02\x7b")
    return head + 4 * stamp


def tls_hellos(server_name: str, rng: Random) -> tuple[bytes, bytes]:
    """ClientHello with SNI, and the ServerHello that answers it, of TLS 1.3 (RFC 8446)."""
    session = rng.randbytes(32)
    name = server_name.encode("ascii")
    key_share = struct.pack("!HH", 0x001D, 32)  # X25519
    alpn = b"\x02h2\x08http/1.1"
    client = _tls_hello(
        1,
        rng.randbytes(32),
        session,
        struct.pack("!H8H", 16, 0x1301, 0x1303, 0x1302, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9)
        + b"\1\0",
        {
            0: struct.pack("!HBH", len(name) + 3, 0, len(name)) + name,
            23: b"",
            10: struct.pack("!H3H", 6, 0x001D, 0x0017, 0x0018),
            11: b"\1\0",
            16: struct.pack("!H", len(alpn)) + alpn,
            13: struct.pack("!H6H", 12, 0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501),
            51: struct.pack("!H", 36) + key_share + rng.randbytes(32),
            45: b"\1\1",
            43: struct.pack("!B2H", 4, 0x0304, 0x0303),
        },
    )
    server = _tls_hello(
        2,
        rng.randbytes(32),
        session,
        struct.pack("!HB", 0x1301, 0),
        {51: key_share + rng.randbytes(32), 43: b"\3\4"},
    )
    return client, server


def _tls_hello(
    kind: int, random: bytes, session: bytes, ciphers: bytes, extensions: dict[int, bytes]
) -> bytes:
    extra = b"".join(
        struct.pack("!HH", number, len(value)) + value for number, value in extensions.items()
    )
    body = b"\3\3" + random + bytes([len(session)]) + session + ciphers
    body += struct.pack("!H", len(extra)) + extra
    handshake = bytes([kind]) + len(body).to_bytes(3, "big") + body
    return struct.pack("!BHH", 22, 0x0301 if kind == 1 else 0x0303, len(handshake)) + handshake


TLS_CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"


def tls_records(octets: int, rng: Random) -> bytes:
    """Encrypted TLS records that hold `octets` of random text."""
    records = []
    for start in range(0, octets, 16_384):
        size = min(16_384, octets - start) + 17  # content type and authentication tag
        records.append(struct.pack("!BHH", 23, 0x0303, size) + rng.randbytes(size))
    return b"".join(records)


_SSH_LISTS = (
    b"curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"
    b"diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512",
    b"rsa-sha2-512,rsa-sha2-256,ecdsa-sha2-nistp256,ssh-ed25519",
    *[b"chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com"] * 2,
    *[b"umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com"] * 2,
    *[b"none,zlib@openssh.com"] * 2,
    b"",
    b"",
)


def ssh_kex_init(rng: Random) -> bytes:
    """Make a KEXINIT packet (RFC 4253, section 7.1), not yet encrypted."""
    lists = b"".join(struct.pack("!I", len(names)) + names for names in _SSH_LISTS)
    return ssh_packet(b"\x14" + rng.randbytes(16) + lists + bytes(5))


def ssh_packet(payload: bytes) -> bytes:
    """`payload` as an SSH binary packet before encryption (RFC 4253, section 6)."""
    padding = 4 + (-(len(payload) + 9) % 8)
    return struct.pack("!IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


# ---------------------------------------------------------------------------------------
# Files

SNAPLEN = 262_144
_LINKTYPE_ETHERNET = 1


def write_pcap(
    path: str | os.PathLike[str],
    packets: Iterable[tuple[int, bytes | Packet]],
    nanosecond: bool = False,
    snaplen: int = SNAPLEN,
) -> None:
    """Write a classic pcap file, little-endian, Ethernet.

    Args:
        path: the file, replaced.
        packets: time (µs since the epoch) and packet, written in the order given.
        nanosecond: whether the file counts nanoseconds.
        snaplen: octets kept of a packet; the record still tells its whole length.
    """
    magic, unit = (0xA1B23C4D, 1000) if nanosecond else (0xA1B2C3D4, 1)
    parts = [struct.pack("<IHHiIII", magic, 2, 4, 0, 0, snaplen, _LINKTYPE_ETHERNET)]
    for time_us, packet in packets:
        frame = bytes(packet)
        seconds, rest_us = divmod(time_us, 1_000_000)
        kept = frame[:snaplen]
        parts.append(struct.pack("<IIII", seconds, rest_us * unit, len(kept), len(frame)))
        parts.append(kept)
    FilePath(path).write_bytes(b"".join(parts))


def write_pcapng(
    path: str | os.PathLike[str],
    packets: Iterable[tuple[int, bytes | Packet]],
    snaplen: int = SNAPLEN,
) -> None:
    """Write a pcapng file with one Ethernet interface; arguments as of :func:`write_pcap`."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    microseconds = struct.pack("<HHB3xHH", 9, 1, 6, 0, 0)  # if_tsresol, opt_endofopt
    interface = struct.pack("<HHI", _LINKTYPE_ETHERNET, 0, snaplen) + microseconds
    parts = [_block(0x0A0D0D0A, section), _block(1, interface)]
    for time_us, packet in packets:
        frame = bytes(packet)
        kept = frame[:snaplen]
        high, low = divmod(time_us, 1 << 32)
        head = struct.pack("<IIIII", 0, high, low, len(kept), len(frame))
        parts.append(_block(6, head + kept))
    FilePath(path).write_bytes(b"".join(parts))


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size
