"""What a host did just before: the flows that a window model sees beside a flow's own row.

A *window* is ``[W, F]``: the rows of the last ``W - 1`` flows of the same source, the oldest
first, and then the flow's own. Rows of flows that were not are NaN throughout. The sensor builds
windows flow by flow (:class:`HostHistory`), training from whole tables (:func:`previous_rows`);
both see the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.context import Table, mix, new_table, touch
from features.flows import FlowBatch, address_keys
from features.schema import FloatArray

HOSTS = 1 << 14
"""Hosts whose flows are remembered; beyond, the host that was silent longest is forgotten."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FORGOTTEN = 3


@njit(cache=True)
def _host_keys(origin: NDArray[np.uint64], source: NDArray[np.uint64]) -> NDArray[np.uint64]:
    keys = np.empty(len(origin), np.uint64)
    for row in range(len(origin)):
        keys[row] = mix(mix(mix(np.uint64(8), origin[row]), source[row, 0]), source[row, 1])
    return keys


def host_keys(flows: FlowBatch, side: Literal["src", "dst"] = "src") -> NDArray[np.uint64]:
    """A 64-bit key of each flow's source (or destination), ``[B]``.

    A host of another origin is another host.
    """
    keys: NDArray[np.uint64] = _host_keys(
        flows["origin"].astype(np.uint64), address_keys(flows[f"{side}_ip"])
    )
    return keys


@njit(cache=True, error_model="numpy")
def _walk(
    table: Table,
    counts: NDArray[np.int64],
    ring: NDArray[np.float32],
    hosts: NDArray[np.uint64],
    rows: NDArray[np.float32],
    result: NDArray[np.float64],
) -> None:
    """Write what came before each row into `result` ``[B, W, F]``, and remember the row."""
    depth = ring.shape[1]
    for row in range(len(hosts)):
        entry, known = touch(table, hosts[row])
        if not known:
            counts[entry] = 0
        count = counts[entry]
        for back in range(1, min(count, depth) + 1):
            result[row, depth - back] = ring[entry, (count - back) % depth]
        ring[entry, count % depth] = rows[row]
        counts[entry] = count + 1


class HostHistory:
    """Remembers each host's last rows, in a fixed amount of memory.

    How flows are cut into pushes changes nothing.
    """

    def __init__(self, window: int, width: int, hosts: int = HOSTS) -> None:
        """Make windows of `window` rows of `width` features; `hosts` is a power of two."""
        self._table = new_table(hosts)
        self._counts = np.zeros(hosts, np.int64)
        self._ring = np.zeros((hosts, window - 1, width), np.float32)

    @property
    def forgotten(self) -> int:
        """How many hosts were forgotten to make room for others."""
        return int(self._table.head[_FORGOTTEN])

    def push(self, hosts: NDArray[np.uint64], rows: FloatArray) -> FloatArray:
        """Take flows in order; their windows.

        Args:
            hosts: ``[B]``, as :func:`host_keys` gives them.
            rows: ``[B, F]``.

        Returns:
            ``[B, W, F]``, the last row of each its own.
        """
        depth = self._ring.shape[1]
        result = np.full((len(rows), depth + 1, rows.shape[1]), np.nan)
        result[:, depth] = rows
        if depth:
            small = np.clip(rows, -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32)
            _walk(self._table, self._counts, self._ring, hosts, small, result)
        return result


def previous_rows(hosts: NDArray[np.uint64], depth: int) -> NDArray[np.int32]:
    """The numbers of the last `depth` rows of the same host before each, ``[N, depth]``.

    Args:
        hosts: ``[N]``, in the order of the flows.
        depth: rows wanted, ``W - 1``.

    Returns:
        The oldest first; -1 where there was none.
    """
    order = np.argsort(hosts, kind="stable")
    fresh = np.diff(hosts[order], prepend=hosts[order][:1] ^ np.uint64(1)) != 0
    place = np.arange(len(hosts))
    begin = np.maximum.accumulate(np.where(fresh, place, 0))
    result = np.full((len(hosts), depth), -1, np.int32)
    for back in range(1, depth + 1):
        there = place - back >= begin
        result[order[there], depth - back] = order[place[there] - back]
    return result


def windows_of(rows: FloatArray, before: NDArray[np.int32]) -> FloatArray:
    """Windows ``[B, W, F]`` of the last ``B`` rows of `rows` ``[N, F]``.

    Args:
        rows: the rows, and any that came before them.
        before: ``[B, W - 1]``, numbers of rows as :func:`previous_rows` gives them.
    """
    own = rows[len(rows) - len(before) :, None]
    earlier = np.where((before >= 0)[:, :, None], rows[before], np.nan)
    return np.concatenate([earlier, own], axis=1)
