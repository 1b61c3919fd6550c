"""The sample capture is what it says it is, seen through other eyes than its maker's."""

from __future__ import annotations

import ipaddress
import json
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from nfstream import NFStreamer
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapReader

from examples import sample_capture

FIN, SYN, RST, ACK = 1, 2, 4, 16
START_US = 1_768_467_600_000_000  # 2026-01-15 09:00 UTC

Endpoint = tuple[str, int]
FlowKey = tuple[Endpoint, Endpoint]


class Segment(NamedTuple):
    """What the tests need of a TCP segment."""

    time_us: int
    source: Endpoint
    target: Endpoint
    flags: int
    seq: int
    ack: int
    window: int
    payload: int


@dataclass
class Capture:
    """A capture file, read back."""

    path: Path
    truth: dict[str, Any]
    frames: list[tuple[int, bytes]]
    flows: dict[FlowKey, list[Segment]]
    """TCP only; the key is (client, server)."""

    def attack(self, name: str) -> dict[str, Any]:
        (found,) = [attack for attack in self.truth["attacks"] if attack["name"] == name]
        return dict(found)


def read_frames(path: Path) -> list[tuple[int, bytes]]:
    with RawPcapReader(str(path)) as reader:
        return [(meta.sec * 1_000_000 + meta.usec, frame) for frame, meta in reader]


def read_segment(time_us: int, frame: bytes) -> Segment | None:
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return None
    total = struct.unpack_from("!H", frame, 16)[0]
    source, target = (str(ipaddress.IPv4Address(frame[at : at + 4])) for at in (26, 30))
    source_port, target_port, seq, ack, offset, flags, window = struct.unpack_from(
        "!HHIIBBH", frame, 34
    )
    payload = total - 20 - 4 * (offset >> 4)
    ends = (source, source_port), (target, target_port)
    return Segment(time_us, *ends, flags, seq, ack, window, payload)


def read_flows(frames: list[tuple[int, bytes]]) -> dict[FlowKey, list[Segment]]:
    flows: dict[FlowKey, list[Segment]] = {}
    for time_us, frame in frames:
        segment = read_segment(time_us, frame)
        if segment is not None:
            back = (segment.target, segment.source)
            key = back if back in flows else (segment.source, segment.target)
            flows.setdefault(key, []).append(segment)
    return flows


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    path = tmp_path_factory.mktemp("sample") / "sample.pcap"
    assert sample_capture.main(["-o", str(path)]) == 0
    truth = json.loads(path.with_suffix(".truth.json").read_text(encoding="utf-8"))
    frames = read_frames(path)
    return Capture(path, truth, frames, read_flows(frames))


# ---------------------------------------------------------------------------------------
# The file


def test_the_script_makes_the_same_octets_for_the_same_seed(
    capture: Capture, tmp_path: Path
) -> None:
    script = Path(sample_capture.__file__)
    again = tmp_path / "again.pcap"
    command = [sys.executable, str(script), "-o", str(again), "--seed", "7"]
    # From elsewhere: the script finds its own modules.
    subprocess.run(command, check=True, cwd=tmp_path, timeout=60)
    assert again.read_bytes() == capture.path.read_bytes()
    truths = [path.with_suffix(".truth.json").read_bytes() for path in (again, capture.path)]
    assert truths[0] == truths[1]


def test_another_seed_makes_another_capture(capture: Capture) -> None:
    other = sample_capture.make_sample(8)
    assert [frame for _, frame in other.frames[:50]] != [frame for _, frame in capture.frames[:50]]
    assert [attack["name"] for attack in other.truth["attacks"]] == [
        attack["name"] for attack in capture.truth["attacks"]
    ]


def test_it_is_small(capture: Capture) -> None:
    assert capture.path.stat().st_size < 6_300_000
    assert 15_000 < len(capture.frames) < 25_000
    assert capture.truth["packets"] == len(capture.frames)
    assert 700 <= sum(capture.truth["background_flows"].values()) <= 1500


def test_it_is_ten_minutes_in_order(capture: Capture) -> None:
    times = [time for time, _ in capture.frames]
    assert times == sorted(times)
    assert START_US <= times[0] < START_US + 10_000_000
    assert 560 < (times[-1] - START_US) / 1e6 < 615
    # In no ten seconds is it silent.
    assert len({(time - START_US) // 10_000_000 for time in times}) >= 56


def test_addresses_are_private_or_for_documentation(capture: Capture) -> None:
    office = ipaddress.ip_network("10.20.30.0/24")
    outside = [ipaddress.ip_network(network) for network in sample_capture.OUTSIDE]
    router: set[bytes] = set()
    inside_macs: set[bytes] = set()
    for _, frame in capture.frames:
        source = ipaddress.IPv4Address(frame[26:30])
        assert source in office or any(source in network for network in outside)
        (inside_macs if source in office else router).add(frame[6:12])
        assert frame[6] & 0x03 == 0x02  # locally administered, one host
    assert len(router) == 1
    assert not router & inside_macs
    assert len(inside_macs) == 21


def test_checksums_are_scapys(capture: Capture) -> None:
    kinds = Counter[str]()
    for _, frame in capture.frames[::17]:
        packet = Ether(frame)
        del packet[IP].chksum
        for layer in (TCP, UDP, ICMP):
            if layer in packet:
                kinds[layer.__name__] += 1
                del packet[layer].chksum
        assert bytes(packet) == frame
    assert set(kinds) == {"TCP", "UDP", "ICMP"}


# ---------------------------------------------------------------------------------------
# The traffic


def test_tcp_numbers_agree_between_the_sides(capture: Capture) -> None:
    checked = 0
    for (client, _), segments in capture.flows.items():
        origin = {segment.source: segment.seq for segment in segments if segment.flags & SYN}
        if len(origin) < 2:
            continue  # unanswered, or refused
        checked += 1
        sent = dict.fromkeys(origin, 0)
        for segment in segments:
            me, you = segment.source, segment.target
            if segment.flags & ACK:
                assert (segment.ack - origin[you]) % 2**32 <= sent[you]
            start = (segment.seq - origin[me]) % 2**32
            # The flood's SYN-ACKs are repeated; nothing else is, and nothing is left out.
            assert start == (0 if segment.flags & SYN else sent[me])
            length = segment.payload + bool(segment.flags & SYN) + bool(segment.flags & FIN)
            sent[me] = max(sent[me], start + length)
        assert segments[0].flags == SYN
        assert segments[0].source == client
    assert checked > 500


def test_connections_mostly_end_in_order(capture: Capture) -> None:
    endings = Counter[str]()
    for (_, server), segments in capture.flows.items():
        if sum(segment.payload for segment in segments):
            fins = sum(bool(segment.flags & FIN) for segment in segments)
            resets = sum(bool(segment.flags & RST) for segment in segments)
            assert (fins, resets) in {(2, 0), (0, 1), (0, 0)}, server
            endings["reset" if resets else "fin" if fins else "open"] += 1
    assert endings["fin"] > 0.9 * endings.total()
    assert endings["reset"] > 0
    assert endings["open"] > 0


def test_round_trips_are_those_of_a_lan_and_the_world(capture: Capture) -> None:
    near: list[float] = []
    far: list[float] = []
    for (client, server), segments in capture.flows.items():
        # From SYN to the client's ACK is a round trip wherever the tap is.
        from_client = [segment.time_us for segment in segments if segment.source == client]
        if sum(segment.payload for segment in segments):
            inside = all(end[0].startswith("10.") for end in (client, server))
            (near if inside else far).append((from_client[1] - from_client[0]) / 1000)
    assert 0.2 < min(near) <= max(near) < 3
    assert 2.5 < min(far) <= max(far) < 120
    assert len({round(value) for value in far}) > 15


def test_ports_are_not_used_twice(capture: Capture) -> None:
    for key, segments in capture.flows.items():
        first = {s.seq for s in segments if s.flags & (SYN | ACK) == SYN}
        assert len(first) == 1, key


# NFStream forks; the child runs nothing of the JAX that another test may have loaded here.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ndpi_recognises_the_applications(capture: Capture) -> None:
    streamer = NFStreamer(
        str(capture.path), idle_timeout=60, active_timeout=60, n_dissections=20, n_meters=1
    )
    seen = Counter[str]()
    for flow in streamer:
        if not flow.application_is_guessed:
            seen[flow.application_name] += 1
    background = capture.truth["background_flows"]
    assert seen["HTTP"] == background["http"]
    assert seen["TLS"] == background["tls"] + 1  # and the upload
    assert seen["DNS"] == background["dns"]
    assert seen["NTP"] == background["ntp"]
    assert seen["SMTP"] == background["smtp"]
    assert seen["POP3"] == background["pop3"]
    assert seen["IMAP"] == background["imap"]
    assert seen["FTP_CONTROL"] == background["ftp"]
    assert seen["ICMP"] == background["icmp"]
    assert seen["SSH"] >= background["ssh"] + 60  # long sessions are cut at 60 s


# ---------------------------------------------------------------------------------------
# What there is to find


def check(attack: dict[str, Any], flows: list[list[Segment]]) -> None:
    """The truth file says about `flows` what the packets say."""
    times = [segment.time_us for segments in flows for segment in segments]
    assert attack["flows"] == len(flows)
    assert attack["packets"] == len(times)
    assert (attack["first_us"], attack["last_us"]) == (min(times), max(times))
    assert attack["first"] == sample_capture.iso_time(min(times))


def test_port_scan(capture: Capture) -> None:
    attack = capture.attack("port scan")
    (source,) = attack["source"]
    # Nobody else offers a window of 1,024 in a SYN to an inside server but the flood.
    flows = [
        segments
        for (client, server), segments in capture.flows.items()
        if (client[0], server[0]) == (source, attack["destination"]) and segments[0].window == 1024
    ]
    check(attack, flows)
    answers = Counter(segments[1].flags if len(segments) > 1 else 0 for segments in flows)
    assert len({segments[0].target[1] for segments in flows}) == 1000
    assert answers[SYN | ACK] == 3
    assert answers[RST | ACK] > 900
    assert 20 <= answers[0] < 120
    assert attack["last_us"] - attack["first_us"] < 23e6


def test_syn_flood(capture: Capture) -> None:
    attack = capture.attack("SYN flood")
    target = (attack["destination"], attack["port"])
    flows = [
        segments
        for (client, server), segments in capture.flows.items()
        if server == target and all(s.flags == SYN for s in segments if s.source == client)
    ]
    check(attack, flows)
    networks = [ipaddress.ip_network(network) for network in attack["source"]]
    assert all(
        any(ipaddress.ip_address(segments[0].source[0]) in network for network in networks)
        for segments in flows
    )
    assert len({segments[0].source[0] for segments in flows}) > 600
    assert len(flows) == 3000
    syn_times = [segments[0].time_us for segments in flows]
    assert max(syn_times) - min(syn_times) < 10e6
    answered = [segments[0].time_us for segments in flows if len(segments) > 1]
    assert 128 <= len(answered) < 200
    assert sorted(answered)[63] - min(syn_times) < 1e6


def test_password_guessing(capture: Capture) -> None:
    attack = capture.attack("ssh password guessing")
    (source,) = attack["source"]
    flows = [
        segments
        for (client, server), segments in capture.flows.items()
        if (client[0], server) == (source, (attack["destination"], attack["port"]))
    ]
    check(attack, flows)
    assert len(flows) == 60
    assert 50e6 < attack["last_us"] - attack["first_us"] < 75e6
    for segments in flows:
        assert 1e6 < segments[-1].time_us - segments[0].time_us < 8e6
        assert 15 < len(segments) < 40


def test_large_upload(capture: Capture) -> None:
    attack = capture.attack("large upload")
    (source,) = attack["source"]
    flows = [
        segments
        for (client, server), segments in capture.flows.items()
        if (client[0], server[0]) == (source, attack["destination"])
    ]
    check(attack, flows)
    up: Counter[FlowKey] = Counter()
    down: Counter[FlowKey] = Counter()
    for key, segments in capture.flows.items():
        for segment in segments:
            (up if segment.source == key[0] else down)[key] += segment.payload
    (key, largest), (_, second) = up.most_common(2)
    assert (key[0][0], key[1][0]) == (source, attack["destination"])
    assert largest > 2_500_000
    assert largest > 20 * max(second, max(down.values()))
    assert max(segment.payload for segment in flows[0]) == 1448


def test_what_the_flood_hits_is_left_alone_meanwhile(capture: Capture) -> None:
    attack = capture.attack("SYN flood")
    target = (attack["destination"], attack["port"])
    for (_, server), segments in capture.flows.items():
        opened = segments[0].time_us
        if server == target and attack["first_us"] < opened < attack["last_us"]:
            assert not sum(segment.payload for segment in segments)
