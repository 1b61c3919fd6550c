"""Zeek's conn.log: read whole, line by broken line, and scored from end to end."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import communityid
import numpy as np
import pytest

from features.flows import Ending, FlowBatch, TcpFlag, unpack_address
from features.zeek_conn import CONN_DTYPE, NO, UNSET, YES
from models.bundle import save
from sensor.eve import anomaly_events, flow_events
from sensor.identity import community_ids, flow_ids
from sensor.verdict import Alerts
from sensor.zeek.columns import Fault
from sensor.zeek.files import ConnLogMeter, look_at
from sensor.zeek.parser import MOST_TOLD
from tests.helpers import (
    CONNECTION,
    DATA,
    NO_REMAINDER,
    SCRATCH,
    ZEEK_COLUMNS,
    conn_header,
    conn_line,
    conn_log,
    eve_schemas,
    faults,
    make_flow,
    read_events,
    run,
    small_pcap,
    syn,
    untrained,
)
from tests.sensor.test_wire_zeek import CONNECTIONS

FORMS = ("tsv", "json", "iso8601")


def read(*paths: Path) -> tuple[FlowBatch, ConnLogMeter]:
    """All connections of logs, and the meter that read them."""
    meter = ConnLogMeter([look_at(path) for path in paths])
    batches = list(meter.flows())
    return np.concatenate(batches) if batches else np.zeros(0, CONN_DTYPE), meter


def one(path: Path, form: str = "tsv", **changed: object) -> FlowBatch:
    """The record of a connection like any other, but for some values; None unsets one."""
    given = {name: value for name, value in {**CONNECTION, **changed}.items() if value is not None}
    flows, meter = read(conn_log(path, [given], form))
    assert meter.counters.problems == []
    assert len(flows) == 1
    return flows[0]


# Records


@pytest.mark.parametrize("form", FORMS)
def test_a_record_is_what_the_line_says(form: str, tmp_path: Path) -> None:
    flow = one(tmp_path / "conn.log", form, uid="CHhAvVGS1DHFjwGM9")
    assert flow["first_us"] == 1_768_467_600_250_000
    assert flow["last_us"] == 1_768_467_601_750_000
    assert [unpack_address(flow[f"{side}_ip"], 4) for side in ("src", "dst")] == [
        "10.0.0.1", "10.0.0.2",
    ]  # fmt: skip
    expected = {
        "src_port": 40_000, "dst_port": 80, "protocol": 6, "ip_version": 4, "vlan_id": 0,
        "src_payload_bytes": 100, "dst_payload_bytes": 900, "src_packets": 6, "dst_packets": 5,
        "src_bytes": 350, "dst_bytes": 1200, "missed_bytes": 0, "local_orig": YES,
        "local_resp": NO, "tunnelled": 0, "conn_state": b"SF", "service": b"http",
        "application": b"HTTP", "history": b"ShADadFf", "uid": b"CHhAvVGS1DHFjwGM9",
        "community_id": b"", "ending": Ending.UNKNOWN,
        "src_tcp_flags": TcpFlag.SYN | TcpFlag.ACK | TcpFlag.FIN,
        "dst_tcp_flags": TcpFlag.SYN | TcpFlag.ACK | TcpFlag.FIN,
    }  # fmt: skip
    assert {name: flow[name] for name in expected} == expected


@pytest.mark.parametrize("form", ["tsv", "json"])
def test_what_is_unset_is_nothing(form: str, tmp_path: Path) -> None:
    unset = dict.fromkeys(
        ("service", "duration", "orig_bytes", "resp_bytes", "local_orig", "local_resp", "history")
    )
    flow = one(tmp_path / "conn.log", form, **unset, uid="C1")
    assert flow["first_us"] == flow["last_us"]
    assert (flow["src_payload_bytes"], flow["dst_payload_bytes"]) == (0, 0)
    assert (flow["local_orig"], flow["local_resp"]) == (UNSET, UNSET)
    assert (flow["service"], flow["application"], flow["history"]) == (b"", b"Unknown", b"")


def test_the_protocol_is_that_of_the_packet_where_the_log_has_it(tmp_path: Path) -> None:
    def protocol(**changed: object) -> tuple[int, int, int, int]:
        flow = one(tmp_path / "conn.log", "json", **changed)
        names = ("protocol", "icmp_type", "icmp_code", "dst_port")
        return tuple(int(flow[name]) for name in names)  # type: ignore[return-value]

    echo = {"proto": "icmp", "id.orig_p": 8, "id.resp_p": 0}
    assert protocol(**echo) == (1, 8, 0, 0)
    # Zeek gives the type of the answer in the place of a code, where a type has one.
    assert protocol(proto="icmp", **{"id.orig_p": 13, "id.resp_p": 14}) == (1, 13, 0, 0)
    assert protocol(proto="icmp", **{"id.orig_p": 3, "id.resp_p": 1}) == (1, 3, 1, 0)
    six = {"id.orig_h": "fe80::1", "id.resp_h": "ff02::1"}
    assert protocol(proto="icmp", **six, **{"id.orig_p": 128, "id.resp_p": 129})[:3] == (58, 128, 0)
    assert protocol(proto="unknown_transport", ip_proto=47)[0] == 47
    assert protocol(proto="unknown_transport")[0] == 255


def test_services_are_sorted_and_those_taken_back_left_out(tmp_path: Path) -> None:
    flow = one(tmp_path / "conn.log", service="smb,-dce_rpc,ntlm,gssapi")
    assert flow["service"] == b"gssapi,ntlm,smb"
    assert flow["application"] == b"SMBv23"
    assert one(tmp_path / "conn.log", service="bacnet")["application"] == b"bacnet"


def test_times_in_milliseconds_are_known_by_their_size(tmp_path: Path) -> None:
    flow = one(tmp_path / "conn.log", "json", ts=1_768_467_600_250.125)
    assert flow["first_us"] == 1_768_467_600_250_125


REAL = {form: DATA / "pairs" / "zeek" / f"zeek-8.2.2-conn.{form}.log" for form in ("tsv", "json")}


@pytest.mark.skipif(not REAL["tsv"].is_file(), reason=f"no logs of Zeek's in {DATA}")
def test_zeeks_own_logs_of_one_capture_are_the_same_connections() -> None:
    found = {}
    for form, path in REAL.items():
        flows, meter = read(path)
        assert meter.counters.problems == []
        assert meter.counters.lines == len(flows) == 132
        found[form] = flows[np.lexsort((flows["community_id"], flows["first_us"]))]
    tsv, json_ = found["tsv"], found["json"]
    for name in CONN_DTYPE.names or ():
        if name != "uid":  # Zeek ran twice
            np.testing.assert_array_equal(tsv[name], json_[name], name)
    # What Zeek calls them is what we do.
    ours = tsv.copy()
    ours["community_id"] = b""
    assert community_ids(ours) == community_ids(tsv)
    assert len(set(flow_ids(tsv))) == 132


# Lines that are broken

GOOD = {"uid": "C1", **CONNECTION}
WITHOUT = {name: value for name, value in GOOD.items() if name != "orig_pkts"}
BROKEN: dict[str, tuple[str, Fault, str]] = {
    conn_line(GOOD | {"ts": "soon"}): (
        "tsv", Fault.VALUE, "ts is 'soon', not a number"),
    conn_line(GOOD | {"ts": -1.0}): ("tsv", Fault.VALUE, "ts is -1, which is no time"),
    conn_line(GOOD | {"duration": -1.0}): ("tsv", Fault.VALUE, "duration is -1, out of range"),
    conn_line(GOOD | {"orig_bytes": 1.5}): ("tsv", Fault.VALUE, "orig_bytes is not a whole number"),
    conn_line(GOOD | {"id.orig_h": "10.0.0"}): (
        "tsv", Fault.VALUE, "id.orig_h is '10.0.0', not an address"),
    conn_line(GOOD | {"id.resp_p": 65536}): (
        "tsv", Fault.VALUE, "id.resp_p is 65536, out of range"),
    conn_line(GOOD | {"proto": "tpc"}): ("tsv", Fault.VALUE, "proto is 'tpc'"),
    conn_line(GOOD | {"local_orig": "yes"}): (
        "tsv", Fault.VALUE, "local_orig is 'yes', not a truth value"),
    conn_line(WITHOUT): ("tsv", Fault.LACKING, "orig_pkts is not set"),
    conn_line(GOOD).replace("\t", " ", 1): (
        "tsv", Fault.FIELDS, "has 20 fields, the header 21"),
    conn_line(WITHOUT, "json"): ("json", Fault.LACKING, "orig_pkts is not set"),
    conn_line(GOOD, "json").replace(",", ";", 1): ("json", Fault.JSON, "is no JSON: "),
    conn_line(GOOD | {"_path": "dns"}, "json"): (
        "json", Fault.OTHER_LOG, "is of Zeek's log 'dns', not of conn"),
    conn_line(GOOD | {"orig_pkts": "many"}, "json"): (
        "json", Fault.VALUE, "orig_pkts is 'many', not a number"),
    conn_line(GOOD | {"orig_pkts": [1, 2]}, "json"): (
        "json", Fault.VALUE, "orig_pkts is '[1, 2]', not a number"),
    conn_line(GOOD | {"ts": "2026-13-01T00:00:00Z"}, "json"): (
        "json", Fault.VALUE, "ts is no time: "),
}  # fmt: skip
"""By line: the format, and what is wrong."""


@pytest.mark.parametrize(("line", "expected"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_broken_line_costs_itself_alone(
    line: str, expected: tuple[str, Fault, str], tmp_path: Path
) -> None:
    form, fault, reason = expected
    path = tmp_path / "conn.log"
    good = [conn_line({**GOOD, "uid": f"C{n}"}, form) for n in range(9)]
    header = conn_header() if form == "tsv" else ""
    path.write_text(header + "".join([*good[:4], line, *good[4:]]))
    flows, meter = read(path)
    assert flows["uid"].tolist() == [b"C%d" % n for n in range(9)]
    (problem,) = meter.counters.problems
    assert problem.startswith(f"{path}:{5 + header.count(chr(10))}: {reason}")
    assert problem.endswith("; not read")
    assert (meter.counters.lines, meter.counters.broken) == (10, {fault: 1})


def test_of_many_broken_lines_some_are_told_and_all_counted(tmp_path: Path) -> None:
    path = tmp_path / "conn.log"
    path.write_text(conn_header() + "broken\n" * 12 + conn_line(GOOD) + "\t\n")
    flows, meter = read(path)
    assert len(flows) == 1
    assert meter.counters.broken == {Fault.FIELDS: 13}
    problems = meter.counters.problems
    assert len(problems) == MOST_TOLD + 1
    assert problems[-1] == (
        f"{path}: {13 - MOST_TOLD} more lines with another number of fields than the header; "
        "not read"
    )


def test_a_last_line_without_an_end_is_cut(tmp_path: Path) -> None:
    path = conn_log(tmp_path / "conn.log", [GOOD, GOOD])
    path.write_text(path.read_text()[:-1])
    flows, meter = read(path)
    assert len(flows) == 1
    assert meter.counters.problems == [
        f"{path}:10: is cut off: it has no line end; not read"
    ]  # fmt: skip
    # An object of JSON that has its end is whole.
    path = conn_log(tmp_path / "conn.json", [GOOD, GOOD], "json")
    path.write_text(path.read_text()[:-1])
    assert len(read(path)[0]) == 2


# Headers


def test_a_header_may_change_in_mid_file(tmp_path: Path) -> None:
    path, other = tmp_path / "conn.log", [*reversed(ZEEK_COLUMNS), "community_id"]
    second = (
        conn_header(other).replace("(empty)", "(none)").replace("unset_field\t-", "unset_field\t?")
    )
    fields = conn_line({**GOOD, "community_id": "1:x"}, columns=other).split("\t")
    line = "\t".join("?" if field == "-" else field for field in fields)
    path.write_text(conn_header() + conn_line(GOOD) + "#close\t2026\n" + second + line)
    flows, meter = read(path)
    assert meter.counters.problems == []
    assert flows["community_id"].tolist() == [b"", b"1:x"]
    without = [name for name in CONN_DTYPE.names or () if name != "community_id"]
    assert flows[without][0] == flows[without][1]


def test_another_separator_is_heeded(tmp_path: Path) -> None:
    text = (conn_header() + conn_line(GOOD)).replace("\t", "|").replace(r"\x09", r"\x7c")
    (tmp_path / "conn.log").write_text(text)
    flows, meter = read(tmp_path / "conn.log")
    assert (len(flows), meter.counters.problems) == (1, [])


@pytest.mark.parametrize(
    ("header", "reason", "fault"),
    [
        (conn_header([name for name in ZEEK_COLUMNS if name != "history"]),
         "7: lacks the column history; the lines after it are not read", Fault.HEADER),
        (conn_header(path="dns"),
         "5: is of Zeek's log 'dns', not of conn; the lines after it are not read",
         Fault.OTHER_LOG),
        ("", "1: has no #fields before it, and 2 lines after it; not read", Fault.HEADER),
    ],
)  # fmt: skip
def test_lines_after_a_header_that_does_not_fit_are_counted(
    header: str, reason: str, fault: Fault, tmp_path: Path
) -> None:
    path = tmp_path / "conn.log"
    path.write_text(header + conn_line(GOOD) * 3)
    flows, meter = read(path)
    assert len(flows) == 0
    assert meter.counters.problems[0] == f"{path}:{reason}"
    assert (meter.counters.lines, meter.counters.broken) == (3, {fault: 3})


# Files


def test_files_are_one_log_whatever_their_order(tmp_path: Path) -> None:
    at = [{**GOOD, "ts": 1_768_467_600.0 + 3600 * hour, "uid": f"C{hour}"} for hour in range(3)]
    one_, two, three = (conn_log(tmp_path / f"{n}.log", [at[n]]) for n in (2, 0, 1))
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(two.read_bytes()))
    for order in ((one_, packed, three), (three, one_, packed)):
        ran = run("features", "--zeek-conn", *order, "-o", tmp_path / "x.csv")
        assert (ran.code, ran.err) == (0, "")
        rows = (tmp_path / "x.csv").read_text().splitlines()
        assert [row.split(",")[2] for row in rows] == ["uid", "C0", "C1", "C2"]


def test_a_compressed_log_that_is_cut_counts_up_to_there(tmp_path: Path) -> None:
    whole = conn_log(tmp_path / "conn.log", [{**GOOD, "uid": f"C{n:x}"} for n in range(3000)])
    packed = gzip.compress(whole.read_bytes())
    path = tmp_path / "cut.gz"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    flows, meter = read(path)
    assert 1000 < len(flows) < 3000
    assert any("the compressed data is damaged (cut)" in line for line in meter.counters.problems)


# From end to end


@functools.cache
def model() -> Path:
    """A bundle of schema zeek-conn."""
    folder = SCRATCH / "zeek-model"
    save(untrained("zeek-conn", "gaussian"), folder)
    return folder


def triage(log_dir: Path, *arguments: object) -> Any:
    return run("triage", "-l", log_dir, "--model", model(), "--fpr", "0.99", *arguments)


@pytest.mark.parametrize("form", FORMS)
def test_connections_become_alerts(form: str, tmp_path: Path) -> None:
    given = "1:" + "a" * 27 + "="
    own = [dict(each) for each in CONNECTIONS]
    own[0] |= {"uid": "CREFUSED", "community_id": given}
    path = conn_log(tmp_path / "conn.log", own, form)
    ran = triage(tmp_path, "--zeek-conn", path)
    assert (ran.code, ran.err) == (0, "")
    assert "in 6 connections, 6 lines (0 not read), 1 logs; model untrained-gaussian" in ran.out
    events = {event["alert"]["metadata"]["zeek_uid"][0]: event for event in read_events(tmp_path)}
    refused = events["CREFUSED"]
    assert not {"in_iface", "pcap_filename"} & refused.keys()
    # Zeek's own id goes over ours; TSV has no such column here.
    ours = communityid.CommunityID().calc(
        communityid.FlowTuple.make_tcp("10.0.0.1", "10.0.0.2", 40001, 22)
    )
    assert refused["community_id"] == (ours if form == "tsv" else given)
    assert (refused["src_ip"], refused["src_port"], refused["dest_port"]) == ("10.0.0.1", 40001, 22)
    assert (refused["proto"], refused["timestamp"]) == ("TCP", "2026-01-15T09:00:01.000000+0000")
    flow = {name: refused["flow"][name] for name in ("pkts_toserver", "bytes_toclient", "age")}
    assert flow == {"pkts_toserver": 1, "bytes_toclient": 40, "age": 0}
    assert "reason" not in refused["flow"]
    assert len({event["flow_id"] for event in events.values()}) == len(events)


def test_problems_are_told_and_what_is_good_is_scored(tmp_path: Path) -> None:
    good = conn_log(tmp_path / "conn.log", [GOOD])
    bad = conn_log(tmp_path / "bad.log", [{**GOOD, "proto": "tpc"}])
    ran = triage(tmp_path, "--zeek-conn", good, good, bad, tmp_path / "none.log")
    assert ran.code == 3
    assert sorted(ran.lines) == sorted([
        f"flowvane: warning: {good}: named before; read once",
        f"flowvane: error: {bad}:9: proto is 'tpc'; not read",
        f"flowvane: error: {tmp_path / 'none.log'}: no such file or directory",
    ])  # fmt: skip
    assert "in 1 connections, 2 lines (1 not read: 1 with a value that is wrong), 2 logs" in ran.out


def test_a_log_without_connections_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "conn.log"
    path.write_text(conn_header())
    ran = triage(tmp_path, "--zeek-conn", path)
    assert ran.code == 0
    assert ran.lines == [
        "flowvane: warning: there are no connections in the logs: nothing to score"
    ]


def test_a_model_is_refused_for_what_it_was_not_trained_on(tmp_path: Path) -> None:
    log = conn_log(tmp_path / "conn.log", [GOOD])
    capture = small_pcap(tmp_path / "x.pcap", syn(1025))
    cases: Iterable[tuple[tuple[object, ...], str]] = [
        (("triage", "--zeek-conn", log, "-l", tmp_path, "--model", "nsl-kdd"),
         "model nsl-kdd scores flows measured from packets (schema kdd), not from Zeek's "
         "conn.log: train one of schema zeek-conn on the rows of flowvane features --zeek-conn"),
        (("triage", "-r", capture, "-l", tmp_path, "--model", model()),
         "model untrained-gaussian scores flows measured from Zeek's conn.log (schema zeek-conn), "
         "not from packets: give Zeek's log, with --zeek-conn"),
        (("run", "--zeek-conn", log, "-l", tmp_path), "model nsl-kdd scores flows measured from"),
        (("run", "-T", "--zeek-conn", log), "model nsl-kdd scores flows measured from packets"),
        (("run", "-T", "-i", "lo", "--model", model()), "model untrained-gaussian scores flows"),
    ]  # fmt: skip
    for arguments, reason in cases:
        ran = run(*arguments)
        assert ran.code == 4
        (line,) = ran.lines
        assert line.startswith(f"flowvane: error: {reason}")
    for arguments in (
        ("features", "--zeek-conn", log, "--schema", "kdd", "-o", tmp_path / "x.csv"),
        ("features", "-r", capture, "--schema", "zeek-conn", "-o", tmp_path / "x.csv"),
    ):
        ran = run(*arguments)
        assert ran.code == 2
        assert "is measured from" in ran.err
    assert not (tmp_path / "x.csv").exists()


@eve_schemas
def test_other_events_have_the_uid_too() -> None:
    flow = np.zeros(1, CONN_DTYPE)
    for name in make_flow().dtype.names or ():
        flow[name] = make_flow()[name]
    flow["uid"], flow["ending"] = b"C1", Ending.UNKNOWN
    scores: Any = type("Scores", (), {"score": np.ones(1), "p_value": np.ones(1)})
    alerts = Alerts(flow, np.ones(1), np.ones(1), np.array([1]), [()], [NO_REMAINDER])
    for event in (
        *anomaly_events(alerts, "m", [{}]),
        *flow_events(flow, scores, np.array([True]), "m", [{}]),
    ):
        assert not faults(event)
        assert {"key": "flowvane_zeek_uid", "value": "C1"} in event["metadata"]["flowvars"]
        assert json.dumps(event)
