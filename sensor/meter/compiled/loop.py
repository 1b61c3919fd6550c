"""The loop from packets to finished flows, in compiled code that holds no lock.

:func:`run` reads packets, and hands back when something is for Python to do: see the constants
of :mod:`sensor.meter.compiled.layout`. :func:`run_clock` moves the time without packets, and
:func:`run_out` ends every flow. Arrays come in bundles:

- `table`: states, ways, index, datagrams (layouts STATE, WAY, uint64, DATAGRAM), and the ring and
  the index of remembered connections;
- `done`: of the flows that have finished: the serial of those whose text Python has read, the rows,
  whether a text is odd, and an array of the engine's flows, for its dtype;
- `text`: peeks and their octets, for Python to read;
- `fresh`: the engine's packet with one that stays zero, room for a key, a blank STATE and WAY.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from features.flows import FLOW_DTYPE, Ending, TcpFlag
from sensor.meter.compiled.fragments import first_fragment, is_fragment, later_fragment
from sensor.meter.compiled.layout import (
    CLOSING_LIST,
    END_OF_FILE,
    ENOUGH,
    IDLE_LIST,
    NONE,
    NOTHING_NOW,
    PEEKS_FULL,
    READ_ERROR,
    ROWS_FULL,
    STATE,
    TABLE_FULL,
    WAY,
)  # fmt: skip
from sensor.meter.compiled.memory import (
    Number,
    address_of,
    capture_next,
    compiled,
    inlined,
    load_i64,
    load_u8,
    load_u32,
    meter_expire_flow,
    meter_free_flow,
    meter_initialize_flow,
    meter_update_flow,
    record_at,
)  # fmt: skip
from sensor.meter.compiled.record import write_row
from sensor.meter.compiled.sizes import flow_time, payload_sizes, way_time
from sensor.meter.compiled.table import (
    append,
    enter,
    find,
    flow_key,
    keep,
    remember,
    remove,
    source_is_second,
    unlink,
)
from sensor.meter.compiled.tcp import (
    big_endian_32,
    connection_state,
    goodbye,
    half_open,
    handshake,
    segment,
)  # fmt: skip
from sensor.meter.compiled.text import messages, text_of, wants_peek

ROWS_A_PACKET = 3
"""Finished flows that one packet can make at most: its own, one pushed out, an early report."""
MOST_PEEK = 65_535
"""Octets of a packet's text at most: what an IP packet can hold."""

_IDLE, _ACTIVE, _FIN, _EVICTED, _EARLY = (
    int(Ending.IDLE), int(Ending.ACTIVE), int(Ending.FIN), int(Ending.EVICTED), int(Ending.EARLY),
)  # fmt: skip
_TCP, _ICMP, _ICMP6 = 6, 1, 58
_SYN = int(TcpFlag.SYN)
_NO_TEXT = 0
_ROW_BYTES, _STATE_BYTES, _WAY_BYTES = FLOW_DTYPE.itemsize, STATE.itemsize, WAY.itemsize
_ETHERNET = 14
"""Octets before the IP header, of which there are no more than were captured after them."""


@inlined
def _report(control: Any, table: Any, done: Any, slot: int, ending: int) -> None:
    """Write what is kept of a flow to the next row of the finished ones."""
    states, ways = table[0], table[1]
    serials, rows, odd, flows = done
    row, state = control.rows, states[slot]
    record = state, ways[2 * slot], ways[2 * slot + 1], record_at(flows, state.flow)
    plain = write_row(
        np.int64(address_of(rows)) + row * _ROW_BYTES,
        np.int64(address_of(states)) + slot * _STATE_BYTES,
        np.int64(address_of(ways)) + 2 * slot * _WAY_BYTES,
        np.int64(state.flow),
        record,
        ending,
    )
    serials[row] = state.serial if state.text_peeked else NONE
    odd[row] = not plain
    control.rows += 1


@inlined
def _close(control: Any, table: Any, done: Any, slot: int, ending: int) -> None:
    """End a flow: report it, and free its slot and the engine's record."""
    states, ways, index = table[0], table[1], table[2]
    state = states[slot]
    meter_expire_flow(state.flow, control.dissections, control.dissector)
    _report(control, table, done, slot, ending)
    meter_free_flow(state.flow, control.dissections, 0, 1)
    keep(control, table[4], state, ways[2 * slot], ways[2 * slot + 1])
    unlink(control, states, slot)
    remove(index, slot, np.int64(state.hash))
    state.flow = 0
    state.next = control.free
    control.free = slot
    control.flows -= 1


@inlined
def _end_of(table: Any, slot: int) -> int:
    """Why a flow ends that has lingered; one that was never there said no goodbye."""
    ways = table[1]
    return _FIN if goodbye(ways[2 * slot], ways[2 * slot + 1]) else _IDLE


@inlined
def _expire(control: Any, table: Any, done: Any) -> None:
    """End the flows whose time has come, as far as there is room for them."""
    states = table[0]
    now_ms = control.now_us // 1000
    for which in range(2):
        timeout_ms = control.idle_ms if which == IDLE_LIST else control.linger_ms
        while control.oldest[which] != NONE and control.rows + ROWS_A_PACKET <= len(done[0]):
            slot = control.oldest[which]
            if now_ms - timeout_ms < states[slot].last_us // 1000:
                break
            ending = _IDLE if which == IDLE_LIST else _end_of(table, slot)
            _close(control, table, done, slot, ending)


@inlined
def _push_out(control: Any, table: Any, done: Any) -> None:
    """End the flow that was seen least recently, to make room; first one that lingers."""
    slot = control.oldest[CLOSING_LIST]
    if slot == NONE:
        slot = control.oldest[IDLE_LIST]
    _close(control, table, done, slot, _EVICTED)
    control.evicted += 1


@inlined
def _begin(control: Any, table: Any, done: Any, fresh: Any, packet_at: int, hashed: int) -> Number:
    """The slot of a new flow, or NONE where the engine has no memory for it."""
    states, ways, index = table[0], table[1], table[2]
    packets, key, blank_states, blank_ways = fresh
    packet = packets[0]
    if control.free == NONE:
        _push_out(control, table, done)
    flow = meter_initialize_flow(packet_at, 0, 1, 0, control.dissections, control.dissector, 0)
    if flow == 0:
        control.failed += 1
        return NONE
    slot = control.free
    state = states[slot]
    control.free = state.next
    states[slot] = blank_states[0]
    ways[2 * slot] = blank_ways[0]
    ways[2 * slot + 1] = blank_ways[0]
    for word in range(len(key)):
        state.key[word] = key[word]
    state.hash = hashed
    state.flow = flow
    state.serial = control.serial
    control.serial += 1
    state.first_us = control.now_us
    state.turned = source_is_second(key, packet)
    begins = packet.protocol == _TCP and (packet.flags & _SYN) != 0
    remember(control, table[4], state, ways[2 * slot], ways[2 * slot + 1], begins)
    state.text = text_of(packet.protocol, packet.src_port, packet.dst_port)
    if packet.protocol in (_ICMP, _ICMP6):
        at = np.int64(packet.ip_size) - packet.transport_size
        if packet.transport_size >= 2 and at >= 0 and at + 2 <= packet.ip_content_len:
            state.icmp_type = load_u8(np.uint64(packet.ip_content + at))
            state.icmp_code = load_u8(np.uint64(packet.ip_content + at + 1))
    enter(index, slot, hashed)
    append(control, states, slot, IDLE_LIST)
    control.flows += 1
    return slot


@inlined
def _peek(
    control: Any, text: Any, state: Any, from_dst: int, seq: int, payload: int, captured: int,
    size: int,
) -> None:  # fmt: skip
    """Keep the text of a segment for Python to read."""
    peeks, octets = text
    peek = peeks[control.peeks]
    control.peeks += 1
    peek.serial = state.serial
    peek.begin = control.peek_bytes
    peek.captured = captured
    peek.size = size
    peek.seq = seq
    peek.from_dst = from_dst
    peek.text = state.text
    for at in range(captured):
        octets[control.peek_bytes + at] = load_u8(np.uint64(payload + at))
    control.peek_bytes += captured
    state.text_peeked = 1


@inlined
def _payload(control: Any, text: Any, state: Any, way: Any, packet: Any, header: int) -> None:
    """The text of a TCP segment, as far as it was captured."""
    size = np.int64(packet.payload_size)
    begin = np.int64(packet.ip_size) - size
    captured: Number = min(np.int64(packet.ip_content_len) - begin, size)
    if begin < 0 or captured < 0:
        captured = 0
    payload = np.int64(packet.ip_content) + begin
    dst_port = packet.src_port if packet.direction else packet.dst_port
    messages(state, packet.direction, dst_port, payload, captured, size)
    if state.text == _NO_TEXT:
        return
    seq = big_endian_32(header + 4)
    skip = wants_peek(state, way, packet.direction, seq, payload, captured, size)
    if skip >= 0:
        _peek(
            control, text, state, packet.direction, (seq + skip) & 0xFFFFFFFF, payload + skip,
            captured - skip, size - skip,
        )  # fmt: skip


@inlined
def _take(control: Any, table: Any, text: Any, slot: int, packet: Any) -> None:
    """Take a packet into what is kept of its flow."""
    states, ways = table[0], table[1]
    state = states[slot]
    from_dst = np.int64(packet.direction)
    way, other = ways[2 * slot + from_dst], ways[2 * slot + 1 - from_dst]
    now_us, tick_us = control.now_us, control.tick_us
    flow_time(state, now_us, tick_us, way.packets + other.packets)
    way_time(way, now_us, tick_us)
    size, transport = np.int64(packet.payload_size), np.int64(packet.transport_size)
    content, captured = np.int64(packet.ip_content), np.int64(packet.ip_content_len)
    payload_sizes(
        state, way, other, packet.protocol, from_dst, size, max(transport - size, 0), tick_us
    )
    if not way.has_ttl and captured > 8:
        way.has_ttl = 1
        way.ttl = load_u8(np.uint64(content + (8 if packet.ip_version == 4 else 7)))
    at = np.int64(packet.ip_size) - transport
    if packet.protocol != _TCP or transport < 20 or at < 0 or captured < at + 20:
        return
    flags = np.int64(load_u8(np.uint64(content + at + 13)))
    segment(way, content + at, flags, size, not from_dst and not state.known)
    handshake(state, flags, from_dst, now_us)
    connection_state(way, other, from_dst, flags)
    if size:
        _payload(control, text, state, way, packet, content + at)


@inlined
def _tell_early(control: Any, table: Any, done: Any, slot: int) -> None:
    """Report a flow that goes on at set ages and numbers of packets, once for all it has passed."""
    states, ways = table[0], table[1]
    state = states[slot]
    due = False
    age_us = control.now_us - state.first_us
    while state.ages_told < control.early_by_age and (
        age_us >= control.early_ages_us[state.ages_told]
    ):
        state.ages_told += 1
        due = True
    packets = ways[2 * slot].packets + ways[2 * slot + 1].packets
    while state.counts_told < control.early_by_count and (
        packets >= control.early_counts[state.counts_told]
    ):
        state.counts_told += 1
        due = True
    if due:
        _report(control, table, done, slot, _EARLY)


@inlined
def _fragment_begins(control: Any, table: Any, slot: int, packet: Any) -> None:
    """Note a packet that is the first fragment of a datagram."""
    ip = np.int64(packet.ip_content)
    if packet.ip_version != 4 or packet.tunnel_id:
        return
    if load_u8(np.uint64(ip + 6)) & 0x20 and is_fragment(ip, packet.ip_content_len):
        first_fragment(table[3], table[0], slot, ip, control.now_us)


@inlined
def _note_place(control: Any, packet: Any) -> None:
    """Note where IP headers are in this capture."""
    if packet.ip_version == 4 and not packet.tunnel_id:
        buffer = load_i64(control.buffer) if control.buffer else np.int64(0)
        control.ip_at = np.int64(packet.ip_content) - buffer


@inlined
def _ignored(control: Any, table: Any) -> None:
    """A packet that the engine has ignored: it may be a later fragment of a datagram."""
    control.ignored += 1
    if not control.ip_at:
        return
    buffer = load_i64(control.buffer) if control.buffer else np.int64(0)
    captured = np.int64(load_u32(control.header + np.uint64(16))) - _ETHERNET
    if captured >= 20 and is_fragment(buffer + control.ip_at, captured):
        later_fragment(table[3], table[0], buffer + control.ip_at, control.now_us)


@inlined
def _has_lingered(control: Any, state: Any) -> Number:
    """Whether a flow that lingers is over: what comes now is another one's."""
    since_ms = control.now_us // 1000 - state.last_us // 1000
    return state.list == CLOSING_LIST and since_ms >= control.linger_ms


@inlined
def _meter(control: Any, table: Any, done: Any, text: Any, fresh: Any, packet_at: int) -> None:
    """A packet that belongs to a flow."""
    states, ways, index = table[0], table[1], table[2]
    packet, key = fresh[0][0], fresh[1]
    hashed = flow_key(packet, key)
    slot = find(index, states, key, hashed)
    if slot != NONE and _has_lingered(control, states[slot]):
        _close(control, table, done, slot, _end_of(table, slot))
        slot = NONE
    if slot != NONE:
        ended = meter_update_flow(
            states[slot].flow, packet_at, control.idle_ms, control.active_ms, 0, 1, 0,
            control.dissections, control.dissector, 0,
        )  # fmt: skip
        if ended:
            _close(control, table, done, slot, _ACTIVE if ended == 2 else _IDLE)
            slot = NONE
    if slot == NONE:
        packet.direction = 0
        slot = _begin(control, table, done, fresh, packet_at, hashed)
        if slot == NONE:
            return
    _take(control, table, text, slot, packet)
    _fragment_begins(control, table, slot, packet)
    control.metered += 1
    which = IDLE_LIST
    if control.linger_ms:
        source, destination = ways[2 * slot], ways[2 * slot + 1]
        if goodbye(source, destination) or half_open(source):
            which = CLOSING_LIST
    unlink(control, states, slot)
    append(control, states, slot, which)
    if control.early_by_age or control.early_by_count:
        _tell_early(control, table, done, slot)


@inlined
def _set_time(control: Any, now_us: int) -> None:
    control.now_us = now_us
    control.tick_us = now_us // control.clock_us * control.clock_us


@inlined
def _tick(control: Any, packet: Any) -> None:
    """Time goes on with a packet, never back."""
    seconds = load_i64(control.header)
    if seconds < 0:
        # libpcap reads a classic pcap's seconds as signed, which end in 2038.
        seconds += 1 << 32
    time_us = seconds * 1_000_000 + load_i64(control.header + np.uint64(8))
    _set_time(control, max(control.now_us, time_us))
    packet.time = np.uint64(control.now_us // 1000)


@compiled
def run(control_at: Any, table: Any, done: Any, text: Any, fresh: Any) -> Number:
    """Read packets until there is something else to do; say what (layout.END_OF_FILE …)."""
    control, packets = control_at[0], fresh[0]
    packet_at = address_of(packets)
    most_rows, most_peeks = len(done[0]) - ROWS_A_PACKET, len(text[0]) - 1
    most_octets = len(text[1]) - MOST_PEEK
    for _ in range(control.packets_at_once):
        if control.rows > most_rows:
            return ROWS_FULL
        if control.peeks > most_peeks or control.peek_bytes > most_octets:
            return PEEKS_FULL
        if control.free == NONE and control.may_grow:
            return TABLE_FULL
        packets[0] = packets[1]  # the engine leaves what a packet lacks as it was
        found = capture_next(
            control.capture, packet_at, 1, control.shards, np.uint64(control.shard), control.mode
        )
        if found == -1:
            return NOTHING_NOW if control.mode else READ_ERROR
        if found < -1:
            return END_OF_FILE
        control.read += 1
        if found == 0:
            _ignored(control, table)
            continue
        _tick(control, packets[0])
        _note_place(control, packets[0])
        if found == 1:
            _meter(control, table, done, text, fresh, packet_at)
        else:
            control.elsewhere += 1
        _expire(control, table, done)
    return ENOUGH


@compiled
def run_clock(control_at: Any, table: Any, done: Any, now_us: int) -> Number:
    """Move the time to `now_us` without a packet; ROWS_FULL if flows are left that are due."""
    control = control_at[0]
    _set_time(control, max(control.now_us, now_us))
    _expire(control, table, done)
    return ROWS_FULL if control.rows > len(done[0]) - ROWS_A_PACKET else ENOUGH


@compiled
def run_out(control_at: Any, table: Any, done: Any, ending: int) -> Number:
    """End every flow, the least recently seen first; ROWS_FULL if some are left."""
    control = control_at[0]
    for which in range(2):
        while control.oldest[which] != NONE:
            if control.rows >= len(done[0]):
                return ROWS_FULL
            _close(control, table, done, control.oldest[which], ending)
    return ENOUGH


@compiled
def reindex(control_at: Any, table: Any, first_free: int) -> None:
    """After the table has grown: put all flows into a new index, and link the new slots."""
    control = control_at[0]
    states, index = table[0], table[2]
    for which in range(2):
        slot = control.oldest[which]
        while slot != NONE:
            enter(index, slot, np.int64(states[slot].hash))
            slot = states[slot].next
    for slot in range(len(states) - 1, first_free - 1, -1):
        states[slot].next = control.free
        control.free = slot
