"""EVE-JSON events, as Suricata writes them and its schemas (7.0, 8.0) allow them.

What each reader needs (docs/eve.md): six fractional digits and ``+hhmm`` in timestamps, the
time of the flow's last packet, an ``alert`` event, ids within their usual ranges, and our own
details only in ``alert.metadata``, as arrays of strings.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from features.flows import Ending, unpack_address
from sensor.identity import community_id, flow_id
from sensor.verdict import Alert

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US = 253_402_300_799_999_999  # 9999-12-31, the end of what a timestamp can say
_ICMP, _ICMP6 = 1, 58
_PORT_PROTOCOLS = frozenset({6, 17, 132, 136})

PROTOCOL_NAMES = {
    1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH",
    58: "IPv6-ICMP", 88: "EIGRP", 89: "OSPFIGP", 103: "PIM", 112: "VRRP", 115: "L2TP",
    132: "SCTP", 136: "UDPLite",
}  # fmt: skip
"""Suricata's names of IP protocols; others are written as three digits, as Suricata does."""

APP_PROTOCOLS = {
    "HTTP": "http", "TLS": "tls", "DNS": "dns", "SSH": "ssh", "SMTP": "smtp", "IMAP": "imap",
    "POP3": "pop3", "FTP_CONTROL": "ftp", "FTP_DATA": "ftp-data", "QUIC": "quic",
    "SMBv1": "smb", "SMBv23": "smb", "DHCP": "dhcp", "NTP": "ntp", "SNMP": "snmp", "TFTP": "tftp",
    "Kerberos": "krb5", "RDP": "rdp", "SIP": "sip", "MQTT": "mqtt", "Modbus": "modbus",
    "DNP3": "dnp3", "NFS": "nfs", "IRC": "irc", "Telnet": "telnet", "BitTorrent": "bittorrent",
    "PostgreSQL": "pgsql", "LDAP": "ldap", "WebSocket": "websocket", "VNC": "rfb",
}  # fmt: skip
"""Suricata's app_proto of nDPI's protocols, where both know it."""

_FLOW_REASON: dict[int, str] = {
    Ending.IDLE: "timeout",
    Ending.ACTIVE: "timeout",
    Ending.FIN: "timeout",
    Ending.CAPTURE_END: "shutdown",
    Ending.EVICTED: "forced",
    Ending.SHUTDOWN: "shutdown",
}
"""Why Suricata says a flow ended; one that goes on (Ending.EARLY) has no reason."""

SID_OF_MODEL = {"unsw-nb15": 1_000_001, "nsl-kdd": 1_000_002}
"""Signature ids of the models that ship; others get one from :func:`signature_id`."""


def signature_id(model: str) -> int:
    """A stable id in the range for local rules, 1000000-1999999."""
    return SID_OF_MODEL.get(model, 1_100_000 + zlib.crc32(model.encode()) % 900_000)


def timestamp(time_us: int) -> str:
    """`time_us` after the epoch as Suricata writes times: ``2026-01-15T09:00:00.000001+0000``."""
    seconds, micros = divmod(min(max(int(time_us), 0), _LAST_US), 1_000_000)
    return f"{_second(seconds)}.{micros:06d}+0000"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def app_proto(application: bytes) -> str | None:
    """Suricata's name of an nDPI application, or None where it has none."""
    return APP_PROTOCOLS.get(application.decode().split(".")[0])


def alert_event(alert: Alert, model: str, place: dict[str, str]) -> dict[str, Any]:
    """The EVE event of an alert.

    Args:
        alert: the flow and why it is anomalous.
        model: name of the model.
        place: where it was seen: ``{"in_iface": …}`` or ``{"pcap_filename": …}``.
    """
    flow = alert.flow
    version, protocol = int(flow["ip_version"]), int(flow["protocol"])
    src = {"src_ip": unpack_address(flow["src_ip"], version)}
    dest = {"dest_ip": unpack_address(flow["dst_ip"], version)}
    ports: tuple[dict[str, int], dict[str, int]] = ({}, {})
    if protocol in _PORT_PROTOCOLS:
        ports = {"src_port": int(flow["src_port"])}, {"dest_port": int(flow["dst_port"])}
    event: dict[str, Any] = {
        "timestamp": timestamp(flow["last_us"]),
        "flow_id": flow_id(flow),
        **place,
        "event_type": "alert",
        **src,
        **ports[0],
        **dest,
        **ports[1],
        "proto": PROTOCOL_NAMES.get(protocol, f"{protocol:03d}"),
    }
    if flow["vlan_id"]:
        event["vlan"] = [int(flow["vlan_id"])]
    if protocol in (_ICMP, _ICMP6):
        event["icmp_type"], event["icmp_code"] = int(flow["icmp_type"]), int(flow["icmp_code"])
    event["community_id"] = community_id(flow)
    application = bytes(flow["application"])
    name = app_proto(application)
    if name:
        event["app_proto"] = name
    event["direction"] = "to_server"
    event["alert"] = _alert_part(alert, model, application.decode())
    event["flow"] = {
        "pkts_toserver": int(flow["src_packets"]),
        "pkts_toclient": int(flow["dst_packets"]),
        "bytes_toserver": int(flow["src_bytes"]),
        "bytes_toclient": int(flow["dst_bytes"]),
        "start": timestamp(flow["first_us"]),
        "end": timestamp(flow["last_us"]),
        "age": int((flow["last_us"] - flow["first_us"]) // 1_000_000),
        **({"reason": reason} if (reason := _FLOW_REASON.get(int(flow["ending"]))) else {}),
        **src,
        **ports[0],
        **dest,
        **ports[1],
    }
    return event


def _alert_part(alert: Alert, model: str, application: str) -> dict[str, Any]:
    what = application if application and application != "Unknown" else "network"
    return {
        "action": "allowed",
        "gid": 1,
        "signature_id": signature_id(model),
        "rev": 1,
        "signature": f"flowvane: anomalous {what} flow",
        "category": "Potentially Bad Traffic",
        "severity": alert.severity,
        "metadata": {
            "model": [model],
            "score": [f"{alert.score:.4f}"],
            "p_value": [f"{alert.p_value:.6g}"],
            "features": [
                f"{r.feature} observed={r.observed} expected={r.expected} part={r.part:.2f}"
                for r in alert.reasons
            ],
            "application": [application or "Unknown"],
        },
    }


def encode(event: dict[str, Any]) -> bytes:
    """One event as one line."""
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
