"""From the stream of flows to feature rows: the one way, for sensor and training alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from features.flows import NEVER, FlowBatch, copy_flows, empty_flows, join_flows
from features.schema import Columns, FloatArray, FlowView, Schema

TIME_FIELDS = (
    "first_us", "last_us", "src_first_us", "src_last_us", "dst_first_us", "dst_last_us",
    "src_before_us", "dst_before_us", "syn_us", "synack_us", "ack_us",
)  # fmt: skip


def on_clock(flows: FlowBatch, clock_us: int) -> FlowBatch:
    """A copy of `flows` with every time cut to whole multiples of `clock_us`."""
    if clock_us == 1:
        return flows
    cut = copy_flows(flows)
    for name in TIME_FIELDS:
        times = flows[name]
        cut[name] = np.where(times == NEVER, NEVER, times // clock_us * clock_us)
    return cut


class FeatureStream:
    """Turns flows, pushed in order of last time, into rows of a schema's features.

    Rows come out in the order in which flows went in, each once; some wait for later flows
    (UNSW-NB15's blocks) until :meth:`flush`. How flows are cut into pushes changes nothing.
    """

    def __init__(self, schema: Schema, clock_us: int) -> None:
        """Measure `schema` on a clock of `clock_us` microseconds."""
        self._schema = schema
        self._clock_us = clock_us
        self._windows = schema.windows()
        # Parts that wait, each as it came and as the clock sees it.
        self._waiting: deque[tuple[FlowBatch, FlowBatch]] = deque()

    @property
    def forgotten(self) -> Mapping[str, int]:
        """What the windows have forgotten to make room, by table."""
        return self._windows.forgotten

    @property
    def waiting(self) -> int:
        """How many flows wait for later ones."""
        return len(self._waiting)

    def push(self, flows: FlowBatch) -> tuple[FlowBatch, FloatArray]:
        """Take ``[B]`` flows; return the ``[K]`` flows now complete and their rows ``[K, F]``.

        Features that no sensor can measure are NaN.

        Raises:
            ValueError: the flows are not of the record that the schema is measured from.
        """
        if flows.dtype != self._schema.record:
            raise ValueError(
                f"schema {self._schema.name} is measured from {self._schema.medium}: these flows "
                "are of another record"
            )
        seen = on_clock(flows, self._clock_us)
        if len(flows):
            self._waiting.append((flows, seen))
        return self._complete(*self._windows.push(seen, self._schema.window_keys(seen)))

    def flush(self) -> tuple[FlowBatch, FloatArray]:
        """The rest, as from :meth:`push`: the stream has ended, or they have waited enough."""
        return self._complete(*self._windows.flush())

    def _complete(self, count: int, windows: Columns) -> tuple[FlowBatch, FloatArray]:
        done, seen = self._take(count)
        view = FlowView(seen, windows, self._clock_us)
        rows = np.full((count, len(self._schema.features)), np.nan)
        for column, feature in enumerate(self._schema.features):
            if feature.measure is not None:
                rows[:, column] = feature.measure(view)
        return done, rows

    def _take(self, count: int) -> tuple[FlowBatch, FlowBatch]:
        """The next `count` flows that wait, as they came and as the clock sees them."""
        parts = []
        while count:
            flows, seen = self._waiting.popleft()
            if len(flows) > count:
                self._waiting.appendleft((flows[count:], seen[count:]))
                flows, seen = flows[:count], seen[:count]
            parts.append((flows, seen))
            count -= len(flows)
        if not parts:
            nothing = empty_flows(0, self._schema.record)
            return nothing, nothing
        return join_flows([part[0] for part in parts]), join_flows([part[1] for part in parts])
