"""The flow table: open addressing over slots, and the slots in the order they were last seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensor.meter.compiled.layout import NONE
from sensor.meter.compiled.memory import Number, inlined

# An entry of the index is (hash << 32) | (slot + 1), 0 for an empty place.
_SLOT_BITS = np.uint64(0xFFFFFFFF)
_PORTS_AND_PROTOCOL = np.uint64(0xFFFFFFFF0000FFFF)
"""Of a key's fifth word; the rest is the VLAN."""


@inlined
def flow_key(packet: Any, key: NDArray[np.uint64]) -> Number:
    """Write the key of a packet's flow, the same for both directions; its 32-bit hash.

    NFStream's: addresses, ports, protocol, VLAN and tunnel; splitmix64 over the words.
    """
    src0, src1, dst0, dst1 = packet.src_ip[0], packet.src_ip[1], packet.dst_ip[0], packet.dst_ip[1]
    src_port, dst_port = np.uint64(packet.src_port), np.uint64(packet.dst_port)
    if src1 != dst1:
        forward = src1 < dst1
    elif src0 != dst0:
        forward = src0 < dst0
    else:
        forward = src_port <= dst_port
    if forward:
        key[0], key[1], key[2], key[3] = src0, src1, dst0, dst1
        ports = (src_port << np.uint64(16)) | dst_port
    else:
        key[0], key[1], key[2], key[3] = dst0, dst1, src0, src1
        ports = (dst_port << np.uint64(16)) | src_port
    key[4] = (
        (ports << np.uint64(32))
        | (np.uint64(packet.vlan_id) << np.uint64(16))
        | np.uint64(packet.protocol)
    )
    key[5] = np.uint64(packet.tunnel_id)
    mixed = np.uint64(0x9E3779B97F4A7C15)
    for word in range(6):
        mixed ^= key[word]
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return np.int64(mixed >> np.uint64(32))


@inlined
def _same(state: Any, key: NDArray[np.uint64]) -> Number:
    different = np.uint64(0)
    for word in range(6):
        different |= state.key[word] ^ key[word]
    return different == 0


@inlined
def find(
    index: NDArray[np.uint64], states: NDArray[np.void], key: NDArray[np.uint64], hashed: int
) -> Number:
    """The slot of a key, or NONE."""
    mask = len(index) - 1
    place = hashed & mask
    while index[place]:
        entry = index[place]
        if np.int64(entry >> np.uint64(32)) == hashed:
            slot = np.int64(entry & _SLOT_BITS) - 1
            if _same(states[slot], key):
                return slot
        place = (place + 1) & mask
    return NONE


@inlined
def enter(index: NDArray[np.uint64], slot: int, hashed: int) -> None:
    """Put a slot into the index; its key is not in it."""
    mask = len(index) - 1
    place = hashed & mask
    while index[place]:
        place = (place + 1) & mask
    index[place] = (np.uint64(hashed) << np.uint64(32)) | np.uint64(slot + 1)


@inlined
def remove(index: NDArray[np.uint64], slot: int, hashed: int) -> None:
    """Take a slot out of the index, and move up what was put behind it (Knuth, 6.4, R)."""
    mask = len(index) - 1
    entry = (np.uint64(hashed) << np.uint64(32)) | np.uint64(slot + 1)
    hole = hashed & mask
    while index[hole] != entry:
        hole = (hole + 1) & mask
    place = hole
    while True:
        place = (place + 1) & mask
        if not index[place]:
            break
        home = np.int64(index[place] >> np.uint64(32)) & mask
        if ((place - home) & mask) >= ((place - hole) & mask):
            index[hole] = index[place]
            hole = place
    index[hole] = 0


@inlined
def _bury(known: Any, key: int) -> None:
    """Take a key out of the index of connections, and move up what was put behind it."""
    mask = np.uint64(len(known) - 1)
    hole = key & mask
    while known[hole].key != key:
        hole = (hole + np.uint64(1)) & mask
    place = hole
    while True:
        place = (place + np.uint64(1)) & mask
        if not known[place].key:
            break
        if ((place - (known[place].key & mask)) & mask) >= ((place - hole) & mask):
            known[hole] = known[place]
            hole = place
    known[hole].key = np.uint64(0)


@inlined
def _place_of(known: Any, key: int) -> Number:
    """Where a key is in the index of connections, or the empty place for it."""
    mask = np.uint64(len(known) - 1)
    place = key & mask
    while known[place].key and known[place].key != key:
        place = (place + np.uint64(1)) & mask
    return place


@inlined
def _connection_key(flow_key: NDArray[np.uint64]) -> Number:
    """A 64-bit hash of a flow's addresses, ports and protocol, the same both ways; not 0."""
    key = np.uint64(0x9E3779B97F4A7C15)
    for word in range(5):
        key ^= flow_key[word] if word < 4 else flow_key[4] & _PORTS_AND_PROTOCOL
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        key ^= key >> np.uint64(31)
    return key | np.uint64(1)


@inlined
def _enter_connection(control: Any, remembered: Any, key: int) -> Number:
    """A place for a key that is not in the index; the connection longest in it is forgotten."""
    ring, known = remembered
    slot = control.remembered % len(ring)
    if control.remembered >= len(ring):
        _bury(known, ring[slot])
    place = _place_of(known, key)
    ring[slot] = key
    known[place].key = key
    control.remembered += 1
    return place


@inlined
def source_is_second(flow_key: NDArray[np.uint64], packet: Any) -> Number:
    """Whether a packet's source is the second of the two that its flow's key names."""
    first_port = np.uint64(flow_key[4] >> np.uint64(48))
    return (
        flow_key[0] != packet.src_ip[0]
        or flow_key[1] != packet.src_ip[1]
        or first_port != np.uint64(packet.src_port)
    )


@inlined
def remember(control: Any, remembered: Any, state: Any, src: Any, dst: Any, begins: int) -> None:
    """Note whether an earlier flow had these addresses and ports, either way, and what of it lasts.

    A flow that goes on with a connection has the set-up times of the one before, as Argus's
    records have them, and knows when either side was last heard of; one that `begins` with a SYN
    is a connection of its own. The latest connections are remembered, as many as `remembered` has
    room for.
    """
    known = remembered[1]
    key = _connection_key(state.key)
    place = _place_of(known, key)
    if not known[place].key:
        keep(control, remembered, state, src, dst)
        return
    state.known = 1
    connection = known[place]
    src.before_us = connection.last_us[state.turned]
    dst.before_us = connection.last_us[1 - state.turned]
    if not begins:
        state.syn_us = connection.syn_us
        state.synack_us = connection.synack_us
        state.ack_us = connection.ack_us


@inlined
def keep(control: Any, remembered: Any, state: Any, src: Any, dst: Any) -> None:
    """Keep what another flow of this one's connection is to know of it."""
    known = remembered[1]
    key = _connection_key(state.key)
    place = _place_of(known, key)
    if not known[place].key:
        place = _enter_connection(control, remembered, key)
    connection = known[place]
    connection.syn_us = state.syn_us
    connection.synack_us = state.synack_us
    connection.ack_us = state.ack_us
    connection.last_us[state.turned] = src.last_us if src.packets else src.before_us
    connection.last_us[1 - state.turned] = dst.last_us if dst.packets else dst.before_us


@inlined
def unlink(control: Any, states: NDArray[np.void], slot: int) -> None:
    """Take a slot out of its list."""
    state = states[slot]
    which, before, after = state.list, state.previous, state.next
    if before == NONE:
        control.oldest[which] = after
    else:
        states[before].next = after
    if after == NONE:
        control.latest[which] = before
    else:
        states[after].previous = before


@inlined
def append(control: Any, states: NDArray[np.void], slot: int, which: int) -> None:
    """Put a slot at the end of a list: the one seen last."""
    state = states[slot]
    before = control.latest[which]
    state.list = which
    state.previous = before
    state.next = NONE
    if before == NONE:
        control.oldest[which] = slot
    else:
        states[before].next = slot
    control.latest[which] = slot
