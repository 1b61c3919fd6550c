"""From columns of conn.log to rows of :data:`features.zeek_conn.CONN_DTYPE`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from communityid import icmp, icmp6
from numpy.typing import NDArray

from features.flows import Ending, FlowBatch, TcpFlag, empty_flows, pack_address
from features.schema import FloatArray
from features.zeek_conn import CONN_DTYPE
from sensor.zeek.columns import NEEDED, Columns, Fault, Faulty, shown

_ICMP, _TCP, _UDP, _ICMP6, _RESERVED = 1, 6, 17, 58, 255
_TRANSPORTS = {b"tcp": _TCP, b"udp": _UDP, b"icmp": _ICMP, b"unknown_transport": _RESERVED}
_MOST = float(2**53)
_LONGEST_S = 1e9
"""A connection that is said to have lasted longer, 31 years, has not."""

APPLICATIONS = {
    b"dhcp": b"DHCP", b"dnp3_tcp": b"DNP3", b"dnp3_udp": b"DNP3", b"dns": b"DNS",
    b"ftp": b"FTP_CONTROL", b"ftp-data": b"FTP_DATA", b"http": b"HTTP", b"imap": b"IMAP",
    b"irc": b"IRC", b"krb": b"Kerberos", b"krb_tcp": b"Kerberos", b"ldap_tcp": b"LDAP",
    b"ldap_udp": b"LDAP", b"modbus": b"Modbus", b"mqtt": b"MQTT", b"mysql": b"MySQL",
    b"ntp": b"NTP", b"pop3": b"POP3", b"postgresql": b"PostgreSQL", b"quic": b"QUIC",
    b"radius": b"Radius", b"rdp": b"RDP", b"redis": b"Redis", b"rfb": b"VNC", b"sip": b"SIP",
    b"smb": b"SMBv23", b"smtp": b"SMTP", b"snmp": b"SNMP", b"socks": b"SOCKS", b"ssh": b"SSH",
    b"ssl": b"TLS", b"syslog": b"Syslog", b"tftp": b"TFTP", b"websocket": b"WebSocket",
}  # fmt: skip
"""nDPI's names of Zeek's protocols, by which events and suppression rules know applications."""

_FLAGS = {
    "S": TcpFlag.SYN, "H": TcpFlag.SYN | TcpFlag.ACK, "A": TcpFlag.ACK, "D": TcpFlag.ACK,
    "F": TcpFlag.FIN, "R": TcpFlag.RST,
}  # fmt: skip
"""TCP flags that a letter of `history` stands for."""


def _flag_table(letters: dict[str, int]) -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for letter, flags in letters.items():
        table[ord(letter)] = flags
    return table


_SRC_FLAGS = _flag_table({letter: int(flags) for letter, flags in _FLAGS.items()})
_DST_FLAGS = _flag_table({letter.lower(): int(flags) for letter, flags in _FLAGS.items()})
# Zeek puts the type of the answer into id.resp_p where a type has one, and else the code.
_ONE_WAY = {
    _ICMP: np.array([icmp.get_port_equivalents(number, 0)[2] for number in range(256)]),
    _ICMP6: np.array([icmp6.get_port_equivalents(number, 0)[2] for number in range(256)]),
}


def records(columns: Columns) -> FlowBatch:
    """The connections of ``[B]`` lines.

    Raises:
        Faulty: one of the lines cannot be read; the message is on the first fault that was found.
    """
    for name in NEEDED:
        if not columns.given(name):
            raise Faulty(Fault.LACKING, f"{name} is not set")
    flows = empty_flows(columns.count, CONN_DTYPE)
    flows["first_us"] = columns.times_us("ts")
    flows["last_us"] = flows["first_us"] + _duration_us(columns)
    _put_ends(flows, columns)
    for name, field in (
        ("orig_bytes", "src_payload_bytes"), ("resp_bytes", "dst_payload_bytes"),
        ("orig_pkts", "src_packets"), ("resp_pkts", "dst_packets"),
        ("orig_ip_bytes", "src_bytes"), ("resp_ip_bytes", "dst_bytes"),
        ("missed_bytes", "missed_bytes"),
    ):  # fmt: skip
        flows[field] = _whole(columns, name, _MOST)
    for name in ("local_orig", "local_resp"):
        flows[name] = columns.truths(name)
    flows["tunnelled"] = columns.filled("tunnel_parents")
    for name in ("conn_state", "history", "uid", "community_id"):
        flows[name] = columns.texts(name)
    services = list(map(confirmed, columns.texts("service")))
    flows["service"], flows["application"] = zip(*services, strict=True)
    _put_flags(flows)
    flows["ending"] = Ending.UNKNOWN
    return flows


@lru_cache(maxsize=4096)
def confirmed(service: bytes) -> tuple[bytes, bytes]:
    """What `service` says: protocols, sorted, and what nDPI calls the first that it knows.

    Protocols behind a minus were taken back. Where nDPI knows none it is the first, or ``Unknown``.
    """
    names = sorted(name for name in service.lower().split(b",") if name and name[:1] != b"-")
    known = [APPLICATIONS[name] for name in names if name in APPLICATIONS]
    return b",".join(names), (*known, *names, b"Unknown")[0]


def _duration_us(columns: Columns) -> NDArray[np.int64]:
    """0 where Zeek sets none: there is but one packet."""
    seconds, _ = columns.numbers("duration")
    _check_range("duration", seconds, _LONGEST_S)
    return np.rint(seconds * 1e6).astype(np.int64)


def _whole(columns: Columns, name: str, most: float) -> NDArray[np.uint64]:
    values, _ = columns.numbers(name)
    _check_range(name, values, most)
    if (values != np.floor(values)).any():
        raise Faulty(Fault.VALUE, f"{name} is not a whole number")
    return values.astype(np.uint64)


def _check_range(name: str, values: FloatArray, most: float) -> None:
    wrong = ~((values >= 0.0) & (values <= most))
    if wrong.any():
        raise Faulty(Fault.VALUE, f"{name} is {values[wrong][0]:g}, out of range")


def _put_ends(flows: FlowBatch, columns: Columns) -> None:
    """Addresses, ports, protocol and what else names a flow."""
    for name, field in (("id.orig_h", "src_ip"), ("id.resp_h", "dst_ip")):
        packed = _addresses(name, columns.texts(name))
        flows[field], flows["ip_version"] = packed[:, :16], packed[:, 16]
    protocol = _protocols(columns, flows["ip_version"])
    flows["protocol"] = protocol
    src, dst = _whole(columns, "id.orig_p", 65535), _whole(columns, "id.resp_p", 65535)
    message = np.zeros(len(flows), bool)
    for number, one_way in _ONE_WAY.items():
        mine = protocol == number
        message |= mine
        flows["icmp_type"] = np.where(mine, src, flows["icmp_type"])
        code = np.where(one_way[(src & 255).astype(np.intp)], dst, 0)
        flows["icmp_code"] = np.where(mine, code, flows["icmp_code"])
    flows["src_port"], flows["dst_port"] = np.where(message, 0, src), np.where(message, 0, dst)
    outer, inner = _whole(columns, "vlan", 4095), _whole(columns, "inner_vlan", 4095)
    flows["vlan_id"] = np.where(inner > 0, inner, outer)


def _protocols(columns: Columns, version: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """IP protocol numbers: as the log has them from Zeek 7.1 on, else by `proto`."""
    names = columns.texts("proto")
    try:
        named = np.array([_TRANSPORTS[name] for name in names], np.uint8)
    except KeyError as error:
        raise Faulty(Fault.VALUE, f"proto is {shown(error.args[0])}") from None
    named = np.where((named == _ICMP) & (version == 6), _ICMP6, named).astype(np.uint8)
    number, unset = columns.numbers("ip_proto")
    _check_range("ip_proto", number, 255)
    return np.where(unset, named, number).astype(np.uint8)


def _addresses(name: str, texts: Sequence[bytes]) -> NDArray[np.uint8]:
    """Addresses as flows have them, and their IP version, ``[B, 17]``."""
    try:
        packed = b"".join(map(_packed, texts))
    except ValueError:
        wrong = next(text for text in texts if not _is_address(text))
        raise Faulty(Fault.VALUE, f"{name} is {shown(wrong)}, not an address") from None
    return np.frombuffer(packed, np.uint8).reshape(len(texts), 17)


@lru_cache(maxsize=1 << 16)
def _packed(text: bytes) -> bytes:
    address = text.decode("ascii")
    return pack_address(address) + bytes([6 if ":" in address else 4])


def _is_address(text: bytes) -> bool:
    try:
        _packed(text)
    except ValueError:
        return False
    return True


def _put_flags(flows: FlowBatch) -> None:
    """The TCP flags that each side sent, as far as `history` tells."""
    letters = np.ascontiguousarray(flows["history"]).view(np.uint8).reshape(len(flows), -1)
    tcp = flows["protocol"] == _TCP
    for side, table in (("src", _SRC_FLAGS), ("dst", _DST_FLAGS)):
        flags = np.bitwise_or.reduce(table[letters], axis=1)
        flows[f"{side}_tcp_flags"] = np.where(tcp, flags, 0)
