"""Times and sizes of a flow's packets, in compiled code.

The rules are those of :mod:`sensor.meter.cic_state` and :mod:`sensor.meter.early`; times between
packets are as NFStream keeps them, on the meter's own clock.
"""

from __future__ import annotations

from typing import Any

from features.flows import EARLY_PACKETS
from sensor.meter.cic_state import BULK_GAP_MS, BULK_PACKETS, IDLE_GAP_MS, SUBFLOW_GAP_MS
from sensor.meter.compiled.memory import inlined

_BULK_GAP_US, _SUBFLOW_GAP_US, _IDLE_GAP_US = (
    1000 * BULK_GAP_MS, 1000 * SUBFLOW_GAP_MS, 1000 * IDLE_GAP_MS,
)  # fmt: skip
_TCP, _UDP = 6, 17


@inlined
def flow_time(state: Any, now_us: int, tick_us: int, packets: int) -> None:
    """Take in the time of a flow's packet, of either direction; `packets` came before it.

    `tick_us` is `now_us` on the clock that times between packets are measured on.
    """
    state.last_us = now_us
    if not packets:
        state.subflows = 1
        state.active_begin_us = tick_us
        state.last_tick_us = tick_us
        return
    gap = tick_us - state.last_tick_us
    if packets == 1 or gap < state.piat_min:
        state.piat_min = gap
    state.piat_max = max(state.piat_max, gap)
    delta = gap - state.piat_mean
    state.piat_mean += delta / packets
    state.piat_m2 += delta * (gap - state.piat_mean)
    if gap > _SUBFLOW_GAP_US:
        state.subflows += 1
    if gap > _IDLE_GAP_US:
        _pause(state, gap)
        state.active_begin_us = tick_us
    state.last_tick_us = tick_us


@inlined
def _pause(state: Any, gap: int) -> None:
    """An idle time of `gap` us ends a stretch of activity."""
    span = state.last_tick_us - state.active_begin_us
    if span > 0:
        state.active_count += 1
        if state.active_count == 1 or span < state.active_min:
            state.active_min = span
        state.active_max = max(state.active_max, span)
        delta = span - state.active_mean
        state.active_mean += delta / state.active_count
        state.active_m2 += delta * (span - state.active_mean)
    state.idle_count += 1
    if state.idle_count == 1 or gap < state.idle_min:
        state.idle_min = gap
    state.idle_max = max(state.idle_max, gap)
    delta = gap - state.idle_mean
    state.idle_mean += delta / state.idle_count
    state.idle_m2 += delta * (gap - state.idle_mean)


@inlined
def way_time(way: Any, now_us: int, tick_us: int) -> None:
    """Take in the time of a packet of this direction, and count it."""
    if way.packets:
        gap = tick_us - way.last_tick_us
        if way.packets == 1 or gap < way.piat_min:
            way.piat_min = gap
        way.piat_max = max(way.piat_max, gap)
        delta = gap - way.piat_mean
        way.piat_mean += delta / way.packets
        way.piat_m2 += delta * (gap - way.piat_mean)
    else:
        way.first_us = now_us
    way.last_us = now_us
    way.last_tick_us = tick_us
    way.packets += 1


@inlined
def payload_sizes(
    state: Any, way: Any, other: Any, protocol: int, from_dst: int, size: int, header: int,
    tick_us: int,
) -> None:  # fmt: skip
    """Take in a packet's payload and transport header sizes; :func:`way_time` has counted it."""
    if size > 0:
        way.payload_bytes += size
        way.payload_packets += 1
        if state.early_packets < EARLY_PACKETS:
            state.early[state.early_packets] = -size if from_dst else size
            state.early_packets += 1
    if protocol not in (_TCP, _UDP):
        return
    if way.packets == 1 or size < way.payload_min:
        way.payload_min = size
    if way.packets == 1 or header < way.header_min:
        way.header_min = header
    way.payload_max = max(way.payload_max, size)
    way.squares += size * size
    way.header_bytes += header
    if size > 0:
        _bulk(way, size, tick_us)
        other.run = 0


@inlined
def _bulk(way: Any, size: int, tick_us: int) -> None:
    """Count a packet with payload towards a bulk."""
    way.data_packets += 1
    if not way.run or tick_us - way.run_last_us > _BULK_GAP_US:
        way.run = 1
        way.run_bytes = size
        way.run_begin_us = tick_us
    else:
        way.run += 1
        way.run_bytes += size
        if way.run == BULK_PACKETS:
            way.bulks += 1
            way.bulk_packets += BULK_PACKETS
            way.bulk_bytes += way.run_bytes
            way.bulk_us += tick_us - way.run_begin_us
        elif way.run > BULK_PACKETS:
            way.bulk_packets += 1
            way.bulk_bytes += size
            way.bulk_us += tick_us - way.run_last_us
    way.run_last_us = tick_us
