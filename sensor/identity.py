"""Names for a flow that other tools, and other runs, give it too."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

import communityid

from features.flows import unpack_address

_COMMUNITY = communityid.CommunityID()
_ICMP, _ICMP6 = 1, 58
FLOW_ID_BITS = 51
"""Suricata's flow_id fits a JSON reader's double exactly, and so does ours."""


_PORTS = struct.Struct(">HH")
_SEED = bytes(2)


def community_id(flow: Any) -> str:
    """Community ID v1 of one row of a FlowBatch (github.com/corelight/community-id-spec)."""
    version = int(flow["ip_version"])
    protocol = int(flow["protocol"])
    if protocol in (_ICMP, _ICMP6):
        # Which types answer each other is the library's to know.
        src, dst = (unpack_address(flow[name], version) for name in ("src_ip", "dst_ip"))
        types = int(flow["icmp_type"]), int(flow["icmp_code"])
        return str(_COMMUNITY.calc(communityid.FlowTuple(protocol, src, dst, *types)))
    begin = 12 if version == 4 else 0
    one = bytes(flow["src_ip"])[begin:], int(flow["src_port"])
    two = bytes(flow["dst_ip"])[begin:], int(flow["dst_port"])
    (low, low_port), (high, high_port) = sorted((one, two))
    data = _SEED + low + high + bytes((protocol, 0))
    if protocol in communityid.PORT_PROTOS:
        # NFStream reads no SCTP ports: they are 0 here, so only the addresses tell.
        data += _PORTS.pack(low_port, high_port)
    # The library's own way to the same takes 100 us, which a burst of alerts has not.
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode("ascii")


def flow_id(flow: Any) -> int:
    """A number of 51 bits that is the same on every run: a hash of key and first time."""
    key = b"".join(
        bytes(flow[name].tobytes())
        for name in (
            "first_us", "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "vlan_id",
            "tunnel_id",
        )
    )  # fmt: skip
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - FLOW_ID_BITS)
