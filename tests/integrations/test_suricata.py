"""A real Suricata says the same of the same flows: times, Community IDs, addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    IPv6,
)
from scapy.layers.l2 import Dot1Q, Ether

from benchmarks.suricata import ESP, FRAGMENTS, ONE_WAY, compare, program_of, report
from tests.helpers import sample, small_pcap

PROGRAM = program_of()

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no suricata in PATH; FLOWVANE_SURICATA may name one"
)


def test_the_sample_capture() -> None:
    assert PROGRAM is not None
    result = compare(PROGRAM, [sample().path])
    assert result.matched > 0.99 * result.own_flows > 4000
    assert result.differences == {}
    for name in ("community_id", "flow.start", "flow.end", "flow.age"):
        assert result.equal[name] == result.compared[name] > 0
    # Suricata's own flow_id is another each time, but for the bits that are the flow's start.
    assert result.twice == result.suricata_flows
    assert result.same_ids < 0.01 * result.twice
    assert result.start_in_ids == result.twice
    assert report(result, PROGRAM)["fields"][0]["equal"] == result.matched


def test_icmp_vlan_and_ipv6(tmp_path: Path) -> None:
    assert PROGRAM is not None
    one, two = "2001:db8::1", "2001:db8::ffff:2"
    packets = [
        Ether() / IPv6(src=two, dst=one) / ICMPv6EchoRequest(id=1),
        Ether() / IPv6(src=one, dst=two) / ICMPv6EchoReply(id=1),
        Ether() / IPv6(src=two, dst="2001:db8::3") / ICMPv6ND_NS(tgt=one),
        Ether() / IPv6(src="2001:db8::3", dst=two) / ICMPv6ND_NA(tgt=one),
        Ether() / IP(src="192.0.2.9", dst="192.0.2.1") / ICMP(type=8),
        Ether() / IP(src="192.0.2.1", dst="192.0.2.9") / ICMP(type=0),
        Ether() / IP(src="192.0.2.9", dst="192.0.2.5") / ICMP(type=13),
        Ether() / Dot1Q(vlan=7) / IP(src="192.0.2.2", dst="192.0.2.3") / UDP(sport=9, dport=53),
        Ether() / IPv6(src=two, dst=one) / UDP(sport=5353, dport=9),
    ]
    path = small_pcap(tmp_path / "made.pcap", *map(bytes, packets))
    result = compare(PROGRAM, [path])
    assert result.matched == result.own_flows == 6
    assert result.differences == {}


def test_where_suricata_leaves_the_specification(tmp_path: Path) -> None:
    assert PROGRAM is not None
    error = IPv6(src="2001:db8::5", dst="2001:db8::1") / ICMPv6DestUnreach(code=4)
    inner = IPv6(src="2001:db8::1", dst="2001:db8::6") / UDP(sport=40000, dport=9)
    esp = IP(src="192.0.2.8", dst="192.0.2.9", proto=50) / bytes.fromhex("f0091c35000000010203")
    other = IPv6(src="2001:db8::8", dst="2001:db8::9") / UDP(sport=1, dport=2)
    whole = IP(src="192.0.2.8", dst="192.0.2.9", id=7) / UDP(sport=5, dport=6) / (b"x" * 2000)
    packets = [
        Ether() / error / inner / (b"x" * 20), Ether() / esp, Ether() / other,
        *(Ether() / part for part in fragment(whole, 1000)),
    ]  # fmt: skip
    result = compare(PROGRAM, [small_pcap(tmp_path / "made.pcap", *map(bytes, packets))])
    assert result.matched == 4
    assert result.equal["community_id"] == 2  # of the fragments, too
    differences = {name: dict(causes) for name, causes in result.differences.items()}
    assert differences.pop("community_id") == {ONE_WAY: 1, ESP: 1}
    assert {cause for causes in differences.values() for cause in causes} == {FRAGMENTS}
