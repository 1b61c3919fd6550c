"""Our meters against plain NFStreamer, and whether the comparison notices what differs."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from benchmarks import parity
from benchmarks.nfstream_reference import REFERENCE_DTYPE
from examples import traffic
from examples.traffic import Host, Side, TcpConversation
from features.flows import Ending, FlowBatch
from features.registry import SCHEMAS
from sensor.captures import CaptureSpool
from tests import helpers
from tests.sensor.test_corpus import ARCHIVES, FULL, corpus, unpack

START_US = 1_700_000_000_000_000
ANN, BOB = helpers.ANN, helpers.BOB
SIX = Host(ANN.mac, "2001:db8::1"), Host(BOB.mac, "2001:db8::2")
SETTINGS = SCHEMAS["flow"].meter
CHOSEN = 12


def generated(path: Path) -> Path:
    """Seven flows: TLS, DNS in a VLAN and over IPv6, a ping, a scan, one cut in two by age."""

    def at(milliseconds: float) -> int:
        return START_US + round(milliseconds * 1000)

    talk = TcpConversation(ANN, BOB, 50_000, 443)
    talk.handshake(at(0), at(20.4), at(21.7))
    hello, answer = traffic.tls_hellos("www.example.org", Random(1))
    talk.segment(at(30), Side.CLIENT, "PA", hello)
    talk.segment(at(55.5), Side.SERVER, "PA", answer)
    talk.farewell(Side.CLIENT, at(200), at(220), at(221))
    query = traffic.dns_query(7, "www.example.org")
    frames = [
        *talk.frames,
        (at(300), traffic.udp_frame(ANN, BOB, 40_001, 53, query, vlan=7)),
        (at(310), traffic.udp_frame(*SIX, 40_001, 53, query)),
        (at(320), traffic.icmp_echo_frame(ANN, BOB, 1, 1, bytes(56))),
        (at(322), traffic.icmp_echo_frame(BOB, ANN, 1, 1, bytes(56), reply=True)),
        (at(400), traffic.tcp_frame(ANN, BOB, 60_000, 1, "S")),
        (at(401), traffic.tcp_frame(BOB, ANN, 1, 60_000, "RA")),
        *((at(1000 + 100_000 * n), traffic.udp_frame(ANN, BOB, 60_001, 514, b"up"))
          for n in range(20)),
    ]  # fmt: skip
    traffic.write_pcap(path, sorted(frames))
    return path


def measured(meter: str, *paths: Path) -> parity.Measured:
    with CaptureSpool() as spool:
        return parity.measure(spool, paths, SETTINGS, parity.METERS[meter])


@pytest.mark.parametrize("meter", parity.METERS)
def test_every_flow_of_a_generated_capture_is_nfstreams(meter: str, tmp_path: Path) -> None:
    found = measured(meter, generated(tmp_path / "generated.pcap"))
    assert found.problems == found.refused == []
    report = found.report
    assert report.reference_flows == report.own_flows == report.matched == report.identical == 7
    assert report.complete


def assert_parity(meter: str, paths: list[Path]) -> None:
    found = measured(meter, *paths)
    assert found.problems == []
    assert found.report.only_reference == found.report.only_own == []
    differing = {name: each.examples for name, each in found.report.fields.items() if each.examples}
    assert not differing
    assert found.report.complete
    assert found.report.matched > 0


@corpus
@pytest.mark.parametrize("meter", parity.METERS)
def test_every_flow_of_some_captures_is_nfstreams(meter: str, tmp_path: Path) -> None:
    assert_parity(meter, unpack(ARCHIVES["attacks"], tmp_path, CHOSEN))


@pytest.mark.skipif(not FULL, reason="minutes long: set FLOWVANE_CORPUS_FULL=1 for every capture")
@corpus
@pytest.mark.parametrize("meter", parity.METERS)
@pytest.mark.parametrize("name", ["attacks", "benign-apps", "protocols"])
def test_every_flow_of_all_captures_is_nfstreams(name: str, meter: str, tmp_path: Path) -> None:
    assert_parity(meter, unpack(ARCHIVES["attacks"].with_name(f"{name}.tar.xz"), tmp_path))


# ---------------------------------------------------------------------------------------
# The comparison itself, on flows made here


def flows() -> FlowBatch:
    """Four flows; the last two differ in their ends only."""
    return np.concatenate(
        [
            helpers.make_flow(src_port=1),
            helpers.make_flow(src_port=2),
            helpers.make_flow(src_port=3, last_us=1_768_467_601_000_000),
            helpers.make_flow(src_port=3, last_us=1_768_467_602_000_000),
        ]
    )


def as_reference(batch: FlowBatch) -> FlowBatch:
    rows = np.zeros(len(batch), REFERENCE_DTYPE)
    for name in REFERENCE_DTYPE.names or ():
        rows[name] = batch[name]
    return rows


def test_neither_order_nor_batches_matter() -> None:
    own = flows()
    for order in ([3, 1, 0, 2], [2, 3, 1, 0]):
        report = parity.compare(as_reference(own)[order], [own[:1], own[1:]])
        assert report.complete
        assert report.matched == 4


def test_a_missing_and_an_added_flow_are_told_apart() -> None:
    own = flows()
    lost = parity.compare(as_reference(own), [own[1:]], origins=["a.pcap"])
    assert (lost.matched, len(lost.only_reference), lost.only_own) == (3, 1, [])
    assert "a.pcap: protocol 6, 10.0.0.1 1 > 10.0.0.2 80" in lost.only_reference[0]
    more = parity.compare(as_reference(own[:3]), [own])
    assert (more.matched, more.only_reference, len(more.only_own)) == (3, [], 1)
    nothing = parity.compare(as_reference(own), [])
    assert (nothing.matched, nothing.own_flows, nothing.complete) == (0, 0, False)


@pytest.mark.parametrize("name", parity.COMPARED)
def test_a_field_that_differs_is_noticed(name: str) -> None:
    own = flows()
    rows = as_reference(own)
    if name == "ending":
        rows[name][1] = Ending.ACTIVE
    else:
        rows[name][1] = b"other" if rows.dtype[name].kind == "S" else rows[name][1] + 1
    report = parity.compare(rows, [own])
    assert not report.complete
    assert (report.matched, report.identical) == (4, 3)
    wrong = {field for field, each in report.fields.items() if each.equal < 4}
    assert wrong == {name}
    assert len(report.fields[name].examples) == 1


@pytest.mark.parametrize("name", parity.MATCHED_BY)
def test_a_flow_with_another_key_is_another_flow(name: str) -> None:
    own = flows()
    rows = as_reference(own)
    if rows.dtype[name].shape:
        rows[name][1, 15] += 9
    else:
        rows[name][1] += 2
    report = parity.compare(rows, [own])
    assert (report.matched, len(report.only_reference), len(report.only_own)) == (3, 1, 1)


def test_a_finer_clock_is_cut_to_nfstreams() -> None:
    own = flows()
    rows = as_reference(own)
    own["first_us"] += 999
    assert parity.compare(rows, [own]).complete
    own["src_piat_mean_us"] = 999.0
    assert parity.compare(rows, [own], clock_us=1).complete
    assert parity.compare(rows, [own]).identical == 0
    own["last_us"] += 1000
    own["src_piat_mean_us"] = 1001.0
    report = parity.compare(rows, [own], clock_us=1)
    assert report.fields["last_us"].equal == report.fields["src_piat_mean_us"].equal == 0
