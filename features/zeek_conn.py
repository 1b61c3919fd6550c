"""zeek-conn: the columns of Zeek's conn.log, for scoring Zeek's own connections.

All of it is measured from records of conn.log; no packet meter makes them, and no other schema's
model scores them. Source is the originator, destination the responder. Names are Zeek's where a
feature is a column of the log; the context of hosts is that of :mod:`features.context`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from features.context import NAMES, ContextWindows, flow_keys
from features.flow import (
    EPHEMERAL,
    ICMP_KINDS,
    PORT_CLASSES,
    SCOPES,
    context_features,
    icmp_kind_codes,
    port_class_codes,
    remeasure,
    scope_codes,
)
from features.flows import FLOW_FIELDS, Field, FlowBatch, address_keys
from features.schema import (
    Feature,
    FloatArray,
    FlowView,
    Kind,
    Measure,
    Medium,
    MeterSettings,
    Schema,
)

ZEEK = "Zeek, base/protocols/conn"
OURS = f"flowvane, of {ZEEK}"

_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58

# ---------------------------------------------------------------------------------------
# The record

NO, YES, UNSET = 0, 1, 2
"""Values of the fields for Zeek's optional booleans."""

CONN_FIELDS: tuple[Field, ...] = (
    *FLOW_FIELDS,
    Field("conn_state", "S8", "name", "conn_state"),
    Field("service", "S48", "names", "service: confirmed protocols, sorted, with commas between"),
    Field("history", "S64", "letters", "history, cut after 64 letters"),
    Field("missed_bytes", "u8", "bytes", "missed_bytes"),
    Field("local_orig", "u1", "enum", "local_orig: NO, YES or UNSET"),
    Field("local_resp", "u1", "enum", "local_resp: NO, YES or UNSET"),
    Field("tunnelled", "u1", "1", "1 if tunnel_parents names any"),
    Field("uid", "S32", "name", "uid"),
    Field("community_id", "S32", "name", "community_id, nothing where the log has none"),
)
"""A flow record with what conn.log says beside. Of a flow's own fields it has addresses, ports,
protocol, `vlan_id`, `icmp_type`, `icmp_code`, `first_us`, `last_us`, `application` (nDPI's name of
the service where there is one), packets, payload bytes and, by `history`, TCP flags;
`src_bytes` and `dst_bytes` are IP bytes. The others are as of an empty flow."""

CONN_DTYPE = np.dtype([(field.name, field.dtype) for field in CONN_FIELDS])

# ---------------------------------------------------------------------------------------
# Vocabularies

TRANSPORTS: tuple[str, ...] = ("tcp", "udp", "icmp", "unknown_transport")

STATES: tuple[str, ...] = (
    "S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH",
)  # fmt: skip

NO_SERVICE = "-"
SERVICES: tuple[str, ...] = (
    NO_SERVICE, "ayiya", "bacnet", "bittorrent", "bsap", "cip", "dce_rpc", "dhcp", "dnp3_tcp",
    "dnp3_udp", "dns", "enip", "finger", "ftp", "ftp-data", "geneve", "genisys", "gnutella",
    "gssapi", "gtpv1", "hart_ip", "http", "http2", "ident", "imap", "ipsec", "irc", "irc-data",
    "krb", "krb_tcp", "ldap_tcp", "ldap_udp", "login", "modbus", "mqtt", "mysql", "nfs", "ntlm",
    "ntp", "opcua_binary", "openvpn", "pop3", "portmapper", "postgresql", "profinet_io_cm",
    "quic", "radius", "rdp", "rdpeudp", "redis", "rfb", "rsh", "s7comm", "sip", "smb", "smtp",
    "snmp", "socks", "ssh", "ssl", "stun", "synchrophasor", "syslog", "tds", "telnet", "teredo",
    "tftp", "vxlan", "websocket", "wireguard", "xmpp",
)  # fmt: skip
"""Names of Zeek's analyzers, and of those of ICSNPP and Spicy that sites run with it."""

LOCAL: tuple[str, ...] = ("no", "yes", "unset")

_FAILED_STATES = ("S0", "REJ", "RSTOS0", "SH")

# ---------------------------------------------------------------------------------------
# Rules


def _of_texts(texts: NDArray[np.bytes_], value: Callable[[bytes], float]) -> FloatArray:
    """`value` of each of ``[B]`` texts, asked once for each that differs; ``[B]``."""
    differing, which = np.unique(texts, return_inverse=True)
    found = np.array([value(text) for text in differing.tolist()], np.float64)
    return found[which.reshape(len(texts))]


_STATE_CODES = {term.encode(): float(at) for at, term in enumerate(STATES)}
_SERVICE_CODES = {term.encode(): float(at) for at, term in enumerate(SERVICES)}


def _first_service(text: bytes) -> float:
    return _SERVICE_CODES.get(text.partition(b",")[0] or NO_SERVICE.encode(), -1.0)


def _services(text: bytes) -> float:
    return float(text.count(b",") + (text != b""))


def _transport(view: FlowView) -> FloatArray:
    protocol = view.flows["protocol"]
    named = [protocol == _TCP, protocol == _UDP, (protocol == _ICMP) | (protocol == _ICMP6)]
    return np.select(named, [0.0, 1.0, 2.0], float(TRANSPORTS.index("unknown_transport")))


def failed(flows: FlowBatch) -> NDArray[np.bool_]:
    """Whether each connection came to nothing, ``[B]``.

    TCP: S0, REJ, RSTOS0 or SH. ICMP: a request (echo, timestamp, address mask) without a packet
    back. Other protocols: no packet back, unless the destination is a multicast or broadcast
    address, from which none comes.
    """
    protocol, icmp_type = flows["protocol"], flows["icmp_type"]
    refused = np.isin(flows["conn_state"], [state.encode() for state in _FAILED_STATES])
    request = np.isin(icmp_type, (8, 13, 17))
    scope = scope_codes(np.ascontiguousarray(flows["dst_ip"]))
    many = np.isin(scope, [SCOPES.index("multicast"), SCOPES.index("broadcast")])
    asked = ~many & ((protocol != _ICMP) | request) & ((protocol != _ICMP6) | (icmp_type == 128))
    result: NDArray[np.bool_] = np.where(
        protocol == _TCP, refused, (flows["dst_packets"] == 0) & asked
    )
    return result


def _letters(flows: FlowBatch) -> NDArray[np.uint8]:
    """The letters of each history, ``[B, 64]``, 0 after the last."""
    history = np.ascontiguousarray(flows["history"])
    return history.view(np.uint8).reshape(len(history), history.itemsize)


def _has(letter: str) -> Measure:
    return lambda view: (_letters(view.flows) == ord(letter)).any(axis=1)


def _count(letter: str) -> Measure:
    return lambda view: (_letters(view.flows) == ord(letter)).sum(axis=1)


def _length(view: FlowView) -> NDArray[np.generic]:
    length: NDArray[np.generic] = (_letters(view.flows) != 0).sum(axis=1)
    return length


def _turns(view: FlowView) -> NDArray[np.generic]:
    """How often a letter of one side comes right after one of the other."""
    letters = _letters(view.flows)
    lower, upper = letters & 0x60 == 0x60, (letters & 0x60 == 0x40) & (letters != ord("^"))
    turns: NDArray[np.generic] = (
        (lower[:, 1:] & upper[:, :-1]) | (upper[:, 1:] & lower[:, :-1])
    ).sum(axis=1)
    return turns


def _field(name: str) -> Measure:
    return lambda view: view.flows[name]


def _window(name: str) -> Measure:
    return lambda view: view.windows[name]


def _share(name: str) -> Measure:
    """The originator's part of a sum over both directions, 0 where there is nothing."""

    def measure(view: FlowView) -> FloatArray:
        share: FloatArray = view.flows[f"src_{name}"] / np.maximum(view.total(name), 1.0)
        return share

    return measure


def _mean(side: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        packets = np.maximum(view.flows[f"{side}_packets"], 1).astype(np.float64)
        mean: FloatArray = view.flows[f"{side}_bytes"] / packets
        return mean

    return measure


def _payload_part(side: str) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        whole = np.maximum(view.flows[f"{side}_bytes"], 1).astype(np.float64)
        part: FloatArray = np.minimum(view.flows[f"{side}_payload_bytes"] / whole, 1.0)
        return part

    return measure


def _per_second(side: str, name: str, factor: float) -> Measure:
    def measure(view: FlowView) -> FloatArray:
        rate = factor * view.flows[f"{side}_{name}"] / np.where(view.dur_s > 0, view.dur_s, np.inf)
        return rate.astype(np.float64)

    return measure


# ---------------------------------------------------------------------------------------
# Declarations

_SEEN = (
    ("syn", "s", "a SYN without ACK"), ("synack", "h", "a SYN-ACK"),
    ("ack", "a", "a pure ACK"), ("data", "d", "a packet with payload"),
    ("fin", "f", "a FIN"), ("rst", "r", "a RST"), ("odd_flags", "q", "SYN with FIN or RST"),
    ("inconsistent", "i", "an inconsistent packet"),
    ("partial", "x", "analysis that was given up"),
)  # fmt: skip
_COUNTED = (
    ("bad_checksums", "c", "bad checksums"), ("gaps", "g", "content gaps"),
    ("retransmissions", "t", "retransmitted payload"), ("zero_windows", "w", "zero windows"),
)  # fmt: skip
_SIDES = (("orig", "src", "originator"), ("resp", "dst", "responder"))
_CONTEXT = tuple(name for name in NAMES if not name.startswith(("name_", "fingerprint_")))
"""conn.log names no servers and has no fingerprints."""


def _feature(name: str, kind: Kind, unit: str, meaning: str, measure: Measure,
             source: str = ZEEK, vocabulary: tuple[str, ...] = ()) -> Feature:  # fmt: skip
    return Feature(name, kind, unit, meaning, source, measure=measure, vocabulary=vocabulary)


def _of_connection() -> tuple[Feature, ...]:
    count, rate, binary, category = Kind.COUNT, Kind.RATE, Kind.BINARY, Kind.CATEGORICAL
    of = _feature
    return (
        of("duration", Kind.CONTINUOUS, "s", "duration, 0 if unset", lambda view: view.dur_s),
        of("proto", category, "name", "proto", _transport, vocabulary=TRANSPORTS),
        of("ipv6", binary, "1", "1 for IPv6 addresses, 0 for IPv4",
           lambda view: view.flows["ip_version"] == 6, OURS),
        of("service", category, "name", "first confirmed protocol in service, by name; - if unset",
           lambda view: _of_texts(view.flows["service"], _first_service), vocabulary=SERVICES),
        of("services", count, "protocols", "confirmed protocols in service",
           lambda view: _of_texts(view.flows["service"], _services)),
        of("conn_state", category, "name", "conn_state",
           lambda view: _of_texts(
               view.flows["conn_state"], lambda text: _STATE_CODES.get(text, -1.0)
           ), vocabulary=STATES),
        of("failed", binary, "1", "TCP: conn_state is S0, REJ, RSTOS0 or SH; ICMP: a request "
           "without a packet back; else: no packet back from a unicast address",
           lambda view: failed(view.flows), OURS),
        of("local_orig", category, "name", "local_orig", _field("local_orig"), vocabulary=LOCAL),
        of("local_resp", category, "name", "local_resp", _field("local_resp"), vocabulary=LOCAL),
        of("missed_bytes", count, "bytes", "missed_bytes", _field("missed_bytes")),
        of("tunnelled", binary, "1", "whether tunnel_parents names a connection",
           _field("tunnelled")),
        of("icmp_kind", category, "name", "kind of the ICMP or ICMPv6 type, which is id.orig_p",
           lambda view: icmp_kind_codes(view.flows), OURS, ICMP_KINDS),
        *itertools.chain.from_iterable(_of_side(*side) for side in _SIDES),
        of("packet_share", rate, "1", "orig_pkts / packets both ways", _share("packets"), OURS),
        of("byte_share", rate, "1", "orig_ip_bytes / IP bytes both ways", _share("bytes"), OURS),
        of("payload_share", rate, "1", "orig_bytes / payload bytes both ways, 0 without any",
           _share("payload_bytes"), OURS),
        of("history_length", count, "letters", "letters in history, at most 64", _length, OURS),
        of("history_turns", count, "turns", "changes of side in history", _turns, OURS),
        of("flipped", binary, "1", "whether history has ^: Zeek took the sides for one another",
           _has("^")),
    )  # fmt: skip


def _of_side(name: str, side: str, who: str) -> tuple[Feature, ...]:
    continuous, count, category = Kind.CONTINUOUS, Kind.COUNT, Kind.CATEGORICAL
    of, case = _feature, str.upper if name == "orig" else str.lower
    return (
        of(f"{name}_bytes", count, "bytes", f"{name}_bytes, 0 if unset",
           _field(f"{side}_payload_bytes")),
        of(f"{name}_pkts", count, "packets", f"{name}_pkts", _field(f"{side}_packets")),
        of(f"{name}_ip_bytes", count, "bytes", f"{name}_ip_bytes", _field(f"{side}_bytes")),
        of(f"{name}_size_mean", continuous, "bytes", f"{name}_ip_bytes / {name}_pkts", _mean(side),
           OURS),
        of(f"{name}_payload_part", Kind.RATE, "1", f"{name}_bytes / {name}_ip_bytes, at most 1",
           _payload_part(side), OURS),
        of(f"{name}_rate", continuous, "packets/s", f"{name}_pkts / duration, 0 without one",
           _per_second(side, "packets", 1.0), OURS),
        of(f"{name}_load", continuous, "bit/s", f"8 {name}_ip_bytes / duration, 0 without one",
           _per_second(side, "bytes", 8.0), OURS),
        *(of(f"{name}_{what}", Kind.BINARY, "1", f"whether history has {case(letter)}: {meaning} "
             f"of the {who}", _has(case(letter))) for what, letter, meaning in _SEEN),
        *(of(f"{name}_{what}", count, "letters", f"how often history has {case(letter)}, once for "
             f"each decimal place of how often there were {meaning} of the {who}",
             _count(case(letter))) for what, letter, meaning in _COUNTED),
        of(f"{name}_port_class", category, "name", f"service that the port of the {who} is known "
           f"for; else system below 1024, registered below {EPHEMERAL}, ephemeral; none for 0 and "
           "ICMP", lambda view: port_class_codes(view.flows[f"{side}_port"]), OURS, PORT_CLASSES),
        of(f"{name}_scope", category, "name", f"class of the address of the {who} (RFC 6890; "
           "private: RFC 1918, 6598, 4193)",
           lambda view: scope_codes(np.ascontiguousarray(view.flows[f"{side}_ip"])),
           "RFC 6890", SCOPES),
    )  # fmt: skip


def window_keys(flows: FlowBatch) -> dict[str, NDArray[np.generic]]:
    """What :class:`features.context.ContextWindows` wants of ``[B]`` connections."""
    protocol, icmp_type = flows["protocol"], flows["icmp_type"]
    service = protocol.astype(np.uint64) << np.uint64(16) | flows["dst_port"]
    nothing = np.zeros((len(flows), 1), np.uint64)
    unreachable = ((protocol == _ICMP) & (icmp_type == 3)) | (
        (protocol == _ICMP6) & (icmp_type == 1)
    )
    return {
        "keys": flow_keys(
            address_keys(flows["src_ip"]), address_keys(flows["dst_ip"]), service, nothing, nothing
        ),
        "failed": failed(flows).astype(np.float64),
        "out_bytes": flows["src_bytes"].astype(np.float64),
        "in_bytes": flows["dst_bytes"].astype(np.float64),
        "unreachable": np.where(unreachable, flows["src_packets"], 0).astype(np.float64),
    }


SCHEMA = Schema(
    name="zeek-conn",
    title="The columns of Zeek's conn.log",
    features=(*_of_connection(), *context_features(_CONTEXT, "IP bytes")),
    # Zeek cuts connections itself: by tcp_inactivity_timeout after 5 minutes without a packet,
    # its longest, and never by age. So no record is later than that.
    meter=MeterSettings(idle_timeout_s=300, active_timeout_s=0),
    remeasure=remeasure,
    window_keys=window_keys,
    windows=lambda: ContextWindows(names=_CONTEXT),
    medium=Medium.ZEEK_CONN,
    record=CONN_DTYPE,
)
