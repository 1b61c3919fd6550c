"""The flow record: its dtype, empty rows, addresses."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.flows import (
    FLOW_DTYPE,
    FLOW_FIELDS,
    NEVER,
    Ending,
    TcpFlag,
    address_keys,
    empty_flows,
    pack_address,
    unpack_address,
)
from features.stream import TIME_FIELDS
from sensor.identity import community_ids

steady = settings(max_examples=50, deadline=None, database=None, derandomize=True)

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def packed(*texts: str) -> np.ndarray:
    """Addresses as a FlowBatch has them, ``[B, 16]``."""
    return np.array([list(pack_address(text)) for text in texts], np.uint8)


def test_fields_are_unique_and_say_what_they_are() -> None:
    names = [field.name for field in FLOW_FIELDS]
    assert len(set(names)) == len(names)
    assert list(FLOW_DTYPE.names or ()) == names
    assert all(field.unit and field.meaning for field in FLOW_FIELDS)


def test_both_directions_have_the_same_fields() -> None:
    def of(side: str) -> dict[str, np.dtype]:
        prefix = f"{side}_"
        return {
            name.removeprefix(prefix): FLOW_DTYPE[name]
            for name in FLOW_DTYPE.names or ()
            if name.startswith(prefix)
        }

    assert of("src") == of("dst")
    assert "packets" in of("src")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_empty_flows_are_all_zero_and_nothing_ever_happened(count: int) -> None:
    flows = empty_flows(count)
    assert flows.shape == (count,)
    assert flows.dtype == FLOW_DTYPE
    optional = set(TIME_FIELDS) - {"first_us", "last_us"}
    for name in FLOW_DTYPE.names or ():
        if name in optional:
            assert (flows[name] == NEVER).all()
        else:
            assert not np.any(flows[name] != np.zeros((), FLOW_DTYPE)[name])


def test_there_are_no_flows_without_a_count() -> None:
    assert len(empty_flows()) == 0


def test_tcp_flags_are_the_bits_of_the_octet() -> None:
    # RFC 9293, figure 1, from the right: FIN SYN RST PSH ACK URG ECE CWR.
    names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"]
    assert {flag.name: flag.value for flag in TcpFlag} == {n: 1 << b for b, n in enumerate(names)}


def test_endings_fit_their_field() -> None:
    assert max(Ending) < 256
    assert len({ending.value for ending in Ending}) == len(Ending)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("192.0.2.7", "00000000000000000000ffffc0000207"),
        ("255.255.255.255", "00000000000000000000ffffffffffff"),
        ("2001:db8::1", "20010db8000000000000000000000001"),
        ("::", "00000000000000000000000000000000"),
    ],
)
def test_addresses_are_packed_into_16_octets(text: str, octets: str) -> None:
    assert pack_address(text).hex() == octets


def test_ipv6_is_spelled_out_in_full() -> None:
    # As Suricata writes it.
    assert (
        unpack_address(pack_address("2001:db8::1"), 6) == "2001:0db8:0000:0000:0000:0000:0000:0001"
    )
    assert unpack_address(pack_address("::"), 6) == ":".join(["0000"] * 8)
    assert unpack_address(pack_address("192.0.2.7"), 4) == "192.0.2.7"


def test_a_mapped_address_seen_in_ipv6_stays_ipv6() -> None:
    text = "0000:0000:0000:0000:0000:ffff:c000:0207"
    assert unpack_address(pack_address("::ffff:192.0.2.7"), 6) == text


@given(addresses)
@steady
def test_addresses_come_back_as_they_went_in(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    text = unpack_address(packed(str(address))[0], address.version)
    assert ipaddress.ip_address(text) == address
    assert text == address.exploded


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "example.com", "10.0.0.0/8"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        pack_address(text)


@given(st.lists(addresses, max_size=12))
@steady
def test_address_keys_are_equal_just_for_equal_addresses(
    some: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> None:
    texts = [str(address) for address in some]
    octets = packed(*texts).reshape(-1, 16)
    keys = address_keys(octets)
    assert keys.shape == (len(texts), 2)
    assert keys.dtype == np.uint64
    for one in range(len(texts)):
        for other in range(len(texts)):
            same = pack_address(texts[one]) == pack_address(texts[other])
            assert bool((keys[one] == keys[other]).all()) == same


def test_address_keys_take_the_column_of_a_batch() -> None:
    flows = empty_flows(3)
    flows["src_ip"] = packed("10.0.0.1", "10.0.0.2", "10.0.0.1")
    keys = address_keys(flows["src_ip"])  # a strided view
    assert keys[0].tolist() == keys[2].tolist() != keys[1].tolist()
    assert address_keys(empty_flows()["src_ip"]).shape == (0, 2)


@pytest.mark.parametrize(
    ("protocol", "src", "dst", "src_port", "dst_port", "expected"),
    [
        # The specification's own examples (community-id-spec, baseline, seed 0).
        (6, "128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        (6, "66.35.250.204", "128.232.110.120", 80, 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        (17, "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
    ],
)
def test_addresses_of_a_flow_make_its_community_id(
    protocol: int, src: str, dst: str, src_port: int, dst_port: int, expected: str
) -> None:
    flows = empty_flows(1)
    flows["ip_version"], flows["protocol"] = 4, protocol
    flows["src_ip"], flows["dst_ip"] = packed(src), packed(dst)
    flows["src_port"], flows["dst_port"] = src_port, dst_port
    assert community_ids(flows) == [expected]
