"""Puts flows in order of last time, the order in which feature windows walk them."""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from features.flows import FlowBatch, join_flows

SLACK_US = 1_000_000
"""How much later than the idle timeout a meter may close a flow, on a busy link."""

MOST_HELD = 1 << 16
"""Flows held back at most: as many as a flow table holds, so that without evictions no flow goes
before its time."""

_BUCKET_US = 1_000_000


class ReorderBuffer:
    """Holds flows back until no earlier one can come.

    A meter closes a flow at the latest one idle timeout (and :data:`SLACK_US`) after its last
    packet, so when a flow with last time T has come, all flows that ended before T minus that
    have come too. They are let go a whole second at a time. Flows that come later still are
    passed on at once, and counted in `late`. Flows of equal last time are ordered by first
    time, addresses and ports, so the order depends on the flows alone.

    At most `most` flows are held: of more, those of the earliest seconds are let go. A meter
    whose table is full ends the flows that it saw least recently, so in a flood flows come in
    order already, and no earlier ones follow.
    """

    def __init__(self, idle_timeout_s: int, most: int = MOST_HELD) -> None:
        self._horizon_us = idle_timeout_s * 1_000_000 + SLACK_US
        # A heap of batches, each in order of bucket: its first bucket, its number, its flows.
        self._held: list[tuple[int, int, FlowBatch]] = []
        self._pushed = 0
        self._most = most
        self._sizes: Counter[int] = Counter()
        """Flows that are held, by bucket."""
        self._passed: int | None = None
        self.late = 0

    def push(self, flows: FlowBatch, progress_us: int | None = None) -> FlowBatch:
        """Take flows in any order; return those that are due, ordered.

        Args:
            progress_us: the meter's time, if it tells; otherwise the latest of the flows' own.
        """
        if not len(flows):
            return flows
        buckets = flows["last_us"] // _BUCKET_US
        if self._passed is not None:
            self.late += int((buckets < self._passed).sum())
        if (buckets[1:] < buckets[:-1]).any():  # seldom: rows are long, and copying them costs
            flows = flows.take(np.argsort(buckets, kind="stable"))
        self._hold(flows)
        for bucket, count in zip(*np.unique(buckets, return_counts=True), strict=True):
            self._sizes[int(bucket)] += int(count)
        latest_us = int(flows["last_us"].max()) if progress_us is None else progress_us
        safe = (latest_us - self._horizon_us) // _BUCKET_US
        if self._sizes.total() > self._most:
            safe = max(safe, self._room_at())
        self._passed = safe if self._passed is None else max(self._passed, safe)
        return self._release(self._passed)

    def _room_at(self) -> int:
        """The second before which flows have to go, so that half of `most` are left at most."""
        left, behind = self._sizes.total(), 0
        for bucket in sorted(self._sizes):
            if 2 * left <= self._most:
                break
            left -= self._sizes[bucket]
            behind = bucket + 1
        return behind

    def flush(self) -> FlowBatch:
        """All flows that are held, ordered; the stream has ended."""
        return self._release(None)

    def _hold(self, flows: FlowBatch) -> None:
        heapq.heappush(
            self._held, (int(flows["last_us"][0]) // _BUCKET_US, self._pushed, flows)
        )  # fmt: skip
        self._pushed += 1

    def _release(self, before: int | None) -> FlowBatch:
        """The flows of the buckets before this one, or all."""
        parts = []
        while self._held and (before is None or self._held[0][0] < before):
            _, _, flows = heapq.heappop(self._held)
            end = len(flows)
            if before is not None:
                end = int(np.searchsorted(flows["last_us"] // _BUCKET_US, before))
            parts.append(flows[:end])
            if end < len(flows):
                self._hold(flows[end:])
        for bucket in [key for key in self._sizes if before is None or key < before]:
            del self._sizes[bucket]
        joined = join_flows(parts)
        parts.clear()  # in a flood, 50 MB that need not be there beside two copies
        return _ordered(joined)


def _ordered(flows: FlowBatch) -> FlowBatch:
    """`flows` by last time, then by what else tells them apart."""
    last_us = flows["last_us"]
    if (last_us[1:] > last_us[:-1]).all():
        return flows
    order = np.argsort(last_us, kind="stable")
    same = last_us[order[1:]] == last_us[order[:-1]]
    # Those that end with another one: few, so that few are compared in full.
    places = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    if len(places):
        order[places] = order[places][_full_order(flows.take(order[places]))]
    return flows.take(order)


def _full_order(flows: FlowBatch) -> NDArray[np.intp]:
    keys = [flows[name] for name in ("dst_port", "src_port", "first_us", "last_us")]
    layers = [flows[name] for name in ("tunnel_id", "vlan_id", "protocol")]
    addresses = [
        np.ascontiguousarray(flows[name]).view(">u8")[:, word].astype(np.uint64)
        for name in ("dst_ip", "src_ip")
        for word in (1, 0)
    ]
    return np.lexsort([*layers, *addresses, *keys])
