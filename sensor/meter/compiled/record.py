"""Finished flows as rows of a FlowBatch: the engine's records and ours, a batch at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.flows import NEVER, FlowBatch, empty_flows

_PREFIX = np.frombuffer(b"\xff\xff", np.uint8)

_WAY_FIELDS = {
    "packets": "packets", "payload_bytes": "payload_bytes", "piat_mean_us": "piat_mean",
    "piat_max_us": "piat_max", "piat_min_us": "piat_min", "tcp_base": "base",
    "retransmitted": "retransmitted", "urgent": "urgent", "window": "window", "ttl": "ttl",
    "tcp_flags": "flags", "tcp_state": "tcp_state", "payload_packets": "payload_packets",
    "data_packets": "data_packets", "payload_min": "payload_min", "payload_max": "payload_max",
    "payload_squares": "squares", "header_bytes": "header_bytes", "header_min": "header_min",
    "bulks": "bulks", "bulk_packets": "bulk_packets", "bulk_bytes": "bulk_bytes",
    "bulk_span": "bulk_us",
}  # fmt: skip
_STATE_FIELDS = {
    name: name for name in (
        "first_us", "last_us", "syn_us", "synack_us", "ack_us", "icmp_type", "icmp_code",
        "http_requests", "http_body_bytes", "ftp_commands", "ftp_logins", "subflows",
        "wrong_fragments",
    )
} | {
    "early_payload": "early", "logged_in": "text_logged_in", "piat_max_us": "piat_max",
    "piat_min_us": "piat_min", "active_mean": "active_mean", "active_max": "active_max",
    "active_min": "active_min", "idle_mean": "idle_mean", "idle_max": "idle_max",
    "idle_min": "idle_min",
}  # fmt: skip
_TEXT_FIELDS = {
    "application": "application_name", "category": "category_name",
    "server_name": "requested_server_name", "client_fingerprint": "c_hash",
}  # fmt: skip
_SAME_FIELDS = ("src_port", "dst_port", "vlan_id", "protocol", "ip_version", "tunnel_id")


def rows_of(states: NDArray[np.void], ways: NDArray[np.void], flows: NDArray[np.void]) -> FlowBatch:
    """FlowBatch ``[B]`` of what was kept of `B` flows; `ending` and `origin` are still 0.

    Args:
        states: ``[B]`` of :data:`sensor.meter.compiled.layout.STATE`.
        ways: ``[B, 2]`` of :data:`sensor.meter.compiled.layout.WAY`, source and destination.
        flows: ``[B]`` of the engine's ``struct nf_flow``.
    """
    rows = empty_flows(len(states))
    for name, own in _STATE_FIELDS.items():
        rows[name] = states[own]
    for name, theirs in _TEXT_FIELDS.items():
        rows[name] = texts(flows[theirs])
    for name in _SAME_FIELDS:
        rows[name] = flows[name]
    for name in ("src_ip", "dst_ip"):
        rows[name] = addresses(flows[name], flows["ip_version"])
    for name in ("fin", "syn", "rst", "ack", "cwr", "ece"):
        rows[f"{name}_packets"] = flows[f"bidirectional_{name}_packets"]
    packets = ways["packets"].sum(axis=1)
    rows["piat_stddev_us"] = deviations(states["piat_m2"], packets - 1)
    for name in ("active", "idle"):
        rows[f"{name}_stddev"] = deviations(states[f"{name}_m2"], states[f"{name}_count"])
    for number, (side, theirs) in enumerate((("src", "src2dst"), ("dst", "dst2src"))):
        way = ways[:, number]
        for name, own in _WAY_FIELDS.items():
            rows[f"{side}_{name}"] = way[own]
        seen = way["packets"] > 0
        for name in ("first_us", "last_us"):
            rows[f"{side}_{name}"] = np.where(seen, way[name], NEVER)
        rows[f"{side}_piat_stddev_us"] = deviations(way["piat_m2"], way["packets"] - 1)
        rows[f"{side}_bytes"] = flows[f"{theirs}_bytes"]
        rows[f"{side}_push"] = rows[f"{side}_push_packets"] = flows[f"{theirs}_psh_packets"]
        rows[f"{side}_size_max"] = flows[f"{theirs}_max_ps"]
        rows[f"{side}_size_stddev"] = deviations(flows[f"{theirs}_stddev_ps"], way["packets"])
    return rows


def deviations(squares: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sample standard deviations ``[B]`` from sums of squared deviations, 0 for less than two."""
    some = count > 1
    result: NDArray[np.float64] = np.sqrt(
        np.where(some, squares, 0.0) / np.where(some, count - 1, 1)
    )
    return result


def addresses(words: NDArray[np.uint64], version: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The engine's addresses, ``[B, 2]`` words in network order, as a FlowBatch's ``[B, 16]``."""
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 16)
    four = version == 4
    result = np.where(four[:, None], np.uint8(0), octets)
    result[four, 10:12] = _PREFIX
    result[four, 12:] = octets[four, :4]
    return result


def texts(fields: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """C strings ``[B]``, zero behind their end, without what is not UTF-8."""
    result = np.ascontiguousarray(fields)
    octets = result.view(np.uint8).reshape(len(result), -1)
    if octets.size and octets.max() >= 0x80:
        for odd in np.flatnonzero((octets >= 0x80).any(axis=1)):
            result[odd] = bytes(result[odd]).decode("utf-8", errors="ignore").encode()
    return result
