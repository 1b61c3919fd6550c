"""What an alert is called: its kind, signature and signature id (docs/eve.md has the table)."""

from __future__ import annotations

import zlib
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from features.flows import FlowBatch

_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58


class Kind(IntEnum):
    """What sort of flow an alert is about; by what the flow did, whatever the model."""

    TCP = 1
    """TCP with payload."""
    TCP_EMPTY = 2
    """TCP without payload: probes of a scan, floods of SYNs, refused connections."""
    UDP = 3
    """UDP, with packets from both sides."""
    UDP_UNANSWERED = 4
    """UDP, with packets from the source only."""
    ICMP = 5
    """ICMP and ICMPv6."""
    OTHER = 6
    """Any other protocol."""


SIGNATURES = {
    Kind.TCP: "flowvane: anomalous TCP flow",
    Kind.TCP_EMPTY: "flowvane: anomalous TCP flow without payload",
    Kind.UDP: "flowvane: anomalous UDP flow",
    Kind.UDP_UNANSWERED: "flowvane: anomalous UDP flow without answer",
    Kind.ICMP: "flowvane: anomalous ICMP flow",
    Kind.OTHER: "flowvane: anomalous flow of another protocol",
}
"""The text that goes with a kind: readers group alerts by text and id, so one has one."""

SID_OF_MODEL = {"unsw-nb15": 1_000_010, "nsl-kdd": 1_000_020}
"""Signature id, less the kind's number, of the models that ship."""
_OTHER_MODELS, _PLACES, _KINDS = 1_100_000, 90_000, 10


def signature_id(model: str, kind: int) -> int:
    """The id of a kind of alert of a model, in the range for local rules, 1000000-1999999.

    That of a model that does not ship follows from its name (CRC-32), so it is the same on every
    sensor and run. Two names may share one: the chance is 1 in 90,000 for any pair.
    """
    other = _OTHER_MODELS + _KINDS * (zlib.crc32(model.encode()) % _PLACES)
    return SID_OF_MODEL.get(model, other) + kind


def kinds_of(flows: FlowBatch) -> NDArray[np.uint8]:
    """The :class:`Kind` of each of ``[B]`` flows."""
    protocol = flows["protocol"]
    payload = (flows["src_payload_bytes"] > 0) | (flows["dst_payload_bytes"] > 0)
    answered = flows["dst_packets"] > 0
    kinds = np.full(len(flows), Kind.OTHER, np.uint8)
    kinds[protocol == _TCP] = Kind.TCP_EMPTY
    kinds[(protocol == _TCP) & payload] = Kind.TCP
    kinds[protocol == _UDP] = Kind.UDP_UNANSWERED
    kinds[(protocol == _UDP) & answered] = Kind.UDP
    kinds[(protocol == _ICMP) | (protocol == _ICMP6)] = Kind.ICMP
    return kinds
