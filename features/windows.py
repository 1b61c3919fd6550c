"""Features of a flow among its neighbours: blocks and sliding windows over the flow stream.

All of them walk flows in order of last time, the order in which a sensor knows them and in which
UNSW-NB15's makers kept their records. KDD's are in the order of their beginning
(docs/decisions/0005-what-differs-on-the-wire.md). State is bounded: a block or a ring of fixed
length.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.flows import FlowBatch
from features.schema import NOTHING_FORGOTTEN, FloatArray

BLOCK_FLOWS = 100
"""UNSW-NB15 counts connections in blocks of 100 records (docs/agreement-published.md)."""

TIME_WINDOW_US = 2_000_000
"""KDD's time window: connections of the past two seconds (Lee and Stolfo, 2000, section 3.3)."""
TIME_WINDOW_FLOWS = 511
"""The largest `count` in the published KDD rows; also what bounds the state."""
HOST_WINDOW_FLOWS = 255
"""The largest `dst_host_count` in the published KDD rows, so the length of its window."""

Keys = Mapping[str, NDArray[np.generic]]


@njit(cache=True)
def mix_keys(columns: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One 64-bit key a row of ``[B, K]`` words: equal rows get equal keys (splitmix64)."""
    rows, width = columns.shape
    keys = np.empty(rows, np.uint64)
    for row in range(rows):
        state = np.uint64(0x9E3779B97F4A7C15)
        for column in range(width):
            state ^= columns[row, column]
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
        keys[row] = state
    return keys


@njit(cache=True)
def count_equal(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """For each of ``[B, K]`` keys, how many rows have the same key in that column: ``[B, K]``."""
    rows, width = keys.shape
    counts = np.zeros((rows, width), np.float64)
    for row in range(rows):
        for other in range(rows):
            for column in range(width):
                if keys[row, column] == keys[other, column]:
                    counts[row, column] += 1.0
    return counts


class BlockCounts:
    """Counts of equal keys in consecutive blocks of flows (UNSW-NB15's seven ``ct_*``).

    The records of a block know all of their block, so a block's flows are complete only
    when it is full or the stream is flushed.
    """

    forgotten = NOTHING_FORGOTTEN

    def __init__(self, names: tuple[str, ...], block_flows: int = BLOCK_FLOWS) -> None:
        self.names = names
        self._block_flows = block_flows
        self._open = np.empty((0, len(names)), np.uint64)

    def push(self, flows: FlowBatch, keys: Keys) -> tuple[int, dict[str, FloatArray]]:
        """Take flows; return how many more rows are complete, and their columns."""
        fresh = np.stack([keys[name].astype(np.uint64) for name in self.names], axis=1)
        waiting = np.concatenate([self._open, fresh])
        full = len(waiting) // self._block_flows * self._block_flows
        self._open = waiting[full:]
        return full, self._columns(waiting[:full])

    def flush(self) -> tuple[int, dict[str, FloatArray]]:
        """Close the open block."""
        rest, self._open = self._open, self._open[:0]
        return len(rest), self._columns(rest)

    def _columns(self, keys: NDArray[np.uint64]) -> dict[str, FloatArray]:
        counts = np.empty(keys.shape, np.float64)
        for start in range(0, len(keys), self._block_flows):
            block = slice(start, start + self._block_flows)
            counts[block] = count_equal(keys[block])
        return {name: counts[:, column] for column, name in enumerate(self.names)}


# What KDD's windows count by: the index of a table in the arrays of KddWindows.
_BY_HOST, _BY_SERVICE, _BY_BOTH, _BY_PORT = 0, 1, 2, 3
_TABLES = 4
# What each entry of a table counts in each of the two windows.
_FLOWS, _SYN, _REJ, _DIFFERENT = 0, 1, 2, 3
_IN_TIME, _IN_HOST = 0, 1

_RING = 512
"""Slots for the flows of both windows and the one that enters: a power of two above the longest."""
_BUCKETS = 1024
_NONE = -1

# Places in `at`: how many flows there ever were, and the first that each window still holds.
_SEEN, _TIME_TAIL, _HOST_TAIL, _TAIL = 0, 1, 2, 3


@njit(cache=True)
def _mixed(first: np.uint64, second: np.uint64) -> np.uint64:
    """One key of two (splitmix64)."""
    state = first * np.uint64(0x9E3779B97F4A7C15) + second
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@njit(cache=True)
def _enter(
    table: int,
    key: np.uint64,
    keys: NDArray[np.uint64],
    links: NDArray[np.int32],
    heads: NDArray[np.int32],
    free: NDArray[np.int32],
    held: NDArray[np.int32],
) -> int:
    """The entry of `key` in a table, made if there is none, held once more."""
    bucket = key & np.uint64(_BUCKETS - 1)
    entry = int(heads[table, bucket])
    while entry != _NONE and keys[table, entry] != key:
        entry = int(links[table, entry])
    if entry == _NONE:
        # The last cell of a table's free list is the list's length.
        free[table, _RING] -= 1
        entry = int(free[table, free[table, _RING]])
        keys[table, entry] = key
        links[table, entry] = heads[table, bucket]
        heads[table, bucket] = entry
    held[table, entry] += 1
    return entry


@njit(cache=True)
def _leave(
    table: int,
    entry: int,
    keys: NDArray[np.uint64],
    links: NDArray[np.int32],
    heads: NDArray[np.int32],
    free: NDArray[np.int32],
    held: NDArray[np.int32],
) -> None:
    """Let go of an entry once; one that nothing holds is unlinked and free again."""
    held[table, entry] -= 1
    if held[table, entry]:
        return
    bucket = keys[table, entry] & np.uint64(_BUCKETS - 1)
    other = heads[table, bucket]
    if other == entry:
        heads[table, bucket] = links[table, entry]
    else:
        while links[table, other] != entry:
            other = links[table, other]
        links[table, other] = links[table, entry]
    free[table, free[table, _RING]] = entry
    free[table, _RING] += 1


@njit(cache=True)
def _count(
    window: int,
    sign: int,
    slot: int,
    entries: NDArray[np.int32],
    errors: NDArray[np.int32],
    counts: NDArray[np.int32],
) -> None:
    """Add the flow in a slot of the ring to the counts of a window, or (-1) take it out."""
    for table in range(_TABLES):
        entry = entries[slot, table]
        for what in range(3):
            counts[table, entry, window, what] += sign * errors[slot, what]
    both = counts[_BY_BOTH, entries[slot, _BY_BOTH], window, _FLOWS]
    # The first of a host and service makes them one more for each other, the last one less.
    if (sign > 0 and both == 1) or (sign < 0 and both == 0):
        counts[_BY_HOST, entries[slot, _BY_HOST], window, _DIFFERENT] += sign
        counts[_BY_SERVICE, entries[slot, _BY_SERVICE], window, _DIFFERENT] += sign


@njit(cache=True)
def _rate(part: int, whole: int) -> float:
    """`part` of `whole` as KDD wrote it: single precision, printed with two decimals.

    Recovered: of 40, KDD has 0.03 for one, 0.08 for three, 0.17 for seven and 0.22 for nine,
    which is the decimal nearest to the single-precision quotient, a tie going to the even one.
    The product with 100 is exact in double precision.
    """
    single = np.float32(part) / np.float32(whole)
    rounded: float = np.rint(np.float64(single) * 100.0) / 100.0
    return rounded


@njit(cache=True)
def _spread(different: int, whole: int) -> float:
    return _rate(different, whole) if different > 1 else 0.0


@njit(cache=True)
def kdd_windows(
    time_us: NDArray[np.int64],
    host: NDArray[np.uint64],
    service: NDArray[np.uint64],
    src_port: NDArray[np.uint64],
    syn_error: NDArray[np.bool_],
    rej_error: NDArray[np.bool_],
    at: NDArray[np.int64],
    times: NDArray[np.int64],
    entries: NDArray[np.int32],
    errors: NDArray[np.int32],
    keys: NDArray[np.uint64],
    links: NDArray[np.int32],
    heads: NDArray[np.int32],
    free: NDArray[np.int32],
    held: NDArray[np.int32],
    counts: NDArray[np.int32],
    result: NDArray[np.float64],
) -> None:
    """Write KDD features 23-41 of ``[B]`` flows into `result`, shape ``[19, B]``.

    The other arrays are the state of a :class:`KddWindows`. A flow enters both windows and
    those that have become too old leave; nothing is counted twice, so the cost of a flow does
    not depend on how many are in the windows.
    """
    mask = np.int64(_RING - 1)
    for row in range(len(time_us)):
        seen = at[_SEEN]
        while at[_TIME_TAIL] < seen and (
            time_us[row] - times[at[_TIME_TAIL] & mask] > TIME_WINDOW_US
            or seen - at[_TIME_TAIL] >= TIME_WINDOW_FLOWS
        ):
            _count(_IN_TIME, -1, at[_TIME_TAIL] & mask, entries, errors, counts)
            at[_TIME_TAIL] += 1
        if seen - at[_HOST_TAIL] >= HOST_WINDOW_FLOWS:
            _count(_IN_HOST, -1, at[_HOST_TAIL] & mask, entries, errors, counts)
            at[_HOST_TAIL] += 1
        while at[_TAIL] < min(at[_TIME_TAIL], at[_HOST_TAIL]):
            for table in range(_TABLES):
                entry = entries[at[_TAIL] & mask, table]
                _leave(table, entry, keys, links, heads, free, held)
            at[_TAIL] += 1

        slot = seen & mask
        times[slot] = time_us[row]
        errors[slot, _FLOWS] = 1
        errors[slot, _SYN] = syn_error[row]
        errors[slot, _REJ] = rej_error[row]
        for table in range(_TABLES):
            if table == _BY_HOST:
                key = host[row]
            elif table == _BY_SERVICE:
                key = service[row]
            elif table == _BY_BOTH:
                key = _mixed(host[row], service[row])
            else:
                key = _mixed(host[row], src_port[row])
            entries[slot, table] = _enter(table, key, keys, links, heads, free, held)
        at[_SEEN] += 1
        _count(_IN_TIME, 1, slot, entries, errors, counts)
        _count(_IN_HOST, 1, slot, entries, errors, counts)

        of_both = counts[_BY_BOTH, entries[slot, _BY_BOTH]]
        of_host = counts[_BY_HOST, entries[slot, _BY_HOST]]
        of_service = counts[_BY_SERVICE, entries[slot, _BY_SERVICE]]
        of_port = counts[_BY_PORT, entries[slot, _BY_PORT]]
        hosts, services = of_host[_IN_TIME, _FLOWS], of_service[_IN_TIME, _FLOWS]
        result[0, row] = hosts
        result[1, row] = services
        result[2, row] = _rate(of_host[_IN_TIME, _SYN], hosts)
        result[3, row] = _rate(of_service[_IN_TIME, _SYN], services)
        result[4, row] = _rate(of_host[_IN_TIME, _REJ], hosts)
        result[5, row] = _rate(of_service[_IN_TIME, _REJ], services)
        result[6, row] = _rate(of_both[_IN_TIME, _FLOWS], hosts)
        result[7, row] = _spread(of_host[_IN_TIME, _DIFFERENT], hosts)
        result[8, row] = _spread(of_service[_IN_TIME, _DIFFERENT], services)
        hosts, services = of_host[_IN_HOST, _FLOWS], of_service[_IN_HOST, _FLOWS]
        result[9, row] = hosts
        result[10, row] = services
        result[11, row] = _rate(of_both[_IN_HOST, _FLOWS], hosts)
        result[12, row] = _spread(of_host[_IN_HOST, _DIFFERENT], hosts)
        result[13, row] = _rate(of_port[_IN_HOST, _FLOWS], hosts)
        result[14, row] = _spread(of_service[_IN_HOST, _DIFFERENT], services)
        result[15, row] = _rate(of_host[_IN_HOST, _SYN], hosts)
        result[16, row] = _rate(of_service[_IN_HOST, _SYN], services)
        result[17, row] = _rate(of_host[_IN_HOST, _REJ], hosts)
        result[18, row] = _rate(of_service[_IN_HOST, _REJ], services)


class KddWindows:
    """KDD's traffic features 23-41; complete as soon as a flow is seen.

    Two windows over one stream of flows in order of last time: those of the past two seconds, at
    most 511, and the last 255, the flow itself among them. Recovered from the published rows
    (tests/features/test_kdd_evidence.py): `count` ends at 511 and `dst_host_count` at 255, and so
    do the unions of the flows to the same host and to the same service, so either window is one
    for all hosts. The memory is that of the 511 flows.
    """

    names = (
        "count",
        "srv_count",
        "serror_rate",
        "srv_serror_rate",
        "rerror_rate",
        "srv_rerror_rate",
        "same_srv_rate",
        "diff_srv_rate",
        "srv_diff_host_rate",
        "dst_host_count",
        "dst_host_srv_count",
        "dst_host_same_srv_rate",
        "dst_host_diff_srv_rate",
        "dst_host_same_src_port_rate",
        "dst_host_srv_diff_host_rate",
        "dst_host_serror_rate",
        "dst_host_srv_serror_rate",
        "dst_host_rerror_rate",
        "dst_host_srv_rerror_rate",
    )

    forgotten = NOTHING_FORGOTTEN

    _KEYS = ("host", "service", "src_port", "syn_error", "rej_error")

    def __init__(self) -> None:
        self._latest_us = np.zeros(1, np.int64)
        self._at = np.zeros(4, np.int64)
        self._times = np.zeros(_RING, np.int64)
        self._entries = np.zeros((_RING, _TABLES), np.int32)
        self._errors = np.zeros((_RING, 3), np.int32)
        self._keys = np.zeros((_TABLES, _RING), np.uint64)
        self._links = np.full((_TABLES, _RING), _NONE, np.int32)
        self._heads = np.full((_TABLES, _BUCKETS), _NONE, np.int32)
        self._free = np.tile(np.arange(_RING + 1, dtype=np.int32), (_TABLES, 1))
        self._held = np.zeros((_TABLES, _RING), np.int32)
        self._counts = np.zeros((_TABLES, _RING, 2, 4), np.int32)

    def push(self, flows: FlowBatch, keys: Keys) -> tuple[int, dict[str, FloatArray]]:
        """Take flows; all of them are complete at once.

        A flow that comes after one with a later last time, as on a live link, counts as one of
        that time: time does not go back.
        """
        result = np.empty((len(self.names), len(flows)))
        times = np.maximum.accumulate(np.append(self._latest_us, flows["last_us"]))
        self._latest_us = times[-1:]
        kdd_windows(
            times[1:],
            *(keys[name] for name in self._KEYS),
            self._at,
            self._times,
            self._entries,
            self._errors,
            self._keys,
            self._links,
            self._heads,
            self._free,
            self._held,
            self._counts,
            result,
        )
        return len(flows), dict(zip(self.names, result, strict=True))

    def flush(self) -> tuple[int, dict[str, FloatArray]]:
        """Nothing waits."""
        return 0, {name: np.empty(0) for name in self.names}
