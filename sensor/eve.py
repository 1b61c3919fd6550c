"""EVE-JSON events, as Suricata writes them and its schemas (7.0, 8.0) allow them.

What each reader needs (docs/eve.md): six fractional digits and ``+hhmm`` in timestamps, the
time of the flow's last packet, an ``alert`` event, ids within their usual ranges, and our own
details only where both schemas are open: in ``alert.metadata``, as arrays of strings, and outside
of alerts in ``metadata.flowints``, integers, and ``metadata.flowvars``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from features.flows import Ending, FlowBatch, TcpFlag
from features.schema import FloatArray
from sensor.identity import address_texts, community_ids, flow_ids
from sensor.signatures import SIGNATURES, Kind, kinds_of, signature_id
from sensor.verdict import Alerts, GroupReport, Reason, Reasons, Remainder

if TYPE_CHECKING:
    from models.detector import Scores

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US = 253_402_300_799_999_999  # 9999-12-31, the end of what a timestamp can say
_ICMP, _TCP, _ICMP6 = 1, 6, 58
_NEW = 8
_FLAG_NAMES = [
    (TcpFlag.SYN, "syn"), (TcpFlag.FIN, "fin"), (TcpFlag.RST, "rst"), (TcpFlag.PSH, "psh"),
    (TcpFlag.ACK, "ack"), (TcpFlag.URG, "urg"), (TcpFlag.ECE, "ecn"), (TcpFlag.CWR, "cwr"),
]  # fmt: skip
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

PARTS_OF_SCORE, PARTS_OF_P = 1_000, 1_000_000_000
"""What a score and a p-value are multiplied by where they must be integers."""
_MOST = 2**53  # up to there a reader that takes numbers for doubles is exact, too


@dataclass(frozen=True, slots=True)
class Style:
    """How events are written, the same for all events of an output.

    Attributes:
        version: of Suricata, whose schema is kept to: 7 (valid under 8.0, too) or 8, which has
            numbers of ours in ``alert.context``, and ``ip_v``.
        host: name of the sensor, or None.
        community_id: whether events have one.
    """

    version: int = 7
    host: str | None = None
    community_id: bool = True


PLAIN = Style()


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
    ip_version: int
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


_Part = tuple[str, dict[str, Any]]
"""A key of an event, and what stands there."""


def alert_events(
    alerts: Alerts, model: str, places: Iterable[Mapping[str, str]], style: Style = PLAIN
) -> Iterator[dict[str, Any]]:
    """The EVE events of ``[A]`` alerts.

    Args:
        alerts: the flows and why they are anomalous.
        model: name of the model.
        places: where each was seen: ``{"in_iface": …}``, ``{"pcap_filename": …}`` or nothing.
        style: how to write them.
    """
    parts = ((("alert", alert),) for alert in _alert_parts(alerts, model, style))
    return _events("alert", alerts.flows, places, parts, style)


def anomaly_events(
    alerts: Alerts, model: str, places: Iterable[Mapping[str, str]], style: Style = PLAIN
) -> Iterator[dict[str, Any]]:
    """As :func:`alert_events`, but with ``event_type`` `anomaly`."""
    return _events("anomaly", alerts.flows, places, _anomaly_parts(alerts, model), style)


def flow_events(
    flows: FlowBatch, scores: Scores, alerted: NDArray[np.bool_], model: str,
    places: Iterable[Mapping[str, str]], style: Style = PLAIN,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The EVE `flow` events of ``[B]`` flows.

    Args:
        flows: the flows.
        scores: what `model` says of them.
        alerted: whether each is an alert, or is counted in one.
        model, places, style: as for :func:`alert_events`.
    """
    by = {"key": "flowvane_model", "value": model}
    parts = (
        (
            *((("tcp", _tcp(*flags)),) if protocol == _TCP else ()),
            ("metadata", {"flowints": numbers, "flowvars": [
                by, *({"key": f"flowvane_{name}", "value": value} for name, value in zeek.items())
            ]}),
        )
        for protocol, flags, numbers, zeek in zip(
            flows["protocol"].tolist(),
            zip(flows["src_tcp_flags"].tolist(), flows["dst_tcp_flags"].tolist(), strict=True),
            _flowints(scores.score, scores.p_value), _zeek_names(flows), strict=True,
        )
    )  # fmt: skip
    events = _events("flow", flows, places, parts, style)
    for event, state, alert in zip(events, _states(flows), alerted.tolist(), strict=True):
        event["flow"]["state"], event["flow"]["alerted"] = state, alert
        yield event


def _events(
    event_type: str, flows: FlowBatch, places: Iterable[Mapping[str, str]],
    parts: Iterable[Sequence[_Part]], style: Style,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Events on ``[B]`` flows, with parts that only this type of event has."""
    # Whole columns at once: an item of a structured array costs a microsecond.
    columns = (flows[name].tolist() for name in _Flow._fields)
    communities = community_ids(flows) if style.community_id else [None] * len(flows)
    names = zip(*address_texts(flows), flow_ids(flows), communities, strict=True)
    rows = map(_Flow._make, zip(*columns, strict=True))
    for flow, own, place, more in zip(rows, names, places, parts, strict=True):
        yield _event(event_type, flow, own, place, more, style)


def _event(
    event_type: str, flow: _Flow, names: tuple[str, str, int, str | None],
    place: Mapping[str, str], parts: Sequence[_Part], style: Style,
) -> dict[str, Any]:  # fmt: skip
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
        "event_type": event_type,
        **ends,
        "proto": PROTOCOL_NAMES.get(flow.protocol) or f"{flow.protocol:03d}",
    }
    if style.version >= _NEW:
        event["ip_v"] = flow.ip_version
    if flow.vlan_id:
        event["vlan"] = [flow.vlan_id]
    if flow.protocol in (_ICMP, _ICMP6):
        event["icmp_type"], event["icmp_code"] = flow.icmp_type, flow.icmp_code
    if community is not None:
        event["community_id"] = community
    name = app_proto(flow.application)
    if name:
        event["app_proto"] = name
    if event_type != "flow":  # Suricata's flow events have no direction, and name no ends twice
        event["direction"] = "to_server"
    event.update(parts)
    event["flow"] = {
        "pkts_toserver": flow.src_packets,
        "pkts_toclient": flow.dst_packets,
        "bytes_toserver": flow.src_bytes,
        "bytes_toclient": flow.dst_bytes,
        "start": timestamp(flow.first_us),
        "end": last,
        # As Suricata reckons it: of a flow from 0.9 s to 1.1 s it is 1.
        "age": flow.last_us // 1_000_000 - flow.first_us // 1_000_000,
        **({"reason": reason} if (reason := _FLOW_REASON.get(flow.ending)) else {}),
        **(ends if event_type != "flow" else {}),
    }
    if style.host is not None:
        event["host"] = style.host
    return event


def _states(flows: FlowBatch) -> list[str]:
    """How far each flow got, in Suricata's words: `new`, `established` or `closed`."""
    states = np.where(flows["dst_packets"] > 0, "established", "new")
    for side in ("src", "dst"):
        gone = flows[f"{side}_tcp_flags"] & (TcpFlag.FIN | TcpFlag.RST)
        states[(flows["protocol"] == _TCP) & (gone != 0)] = "closed"
    found: list[str] = states.tolist()
    return found


@lru_cache(maxsize=4096)
def _tcp(to_server: int, to_client: int) -> dict[str, Any]:
    """The ``tcp`` object of a flow: the flags seen, as numbers and by name."""
    both = to_server | to_client
    return {
        "tcp_flags": f"{both:02x}",
        "tcp_flags_ts": f"{to_server:02x}",
        "tcp_flags_tc": f"{to_client:02x}",
        **{name: True for flag, name in _FLAG_NAMES if both & flag},
    }


def _flowints(score: FloatArray, p_value: FloatArray) -> Iterator[dict[str, int]]:
    """Scores as integers: no other numbers are allowed outside of alerts."""
    for own, p in zip(_thousandths(score), p_value.tolist(), strict=True):
        yield {"flowvane_score_milli": own, "flowvane_p_value_ppb": round(p * PARTS_OF_P)}


def _thousandths(amounts: FloatArray) -> list[int]:
    """Amounts of the score's unit as integers, as far as readers can hold them."""
    most = _MOST / PARTS_OF_SCORE
    cut = np.clip(np.nan_to_num(amounts), -most, most) * PARTS_OF_SCORE
    return [round(own) for own in cut.tolist()]


def _zeek_names(flows: FlowBatch) -> list[dict[str, str]]:
    """What Zeek calls each of ``[B]`` connections; nothing of flows that are not Zeek's."""
    if "uid" not in (flows.dtype.names or ()):
        return [{}] * len(flows)
    uids = [uid.decode("utf-8", "replace") for uid in flows["uid"].tolist()]
    return [{"zeek_uid": uid} if uid else {} for uid in uids]


def _anomaly_parts(alerts: Alerts, model: str) -> Iterator[Sequence[_Part]]:
    """The ``anomaly`` and ``metadata`` objects of ``[A]`` alerts."""
    columns = (
        _flowints(alerts.score, alerts.p_value), alerts.severity.tolist(),
        alerts.flows["application"].tolist(), kinds_of(alerts.flows).tolist(), alerts.reasons,
        alerts.remainders, alerts.each_report, _zeek_names(alerts.flows),
    )  # fmt: skip
    for numbers, severity, application, kind, reasons, remainder, report, zeek in zip(
        *columns, strict=True
    ):
        numbers["flowvane_severity"] = severity
        other, rest = _thousandths(np.array(remainder[:2]))
        numbers |= {"flowvane_other_milli": other, "flowvane_rest_milli": rest}
        told = [("model", model), ("application", application.decode() or "Unknown")]
        told += zeek.items()
        told += [("feature", _reason_text(reason)) for reason in reasons]
        told += [("rest_of", remainder.rest_of)]
        if report is not None:
            numbers |= {f"flowvane_{name}": value for name, value in _group_numbers(report).items()}
            told += [("group_event", report.event), ("group_by", report.by)]
        yield (
            ("anomaly", {
                "type": "flow", "event": f"anomalous_{Kind(kind).name.lower()}",
                "code": signature_id(model, kind),
            }),
            ("metadata", {
                "flowints": numbers,
                "flowvars": [{"key": f"flowvane_{name}", "value": value} for name, value in told],
            }),
        )  # fmt: skip


def _reason_text(reason: Reason) -> str:
    feature, observed, expected, part, percentile, usual, *_ = reason
    text = f"{feature} observed={observed} expected={expected}"
    if usual is not None:
        text = f"{text} usual={usual}"
    text = f"{text} part={part:.4f}"
    return text if percentile is None else f"{text} percentile={percentile:g}"


def _group_numbers(report: GroupReport) -> dict[str, int]:
    return {"group_id": report.number, "count": report.count, "total": report.total}


def _alert_parts(alerts: Alerts, model: str, style: Style) -> Iterator[dict[str, Any]]:
    """The ``alert`` objects of ``[A]`` alerts."""
    sids = {kind: signature_id(model, kind) for kind in Kind}
    columns = (
        alerts.flows["application"].tolist(), alerts.score.tolist(), alerts.p_value.tolist(),
        alerts.severity.tolist(), kinds_of(alerts.flows).tolist(), alerts.reasons,
        alerts.remainders, alerts.each_report, _zeek_names(alerts.flows),
    )  # fmt: skip
    for application, score, p_value, severity, kind, reasons, remainder, report, zeek in zip(
        *columns, strict=True
    ):
        metadata = {
            "model": [model],
            "score": [f"{score:.4f}"],
            "p_value": [f"{p_value:.6g}"],
            "features": [_reason_text(reason) for reason in reasons],
            "other": [f"{remainder.other:.4f}"],
            "rest": [f"{remainder.rest:.4f}"],
            "rest_of": [remainder.rest_of],
            "application": [application.decode() or "Unknown"],
            **{name: [value] for name, value in zeek.items()},
        }
        if report is not None:
            metadata |= _group_texts(report)
        alert = {
            "action": "allowed",
            "gid": 1,
            "signature_id": sids[kind],
            "rev": 1,
            "signature": SIGNATURES[kind],
            "category": "Potentially Bad Traffic",
            "severity": severity,
            "metadata": metadata,
        }
        if style.version >= _NEW:
            context = _context(model, score, p_value, reasons, remainder, report)
            alert["context"] = {"flowvane": {**context, **zeek}}
        yield alert


def _group_texts(report: GroupReport) -> dict[str, list[str]]:
    """What an alert says of its group, as the metadata of both schema versions has it."""
    ports = f"{report.low_port}-{report.high_port}"
    return {
        **{name: [str(value)] for name, value in _group_numbers(report).items()},
        "group_event": [report.event],
        "group_by": [report.by],
        "group_start": [timestamp(report.since_us)],
        "group_ports": [ports if report.low_port != report.high_port else str(report.low_port)],
    }


def _context(
    model: str, score: float, p_value: float, reasons: Reasons, remainder: Remainder,
    report: GroupReport | None,
) -> dict[str, Any]:  # fmt: skip
    """What Suricata 8's schema leaves us to fill: the same as the metadata, as numbers."""
    context: dict[str, Any] = {
        "model": model,
        "score": score,
        "p_value": p_value,
        "features": [
            {name: value for name, value in reason._asdict().items() if value is not None}
            for reason in reasons
        ],
        **remainder._asdict(),
    }
    if report is not None:
        context["group"] = {
            **_group_numbers(report), "event": report.event, "by": report.by,
            "start": timestamp(report.since_us),
            "ports": {"low": report.low_port, "high": report.high_port},
        }  # fmt: skip
    return context


def event_lines(
    alerts: Alerts, model: str, places: Iterable[Mapping[str, str]], style: Style = PLAIN
) -> list[bytes]:
    """The events of alerts (:func:`alert_events`), each encoded as one line."""
    return [encode(event) for event in alert_events(alerts, model, places, style)]


def encode(event: dict[str, Any]) -> bytes:
    """One event as one line."""
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
