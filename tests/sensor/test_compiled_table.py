"""The compiled meter's table: its index, the order of its flows, and what it remembers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from features.flows import NEVER
from sensor.meter.compiled.core import control_dtype
from sensor.meter.compiled.layout import (
    CLOSING_LIST,
    CONNECTION,
    IDLE_LIST,
    NONE,
    STATE,
    WAY,
)
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
)  # fmt: skip

steady = settings(max_examples=100, deadline=None, database=None, derandomize=True)
compiled = njit(error_model="numpy", _nrt=False)

SLOTS = 8
FULL = (1 << 32) - 1


@compiled
def call_find(index: Any, states: Any, key: Any, hashed: int) -> int:
    return find(index, states, key, hashed)


@compiled
def call_enter(index: Any, slot: int, hashed: int) -> None:
    enter(index, slot, hashed)


@compiled
def call_remove(index: Any, slot: int, hashed: int) -> None:
    remove(index, slot, hashed)


@compiled
def call_append(control: Any, states: Any, slot: int, which: int) -> None:
    append(control[0], states, slot, which)


@compiled
def call_unlink(control: Any, states: Any, slot: int) -> None:
    unlink(control[0], states, slot)


@compiled
def call_remember(control: Any, ring: Any, known: Any, states: Any, ways: Any, begins: int) -> None:
    remember(control[0], (ring, known), states[0], ways[0], ways[1], begins)


@compiled
def call_keep(control: Any, ring: Any, known: Any, states: Any, ways: Any) -> None:
    keep(control[0], (ring, known), states[0], ways[0], ways[1])


@compiled
def call_key(packets: Any, key: Any) -> int:
    return flow_key(packets[0], key)


@compiled
def call_second(packets: Any, key: Any) -> bool:
    return source_is_second(key, packets[0])


# Hashes that share their places in the index, wrap around its end, or differ above it only.
HASHES = [0, 1, 14, 15, FULL, FULL - 1, (3 << 20) | 15, (5 << 20) | 15]
numbers = st.integers(0, 11)


@given(steps=st.lists(numbers, max_size=60), hashes=st.lists(st.sampled_from(HASHES), min_size=12,
       max_size=12))  # fmt: skip
@steady
def test_the_index_is_a_dictionary(steps: list[int], hashes: list[int]) -> None:
    # Each step enters a key, or removes it if it is there.
    index, states = np.zeros(2 * SLOTS, np.uint64), np.zeros(SLOTS, STATE)
    keys = [np.full(6, number + 1, np.uint64) for number in range(12)]
    held: dict[int, int] = {}
    for number in steps:
        if number in held:
            call_remove(index, held.pop(number), hashes[number])
        elif len(held) < SLOTS:
            slot = min(set(range(SLOTS)) - set(held.values()))
            states[slot]["key"] = keys[number]
            call_enter(index, slot, hashes[number])
            held[number] = slot
        for other, key in enumerate(keys):
            assert call_find(index, states, key, hashes[other]) == held.get(other, NONE)
    assert np.count_nonzero(index) == len(held)


@given(steps=st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(0, 2)), max_size=60))
@steady
def test_flows_are_listed_in_the_order_they_were_seen(steps: list[tuple[int, int]]) -> None:
    # Each step sees a flow, as one of two lists wants it, or takes it out.
    control, states = np.zeros(1, control_dtype()), np.zeros(SLOTS, STATE)
    control["oldest"] = control["latest"] = NONE
    lists: dict[int, list[int]] = {IDLE_LIST: [], CLOSING_LIST: []}
    for slot, which in steps:
        for members in lists.values():
            if slot in members:
                call_unlink(control, states, slot)
                members.remove(slot)
        if which in lists:
            call_append(control, states, slot, which)
            lists[which].append(slot)
        for number, members in lists.items():
            forward, backward = [], []
            at = int(control[0]["oldest"][number])
            while at != NONE:
                forward.append(at)
                at = int(states[at]["next"])
            at = int(control[0]["latest"][number])
            while at != NONE:
                backward.append(at)
                at = int(states[at]["previous"])
            assert forward == backward[::-1] == members


@given(steps=st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=80))
@steady
def test_the_latest_connections_are_remembered(steps: list[tuple[int, bool]]) -> None:
    # Each step begins a flow of a connection, or ends it. Five are remembered: those that began,
    # or ended unknown, last. `spoken` is when either end of the connection last sent a packet.
    ring, known = np.zeros(5, np.uint64), np.zeros(16, CONNECTION)
    control = np.zeros(1, control_dtype())
    latest: list[int] = []
    spoken: dict[int, list[int]] = {}
    set_up: dict[int, int] = {}
    running: dict[int, tuple[Any, Any]] = {}
    for now_us, (number, turned) in enumerate(steps, 1):
        if number in running:
            state, ways = running.pop(number)
            for end in (0, 1) if turned else (1,):
                ways[end ^ int(state[0]["turned"])]["packets"] = 1
                ways[end ^ int(state[0]["turned"])]["last_us"] = spoken[number][end] = now_us
            state[0]["ack_us"] = set_up[number] = now_us
            call_keep(control, ring, known, state, ways)
        else:
            state, ways = np.zeros(1, STATE), np.zeros(2, WAY)
            state[0]["key"] = (number, 0, 1, 0, number << 40, 0)
            state[0]["turned"] = turned
            for name in ("syn_us", "synack_us", "ack_us"):
                state[0][name] = NEVER
            ways["before_us"] = NEVER
            begins = now_us % 3 == 0
            call_remember(control, ring, known, state, ways, begins)
            if number not in latest:
                spoken[number] = [NEVER, NEVER]
                set_up[number] = NEVER
            assert state[0]["known"] == (number in latest)
            assert state[0]["ack_us"] == (NEVER if begins else set_up[number])
            ends = spoken[number][::-1] if turned else spoken[number]
            assert ways["before_us"].tolist() == ends
            running[number] = state, ways
        latest = (latest if number in latest else [*latest, number])[-5:]
        assert np.count_nonzero(known["key"]) == len(latest)


PACKET = np.dtype([
    ("src_ip", "u8", (2,)), ("dst_ip", "u8", (2,)), ("src_port", "u2"), ("dst_port", "u2"),
    ("vlan_id", "u2"), ("protocol", "u1"), ("tunnel_id", "u4"),
])  # fmt: skip
small = st.integers(0, 2)


@given(
    fields=st.tuples(*[small] * 6),
    rest=st.tuples(small, small, small),
    other=st.tuples(*[small] * 6),
)
@steady
def test_a_key_is_the_same_both_ways_and_for_nothing_else(
    fields: tuple[int, ...], rest: tuple[int, ...], other: tuple[int, ...]
) -> None:
    def key(ends: tuple[int, ...]) -> tuple[bytes, int, bool]:
        packets, words = np.zeros(1, PACKET), np.zeros(6, np.uint64)
        packets["src_ip"], packets["dst_ip"] = ends[:2], ends[2:4]
        packets["src_port"], packets["dst_port"] = ends[4:]
        packets["vlan_id"], packets["protocol"], packets["tunnel_id"] = rest
        hashed = call_key(packets, words)
        return words.tobytes(), int(hashed), bool(call_second(packets, words))

    swapped = (*fields[2:4], *fields[:2], fields[5], fields[4])
    assert key(fields)[:2] == key(swapped)[:2]
    # Of two directions the one has the second end as its source; if the ends are one, neither has.
    assert key(fields)[2] + key(swapped)[2] == (fields != swapped)
    assert (key(fields)[0] == key(other)[0]) == (other in (fields, swapped))
    assert 0 <= key(fields)[1] <= FULL
