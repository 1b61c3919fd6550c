"""Puts flows in order of last time, the order in which feature windows walk them."""

from __future__ import annotations

import numpy as np

from features.flows import FlowBatch, empty_flows

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
        self._most = most
        self._count = 0
        self._held: dict[int, list[FlowBatch]] = {}
        self._passed: int | None = None
        self.late = 0

    def push(self, flows: FlowBatch) -> FlowBatch:
        """Take flows in any order; return those that are due, ordered."""
        if not len(flows):
            return flows
        buckets = flows["last_us"] // _BUCKET_US
        if self._passed is not None:
            self.late += int((buckets < self._passed).sum())
        for bucket in np.unique(buckets):
            self._held.setdefault(int(bucket), []).append(flows[buckets == bucket])
        self._count += len(flows)
        safe = (int(flows["last_us"].max()) - self._horizon_us) // _BUCKET_US
        if self._count > self._most:
            safe = max(safe, self._room_at())
        self._passed = safe if self._passed is None else max(self._passed, safe)
        return self._release(sorted(key for key in self._held if key < self._passed))

    def _room_at(self) -> int:
        """The second before which flows have to go, so that half of `most` are left at most."""
        left, behind = self._count, 0
        for bucket in sorted(self._held):
            if 2 * left <= self._most:
                break
            left -= sum(map(len, self._held[bucket]))
            behind = bucket + 1
        return behind

    def flush(self) -> FlowBatch:
        """All flows that are held, ordered; the stream has ended."""
        return self._release(sorted(self._held))

    def _release(self, buckets: list[int]) -> FlowBatch:
        parts = [part for bucket in buckets for part in self._held.pop(bucket)]
        self._count -= sum(map(len, parts))
        return _ordered(np.concatenate(parts)) if parts else empty_flows()


def _ordered(flows: FlowBatch) -> FlowBatch:
    """`flows` by last time, then by what else tells them apart."""
    keys = [flows[name] for name in ("dst_port", "src_port", "first_us", "last_us")]
    layers = [flows[name] for name in ("tunnel_id", "vlan_id", "protocol")]
    addresses = [
        np.ascontiguousarray(flows[name]).view(">u8")[:, word].astype(np.uint64)
        for name in ("dst_ip", "src_ip")
        for word in (1, 0)
    ]
    return flows[np.lexsort([*layers, *addresses, *keys])]
