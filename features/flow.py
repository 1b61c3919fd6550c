"""flow: flowvane's own feature set, for learning a site's normal traffic.

All that can be measured without looking at what a payload says: a flow's sizes, times, flags,
addresses by class, what nDPI takes it for, the sizes of its first payloads, facts of its TLS or
QUIC client hello, and its context (:mod:`features.context`). Addresses, ports, names and
fingerprints enter as classes, shapes and frequencies, never as identities, so that a model
learns what hosts do rather than which ones there are.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.context import NAMES, ContextWindows, flow_keys
from features.flows import EARLY_PACKETS, NEVER, Ending, FlowBatch, TcpFlag, address_keys
from features.ndpi import APPLICATIONS, CATEGORIES
from features.once import OnceAFlow
from features.schema import Feature, FloatArray, FlowView, Kind, Measure, MeterSettings, Schema

SOURCE = "flowvane"
ZEEK = "Zeek, base/protocols/conn: conn_state"
NDPI = "nDPI 5.0.0"
JA4 = "FoxIO, JA4"

_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
SIGNED_BYTES = "signed bytes"
"""Unit of an amount whose sign is a direction: negative from the destination."""

# ---------------------------------------------------------------------------------------
# Vocabularies

_PROTOCOL_NUMBERS = {
    "tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58, "igmp": 2, "sctp": 132, "dccp": 33,
    "gre": 47, "esp": 50, "ah": 51, "ipip": 4, "ipv6": 41, "l2tp": 115, "etherip": 97,
    "ospf": 89, "eigrp": 88, "pim": 103, "vrrp": 112, "rsvp": 46, "udplite": 136,
}  # fmt: skip
PROTOCOLS = tuple(_PROTOCOL_NUMBERS)

STATES: tuple[str, ...] = (
    "S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH",
    "answered", "unanswered",
)  # fmt: skip

FLAGS: tuple[str, ...] = tuple(
    "".join(letter for bit, letter in enumerate("FSRPAU") if code >> bit & 1) or "-"
    for code in range(64)
)

INITIAL_TTLS = (32, 64, 128, 255)
"""What systems start at: old Windows; Linux, macOS and BSD; Windows; routers and Solaris."""

SCOPES: tuple[str, ...] = (
    "public", "private", "link-local", "loopback", "multicast", "broadcast", "unspecified",
    "reserved",
)  # fmt: skip
_SCOPE = {name: code for code, name in enumerate(SCOPES)}

CLOSINGS: tuple[str, ...] = ("idle", "active", "fin", "cut", "open")
_CLOSING = {
    Ending.IDLE: "idle", Ending.ACTIVE: "active", Ending.FIN: "fin", Ending.CAPTURE_END: "cut",
    Ending.EVICTED: "cut", Ending.SHUTDOWN: "cut", Ending.EARLY: "open",
}  # fmt: skip

ICMP_KINDS: tuple[str, ...] = (
    "echo", "echo-reply", "unreachable", "time-exceeded", "too-big", "redirect", "router",
    "neighbour", "listener", "other",
)  # fmt: skip
_ICMP_KIND = {8: "echo", 0: "echo-reply", 3: "unreachable", 11: "time-exceeded", 5: "redirect",
              9: "router", 10: "router"}  # fmt: skip
_ICMP6_KIND = {128: "echo", 129: "echo-reply", 1: "unreachable", 2: "too-big", 3: "time-exceeded",
               137: "redirect", 133: "router", 134: "router", 135: "neighbour", 136: "neighbour",
               130: "listener", 131: "listener", 132: "listener", 143: "listener"}  # fmt: skip

_PORTS: dict[str, tuple[int, ...]] = {
    "ftp": (20, 21), "ssh": (22,), "telnet": (23,), "smtp": (25, 465, 587), "dns": (53,),
    "dhcp": (67, 68, 546, 547), "tftp": (69,), "http": (80, 8000, 8008, 8080, 8888),
    "kerberos": (88, 464), "pop3": (110, 995), "rpcbind": (111,), "ident": (113,), "ntp": (123,),
    "msrpc": (135, 593), "netbios": (137, 138, 139), "imap": (143, 993), "snmp": (161, 162),
    "bgp": (179,), "ldap": (389, 636, 3268, 3269), "https": (443, 8443), "smb": (445,),
    "ike": (500, 4500), "rsh": (512, 513), "syslog": (514, 6514), "printer": (515, 631, 9100),
    "dns-tls": (853,), "rsync": (873,), "proxy": (1080, 3128), "openvpn": (1194,),
    "database": (1433, 1434, 1521, 3306, 5432, 6379, 9042, 9200, 11211, 27017),
    "radius": (1812, 1813), "mqtt": (1883, 8883), "ssdp": (1900,), "nfs": (2049,),
    "rdp": (3389,), "stun": (3478, 5349), "vxlan": (4789,), "sip": (5060, 5061),
    "xmpp": (5222, 5269), "mdns": (5353,), "llmnr": (5355,), "vnc": tuple(range(5900, 5910)),
    "winrm": (5985, 5986), "x11": tuple(range(6000, 6010)), "irc": (6667, 6697),
    "wireguard": (51820,), "s7comm": (102,), "modbus": (502,), "dnp3": (20000,),
    "ethernet-ip": (2222, 44818), "bacnet": (47808,), "iec104": (2404,),
}  # fmt: skip
PORT_CLASSES: tuple[str, ...] = (*_PORTS, "system", "registered", "ephemeral", "none")
EPHEMERAL = 32_768
"""Where Linux's own range of client ports begins (IANA's begins at 49152)."""


def _port_table() -> FloatArray:
    """Code in PORT_CLASSES of every port."""
    code = {name: float(at) for at, name in enumerate(PORT_CLASSES)}
    table = np.full(65536, code["ephemeral"])
    table[:EPHEMERAL] = code["registered"]
    table[:1024] = code["system"]
    table[0] = code["none"]
    for name, ports in _PORTS.items():
        table[list(ports)] = code[name]
    return table


def _state_table() -> FloatArray:
    """Code in STATES by SYN, FIN, RST of the source, then SYN-ACK, FIN, RST of the destination."""

    def state(syn: bool, fin: bool, rst: bool, answer: bool, its_fin: bool, its_rst: bool) -> str:
        if syn and answer:
            cases = [(fin and its_fin, "SF"), (rst, "RSTO"), (its_rst, "RSTR"), (fin, "S2"),
                     (its_fin, "S3")]  # fmt: skip
            otherwise = "S1"
        elif syn:
            cases, otherwise = [(its_rst, "REJ"), (rst, "RSTOS0"), (fin, "SH")], "S0"
        elif answer:
            cases, otherwise = [(its_rst, "RSTRH"), (its_fin, "SHR")], "OTH"
        else:
            cases, otherwise = [], "OTH"
        return next((name for holds, name in cases if holds), otherwise)

    combinations = itertools.product([False, True], repeat=6)
    return np.array([float(STATES.index(state(*bits))) for bits in combinations])


def _icmp_table(named: dict[int, str]) -> FloatArray:
    return np.array([float(ICMP_KINDS.index(named.get(n, "other"))) for n in range(256)])


_PROTOCOL_CODE = np.full(256, -1.0)
for _code, _number in enumerate(_PROTOCOL_NUMBERS.values()):
    _PROTOCOL_CODE[_number] = _code
_PORT_CODE = _port_table()
_STATE_CODE = _state_table()
_ICMP_CODE, _ICMP6_CODE = _icmp_table(_ICMP_KIND), _icmp_table(_ICMP6_KIND)
_CLOSING_CODE = np.full(256, -1.0)
for _ending, _closing in _CLOSING.items():
    _CLOSING_CODE[_ending] = CLOSINGS.index(_closing)
_TTL_CODE = np.searchsorted(INITIAL_TTLS, np.arange(256)).astype(np.float64)
_TTL_HOPS = np.array(INITIAL_TTLS)[_TTL_CODE.astype(int)] - np.arange(256)

_PUBLIC, _PRIVATE, _LINK_LOCAL, _LOOPBACK = (_SCOPE[name] for name in SCOPES[:4])
_MULTICAST, _BROADCAST, _UNSPECIFIED, _RESERVED = (_SCOPE[name] for name in SCOPES[4:])

# ---------------------------------------------------------------------------------------
# Compiled: texts and addresses


@njit(cache=True)
def _scope_of(octets: NDArray[np.uint8]) -> int:
    mapped = octets[10] == 255 and octets[11] == 255
    zero = True
    for at in range(10):
        zero = zero and octets[at] == 0
    if zero and mapped:
        a, b = octets[12], octets[13]
        if a == 10 or (a == 172 and 16 <= b < 32) or (a == 192 and b == 168):
            return _PRIVATE
        if a == 100 and 64 <= b < 128:
            return _PRIVATE
        if a == 169 and b == 254:
            return _LINK_LOCAL
        if a == 127:
            return _LOOPBACK
        if 224 <= a < 240:
            return _MULTICAST
        if a == 255 and b == 255 and octets[14] == 255 and octets[15] == 255:
            return _BROADCAST
        if a == 0:
            return _UNSPECIFIED
        return _RESERVED if a >= 240 else _PUBLIC
    if octets[0] == 255:
        return _MULTICAST
    if octets[0] & 254 == 252:
        return _PRIVATE
    if octets[0] == 254 and octets[1] & 192 == 128:
        return _LINK_LOCAL
    for at in range(10, 15):
        zero = zero and octets[at] == 0
    if zero and octets[15] == 0:
        return _UNSPECIFIED
    if zero and octets[15] == 1:
        return _LOOPBACK
    return _PUBLIC


@njit(cache=True)
def scope_codes(addresses: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Code in SCOPES of ``[B, 16]`` addresses, ``[B]``."""
    codes = np.empty(len(addresses), np.float64)
    for row in range(len(addresses)):
        codes[row] = _scope_of(addresses[row])
    return codes


@njit(cache=True)
def text_lengths(texts: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Octets of ``[B, W]`` zero-padded texts, ``[B]``."""
    lengths = np.zeros(len(texts), np.float64)
    for row in range(len(texts)):
        at = 0
        while at < texts.shape[1] and texts[row, at] != 0:
            at += 1
        lengths[row] = at
    return lengths


_DOT = 46


@njit(cache=True)
def text_labels(texts: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Parts between dots of ``[B, W]`` zero-padded texts, 0 for an empty one; ``[B]``."""
    labels = np.zeros(len(texts), np.float64)
    for row in range(len(texts)):
        inside = False
        for octet in texts[row]:
            if octet == 0:
                break
            if octet == _DOT:
                inside = False
            elif not inside:
                inside = True
                labels[row] += 1.0
    return labels


@njit(cache=True)
def text_entropies(texts: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shannon entropy of the octets of ``[B, W]`` zero-padded texts, in bits an octet; ``[B]``."""
    entropies = np.zeros(len(texts), np.float64)
    counts = np.zeros(256, np.int64)
    for row in range(len(texts)):
        length = 0
        for octet in texts[row]:
            if octet == 0:
                break
            counts[octet] += 1
            length += 1
        total = 0.0
        for at in range(length):
            count = counts[texts[row, at]]
            if count > 0:
                total += count * math.log2(count)
                counts[texts[row, at]] = 0
        if length > 0:
            entropies[row] = max(math.log2(length) - total / length, 0.0)
    return entropies


@njit(cache=True)
def _hash_part(text: NDArray[np.uint8], begin: int, end: int) -> np.uint64:
    """FNV-1a."""
    state = np.uint64(0xCBF29CE484222325)
    for at in range(begin, end):
        state = (state ^ np.uint64(text[at])) * np.uint64(0x100000001B3)
    return state


@njit(cache=True)
def term_codes(
    texts: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    terms: NDArray[np.uint8],
    codes: NDArray[np.int64],
    last: bool,
) -> NDArray[np.float64]:
    """Codes of a part of ``[B, W]`` zero-padded texts, ``[B]``; -1 outside the vocabulary.

    The part is what precedes the first dot, or with `last` what follows the last one; all of
    it where there is none. `hashes` ``[T]`` is sorted, `terms` ``[T, W]`` and `codes` ``[T]``
    go with it.
    """
    result = np.full(len(texts), -1.0)
    for row in range(len(texts)):
        text = texts[row]
        begin = end = 0
        first_dot = -1
        while end < len(text) and text[end] != 0:
            if text[end] == _DOT:
                if first_dot < 0:
                    first_dot = end
                begin = end + 1
            end += 1
        if not last:
            begin = 0
            if first_dot >= 0:
                end = first_dot
        at = np.searchsorted(hashes, _hash_part(text, begin, end))
        if at < len(hashes) and end - begin < terms.shape[1]:
            same = terms[at, end - begin] == 0
            for place in range(end - begin):
                same = same and terms[at, place] == text[begin + place]
            if same:
                result[row] = codes[at]
    return result


def _fnv_1a(text: bytes) -> int:
    """The same without compiling, for use while modules load."""
    state = 0xCBF29CE484222325
    for octet in text:
        state = (state ^ octet) * 0x100000001B3 % 2**64
    return state


class _Vocabulary:
    """Terms to look up among bytes fields."""

    def __init__(self, terms: tuple[str, ...]) -> None:
        width = max(map(len, terms)) + 1
        table = _octets(np.array([term.encode() for term in terms], f"S{width}"))
        hashes = np.array([_fnv_1a(term.encode()) for term in terms], np.uint64)
        order = np.argsort(hashes)
        self._hashes, self._terms = hashes[order], np.ascontiguousarray(table[order])
        self._codes = order.astype(np.int64)

    def codes(self, texts: NDArray[np.bytes_], *, last: bool) -> FloatArray:
        """See :func:`term_codes`."""
        found: FloatArray = term_codes(_octets(texts), self._hashes, self._terms, self._codes, last)
        return found


def _octets(texts: NDArray[np.bytes_]) -> NDArray[np.uint8]:
    """The octets of a column of texts, ``[B, W]``."""
    return np.ascontiguousarray(texts).view(np.uint8).reshape(len(texts), texts.itemsize)


def _words(texts: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """The same as 64-bit words, ``[B, W / 8]``."""
    return np.ascontiguousarray(texts).view(np.uint64).reshape(len(texts), texts.itemsize // 8)


_APPLICATIONS, _CATEGORIES = _Vocabulary(APPLICATIONS), _Vocabulary(CATEGORIES)
_SECURE = np.zeros(len(APPLICATIONS) + 1)  # the last entry serves code -1
_SECURE[[APPLICATIONS.index(n) for n in ("TLS", "QUIC", "DTLS", "SMTPS", "POPS", "IMAPS", "FTPS",
                                         "DoH_DoT")]] = 1.0  # fmt: skip
_QUIC = np.zeros(len(APPLICATIONS) + 1)
_QUIC[APPLICATIONS.index("QUIC")] = 1.0

# ---------------------------------------------------------------------------------------
# Rules


def _protocol_part(view: FlowView) -> FloatArray:
    return _APPLICATIONS.codes(view.flows["application"], last=False)


def state_codes(flows: FlowBatch) -> FloatArray:
    """Code in STATES of each flow, ``[B]``."""
    src, dst = flows["src_tcp_flags"].astype(np.intp), flows["dst_tcp_flags"].astype(np.intp)
    combination = (
        (src & TcpFlag.SYN) // TcpFlag.SYN * 32
        + (src & TcpFlag.FIN) // TcpFlag.FIN * 16
        + (src & TcpFlag.RST) // TcpFlag.RST * 8
        + (dst & TcpFlag.SYN) // TcpFlag.SYN * 4
        + (dst & TcpFlag.FIN) // TcpFlag.FIN * 2
        + (dst & TcpFlag.RST) // TcpFlag.RST
    )
    other = np.where(flows["dst_packets"] > 0, STATES.index("answered"), STATES.index("unanswered"))
    return np.where(flows["protocol"] == _TCP, _STATE_CODE[combination], other)


def failed(flows: FlowBatch) -> NDArray[np.bool_]:
    """Whether each flow came to nothing, ``[B]``.

    TCP: no packet came back, or a SYN was not answered by a SYN-ACK, or the destination reset
    the connection before it sent any payload. ICMP: a request (echo, timestamp, address mask)
    without a reply. Other protocols: no packet came back, unless the destination is a multicast
    or broadcast address, from which none comes.
    """
    protocol, icmp_type = flows["protocol"], flows["icmp_type"]
    silent = flows["dst_packets"] == 0
    src, dst = flows["src_tcp_flags"], flows["dst_tcp_flags"]
    tcp = (
        silent
        | (((src & TcpFlag.SYN) != 0) & ((dst & TcpFlag.SYN) == 0))
        | (((dst & TcpFlag.RST) != 0) & (flows["dst_payload_bytes"] == 0))
    )
    request = (icmp_type == 8) | (icmp_type == 13) | (icmp_type == 17)
    scope = scope_codes(np.ascontiguousarray(flows["dst_ip"]))
    one = (scope != _MULTICAST) & (scope != _BROADCAST)
    result: NDArray[np.bool_] = np.where(
        protocol == _TCP,
        tcp,
        silent
        & one
        & ((protocol != _ICMP) | request)
        & ((protocol != _ICMP6) | (icmp_type == 128)),
    )
    return result


def _flag_codes(side: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        flags = view.flows[f"{side}_tcp_flags"] & 63
        return np.where(view.flows["protocol"] == _TCP, flags, 0).astype(np.float64)

    return measure


def _ttl(side: str, table: FloatArray, silent: float) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        spoke = view.flows[f"{side}_packets"] > 0
        return np.where(spoke, table[view.flows[f"{side}_ttl"]], silent)

    return measure


def _scope(side: str) -> Measure:
    return lambda view: scope_codes(np.ascontiguousarray(view.flows[f"{side}_ip"]))


def icmp_kind_codes(flows: FlowBatch) -> FloatArray:
    """Code in ICMP_KINDS of each flow's first packet, -1 for other protocols, ``[B]``."""
    protocol, number = flows["protocol"], flows["icmp_type"]
    other = np.where(protocol == _ICMP6, _ICMP6_CODE[number], -1.0)
    return np.where(protocol == _ICMP, _ICMP_CODE[number], other)


def port_class_codes(ports: NDArray[np.uint16]) -> FloatArray:
    """Code in PORT_CLASSES of ``[B]`` ports."""
    return _PORT_CODE[ports]


def _share(name: str) -> Measure:
    """The source's part of a sum over both directions, 0 where there is nothing."""

    def measure(view: FlowView) -> FloatArray:
        share: FloatArray = view.flows[f"src_{name}"] / np.maximum(view.total(name), 1.0)
        return share

    return measure


def _part(part: str, whole: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        most = np.maximum(view.flows[whole], 1).astype(np.float64)
        limited: FloatArray = np.minimum(view.flows[part] / most, 1.0)
        return limited

    return measure


def _mean(side: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        packets = np.maximum(view.flows[f"{side}_packets"], 1).astype(np.float64)
        mean: FloatArray = view.flows[f"{side}_bytes"] / packets
        return mean

    return measure


def _per_second(side: str, name: str, factor: float) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        dur_s = view.dur_s
        rate = factor * view.flows[f"{side}_{name}"] / np.where(dur_s > 0, dur_s, np.inf)
        return rate.astype(np.float64)

    return measure


def _between_s(start: str, end: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        begun, done = view.flows[start], view.flows[end]
        span = np.maximum((done - begun) / 1e6, 0.0)
        return np.where((begun == NEVER) | (done == NEVER), 0.0, span)

    return measure


def _early(at: int) -> Measure:
    return lambda view: view.flows["early_payload"][:, at]


def _early_turns(view: FlowView) -> NDArray[np.generic]:
    sizes = view.flows["early_payload"]
    turns: NDArray[np.generic] = ((sizes[:, 1:] > 0) & (sizes[:, :-1] < 0)).sum(axis=1) + (
        (sizes[:, 1:] < 0) & (sizes[:, :-1] > 0)
    ).sum(axis=1)
    return turns


def _field(name: str) -> Measure:
    return lambda view: view.flows[name]


def _field_s(name: str) -> Measure:
    return lambda view: view.flows[name] / 1e6


def _present(name: str) -> Measure:
    return lambda view: view.flows[name] != 0


def _filled(name: str) -> Measure:
    return lambda view: view.flows[name] != b""


def _window(name: str) -> Measure:
    return lambda view: view.windows[name]


# ---------------------------------------------------------------------------------------
# Declarations

_SIDES = (("src", "source"), ("dst", "destination"))


def _feature(
    name: str, kind: Kind, unit: str, meaning: str, measure: Measure, **more: object
) -> Feature:
    given: dict[str, object] = {"source": SOURCE, **more}
    return Feature(name, kind, unit, meaning, measure=measure, **given)  # type: ignore[arg-type]


def _of_flow() -> tuple[Feature, ...]:
    continuous, count, rate, binary = Kind.CONTINUOUS, Kind.COUNT, Kind.RATE, Kind.BINARY
    category, of = Kind.CATEGORICAL, _feature
    return (
        of("duration", continuous, "s", "last packet minus first packet",
           lambda view: view.dur_s),
        of("proto", category, "name", "IP protocol, if it is one of the vocabulary",
           lambda view: _PROTOCOL_CODE[view.flows["protocol"]], vocabulary=PROTOCOLS),
        of("ipv6", binary, "1", "1 for IPv6, 0 for IPv4",
           lambda view: view.flows["ip_version"] == 6),
        of("vlan", binary, "1", "whether the packets carry an IEEE 802.1Q tag with an id above 0",
           _present("vlan_id")),
        of("tunnel", binary, "1", "whether the packets are inside a tunnel that nDPI knows",
           _present("tunnel_id")),
        of("closed_by", category, "name", "why the record was closed: idle or active timeout, end "
           "of the connection, or cut by the end of the capture, a full table or shutdown",
           lambda view: _CLOSING_CODE[view.flows["ending"]], vocabulary=CLOSINGS),
        of("state", category, "name", "TCP: connection state by the SYN, FIN and RST that each "
           "side sent, in Zeek's names; SF where both sent FIN, RSTO before RSTR; other "
           "protocols: whether the destination answered",
           lambda view: state_codes(view.flows), vocabulary=STATES, source=ZEEK),
        of("failed", binary, "1", "TCP: nothing came back, or no SYN-ACK to a SYN, or a reset by "
           "the destination before any payload of its own; ICMP: a request without reply; "
           "else: nothing came back from a unicast address",
           lambda view: failed(view.flows)),
        of("icmp_kind", category, "name", "kind of the first packet's ICMP or ICMPv6 type",
           lambda view: icmp_kind_codes(view.flows), vocabulary=ICMP_KINDS),
        *itertools.chain.from_iterable(_of_side(*side) for side in _SIDES),
        of("packet_share", rate, "1", "source packets / all packets", _share("packets")),
        of("byte_share", rate, "1", "source frame bytes / all frame bytes", _share("bytes")),
        of("payload_share", rate, "1", "source payload bytes / all payload bytes, 0 without any",
           _share("payload_bytes")),
        of("answer_delay", continuous, "s", "first packet of the destination minus first packet "
           "of the source, 0 without an answer", _between_s("src_first_us", "dst_first_us")),
        of("synack", continuous, "s", "SYN to SYN-ACK, 0 if either is missing",
           _between_s("syn_us", "synack_us")),
        of("ackdat", continuous, "s", "SYN-ACK to the ACK that completes the handshake, 0 if "
           "either is missing", _between_s("synack_us", "ack_us")),
        *(of(f"early_{at + 1}", continuous, SIGNED_BYTES, f"payload size of packet {at + 1} of "
             "those with payload, negative if the destination sent it, 0 if there is none",
             _early(at)) for at in range(EARLY_PACKETS)),
        of("early_turns", count, "turns", f"changes of direction among the first {EARLY_PACKETS} "
           "packets with payload", _early_turns),
        of("application_protocol", category, "name", "protocol that nDPI sees: its name up to the "
           "first dot", _protocol_part, vocabulary=APPLICATIONS, source=NDPI),
        of("application", category, "name", "application that nDPI sees: its name from the last "
           "dot on, the protocol if there is none",
           lambda view: _APPLICATIONS.codes(view.flows["application"], last=True),
           vocabulary=APPLICATIONS, source=NDPI),
        of("category", category, "name", "category that nDPI gives the application",
           lambda view: _CATEGORIES.codes(view.flows["category"], last=False),
           vocabulary=CATEGORIES, source=NDPI),
        of("tls", binary, "1", "whether the protocol is TLS, DTLS, QUIC, DoH, DoT, or FTP or a "
           "mail protocol within TLS",
           lambda view: _SECURE[_protocol_part(view).astype(np.intp)], source=NDPI),
        of("quic", binary, "1", "whether the protocol is QUIC",
           lambda view: _QUIC[_protocol_part(view).astype(np.intp)], source=NDPI),
        of("name", binary, "1", "whether a server is named: TLS or QUIC SNI, HTTP Host, DNS query",
           _filled("server_name"), source=NDPI),
        of("name_length", count, "octets", "length of that name, at most 79",
           lambda view: text_lengths(_octets(view.flows["server_name"]))),
        of("name_labels", count, "labels", "labels of that name between dots",
           lambda view: text_labels(_octets(view.flows["server_name"]))),
        of("name_entropy", continuous, "bit", "Shannon entropy of that name's octets",
           lambda view: text_entropies(_octets(view.flows["server_name"]))),
        of("fingerprint", binary, "1", "whether there is a client fingerprint: JA4 of a TLS or "
           "QUIC client hello, HASSH of SSH", _filled("client_fingerprint"), source=JA4),
    )  # fmt: skip


def _of_side(side: str, who: str) -> tuple[Feature, ...]:
    continuous, count, rate = Kind.CONTINUOUS, Kind.COUNT, Kind.RATE
    category, of = Kind.CATEGORICAL, _feature
    terms = tuple(str(ttl) for ttl in INITIAL_TTLS)
    return (
        of(f"{side}_packets", count, "packets", f"packets of the {who}", _field(f"{side}_packets")),
        of(f"{side}_bytes", count, "bytes", f"frame bytes of the {who}", _field(f"{side}_bytes")),
        of(f"{side}_payload_bytes", count, "bytes", f"transport payload bytes of the {who}",
           _field(f"{side}_payload_bytes")),
        of(f"{side}_size_mean", continuous, "bytes", f"frame bytes / packets of the {who}",
           _mean(side)),
        of(f"{side}_size_max", count, "bytes", f"largest frame of the {who}",
           _field(f"{side}_size_max")),
        of(f"{side}_size_stddev", continuous, "bytes", "sample standard deviation of the frame "
           f"sizes of the {who}", _field(f"{side}_size_stddev")),
        of(f"{side}_payload_part", rate, "1", f"packets with payload / packets of the {who}",
           _part(f"{side}_payload_packets", f"{side}_packets")),
        of(f"{side}_push_part", rate, "1", f"TCP packets with PSH / packets of the {who}",
           _part(f"{side}_push_packets", f"{side}_packets")),
        of(f"{side}_rate", continuous, "packets/s", f"packets of the {who} / duration, 0 without "
           "duration", _per_second(side, "packets", 1.0)),
        of(f"{side}_load", continuous, "bit/s", f"8 frame bytes of the {who} / duration, 0 "
           "without duration", _per_second(side, "bytes", 8.0)),
        of(f"{side}_interval_mean", continuous, "s", f"mean time between packets of the {who}",
           _field_s(f"{side}_piat_mean_us")),
        of(f"{side}_interval_stddev", continuous, "s", "sample standard deviation of the time "
           f"between packets of the {who}", _field_s(f"{side}_piat_stddev_us")),
        of(f"{side}_interval_max", continuous, "s", f"longest time between packets of the {who}",
           _field_s(f"{side}_piat_max_us")),
        of(f"{side}_flags", category, "name", f"union of the TCP flags of the {who} without ECE "
           "and CWR; - for none and for other protocols", _flag_codes(side), vocabulary=FLAGS),
        of(f"{side}_retransmitted", count, "packets", "TCP segments that repeat sequence space, "
           f"of the {who}", _field(f"{side}_retransmitted")),
        of(f"{side}_window", count, "bytes", f"TCP window field of the first packet of the {who}",
           _field(f"{side}_window")),
        of(f"{side}_ttl_class", category, "name", f"what the TTL of the {who} started from: the "
           "least of the vocabulary that is not below the first packet's; none if it was silent",
           _ttl(side, _TTL_CODE, -1.0), vocabulary=terms),
        of(f"{side}_hops", count, "hops", "that start minus the TTL of the first packet of the "
           f"{who}, 0 if it was silent", _ttl(side, _TTL_HOPS, 0.0)),
        of(f"{side}_port_class", category, "name", f"service that the port of the {who} is known "
           f"for; else system below 1024, registered below {EPHEMERAL}, ephemeral; none for 0",
           lambda view: port_class_codes(view.flows[f"{side}_port"]), vocabulary=PORT_CLASSES),
        of(f"{side}_scope", category, "name", f"class of the address of the {who} (RFC 6890; "
           "private: RFC 1918, 6598, 4193)", _scope(side), vocabulary=SCOPES, source="RFC 6890"),
    )  # fmt: skip


_FADING = "faded over {} (docs of features.context: weight exp(-age / horizon))"


def context_features(
    names: tuple[str, ...] = NAMES, octets: str = "frame bytes"
) -> tuple[Feature, ...]:
    """Declarations of some columns of :class:`features.context.ContextWindows`.

    Args:
        names: the columns.
        octets: what the windows are given for a flow's bytes.
    """
    continuous, rate, binary = Kind.CONTINUOUS, Kind.RATE, Kind.BINARY
    fading: dict[str, tuple[Kind, str, str]] = {
        "src_flows": (continuous, "flows", "flows of the source"),
        "src_failed": (rate, "1", "failed flows of the source / its flows, both"),
        "src_peers": (continuous, "hosts", "distinct destinations of the source, each by its "
                      "latest flow"),
        "src_services": (continuous, "services", "distinct (protocol, destination port) of the "
                         "source, each by its latest flow"),
        "src_service_entropy": (continuous, "bit", "Shannon entropy of the source's flows over "
                                "(protocol, destination port), by counts"),
        "src_out_share": (rate, "1", f"{octets} that the source sent / sent and received in "
                          "its flows, both"),
        "dst_flows": (continuous, "flows", "flows to the destination"),
        "dst_failed": (rate, "1", "failed flows to the destination / flows to it, both"),
        "dst_peers": (continuous, "hosts", "distinct sources of flows to the destination, each "
                      "by its latest flow"),
        "pair_flows": (continuous, "flows", "flows from the source to the destination"),
    }  # fmt: skip
    long: dict[str, tuple[Kind, str, str]] = {
        "src_unreachable": (continuous, "packets", "packets to the source in ICMP or ICMPv6 "
                            "flows that begin with destination unreachable"),
        "pair_failed": (rate, "1", "failed flows from source to destination / flows, both"),
        "pair_out_share": (rate, "1", f"{octets} from source to destination / both ways, both"),
        "name_peers": (continuous, "hosts", "distinct sources that name this server, each by its "
                       "latest flow; 0 without a name"),
        "fingerprint_peers": (continuous, "hosts", "distinct sources with this client "
                              "fingerprint, each by its latest flow; 0 without one"),
    }  # fmt: skip
    plain: dict[str, tuple[Kind, str, str]] = {
        "pair_gap": (continuous, "s", "time since the previous flow from source to destination "
                     "ended, at most a day; a day for the first"),
        "src_new": (binary, "1", "1 for the first flow with the source's address on either side"),
        "dst_new": (binary, "1", "1 for the first flow with the destination's address on either "
                    "side"),
        "pair_new": (binary, "1", "1 for the first flow from the source to the destination"),
        "src_service_new": (binary, "1", "1 for the source's first flow to this (protocol, "
                            "destination port)"),
        "dst_service_new": (binary, "1", "1 until a flow to this destination and (protocol, "
                            "destination port) has not failed"),
        "name_new": (binary, "1", "1 for the source's first flow that names this server; 0 "
                     "without a name"),
        "fingerprint_new": (binary, "1", "1 for the source's first flow with this client "
                            "fingerprint; 0 without one"),
    }  # fmt: skip
    declared = dict(plain)
    for name, (kind, unit, meaning) in fading.items():
        for horizon in ("10s", "10m"):
            declared[f"{name}_{horizon}"] = (kind, unit, f"{meaning} {_FADING.format(horizon)}")
    for name, (kind, unit, meaning) in long.items():
        declared[f"{name}_10m"] = (kind, unit, f"{meaning} {_FADING.format('10m')}")
    return tuple(
        _feature(name, *declared[name][:2], declared[name][2], _window(name)) for name in names
    )


def window_keys(flows: FlowBatch) -> dict[str, NDArray[np.generic]]:
    """What :class:`features.context.ContextWindows` wants of ``[B]`` flows.

    `keys` ``[B, 9]`` (:func:`features.context.flow_keys`) and ``[B]`` each: `failed`,
    `out_bytes`, `in_bytes`, and `unreachable`, packets of ICMP destination unreachable.
    """
    protocol, icmp_type = flows["protocol"], flows["icmp_type"]
    service = protocol.astype(np.uint64) << np.uint64(16) | flows["dst_port"]
    unreachable = ((protocol == _ICMP) & (icmp_type == 3)) | (
        (protocol == _ICMP6) & (icmp_type == 1)
    )
    return {
        "keys": flow_keys(
            address_keys(flows["src_ip"]),
            address_keys(flows["dst_ip"]),
            service,
            _words(flows["server_name"]),
            _words(flows["client_fingerprint"]),
        ),
        "failed": failed(flows).astype(np.float64),
        "out_bytes": flows["src_bytes"].astype(np.float64),
        "in_bytes": flows["dst_bytes"].astype(np.float64),
        "unreachable": np.where(unreachable, flows["src_packets"], 0).astype(np.float64),
    }


def remeasure(rows: FloatArray, clock_us: int, rng: np.random.Generator) -> FloatArray:
    """Rows ``[N, F]`` as they are: all of them come from a sensor's own clock."""
    return rows.copy()


SCHEMA = Schema(
    name="flow",
    title="flowvane's own set, for learning a site",
    features=(*_of_flow(), *context_features()),
    # NFStream's own timeouts. 120 s outlast most keep-alives and the retries of a SYN (127 s in
    # all, the longest gap 64 s), so an attempt stays one flow; half an hour keeps a long
    # download one flow, yet a session that never ends is still looked at twice an hour.
    meter=MeterSettings(idle_timeout_s=120, active_timeout_s=1800),
    remeasure=remeasure,
    window_keys=window_keys,
    windows=lambda: OnceAFlow(ContextWindows()),
    early_reports=True,
)
