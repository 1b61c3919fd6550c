"""Features of a flow among its neighbours: blocks and sliding windows over the flow stream.

All of them walk flows in order of last time, the order in which the makers of the data
sets kept their records. State is bounded: a block or a ring of fixed length.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.flows import FlowBatch
from features.schema import FloatArray

BLOCK_FLOWS = 100
"""UNSW-NB15 counts connections in consecutive blocks of 100 records (docs/features.md)."""

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


@njit(cache=True)
def _distinct(values: NDArray[np.uint64], count: int, table: NDArray[np.uint64]) -> int:
    """How many different values `values[:count]` has; `table` is scratch, a power of two long."""
    mask = np.uint64(len(table) - 1)
    table[:] = np.uint64(0)
    found = 0
    for position in range(count):
        value = values[position] | np.uint64(1)
        slot = (value >> np.uint64(17)) & mask
        while table[slot] != np.uint64(0) and table[slot] != value:
            slot = (slot + np.uint64(1)) & mask
        if table[slot] == np.uint64(0):
            table[slot] = value
            found += 1
    return found


@njit(cache=True)
def _summarise(
    same: NDArray[np.int64],
    count: int,
    own: NDArray[np.uint64],
    others: NDArray[np.uint64],
    syn_error: NDArray[np.float64],
    rej_error: NDArray[np.float64],
    scratch: NDArray[np.uint64],
    table: NDArray[np.uint64],
    row: int,
) -> tuple[float, float, float, float]:
    """Four rates over the rows `same[:count]`.

    SYN errors, rejections, the share that agrees with `row` in `others`, and the number of
    different `others` a row (0 where all are one).
    """
    errors = 0.0
    rejections = 0.0
    agree = 0.0
    for position in range(count):
        other = same[position]
        errors += syn_error[other]
        rejections += rej_error[other]
        scratch[position] = others[other]
        if others[other] == own[row]:
            agree += 1.0
    different = _distinct(scratch, count, table)
    spread = different / count if different > 1 else 0.0
    return errors / count, rejections / count, agree / count, spread


@njit(cache=True)
def kdd_windows(
    time_us: NDArray[np.int64],
    host: NDArray[np.uint64],
    service: NDArray[np.uint64],
    src_port: NDArray[np.uint64],
    syn_error: NDArray[np.float64],
    rej_error: NDArray[np.float64],
    start: int,
    window_us: int,
    window_flows: int,
    host_flows: int,
) -> NDArray[np.float64]:
    """KDD features 23-41 of the rows from `start` on, shape ``[B - start, 19]``.

    Rows before `start` are history. Each row looks back over itself and at most
    `window_flows` (time window) or `host_flows` (host window) rows.
    """
    rows = len(time_us)
    result = np.zeros((rows - start, 19), np.float64)
    longest = max(window_flows, host_flows)
    by_host = np.empty(longest, np.int64)
    by_service = np.empty(longest, np.int64)
    scratch = np.empty(longest, np.uint64)
    table = np.empty(2048, np.uint64)
    for row in range(start, rows):
        line = result[row - start]
        for window in range(2):
            length = window_flows if window == 0 else host_flows
            hosts = 0
            services = 0
            same_port = 0.0
            back = row
            while back >= 0 and row - back < length:
                if window == 0 and time_us[row] - time_us[back] > window_us:
                    break
                if host[back] == host[row]:
                    by_host[hosts] = back
                    hosts += 1
                    if src_port[back] == src_port[row]:
                        same_port += 1.0
                if service[back] == service[row]:
                    by_service[services] = back
                    services += 1
                back -= 1
            syn, rej, same, spread = _summarise(
                by_host, hosts, service, service, syn_error, rej_error, scratch, table, row
            )
            syn_srv, rej_srv, _, spread_srv = _summarise(
                by_service, services, host, host, syn_error, rej_error, scratch, table, row
            )
            if window == 0:
                line[0], line[1] = hosts, services
                line[2], line[3], line[4], line[5] = syn, syn_srv, rej, rej_srv
                line[6], line[7], line[8] = same, spread, spread_srv
            else:
                line[9], line[10] = hosts, services
                line[11], line[12] = same, spread
                line[13], line[14] = same_port / hosts, spread_srv
                line[15], line[16], line[17], line[18] = syn, syn_srv, rej, rej_srv
    return result


class KddWindows:
    """KDD's traffic features 23-41; complete as soon as a flow is seen."""

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

    _KEYS = ("host", "service", "src_port", "syn_error", "rej_error")

    def __init__(self) -> None:
        self._times = np.empty(0, np.int64)
        self._past: dict[str, NDArray[np.generic]] = {}

    def push(self, flows: FlowBatch, keys: Keys) -> tuple[int, dict[str, FloatArray]]:
        """Take flows in order of last time; all of them are complete at once."""
        if not self._past:
            self._past = {name: keys[name][:0] for name in self._KEYS}
        history = len(self._times)
        times = np.concatenate([self._times, flows["last_us"]])
        joined = {name: np.concatenate([self._past[name], keys[name]]) for name in self._KEYS}
        rows = kdd_windows(
            times,
            *(joined[name] for name in self._KEYS),
            history,
            TIME_WINDOW_US,
            TIME_WINDOW_FLOWS,
            HOST_WINDOW_FLOWS,
        )
        keep = slice(-TIME_WINDOW_FLOWS, None)
        self._times = times[keep].copy()
        self._past = {name: column[keep].copy() for name, column in joined.items()}
        # The published rates have two decimals.
        columns = {name: np.round(rows[:, column], 2) for column, name in enumerate(self.names)}
        return len(flows), columns

    def flush(self) -> tuple[int, dict[str, FloatArray]]:
        """Nothing waits."""
        return 0, {name: np.empty(0) for name in self.names}
