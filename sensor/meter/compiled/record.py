"""Finished flows as rows of a FlowBatch, made of the engine's record and ours in compiled code.

Most of a row is moved: so many octets from there to here, or a whole number made a float. The
moves are lists that come from the dtypes; :func:`write_row` goes through them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.flows import FLOW_DTYPE, NEVER, FlowBatch
from sensor.meter.compiled.engine import flow_dtype
from sensor.meter.compiled.layout import STATE, WAY
from sensor.meter.compiled.memory import (
    inlined,
    load_i64,
    load_u8,
    load_u32,
    store_f64,
    store_i64,
    store_u8,
    store_u32,
)  # fmt: skip

_WAY_FIELDS = {
    "before_us": "before_us", "packets": "packets",
    "payload_bytes": "payload_bytes", "piat_mean_us": "piat_mean",
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


_ENGINES_SIDE = {
    "bytes": "bytes", "push": "psh_packets", "push_packets": "psh_packets", "size_max": "max_ps",
}  # fmt: skip

_FROM_STATE, _FROM_SRC, _FROM_DST, _FROM_ENGINE = range(4)
_COPY, _FLOAT, _TEXT = range(3)


def _move(name: str, origin: int, record: np.dtype[np.void], own: str) -> tuple[int, ...]:
    """How field `name` of a row is made of field `own` of a record.

    Raises:
        TypeError: the one cannot hold the other.
    """
    target, to = FLOW_DTYPE.fields[name][:2]  # type: ignore[index]
    source, at = record.fields[own][:2]  # type: ignore[index]
    size = min(source.itemsize, target.itemsize)
    kinds = source.base.kind + target.base.kind
    if kinds == "SS":
        return _TEXT, origin, at, to, size
    if kinds == "if" and source == np.int64:
        return _FLOAT, origin, at, to, size
    # Of a whole number the low octets, as many as both have; the row's others are zero.
    if kinds == "ff" or (set(kinds) <= {"i", "u"} and source.shape == target.shape):
        return _COPY, origin, at, to, size
    raise TypeError(f"{name}: a {target} cannot be made of {own}, a {source}")


def _moves() -> NDArray[np.int64]:
    """All moves, ``[M, 5]``: what kind, out of which record, from where, to where, octets."""
    engine = flow_dtype()
    made = [_move(name, _FROM_STATE, STATE, own) for name, own in _STATE_FIELDS.items()]
    made += [_move(name, _FROM_ENGINE, engine, own) for name, own in _TEXT_FIELDS.items()]
    made += [_move(name, _FROM_ENGINE, engine, name) for name in _SAME_FIELDS]
    made += [
        _move(f"{name}_packets", _FROM_ENGINE, engine, f"bidirectional_{name}_packets")
        for name in ("fin", "syn", "rst", "ack", "cwr", "ece")
    ]
    for side, origin, theirs in (("src", _FROM_SRC, "src2dst"), ("dst", _FROM_DST, "dst2src")):
        made += [
            _move(f"{side}_{name}", origin, WAY, own)
            for name, own in (_WAY_FIELDS | {"first_us": "first_us", "last_us": "last_us"}).items()
        ]
        made += [
            _move(f"{side}_{name}", _FROM_ENGINE, engine, f"{theirs}_{own}")
            for name, own in _ENGINES_SIDE.items()
        ]
    return np.array(made, np.int64)


def _place(name: str) -> int:
    """Where a field is in a row."""
    return int(FLOW_DTYPE.fields[name][1])  # type: ignore[index]


_MOVES = _moves()
_ROW_BYTES, _WAY_BYTES = FLOW_DTYPE.itemsize, WAY.itemsize
_ADDRESSES = tuple(
    int(flow_dtype().fields[name][1])  # type: ignore[index]
    for name in ("src_ip", "dst_ip")
)
_PLACES_OF_ADDRESSES = _place("src_ip"), _place("dst_ip")
_TIMES_OF_SIDES = tuple(
    (_place(f"{side}_first_us"), _place(f"{side}_last_us")) for side in ("src", "dst")
)
_DEVIATION, _ACTIVE, _IDLE = (
    _place(name) for name in ("piat_stddev_us", "active_stddev", "idle_stddev")
)
_DEVIATIONS_OF_SIDES = tuple(
    (_place(f"{side}_piat_stddev_us"), _place(f"{side}_size_stddev")) for side in ("src", "dst")
)
_ENDING = _place("ending")


@inlined
def _copy(source: int, target: int, octets: int) -> None:
    at = 0
    while at + 8 <= octets:
        store_i64(np.uint64(target + at), load_i64(np.uint64(source + at)))
        at += 8
    while at + 4 <= octets:
        store_u32(np.uint64(target + at), load_u32(np.uint64(source + at)))
        at += 4
    while at < octets:
        store_u8(np.uint64(target + at), load_u8(np.uint64(source + at)))
        at += 1


@inlined
def _copy_text(source: int, target: int, most: int) -> Any:
    """Copy a C string; whether it is ASCII."""
    plain = True
    for at in range(most):
        octet = load_u8(np.uint64(source + at))
        if octet == 0:
            break
        plain = plain and octet < 0x80
        store_u8(np.uint64(target + at), octet)
    return plain


@inlined
def _deviation(target: int, squares: float, count: int) -> None:
    """Write a sample standard deviation, of `count` values with squared deviations `squares`."""
    if count > 1:
        store_f64(np.uint64(target), np.sqrt(squares / (count - 1)))


@inlined
def write_row(row: int, state_at: int, ways_at: int, flow_at: int, record: Any, ending: int) -> Any:
    """Write a row at an address; whether all of its texts are ASCII.

    Args:
        row: address of the row.
        state_at, ways_at, flow_at: addresses of the flow's STATE, of its two WAYs, and of the
            engine's record.
        record: state, source's way, destination's way and engine's record, as records.
        ending: why the flow ended.
    """
    state, src, dst, flow = record
    for at in range(0, _ROW_BYTES - 7, 8):
        store_i64(np.uint64(row + at), np.int64(0))
    for at in range(_ROW_BYTES - _ROW_BYTES % 8, _ROW_BYTES):
        store_u8(np.uint64(row + at), np.uint8(0))
    plain = True
    for number in range(_MOVES.shape[0]):
        origin = _MOVES[number, 1]
        source = flow_at
        if origin == _FROM_STATE:
            source = state_at
        elif origin != _FROM_ENGINE:
            source = ways_at + (origin - _FROM_SRC) * _WAY_BYTES
        source += _MOVES[number, 2]
        target, octets = row + _MOVES[number, 3], _MOVES[number, 4]
        if _MOVES[number, 0] == _COPY:
            _copy(source, target, octets)
        elif _MOVES[number, 0] == _FLOAT:
            store_f64(np.uint64(target), np.float64(load_i64(np.uint64(source))))
        elif not _copy_text(source, target, octets):
            plain = False
    for side in range(2):
        _write_address(row + _PLACES_OF_ADDRESSES[side], flow_at + _ADDRESSES[side],
                       flow.ip_version)  # fmt: skip
    _write_side(row, src, _TIMES_OF_SIDES[0], _DEVIATIONS_OF_SIDES[0], flow.src2dst_stddev_ps)
    _write_side(row, dst, _TIMES_OF_SIDES[1], _DEVIATIONS_OF_SIDES[1], flow.dst2src_stddev_ps)
    _deviation(row + _DEVIATION, state.piat_m2, src.packets + dst.packets - 1)
    _deviation(row + _ACTIVE, state.active_m2, state.active_count)
    _deviation(row + _IDLE, state.idle_m2, state.idle_count)
    store_u8(np.uint64(row + _ENDING), np.uint8(ending))
    return plain


@inlined
def _write_address(target: int, source: int, version: int) -> None:
    """The engine's address, in network order, as a row's: IPv4 as ``::ffff:a.b.c.d``."""
    if version == 4:
        store_u8(np.uint64(target + 10), np.uint8(0xFF))
        store_u8(np.uint64(target + 11), np.uint8(0xFF))
        store_u32(np.uint64(target + 12), load_u32(np.uint64(source)))
    else:
        _copy(source, target, 16)


@inlined
def _write_side(row: int, way: Any, times: Any, deviations: Any, size_squares: float) -> None:
    """What of a direction is not moved as it is."""
    if way.packets == 0:
        store_i64(np.uint64(row + times[0]), np.int64(NEVER))
        store_i64(np.uint64(row + times[1]), np.int64(NEVER))
    _deviation(row + deviations[0], way.piat_m2, way.packets - 1)
    _deviation(row + deviations[1], size_squares, way.packets)


def without_odd_text(rows: FlowBatch) -> None:
    """Take out of the texts of ``[B]`` rows what is not UTF-8."""
    for name in _TEXT_FIELDS:
        rows[name] = [
            text.decode("utf-8", errors="ignore").encode() for text in rows[name].tolist()
        ]
