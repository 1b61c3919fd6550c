"""Puts flows in order of last time, the order in which feature windows walk them."""

from __future__ import annotations

import numpy as np

from features.flows import FlowBatch, empty_flows

SLACK_US = 1_000_000
"""How much later than the idle timeout a meter may close a flow, on a busy link."""


class ReorderBuffer:
    """Holds flows back until no earlier one can come.

    A meter closes a flow at the latest one idle timeout (and :data:`SLACK_US`) after its last
    packet, so when a flow with last time T has come, all flows that ended before T minus that
    have come too. Flows that come later still are passed on at once, and counted in `late`.
    Flows of equal last time are ordered by first time, addresses and ports, so the order
    depends on the flows alone.
    """

    def __init__(self, idle_timeout_s: int) -> None:
        self._horizon_us = idle_timeout_s * 1_000_000 + SLACK_US
        self._held = empty_flows()
        self._passed_us = -(1 << 62)
        self.late = 0

    def push(self, flows: FlowBatch) -> FlowBatch:
        """Take flows in any order; return those that are due, ordered."""
        if not len(flows):
            return flows
        self.late += int((flows["last_us"] < self._passed_us).sum())
        held = np.concatenate([self._held, flows])
        newest = max(int(held["last_us"].max()), self._passed_us + self._horizon_us)
        self._passed_us = newest - self._horizon_us
        due = held["last_us"] < self._passed_us
        self._held = held[~due]
        return _ordered(held[due])

    def flush(self) -> FlowBatch:
        """All flows that are held, ordered; the stream has ended."""
        rest, self._held = self._held, self._held[:0]
        return _ordered(rest)


def _ordered(flows: FlowBatch) -> FlowBatch:
    if len(flows) < 2:
        return flows
    keys = [flows[name] for name in ("dst_port", "src_port", "first_us", "last_us")]
    addresses = [
        np.ascontiguousarray(flows[name]).view(">u8")[:, word].astype(np.uint64)
        for name in ("dst_ip", "src_ip")
        for word in (1, 0)
    ]
    return flows[np.lexsort([flows["protocol"], *addresses, *keys])]
