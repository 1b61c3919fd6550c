"""Events, as Suricata's own schemas and the readers of EVE want them."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import math
import re
import struct
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import communityid
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.flows import Ending, FlowBatch, TcpFlag, empty_flows, pack_address, unpack_address
from models.detector import Scores
from models.manifest import shipped
from sensor.eve import (
    PROTOCOL_NAMES,
    Style,
    alert_events,
    anomaly_events,
    app_proto,
    encode,
    event_lines,
    flow_events,
    timestamp,
)
from sensor.identity import community_ids, flow_ids
from sensor.signatures import SID_OF_MODEL, SIGNATURES, Kind, kinds_of, signature_id
from sensor.verdict import Alerts, GroupReport, Reason, Remainder
from tests.helpers import ROOT, eve_schemas, faults, make_flow

TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}\+0000")
WITH_PORTS = (6, 17, 132, 136)
LAST_US = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1_000_000 + 999_999


REMAINDER = Remainder(4.5, 0.875, "latent")


def alert_on(
    flow: FlowBatch, score: float = 12.5, p_value: float = 0.001, severity: int = 1,
    reasons: tuple[Reason, ...] = (), remainder: Remainder = REMAINDER,
) -> Alerts:  # fmt: skip
    """One alert."""
    return Alerts(
        flow, np.array([score]), np.array([p_value]), np.array([severity]), [reasons], [remainder]
    )


def event(alert: Alerts, model: str, place: dict[str, str]) -> dict[str, Any]:
    (only,) = alert_events(alert, model, [place])
    return only


def event_of(flow: FlowBatch, model: str = "nsl-kdd", **more: Any) -> dict[str, Any]:
    return event(alert_on(flow, **more), model, {"pcap_filename": "some.pcap"})


def joined(alerts: list[Alerts]) -> Alerts:
    """Several alerts as one batch."""
    if not alerts:
        return Alerts(empty_flows(), np.empty(0), np.empty(0), np.empty(0, int), [], [])
    columns = ("flows", "score", "p_value", "severity")
    return Alerts(
        *(np.concatenate([getattr(alert, name) for alert in alerts]) for name in columns),
        [reasons for alert in alerts for reasons in alert.reasons],
        [remainder for alert in alerts for remainder in alert.remainders],
    )


# Anything


@st.composite
def flows(draw: st.DrawFn) -> FlowBatch:
    """Any flow that a meter may hand on."""
    version = draw(st.sampled_from([4, 6]))
    size = 4 if version == 4 else 16
    addresses = [str(ipaddress.ip_address(draw(st.binary(min_size=size, max_size=size))))
                 for _ in range(2)]  # fmt: skip
    protocol = draw(st.sampled_from([1, 6, 17, 47, 58, 132, 136]) | st.integers(0, 255))
    port = st.integers(0, 65535) if protocol in WITH_PORTS else st.just(0)
    icmp = st.integers(0, 255) if protocol in (1, 58) else st.just(0)
    times = sorted(draw(st.tuples(*[st.integers(0, LAST_US) | st.integers(0, 2**33)] * 2)))
    count = st.integers(0, 2**64 - 1) | st.integers(0, 1000)
    application = st.text(
        st.characters(codec="ascii", categories=("L", "N", "P")), max_size=40
    ) | st.sampled_from(["TLS.Google", "HTTP", "Unknown", "DNS", "ICMPV6", ""])
    return make_flow(
        first_us=times[0],
        last_us=times[1],
        src_ip=np.frombuffer(pack_address(addresses[0]), np.uint8),
        dst_ip=np.frombuffer(pack_address(addresses[1]), np.uint8),
        ip_version=version,
        protocol=protocol,
        src_port=draw(port),
        dst_port=draw(port),
        icmp_type=draw(icmp),
        icmp_code=draw(icmp),
        vlan_id=draw(st.just(0) | st.integers(0, 4095)),
        src_packets=draw(count),
        dst_packets=draw(count),
        src_bytes=draw(count),
        dst_bytes=draw(count),
        src_payload_bytes=draw(count),
        dst_payload_bytes=draw(count),
        src_tcp_flags=draw(st.integers(0, 255)),
        dst_tcp_flags=draw(st.integers(0, 255)),
        ending=draw(st.sampled_from(list(Ending))),
        application=draw(application),
    )


amounts = st.floats(0, 1e12)
words = st.text(max_size=12)
signed = st.floats(-1e12, 1e12)
percentiles = st.none() | st.floats(0, 100)
alerts = st.builds(
    alert_on,
    flow=flows(),
    score=amounts,
    p_value=st.floats(0, 1),
    severity=st.integers(1, 3),
    reasons=st.lists(
        st.builds(
            Reason,
            words,
            words,
            words,
            amounts,
            percentiles,
            st.none() | words,
            st.none() | amounts,
            st.none() | amounts,
        ),
        max_size=5,
    ).map(tuple),
    remainder=st.builds(Remainder, signed, signed, words),
)
names = st.text(st.characters(exclude_categories=("Cs",)), max_size=80)


@eve_schemas
def test_the_schemas_refuse_what_they_do_not_know() -> None:
    event = event_of(make_flow())
    assert not faults(event)
    for part in (event, event["alert"], event["flow"]):
        part["bogus"] = 1
        found = faults(event)
        assert sorted(fault[:3] for fault in found) == ["7.0", "8.0"]
        assert all("bogus" in fault for fault in found)
        del part["bogus"]
    event["timestamp"] = "2026-01-15T09:00:00Z"
    assert len(faults(event)) == 2
    del event["timestamp"]
    assert len(faults(event)) == 2


@settings(max_examples=200, deadline=None, database=None)
@given(alert=alerts, model=names, place=names, key=st.sampled_from(["pcap_filename", "in_iface"]))
@eve_schemas
def test_any_alert_is_a_valid_event(alert: Alerts, model: str, place: str, key: str) -> None:
    assert not faults(event(alert, model, {key: place}))


@settings(max_examples=200, deadline=None, database=None)
@given(alert=alerts, model=names, place=names)
def test_any_alert_is_one_line_that_readers_understand(
    alert: Alerts, model: str, place: str
) -> None:
    made = event(alert, model, {"pcap_filename": place})
    line = encode(made)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    again = json.loads(line)
    assert again == made
    assert again["event_type"] == "alert"
    flow = again["flow"]
    for time in (again["timestamp"], flow["start"], flow["end"]):
        assert TIMESTAMP.fullmatch(time)
    assert flow["start"] <= flow["end"] == again["timestamp"]
    assert 0 <= again["flow_id"] < 2**51
    assert again["alert"]["severity"] in (1, 2, 3)
    assert 1_000_000 <= again["alert"]["signature_id"] <= 1_999_999
    metadata = again["alert"]["metadata"]
    assert all(isinstance(v, str) for values in metadata.values() for v in values)
    assert metadata["model"] == [model]
    assert len(metadata["features"]) == len(alert.reasons[0])
    protocol = int(alert.flows["protocol"][0])
    for part in (again, flow):
        assert ("src_port" in part) == ("dest_port" in part) == (protocol in WITH_PORTS)
    assert ("icmp_type" in again) == ("icmp_code" in again) == (protocol in (1, 58))
    assert ("vlan" in again) == bool(alert.flows["vlan_id"][0])
    assert flow["age"] >= 0


# A batch at a time, as one by one


def plainly(alert: Alerts, model: str, place: str) -> dict[str, Any]:
    """The event of one alert, field by field, written for no speed."""
    (flow,), (reasons,), (remainder,) = alert.flows, alert.reasons, alert.remainders
    begin, ip = (12, ipaddress.IPv4Address) if flow["ip_version"] == 4 else (
        0, ipaddress.IPv6Address)  # fmt: skip
    src, dst = (ip(bytes(flow[name])[begin:]).exploded for name in ("src_ip", "dst_ip"))
    protocol, application = int(flow["protocol"]), bytes(flow["application"]).decode()
    ports = ("src_port", int(flow["src_port"])), ("dest_port", int(flow["dst_port"]))
    ends = [("src_ip", src), ports[0], ("dest_ip", dst), ports[1]]
    if protocol not in WITH_PORTS:
        ends = ends[::2]
    icmp = {name: int(flow[name]) for name in ("icmp_type", "icmp_code")}
    kind = Kind(int(kinds_of(alert.flows)[0]))
    ending = Ending(int(flow["ending"]))
    reason = {Ending.EVICTED: "forced", Ending.CAPTURE_END: "shutdown", Ending.SHUTDOWN: "shutdown"}
    silent = (Ending.EARLY, Ending.UNKNOWN)
    parts = [
        ("timestamp", timestamp(flow["last_us"])), ("flow_id", flow_ids(alert.flows)[0]),
        ("pcap_filename", place), ("event_type", "alert"), *ends,
        ("proto", PROTOCOL_NAMES.get(protocol, f"{protocol:03d}")),
        *([("vlan", [int(flow["vlan_id"])])] if flow["vlan_id"] else []),
        *(icmp.items() if protocol in (1, 58) else []),
        ("community_id", community_ids(alert.flows)[0]),
        *([("app_proto", app_proto(application.encode()))] if app_proto(application.encode())
          else []),
        ("direction", "to_server"),
        ("alert", {
            "action": "allowed", "gid": 1, "signature_id": signature_id(model, kind),
            "rev": 1, "signature": SIGNATURES[kind],
            "category": "Potentially Bad Traffic", "severity": int(alert.severity[0]),
            "metadata": {
                "model": [model], "score": [f"{float(alert.score[0]):.4f}"],
                "p_value": [f"{float(alert.p_value[0]):.6g}"],
                "features": [
                    f"{one.feature} observed={one.observed} expected={one.expected}"
                    + ("" if one.usual is None else f" usual={one.usual}")
                    + f" part={one.part:.4f}"
                    + ("" if one.percentile is None else f" percentile={one.percentile:g}")
                    for one in reasons
                ],
                "other": [f"{remainder.other:.4f}"], "rest": [f"{remainder.rest:.4f}"],
                "rest_of": [remainder.rest_of],
                "application": [application or "Unknown"],
            },
        }),
        ("flow", dict([
            ("pkts_toserver", int(flow["src_packets"])),
            ("pkts_toclient", int(flow["dst_packets"])),
            ("bytes_toserver", int(flow["src_bytes"])), ("bytes_toclient", int(flow["dst_bytes"])),
            ("start", timestamp(flow["first_us"])), ("end", timestamp(flow["last_us"])),
            ("age", int(flow["last_us"]) // 1_000_000 - int(flow["first_us"]) // 1_000_000),
            *([] if ending in silent else [("reason", reason.get(ending, "timeout"))]),
            *ends,
        ])),
    ]  # fmt: skip
    return dict(parts)


@settings(max_examples=100, deadline=None, database=None)
@given(several=st.lists(alerts, max_size=6), model=names)
def test_a_batch_of_alerts_gives_the_octets_of_each_by_itself(
    several: list[Alerts], model: str
) -> None:
    files = [f"{number}.pcap" for number in range(len(several))]
    lines = event_lines(joined(several), model, [{"pcap_filename": name} for name in files])
    assert lines == [
        encode(plainly(alert, model, name)) for alert, name in zip(several, files, strict=True)
    ]


# By hand


@pytest.mark.parametrize(
    ("time_us", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000+0000"),
        (1, "1970-01-01T00:00:00.000001+0000"),
        (1_768_467_600_000_001, "2026-01-15T09:00:00.000001+0000"),
        (2_147_483_648_000_000, "2038-01-19T03:14:08.000000+0000"),
        (4_294_967_296_999_999, "2106-02-07T06:28:16.999999+0000"),
        (LAST_US, "9999-12-31T23:59:59.999999+0000"),
        (2**62, "9999-12-31T23:59:59.999999+0000"),
        (-5, "1970-01-01T00:00:00.000000+0000"),
    ],
)
def test_timestamps_are_those_of_suricata(time_us: int, expected: str) -> None:
    assert timestamp(time_us) == expected
    assert timestamp(np.int64(time_us)) == expected


def test_an_event_by_hand() -> None:
    flow = make_flow(
        src_ip="192.0.2.1", dst_ip="198.51.100.2", src_port=40_001, dst_port=443, vlan_id=7,
        first_us=1_768_467_600_000_001, last_us=1_768_467_662_500_000, src_packets=5,
        dst_packets=4, src_bytes=500, dst_bytes=4000, src_payload_bytes=100,
        application="TLS.Google", ending=Ending.CAPTURE_END,
    )  # fmt: skip
    reasons = (
        Reason("dur", "62.5", "0.1", 7.125),
        Reason("service", "ssl", "http", 0.5, 3.0, "http|-"),
    )
    alert = alert_on(flow, score=98.76543, p_value=1 / 3001, severity=2, reasons=reasons)
    made = event(alert, "unsw-nb15", {"in_iface": "eth0"})
    assert [made.pop("flow_id")] == flow_ids(flow)
    assert [made.pop("community_id")] == community_ids(flow)
    ends = {
        "src_ip": "192.0.2.1", "src_port": 40001, "dest_ip": "198.51.100.2", "dest_port": 443,
    }  # fmt: skip
    assert made == {
        "timestamp": "2026-01-15T09:01:02.500000+0000",
        "in_iface": "eth0",
        "event_type": "alert",
        **ends,
        "proto": "TCP",
        "vlan": [7],
        "app_proto": "tls",
        "direction": "to_server",
        "alert": {
            "action": "allowed",
            "gid": 1,
            "signature_id": 1_000_011,
            "rev": 1,
            "signature": "flowvane: anomalous TCP flow",
            "category": "Potentially Bad Traffic",
            "severity": 2,
            "metadata": {
                "model": ["unsw-nb15"],
                "score": ["98.7654"],
                "p_value": ["0.000333222"],
                "features": [
                    "dur observed=62.5 expected=0.1 part=7.1250",
                    "service observed=ssl expected=http usual=http|- part=0.5000 percentile=3",
                ],
                "other": ["4.5000"],
                "rest": ["0.8750"],
                "rest_of": ["latent"],
                "application": ["TLS.Google"],
            },
        },
        "flow": {
            "pkts_toserver": 5,
            "pkts_toclient": 4,
            "bytes_toserver": 500,
            "bytes_toclient": 4000,
            "start": "2026-01-15T09:00:00.000001+0000",
            "end": "2026-01-15T09:01:02.500000+0000",
            "age": 62,
            "reason": "shutdown",
            **ends,
        },
    }


@pytest.mark.parametrize(("protocol", "name"), [(1, "ICMP"), (58, "IPv6-ICMP")])
def test_icmp_has_a_type_and_no_ports(protocol: int, name: str) -> None:
    address = "2001:db8::1" if protocol == 58 else "192.0.2.1"
    flow = make_flow(
        src_ip=address, dst_ip=address, protocol=protocol, src_port=0, dst_port=0,
        icmp_type=3, icmp_code=1,
    )  # fmt: skip
    event = event_of(flow)
    assert event["proto"] == name
    assert (event["icmp_type"], event["icmp_code"]) == (3, 1)
    for part in (event, event["flow"]):
        assert not {"src_port", "dest_port"} & set(part)


def test_an_echo_request_is_told_though_its_numbers_are_small() -> None:
    event = event_of(make_flow(protocol=1, src_port=0, dst_port=0, icmp_type=0, icmp_code=0))
    assert (event["icmp_type"], event["icmp_code"]) == (0, 0)


def test_ipv6_is_written_in_full() -> None:
    event = event_of(make_flow(src_ip="2001:db8::a", dst_ip="::1"))
    for part in (event, event["flow"]):
        assert part["src_ip"] == "2001:0db8:0000:0000:0000:0000:0000:000a"
        assert part["dest_ip"] == "0000:0000:0000:0000:0000:0000:0000:0001"
    # An address of version 6 stays one, though it holds one of version 4.
    mapped = make_flow(src_ip="::ffff:192.0.2.1", dst_ip="::1", ip_version=6)
    assert event_of(mapped)["src_ip"] == "0000:0000:0000:0000:0000:ffff:c000:0201"


def test_protocols_without_a_name_are_three_digits() -> None:
    for protocol, expected in ((0, "000"), (47, "GRE"), (99, "099"), (255, "255")):
        flow = make_flow(protocol=protocol, src_port=0, dst_port=0)
        assert event_of(flow)["proto"] == expected
    assert all(0 < len(name) < 16 for name in PROTOCOL_NAMES.values())


@pytest.mark.parametrize(
    ("application", "app_proto"),
    [
        ("HTTP.Google", "http"),
        ("SMBv23", "smb"),
        ("Unknown", None),
        ("", None),
        ("Zoom", None),
        ("TLS", "tls"),
    ],
)
def test_applications_are_named_as_suricata_does(application: str, app_proto: str | None) -> None:
    event = event_of(make_flow(application=application))
    assert event.get("app_proto") == app_proto
    assert event["alert"]["metadata"]["application"] == [application or "Unknown"]


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Ending.IDLE, "timeout"),
        (Ending.ACTIVE, "timeout"),
        (Ending.FIN, "timeout"),
        (Ending.EVICTED, "forced"),
        (Ending.CAPTURE_END, "shutdown"),
        (Ending.SHUTDOWN, "shutdown"),
    ],
)
def test_why_the_flow_ended(ending: Ending, reason: str) -> None:
    assert event_of(make_flow(ending=ending))["flow"]["reason"] == reason


# Kinds and signature ids


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.TCP, {"src_payload_bytes": 1}),
        (Kind.TCP, {"dst_payload_bytes": 1, "dst_packets": 0}),
        (Kind.TCP_EMPTY, {}),
        (Kind.TCP_EMPTY, {"dst_packets": 0}),
        (Kind.UDP, {"protocol": 17}),
        (Kind.UDP, {"protocol": 17, "src_payload_bytes": 9}),
        (Kind.UDP_UNANSWERED, {"protocol": 17, "dst_packets": 0, "src_payload_bytes": 9}),
        (Kind.ICMP, {"protocol": 1}),
        (Kind.ICMP, {"protocol": 58, "dst_packets": 0}),
        (Kind.OTHER, {"protocol": 47, "src_payload_bytes": 9}),
        (Kind.OTHER, {"protocol": 132}),
    ],
)
def test_kinds_by_hand(kind: Kind, fields: dict[str, Any]) -> None:
    flow = make_flow(**fields)
    assert kinds_of(flow).tolist() == [kind]
    alert = event_of(flow)["alert"]
    assert alert["signature"] == SIGNATURES[kind]
    assert alert["signature_id"] == 1_000_020 + kind


@given(model=names, kind=st.sampled_from(Kind))
@example(model="", kind=Kind.TCP)
def test_signature_ids_are_local_ones_and_tell_kinds_apart(model: str, kind: Kind) -> None:
    number = signature_id(model, kind)
    assert number % 10 == kind
    if model not in SID_OF_MODEL:
        assert 1_100_000 < number <= 1_999_999
        assert not SID_OF_MODEL.keys() & {model}


def test_signature_ids_stay_from_run_to_run() -> None:
    # They are in other people's configuration: never change one.
    assert [signature_id("unsw-nb15", kind) for kind in Kind] == list(range(1_000_011, 1_000_017))
    assert [signature_id("nsl-kdd", kind) for kind in Kind] == list(range(1_000_021, 1_000_027))
    # CRC-32 of "123456789" is 0xcbf43926, the check value in every catalogue of CRCs.
    assert signature_id("123456789", Kind.OTHER) == 1_100_006 + 10 * (0xCBF43926 % 90_000)
    assert [kind.value for kind in Kind] == [1, 2, 3, 4, 5, 6]
    assert len(set(SIGNATURES.values())) == len(SIGNATURES) == len(Kind)


def test_every_model_that_ships_has_an_id_of_its_own() -> None:
    assert set(shipped()) <= set(SID_OF_MODEL)
    assert len(set(SID_OF_MODEL.values())) == len(SID_OF_MODEL)
    assert all(1_000_000 < sid < 1_100_000 and sid % 10 == 0 for sid in SID_OF_MODEL.values())


def test_the_page_says_what_the_ids_are() -> None:
    page = (ROOT / "docs" / "eve.md").read_text("utf-8")
    for kind, signature in SIGNATURES.items():
        cells = [f"`{kind.name.lower()}`", *(str(sid + kind) for sid in SID_OF_MODEL.values())]
        (row,) = [line for line in page.splitlines() if f"`{signature}`" in line]
        assert all(cell in row for cell in cells)


# Other types of events, and what is optional

REPORT = GroupReport(77, "update", "pair", 40, 41, 1_768_467_600_000_001, 20, 443)
reports = st.builds(
    GroupReport, st.integers(0, 2**51), st.sampled_from(["first", "update", "end"]),
    st.sampled_from(["pair", "source", "destination", "kind"]), st.integers(1, 2**40),
    st.integers(1, 2**40), st.integers(0, LAST_US), st.integers(0, 65535), st.integers(0, 65535),
)  # fmt: skip
styles = st.builds(Style, st.sampled_from([7, 8]), st.none() | names, st.booleans())


@settings(max_examples=75, deadline=None, database=None)
@given(
    alert=alerts, report=st.none() | reports, style=styles, model=names, place=names,
    alerted=st.booleans(),
)  # fmt: skip
@eve_schemas
def test_every_type_of_event_is_valid(
    alert: Alerts, report: GroupReport | None, style: Style, model: str, place: str, alerted: bool
) -> None:
    grouped = replace(alert, reports=None if report is None else [report])
    scores = Scores(alert.score, np.zeros(1), np.zeros((1, 1)), alert.p_value)
    where = [{"in_iface": place}]
    made = [
        *alert_events(grouped, model, where, style),
        *anomaly_events(grouped, model, where, style),
        *flow_events(alert.flows, scores, np.array([alerted]), model, where, style),
    ]
    assert [event["event_type"] for event in made] == ["alert", "anomaly", "flow"]
    for event in made:
        assert json.loads(encode(event)) == event
        wrong = [fault for fault in faults(event) if fault[0] == "8" or style.version == 7]
        assert not wrong
        assert ("community_id" in event) == style.community_id
        assert event.get("host") == style.host
        assert (event.get("ip_v") is not None) == (style.version == 8)
    assert len({event["flow_id"] for event in made}) == 1
    for event in made[1:]:
        assert all(type(value) is int for value in event["metadata"]["flowints"].values())
        assert all(set(each) == {"key", "value"} for each in event["metadata"]["flowvars"])


def test_a_flow_event_by_hand() -> None:
    flow = make_flow(
        src_tcp_flags=TcpFlag.SYN | TcpFlag.ACK | TcpFlag.FIN, dst_tcp_flags=TcpFlag.SYN | 0x10,
        application="TLS", ending=Ending.FIN,
    )  # fmt: skip
    scores = Scores(np.array([12.3456]), np.zeros(1), np.zeros((1, 1)), np.array([0.25]))
    (made,) = flow_events(flow, scores, np.array([True]), "nsl-kdd", [{"in_iface": "eth0"}])
    assert made == {
        "timestamp": "2026-01-15T09:00:01.500000+0000",
        "flow_id": flow_ids(flow)[0],
        "in_iface": "eth0",
        "event_type": "flow",
        "src_ip": "10.0.0.1", "src_port": 40000, "dest_ip": "10.0.0.2", "dest_port": 80,
        "proto": "TCP",
        "community_id": community_ids(flow)[0],
        "app_proto": "tls",
        "tcp": {
            "tcp_flags": "13", "tcp_flags_ts": "13", "tcp_flags_tc": "12",
            "syn": True, "fin": True, "ack": True,
        },
        "metadata": {
            "flowints": {"flowvane_score_milli": 12346, "flowvane_p_value_ppb": 250_000_000},
            "flowvars": [{"key": "flowvane_model", "value": "nsl-kdd"}],
        },
        "flow": {
            "pkts_toserver": 2, "pkts_toclient": 1, "bytes_toserver": 150, "bytes_toclient": 60,
            "start": "2026-01-15T09:00:00.000000+0000", "end": "2026-01-15T09:00:01.500000+0000",
            "age": 1, "reason": "timeout", "state": "closed", "alerted": True,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        ("new", {"dst_packets": 0}),
        ("established", {}),
        ("closed", {"dst_tcp_flags": TcpFlag.RST}),
        ("closed", {"dst_packets": 0, "src_tcp_flags": TcpFlag.FIN}),
        ("established", {"protocol": 17, "src_tcp_flags": TcpFlag.FIN}),
    ],
)
def test_states_of_flows_are_those_of_suricata(state: str, fields: dict[str, Any]) -> None:
    scores = Scores(np.ones(1), np.zeros(1), np.zeros((1, 1)), np.ones(1))
    (made,) = flow_events(make_flow(**fields), scores, np.array([False]), "m", [{}])
    assert made["flow"]["state"] == state
    assert ("tcp" in made) == (fields.get("protocol", 6) == 6)


def test_numbers_that_no_reader_holds_are_cut() -> None:
    for score, told in ((math.inf, 2**53), (1e300, 2**53), (-math.inf, -(2**53)), (math.nan, 0)):
        scores = Scores(np.array([score]), np.zeros(1), np.zeros((1, 1)), np.ones(1))
        (made,) = flow_events(make_flow(), scores, np.array([False]), "m", [{}])
        assert made["metadata"]["flowints"]["flowvane_score_milli"] == told


def test_an_anomaly_by_hand() -> None:
    reason = Reason("dur", "62.5", "0.1", 7.125)
    alert = alert_on(make_flow(application="HTTP"), p_value=0.001, severity=2, reasons=(reason,))
    (made,) = anomaly_events(replace(alert, reports=[REPORT]), "nsl-kdd", [{"in_iface": "eth0"}])
    assert made["anomaly"] == {
        "type": "flow", "event": "anomalous_tcp_empty", "code": 1_000_022,
    }  # fmt: skip
    assert made["metadata"]["flowints"] == {
        "flowvane_score_milli": 12_500, "flowvane_p_value_ppb": 1_000_000, "flowvane_severity": 2,
        "flowvane_other_milli": 4500, "flowvane_rest_milli": 875,
        "flowvane_group_id": 77, "flowvane_count": 40, "flowvane_total": 41,
    }  # fmt: skip
    assert [tuple(each.values()) for each in made["metadata"]["flowvars"]] == [
        ("flowvane_model", "nsl-kdd"), ("flowvane_application", "HTTP"),
        ("flowvane_feature", "dur observed=62.5 expected=0.1 part=7.1250"),
        ("flowvane_rest_of", "latent"),
        ("flowvane_group_event", "update"), ("flowvane_group_by", "pair"),
    ]  # fmt: skip


def test_a_group_and_the_context_of_version_8_by_hand() -> None:
    reason = Reason("dur", "62.5", "0.1", 7.125, 99.0, "0..2.5", 0.0, 2.5)
    alert = replace(alert_on(make_flow(), reasons=(reason,)), reports=[REPORT])
    (made,) = alert_events(alert, "nsl-kdd", [{}], Style(version=8))
    told = {key: value for key, value in made["alert"]["metadata"].items() if "group" in key}
    assert told == {
        "group_id": ["77"], "group_event": ["update"], "group_by": ["pair"],
        "group_start": ["2026-01-15T09:00:00.000001+0000"], "group_ports": ["20-443"],
    }  # fmt: skip
    assert made["alert"]["metadata"]["count"] == ["40"]
    assert made["alert"]["metadata"]["total"] == ["41"]
    assert made["alert"]["context"] == {"flowvane": {
        "model": "nsl-kdd", "score": 12.5, "p_value": 0.001,
        "features": [{
            "feature": "dur", "observed": "62.5", "expected": "0.1", "part": 7.125,
            "percentile": 99.0, "usual": "0..2.5", "usual_low": 0.0, "usual_high": 2.5,
        }],
        "other": 4.5, "rest": 0.875, "rest_of": "latent",
        "group": {
            "group_id": 77, "count": 40, "total": 41, "event": "update", "by": "pair",
            "start": "2026-01-15T09:00:00.000001+0000", "ports": {"low": 20, "high": 443},
        },
    }}  # fmt: skip


# Names of flows


@settings(deadline=None, database=None)
@given(flow=flows())
def test_the_flow_id_is_of_the_flow_alone(flow: FlowBatch) -> None:
    (number,) = flow_ids(flow)
    assert 0 <= number < 2**51
    assert number == flow_ids(np.concatenate([make_flow(), flow]))[1]
    # What is learnt of a flow later does not change its name, its key does.
    later = flow.copy()
    later["src_packets"] += np.uint64(1)
    later["application"] = b"Other"
    later["last_us"] += 7
    assert flow_ids(later) == [number]
    for name in ("first_us", "src_port", "dst_port", "protocol", "vlan_id", "tunnel_id"):
        other = flow.copy()
        other[name] ^= 1
        assert flow_ids(other) != [number]
    other = flow.copy()
    other["src_ip"][0, 15] ^= 1
    assert flow_ids(other) != [number]


def test_the_flow_id_stays_from_run_to_run() -> None:
    flow = make_flow(src_ip="10.0.0.1", dst_ip="10.0.0.2", src_port=1, dst_port=2, first_us=3)
    fields = [
        (3).to_bytes(8, "little"), pack_address("10.0.0.1"), pack_address("10.0.0.2"),
        b"\1\0", b"\2\0", b"\6", b"\0\0", b"\0",
    ]  # fmt: skip
    digest = hashlib.blake2b(b"".join(fields), digest_size=8).digest()
    assert flow_ids(flow) == [int.from_bytes(digest, "big") >> 13]


# community-id-spec, baseline/baseline_deflt.json; ICMP's second number is the answer's type there.
VECTORS = [
    (6, "128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    (6, "66.35.250.204", "128.232.110.120", 80, 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    (17, "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
    (132, "192.168.170.8", "192.168.170.56", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
    (46, "10.1.12.1", "10.1.12.2", 0, 0, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="),
    (6, "2001:470:e5bf:dead:4957:2174:e82c:4887", "2607:f8b0:400c:c03::1a", 63943, 25,
     "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="),
    (1, "192.168.0.89", "192.168.0.1", 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
    (1, "192.168.0.1", "192.168.0.89", 0, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
    (1, "10.0.0.1", "10.0.0.2", 11, 0, "1:YHxtAirCG//0OzkcVAukqKQN9xM="),
    (58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 135, 0,
     "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
    (58, "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 136, 0,
     "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
    (58, "3ffe:507:0:1:200:86ff:fe05:80da", "3ffe:501:0:1001::2", 128, 0,
     "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg="),
    (58, "fe80::260:97ff:fe07:69ea", "ff02::1", 134, 0, "1:pkvHqCL88/tg1k4cPigmZXUtL00="),
    (58, "3ffe:501:1800:2345::2", "3ffe:507:0:1:200:86ff:fe05:80da", 3, 0,
     "1:2ObVBgIn28oZvibYZhZMBgh7WdQ="),
]  # fmt: skip


@pytest.mark.parametrize(("protocol", "src", "dst", "one", "two", "expected"), VECTORS)
def test_community_ids_of_the_specification(
    protocol: int, src: str, dst: str, one: int, two: int, expected: str
) -> None:
    kind = ("icmp_type", "icmp_code") if protocol in (1, 58) else ("src_port", "dst_port")
    numbers = dict.fromkeys(("src_port", "dst_port"), 0) | dict(zip(kind, (one, two), strict=True))
    flow = make_flow(src_ip=src, dst_ip=dst, protocol=protocol, **numbers)
    assert community_ids(flow) == [expected]
    assert event_of(flow)["community_id"] == expected


def by_specification(
    protocol: int, src: str, dst: str, src_port: int | None, dst_port: int | None
) -> str:
    """Community ID v1, seed 0, of anything but ICMP, after the specification's pseudo code."""
    ends = [
        (ipaddress.ip_address(src).packed, src_port),
        (ipaddress.ip_address(dst).packed, dst_port),
    ]
    (low, low_port), (high, high_port) = sorted(ends, key=lambda end: (end[0], end[1] or 0))
    data = b"\0\0" + low + high + bytes([protocol, 0])
    if low_port is not None and high_port is not None:
        data += struct.pack("!HH", low_port, high_port)
    return "1:" + base64.b64encode(hashlib.sha1(data).digest()).decode()  # noqa: S324


@pytest.mark.parametrize(
    ("protocol", "ports"),
    [
        (6, (0, 0)), (17, (0, 0)), (132, (0, 0)), (6, (0, 80)), (17, (53, 0)), (6, (80, 80)),
        (47, None), (50, None), (0, None), (255, None), (2, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("src", "dst"),
    [("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1"), ("9.9.9.9", "9.9.9.9"), ("fe80::2", "::")],
)
def test_community_ids_by_the_specification(
    protocol: int, ports: tuple[int, int] | None, src: str, dst: str
) -> None:
    src_port, dst_port = ports or (0, 0)
    flow = make_flow(
        src_ip=src, dst_ip=dst, protocol=protocol, src_port=src_port, dst_port=dst_port
    )
    expected = by_specification(protocol, src, dst, *(ports or (None, None)))
    assert community_ids(flow) == [expected]
    back = make_flow(
        src_ip=dst, dst_ip=src, protocol=protocol, src_port=dst_port, dst_port=src_port
    )
    assert community_ids(back) == [expected]


any_end = st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 65_535))


@settings(max_examples=300, deadline=None, database=None)
@given(
    version=st.sampled_from([4, 6]),
    protocol=st.integers(0, 255),
    ends=st.lists(
        st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 65_535)),
        min_size=2,
        max_size=2,
    ),
    same=st.booleans(),
)
def test_community_ids_are_those_of_the_library(
    version: int, protocol: int, ends: list[tuple[bytes, int]], same: bool
) -> None:
    (src, src_port), (dst, dst_port) = ends
    flow = empty_flows(1)
    prefix = bytes(10) + b"\xff\xff" if version == 4 else b""
    src, dst = (prefix + (src if same else end)[len(prefix) :] for end in (src, dst))
    flow["src_ip"], flow["dst_ip"] = (np.frombuffer(end, np.uint8) for end in (src, dst))
    flow["src_port"], flow["dst_port"] = src_port, dst_port
    flow["protocol"], flow["ip_version"] = protocol, version
    addresses = [unpack_address(flow[name][0], version) for name in ("src_ip", "dst_ip")]
    if protocol in (1, 58):
        known = communityid.FlowTuple(protocol, *addresses, 0, 0)
    elif protocol in communityid.PORT_PROTOS:
        known = communityid.FlowTuple(protocol, *addresses, src_port, dst_port)
    else:
        known = communityid.FlowTuple(protocol, *addresses)
    assert community_ids(flow) == [communityid.CommunityID().calc(known)]
