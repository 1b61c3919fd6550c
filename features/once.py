"""Context of flows that are reported more than once: early, and when they end."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from features.flows import Ending, FlowBatch
from features.schema import Columns, FloatArray, Windows

MOST_OPEN = 1 << 17
"""Flows at most that are remembered between their first report and their end: 50 MB."""

_IDENTITY = ("first_us", "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "vlan_id",
             "tunnel_id")  # fmt: skip


class OnceAFlow:
    """Enters each flow into windows once, at its first report; later ones get the same columns.

    So a flow that is reported early counts as one flow, and its end is scored in the context in
    which it began to be looked at. What the windows sum up of it (bytes, whether it failed) is as
    of that first report.
    """

    def __init__(self, windows: Windows, most_open: int = MOST_OPEN) -> None:
        """Wrap `windows`, whose rows have to be complete as soon as they are seen."""
        self._windows = windows
        self._most_open = most_open
        self._open: dict[bytes, FloatArray] = {}
        self._pushed_out = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the windows."""
        return self._windows.names

    @property
    def forgotten(self) -> Mapping[str, int]:
        """Those of the windows, and flows that were open for longer than there was room."""
        forgotten = dict(self._windows.forgotten)
        if self._pushed_out:
            forgotten["open flows"] = self._pushed_out
        return forgotten

    def push(
        self, flows: FlowBatch, keys: Mapping[str, NDArray[np.generic]]
    ) -> tuple[int, Columns]:
        """Take flows in order of last time; all of them are complete at once."""
        goes_on = flows["ending"] == Ending.EARLY
        if not self._open and not goes_on.any():
            return self._windows.push(flows, keys)
        reports = list(zip(_identities(flows), goes_on.tolist(), strict=True))
        new = np.zeros(len(flows), bool)
        open_after: dict[bytes, bool] = {}
        for row, (identity, early) in enumerate(reports):
            new[row] = not open_after.get(identity, identity in self._open)
            open_after[identity] = early
        _, columns = self._windows.push(flows[new], {key: each[new] for key, each in keys.items()})
        entered = iter(np.column_stack([columns[name] for name in self.names]))
        result = np.empty((len(flows), len(self.names)))
        for row, (identity, early) in enumerate(reports):
            result[row] = next(entered) if new[row] else self._open[identity]
            if early:
                self._open[identity] = result[row].copy()
            else:
                self._open.pop(identity, None)
        self._make_room()
        return len(flows), {name: result[:, at] for at, name in enumerate(self.names)}

    def flush(self) -> tuple[int, Columns]:
        """Nothing waits."""
        return self._windows.flush()

    def _make_room(self) -> None:
        """Forget the flows that were first reported the longest ago."""
        while len(self._open) > self._most_open:
            del self._open[next(iter(self._open))]
            self._pushed_out += 1


def _identities(flows: FlowBatch) -> list[bytes]:
    """What tells each of ``[B]`` flows from every other one of its origin."""
    dtype = flows.dtype
    packed = np.empty(len(flows), [(name, dtype[name]) for name in _IDENTITY])
    for name in _IDENTITY:
        packed[name] = flows[name]
    return [row.tobytes() for row in packed]
