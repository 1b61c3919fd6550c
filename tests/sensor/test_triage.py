"""Triage from end to end: what it finds, and what its results may depend on."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import signal
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import traffic
from features.flows import FlowBatch
from features.schema import MeterSettings
from sensor import triage as triage_module
from sensor.captures import Chain
from sensor.meter.base import MemoryMeter
from sensor.meter.compiled import core
from sensor.meter.compiled.core import Options
from sensor.pipeline import Scored
from tests.helpers import (
    ANN,
    ARP,
    BOB,
    MODELS,
    SCRATCH,
    Ran,
    Sample,
    about,
    excerpt_triage,
    make_flow,
    metered,
    read_events,
    run,
    sample,
    small_pcap,
    syn,
)


@pytest.fixture(scope="session")
def made() -> Sample:
    return sample()


def triage(log_dir: Path, *captures: object, model: str = "nsl-kdd") -> Ran:
    return run("triage", "-l", log_dir, "--model", model, "-r", *captures)


def lines(log_dir: Path) -> list[bytes]:
    return (log_dir / "eve.json").read_bytes().splitlines(keepends=True)


@functools.cache
def whole() -> tuple[Ran, list[dict[str, Any]]]:
    """The whole sample with the default model."""
    log_dir = SCRATCH / "whole"
    ran = run("triage", "-r", sample().path, "-l", log_dir)
    return ran, read_events(log_dir)


# What it finds


def attack(made: Sample, name: str) -> dict[str, Any]:
    (found,) = [attack for attack in made.truth["attacks"] if attack["name"] == name]
    return dict(found)


def belongs(event: dict[str, Any], truth: dict[str, Any]) -> bool:
    """Whether an event is about a flow of an attack."""
    source = ipaddress.ip_address(event["src_ip"])
    return (
        event["dest_ip"] == truth["destination"]
        and truth["port"] in (None, event["dest_port"])
        and any(source in ipaddress.ip_network(each) for each in truth["source"])
        and truth["first"] <= event["flow"]["start"].replace("+0000", "+00:00")
        # Times are cut to whole milliseconds: the last flow may begin a little after `last`.
        and event["flow"]["end"][:23] <= truth["last"][:23]
    )


@pytest.mark.parametrize("name", ["port scan", "SYN flood"])
def test_nearly_all_flows_of_an_attack_are_alerted(name: str, made: Sample) -> None:
    truth = attack(made, name)
    truth["first"] = truth["first"][:23]
    _, events = whole()
    found = {
        (event["src_ip"], event["src_port"], event["dest_ip"], event["dest_port"])
        for event in events
        if belongs(event, truth)
    }
    assert 0.9 * truth["flows"] <= len(found) <= truth["flows"]


def test_every_packet_and_flow_is_accounted_for(made: Sample) -> None:
    ran, events = whole()
    truth = made.truth
    flows = sum(truth["background_flows"].values()) + sum(a["flows"] for a in truth["attacks"])
    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.splitlines()[-1].startswith(
        f"{len(events)} alerts in {flows} flows, {truth['packets']} packets (0 not metered, 0 lost)"
        ", 1 captures; model nsl-kdd, "
    )
    assert len({event["flow_id"] for event in events}) == len(events)


def test_alerts_are_in_order_of_time_and_name_their_capture(made: Sample) -> None:
    _, events = whole()
    times = [event["timestamp"] for event in events]
    assert times == sorted(times)
    assert {event["pcap_filename"] for event in events} == {str(made.path)}
    assert all(event["timestamp"] == event["flow"]["end"] for event in events)
    assert {event["alert"]["metadata"]["model"][0] for event in events} == {"nsl-kdd"}
    # What was alerted at 1 in 100 is at most so likely, and the severity goes with it.
    for event in events:
        p = float(event["alert"]["metadata"]["p_value"][0])
        assert p <= 0.01
        assert event["alert"]["severity"] == (1 if p <= 0.001 else 2 if p <= 0.01 / 3 else 3)
        assert event["alert"]["metadata"]["features"]


def test_the_scan_and_the_flood_are_a_row_each_of_the_table(made: Sample) -> None:
    ran, _ = whole()
    rows = [line.split("│") for line in ran.out.splitlines() if line.startswith("│")]
    shown = {(row[4].strip(), row[5].strip()) for row in rows}
    scan, flood = attack(made, "port scan"), attack(made, "SYN flood")
    (scanned,) = [to for source, to in shown if source == scan["source"][0] and "ports" in to]
    assert scanned.startswith(scan["destination"])
    assert [
        to for source, to in shown if "sources" in source and to == f"{flood['destination']}:80"
    ]


# What the results do not depend on


class Replay(MemoryMeter):
    """Hands on what the stock meter measured, cut anew into batches of `size`."""

    clock_us = 1000

    def __init__(self, batches: Sequence[FlowBatch], size: int) -> None:
        flows = np.concatenate(batches)
        super().__init__([flows[at : at + size] for at in range(0, len(flows), size)], 1000)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("metered_at_once", "scored_at_once"), [(31, 5000), (100_000, 37)])
def test_how_flows_are_cut_into_batches_does_not_matter(
    model: str, metered_at_once: int, scored_at_once: int, made: Sample, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _, expected = excerpt_triage(model)
    batches = metered(made.excerpt, MODELS[model])
    monkeypatch.setattr(
        triage_module, "open_meter", lambda *_, **__: Replay(batches, metered_at_once)
    )
    monkeypatch.setattr("sensor.pipeline.SCORED_FLOWS", scored_at_once)
    triage(tmp_path, made.excerpt, model=model)
    assert (tmp_path / "eve.json").read_bytes() == expected


def test_grouped_alerts_are_fewer_events_that_count_as_many(made: Sample, tmp_path: Path) -> None:
    plain, eve = excerpt_triage("nsl-kdd")
    flows = [json.loads(line) for line in eve.splitlines()]
    ran = run("triage", "-r", made.excerpt, "-l", tmp_path, "--group")
    events = read_events(tmp_path)
    said, expected = (each.out.splitlines()[-1].split(";")[0] for each in (ran, plain))
    assert said == expected  # so many alerts in so many flows
    told = [event["alert"]["metadata"] for event in events]
    assert sum(int(group["count"][0]) for group in told) == len(flows)
    assert len({event["flow_id"] for event in events}) == len(events) < len(flows) / 5

    def pair(event: dict[str, Any]) -> tuple[Any, ...]:
        return event["src_ip"], event["dest_ip"], event["alert"]["signature_id"]

    # The first alert of a pair is an event at once, the very one that there is without groups.
    firsts = [event for event in events if event["alert"]["metadata"]["group_event"] == ["first"]]
    begun = {pair(event): event["flow_id"] for event in reversed(flows)}
    known = {event["flow_id"]: event for event in flows}
    for event in firsts:
        assert event["flow"] == known[event["flow_id"]]["flow"]
        if event["alert"]["metadata"]["group_by"] == ["pair"]:
            assert event["flow_id"] == begun[pair(event)]


def test_suppressed_alerts_are_not_written_but_counted(made: Sample, tmp_path: Path) -> None:
    _, eve = excerpt_triage("nsl-kdd")
    alerts = [json.loads(line) for line in eve.splitlines()]
    source = Counter(event["src_ip"] for event in alerts).most_common(1)[0][0]
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"- {{source: {source}, model: nsl-kdd}}\n")
    ran = run("triage", "-r", made.excerpt, "-l", tmp_path, "--suppress", rules)
    others = [event for event in alerts if event["src_ip"] != source]
    assert read_events(tmp_path) == others
    told = f"{len(others)} alerts, {len(alerts) - len(others)} suppressed in "
    assert told in ran.out.splitlines()[-1]


def test_wrong_rules_are_refused_before_anything_is_written(made: Sample, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("- port: 80\n  protocl: tcp\n")
    ran = run("triage", "-r", made.excerpt, "-l", tmp_path, "--suppress", rules)
    assert ran.code == 2
    assert ran.lines == [f"flowvane: error: {rules}:2: there is no 'protocl'; is it protocol?"]
    assert not (tmp_path / "eve.json").exists()


def test_the_order_of_the_files_does_not_matter(made: Sample, tmp_path: Path) -> None:
    one, two = made.halves
    first = triage(tmp_path / "a", one, two, made.other)
    second = triage(tmp_path / "b", made.other, two, one)
    assert first.code == second.code == 0
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    read_events(tmp_path / "a")
    names = {json.loads(line)["pcap_filename"] for line in lines(tmp_path / "a")}
    assert names == {str(path) for path in (one, two, made.other)}


def test_two_rotated_files_are_one_capture(made: Sample, tmp_path: Path) -> None:
    ran = triage(tmp_path, *made.halves)
    said, expected = excerpt_triage("nsl-kdd")
    got = [json.loads(line) for line in lines(tmp_path)]
    places = [event.pop("pcap_filename") for event in got]
    events = [json.loads(line) for line in expected.splitlines()]
    for event in events:
        event.pop("pcap_filename")
    assert got == events
    assert set(places) == {str(path) for path in made.halves}
    # An event is seen in the file that has the flow's last packet.
    assert places == sorted(places)
    assert ", 2 captures;" in ran.out
    assert said.out.split(", 1 captures")[0].splitlines()[-1] in ran.out


def test_a_file_named_twice_is_read_once(made: Sample, tmp_path: Path) -> None:
    link = tmp_path / "link.pcap"
    link.symlink_to(made.excerpt)
    _, expected = excerpt_triage("nsl-kdd")
    ran = run("triage", "-l", tmp_path, "-r", made.excerpt, made.excerpt, "--read", link)
    assert ran.code == 0
    assert (tmp_path / "eve.json").read_bytes() == expected
    assert ran.lines == [
        f"flowvane: warning: {path}: named before; read once" for path in (made.excerpt, link)
    ]
    assert ", 1 captures;" in ran.out


def test_the_same_run_again_appends_the_same_lines(made: Sample, tmp_path: Path) -> None:
    batches = metered(made.excerpt, "kdd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triage_module, "open_meter", lambda *_, **__: Replay(batches, 512))
        triage(tmp_path, made.excerpt)
        once = lines(tmp_path)
        triage(tmp_path, made.excerpt)
    assert len(once) > 100
    assert lines(tmp_path) == once + once


def test_a_torn_line_of_an_earlier_run_is_closed(
    made: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = metered(made.excerpt, "kdd")
    monkeypatch.setattr(triage_module, "open_meter", lambda *_, **__: Replay(batches, 512))
    (tmp_path / "eve.json").write_bytes(b'{"timestamp":"20')
    triage(tmp_path, made.excerpt)
    torn, *rest = lines(tmp_path)
    assert torn == b'{"timestamp":"20\n'
    assert all(json.loads(line)["event_type"] == "alert" for line in rest)


def test_modules_in_the_folder_of_the_call_are_not_run(
    made: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Whoever looks at captures may stand in a folder that somebody else filled.
    for name in ("nfstream", "features", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w').close()\n")
    _, expected = excerpt_triage("nsl-kdd")
    monkeypatch.chdir(tmp_path)
    ran = run("triage", "-r", made.excerpt, "-l", tmp_path)
    assert not (tmp_path / "was-run").exists()
    assert ran.code == 0
    assert (tmp_path / "eve.json").read_bytes() == expected


# Stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_scored_before_a_signal_is_written(
    number: signal.Signals, made: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _, whole = excerpt_triage("nsl-kdd")
    batches = metered(made.excerpt, "kdd")
    monkeypatch.setattr(triage_module, "open_meter", lambda *_, **__: Replay(batches, 512))
    monkeypatch.setattr("sensor.pipeline.SCORED_FLOWS", 400)
    score = triage_module.score

    def stopped(*arguments: Any) -> Iterator[Scored]:
        scored = score(*arguments)
        yield next(scored)
        os.kill(os.getpid(), number)
        time.sleep(5)
        yield from scored

    monkeypatch.setattr(triage_module, "score", stopped)
    ran = triage(tmp_path, made.excerpt)
    assert ran.code == 130
    assert "Traceback" not in ran.err
    written = (tmp_path / "eve.json").read_bytes()
    assert written
    assert whole.startswith(written)
    assert len(written) < len(whole)


# Told


class Failing(MemoryMeter):
    """A meter that loses a capture."""

    def flows(self) -> Iterator[FlowBatch]:
        yield from ()
        self.counters.lost += 7
        self.counters.problems.append("some.pcap: metering failed: the meter died")


def test_a_capture_that_was_not_metered_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_pcap(tmp_path / "some.pcap", syn(1025))
    monkeypatch.setattr(triage_module, "open_meter", lambda *_, **__: Failing([], 1000))
    monkeypatch.chdir(tmp_path)
    ran = triage(tmp_path, path.name)
    assert ran.code == 3
    # Not also that it had no IP traffic, which nobody knows.
    assert ran.lines == ["flowvane: error: some.pcap: metering failed: the meter died"]
    assert "7 lost" in ran.out


def test_a_capture_whose_other_interface_had_no_ip_is_not_empty(tmp_path: Path) -> None:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    def packet(interface: int, data: bytes) -> bytes:
        ticks, size = 1_768_467_600_000_000, len(data)
        head = struct.pack("<IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, size, size)
        return block(6, head + data)

    path = tmp_path / "two.pcapng"
    path.write_bytes(
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        + block(1, struct.pack("<HHI", 1, 0, 0))  # Ethernet
        + block(1, struct.pack("<HHI", 113, 0, 0))  # Linux cooked, with ARP only
        + packet(0, syn(1025))
        + packet(1, bytes(14) + b"\x08\x06" + bytes(28))
    )
    ran = triage(tmp_path, path)
    assert ran.code == 0
    assert ran.lines == []
    assert "in 1 flows, 2 packets (1 not metered, 0 lost)" in ran.out


def test_a_capture_without_ip_beside_one_with_is_named(tmp_path: Path) -> None:
    arp = small_pcap(tmp_path / "arp.pcap", ARP, ARP)
    # A day before: files that continue each other are one capture.
    other = small_pcap(tmp_path / "syn.pcap", syn(1025), start_us=1_768_381_200_000_000)
    ran = triage(tmp_path, arp, other)
    assert ran.code == 0
    line = about(ran.lines, arp)
    assert line == (
        f"flowvane: warning: {arp}: has no IP traffic in its 2 packets: nothing to score"
    )
    assert len(ran.lines) == 1
    assert "in 1 flows, 3 packets (2 not metered, 0 lost), 2 captures" in ran.out


def test_flows_without_ports_are_scored_too(tmp_path: Path) -> None:
    # To and from port 0, which scanners use; and SCTP, whose ports the engine does not read.
    zero = traffic.tcp_frame(ANN, BOB, 0, 0, "S"), traffic.udp_frame(ANN, BOB, 0, 0, b"x")
    sctp = bytearray(zero[1])
    sctp[23] = 132
    path = small_pcap(tmp_path / "zero.pcap", *zero, bytes(sctp))
    ran = run("triage", "-r", path, "-l", tmp_path, "--fpr", "0.999")
    assert ran.code == 0
    assert "in 3 flows, 3 packets" in ran.out
    assert all(event["community_id"].startswith("1:") for event in read_events(tmp_path))


def test_flows_made_elsewhere_are_scored_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A chain's number is all that ties a flow to its files.
    path = small_pcap(tmp_path / "some.pcap", syn(1025))

    def meter(chains: Sequence[Chain], settings: MeterSettings, *_: Any, **__: Any) -> MemoryMeter:
        assert [chain.captures for chain in chains] == [(path,)]
        assert (settings.idle_timeout_s, settings.active_timeout_s) == (120, 1800)
        return Replay([make_flow(application="TLS.Google"), make_flow(src_port=5)], 1)

    monkeypatch.setattr(triage_module, "open_meter", meter)
    ran = run("triage", "-r", path, "-l", tmp_path, "--fpr", "0.999")
    assert ran.code == 0
    for event in read_events(tmp_path):
        assert event["pcap_filename"] == str(path)


def test_flows_that_were_ended_to_make_room_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "Options", functools.partial(Options, most_flows=3))
    path = small_pcap(tmp_path / "syns.pcap", *(syn(port) for port in range(1025, 1035)))
    ran = triage(tmp_path, path)
    assert ran.code == 0
    assert "in 10 flows (7 ended early: the flow table was full), 10 packets" in ran.out
