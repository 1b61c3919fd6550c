"""Names for a flow that other tools, and other runs, give it too."""

from __future__ import annotations

import hashlib
from typing import Any

import communityid

from features.flows import unpack_address

_COMMUNITY = communityid.CommunityID()
_ICMP, _ICMP6 = 1, 58
FLOW_ID_BITS = 51
"""Suricata's flow_id fits a JSON reader's double exactly, and so does ours."""


def community_id(flow: Any) -> str:
    """Community ID v1 of one row of a FlowBatch (github.com/corelight/community-id-spec)."""
    version = int(flow["ip_version"])
    protocol = int(flow["protocol"])
    src = unpack_address(flow["src_ip"], version)
    dst = unpack_address(flow["dst_ip"], version)
    if protocol in (_ICMP, _ICMP6):
        ports = int(flow["icmp_type"]), int(flow["icmp_code"])
    elif protocol in communityid.PORT_PROTOS:
        # NFStream reads no SCTP ports: they are 0 here, so only the addresses tell.
        ports = int(flow["src_port"]), int(flow["dst_port"])
    else:
        return str(_COMMUNITY.calc(communityid.FlowTuple(protocol, src, dst)))
    return str(_COMMUNITY.calc(communityid.FlowTuple(protocol, src, dst, *ports)))


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
