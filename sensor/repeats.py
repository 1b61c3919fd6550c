"""Which flows were alerted on before their end, so that a flow is an alert once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.flows import Ending, FlowBatch
from sensor.identity import flow_ids

MOST = 1 << 17
"""Flows that are remembered, about 150 bytes each; beyond, the ones alerted on first are not."""


class Repeats:
    """Remembers flows whose early report was an alert; their later records are *repeats*.

    A flow is told by its origin and its `flow_id`, which has its start: what follows an active
    timeout is another one.
    """

    def __init__(self, most: int = MOST) -> None:
        """Remember `most` flows."""
        self._most = most
        self._alerted: dict[tuple[int, int], None] = {}

    def new(self, flows: FlowBatch, chosen: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which of the flows at `chosen`, ``[A]``, have not been alerted on; others may end."""
        fresh = np.ones(len(chosen), bool)
        if not self._alerted:
            return fresh
        found = flows.take(chosen)
        for at, name in enumerate(_names(found)):
            if name in self._alerted:
                fresh[at] = False
                if found["ending"][at] != Ending.EARLY:
                    del self._alerted[name]
        return fresh

    def add(self, flows: FlowBatch) -> None:
        """Remember those of ``[A]`` alerts that go on."""
        for name in _names(flows[flows["ending"] == Ending.EARLY]):
            self._alerted[name] = None
        while len(self._alerted) > self._most:
            del self._alerted[next(iter(self._alerted))]


def _names(flows: FlowBatch) -> list[tuple[int, int]]:
    return list(zip(flows["origin"].tolist(), flow_ids(flows), strict=True))
