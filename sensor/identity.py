"""Names for a flow that other tools, and other runs, give it too."""

from __future__ import annotations

import base64
import hashlib
import struct

import communityid
import numpy as np
from communityid import icmp, icmp6

from features.flows import FLOW_DTYPE, FlowBatch, unpack_address

FLOW_ID_BITS = 51
"""Suricata's flow_id fits a JSON reader's double exactly, and so does ours."""

_ANSWERS = {1: icmp.get_port_equivalents, 58: icmp6.get_port_equivalents}
"""For ICMP: type and code to two numbers that stand for ports, and whether nothing answers."""
_PORTS = struct.Struct(">HH")
_SEED = bytes(2)
_KEY = np.dtype([
    (name, FLOW_DTYPE[name])
    for name in (
        "first_us", "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "vlan_id", "tunnel_id",
    )
])  # fmt: skip


def _octets(flows: FlowBatch, name: str) -> list[bytes]:
    """An address field, 16 octets a flow."""
    octets: list[bytes] = np.ascontiguousarray(flows[name]).view("V16")[:, 0].tolist()
    return octets


def address_texts(flows: FlowBatch) -> tuple[list[str], list[str]]:
    """The source and the destination address of ``[B]`` flows, as text."""
    versions = flows["ip_version"].tolist()
    src, dst = (
        list(map(unpack_address, _octets(flows, name), versions)) for name in ("src_ip", "dst_ip")
    )
    return src, dst


def community_ids(flows: FlowBatch) -> list[str]:
    """Community ID v1 of ``[B]`` flows (github.com/corelight/community-id-spec).

    That which Zeek's log gives a connection goes over our own.
    """
    if "community_id" in (flows.dtype.names or ()):
        given = [text.decode("utf-8", "replace") for text in flows["community_id"].tolist()]
        if not all(given):
            made = _community_ids(flows)
            return [own or other for own, other in zip(given, made, strict=True)]
        return given
    return _community_ids(flows)


def _community_ids(flows: FlowBatch) -> list[str]:
    names = ("ip_version", "protocol", "src_port", "dst_port", "icmp_type", "icmp_code")
    columns = [flows[name].tolist() for name in names]
    ends = _octets(flows, "src_ip"), _octets(flows, "dst_ip")
    return [_community_id(*values) for values in zip(*ends, *columns, strict=True)]


def _community_id(
    src: bytes, dst: bytes, version: int, protocol: int,
    src_port: int, dst_port: int, icmp_type: int, icmp_code: int,
) -> str:  # fmt: skip
    begin, one_way = 12 if version == 4 else 0, False
    if protocol in _ANSWERS:
        src_port, dst_port, one_way = _ANSWERS[protocol](icmp_type, icmp_code)
    one, two = (src[begin:], src_port), (dst[begin:], dst_port)
    if two < one and not one_way:
        one, two = two, one
    data = _SEED + one[0] + two[0] + bytes((protocol, 0))
    if protocol in communityid.PORT_PROTOS:
        # NFStream reads no SCTP ports: they are 0 here, so only the addresses tell.
        data += _PORTS.pack(one[1], two[1])
    # The library's own way to the same takes 100 us, which a burst of alerts has not.
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode("ascii")


def flow_ids(flows: FlowBatch) -> list[int]:
    """Numbers of 51 bits that are the same on every run: hashes of key and first time, ``[B]``."""
    keys = np.empty(len(flows), _KEY)
    for name in _KEY.names or ():
        keys[name] = flows[name]
    octets, size = keys.tobytes(), _KEY.itemsize
    digests = b"".join(
        hashlib.blake2b(octets[at : at + size], digest_size=8).digest()
        for at in range(0, len(octets), size)
    )
    ids: list[int] = (np.frombuffer(digests, ">u8") >> (64 - FLOW_ID_BITS)).tolist()
    return ids
