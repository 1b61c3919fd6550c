"""EVE-JSON events, as Suricata writes them and its schemas (7.0, 8.0) allow them.

What each reader needs (docs/eve.md): six fractional digits and ``+hhmm`` in timestamps, the
time of the flow's last packet, an ``alert`` event, ids within their usual ranges, and our own
details only in ``alert.metadata``, as arrays of strings.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from features.flows import Ending
from sensor.identity import address_texts, community_ids, flow_ids
from sensor.verdict import Alerts

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


class _Flow(NamedTuple):
    """What an event says of a flow beside its names."""

    first_us: int
    last_us: int
    protocol: int
    src_port: int
    dst_port: int
    vlan_id: int
    icmp_type: int
    icmp_code: int
    src_packets: int
    dst_packets: int
    src_bytes: int
    dst_bytes: int
    ending: int
    application: bytes


def alert_events(
    alerts: Alerts, model: str, places: Iterable[Mapping[str, str]]
) -> Iterator[dict[str, Any]]:
    """The EVE events of ``[A]`` alerts.

    Args:
        alerts: the flows and why they are anomalous.
        model: name of the model.
        places: where each was seen: ``{"in_iface": …}`` or ``{"pcap_filename": …}``.
    """
    flows = alerts.flows
    # Whole columns at once: an item of a structured array costs a microsecond.
    columns = (flows[name].tolist() for name in _Flow._fields)
    names = zip(*address_texts(flows), flow_ids(flows), community_ids(flows), strict=True)
    rows = map(_Flow._make, zip(*columns, strict=True))
    for flow, own, place, what in zip(
        rows, names, places, _alert_parts(alerts, model), strict=True
    ):
        yield _event(flow, own, place, what)


def _event(
    flow: _Flow, names: tuple[str, str, int, str], place: Mapping[str, str], alert: dict[str, Any]
) -> dict[str, Any]:
    src_ip, dst_ip, number, community = names
    ends: dict[str, Any] = {"src_ip": src_ip, "dest_ip": dst_ip}
    if flow.protocol in _PORT_PROTOCOLS:
        ends = {
            "src_ip": src_ip, "src_port": flow.src_port,
            "dest_ip": dst_ip, "dest_port": flow.dst_port,
        }  # fmt: skip
    last = timestamp(flow.last_us)
    event: dict[str, Any] = {
        "timestamp": last,
        "flow_id": number,
        **place,
        "event_type": "alert",
        **ends,
        "proto": PROTOCOL_NAMES.get(flow.protocol) or f"{flow.protocol:03d}",
    }
    if flow.vlan_id:
        event["vlan"] = [flow.vlan_id]
    if flow.protocol in (_ICMP, _ICMP6):
        event["icmp_type"], event["icmp_code"] = flow.icmp_type, flow.icmp_code
    event["community_id"] = community
    name = app_proto(flow.application)
    if name:
        event["app_proto"] = name
    event["direction"] = "to_server"
    event["alert"] = alert
    event["flow"] = {
        "pkts_toserver": flow.src_packets,
        "pkts_toclient": flow.dst_packets,
        "bytes_toserver": flow.src_bytes,
        "bytes_toclient": flow.dst_bytes,
        "start": timestamp(flow.first_us),
        "end": last,
        "age": (flow.last_us - flow.first_us) // 1_000_000,
        **({"reason": reason} if (reason := _FLOW_REASON.get(flow.ending)) else {}),
        **ends,
    }
    return event


def _alert_parts(alerts: Alerts, model: str) -> Iterator[dict[str, Any]]:
    """The ``alert`` objects of ``[A]`` alerts."""
    sid = signature_id(model)
    columns = (
        alerts.flows["application"].tolist(), alerts.score.tolist(), alerts.p_value.tolist(),
        alerts.severity.tolist(), alerts.reasons,
    )  # fmt: skip
    for application, score, p_value, severity, reasons in zip(*columns, strict=True):
        name = application.decode() or "Unknown"
        what = name if name != "Unknown" else "network"
        yield {
            "action": "allowed",
            "gid": 1,
            "signature_id": sid,
            "rev": 1,
            "signature": f"flowvane: anomalous {what} flow",
            "category": "Potentially Bad Traffic",
            "severity": severity,
            "metadata": {
                "model": [model],
                "score": [f"{score:.4f}"],
                "p_value": [f"{p_value:.6g}"],
                "features": [
                    f"{feature} observed={observed} expected={expected} part={part:.2f}"
                    for feature, observed, expected, part in reasons
                ],
                "application": [name],
            },
        }


def event_lines(alerts: Alerts, model: str, places: Iterable[Mapping[str, str]]) -> list[bytes]:
    """The events of alerts (:func:`alert_events`), each encoded as one line."""
    return [encode(event) for event in alert_events(alerts, model, places)]


def encode(event: dict[str, Any]) -> bytes:
    """One event as one line."""
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
