"""The way of a flow on a live link: no holding back, and nothing waits for ever.

Files are measured by :mod:`sensor.pipeline`, in an order that depends on the flows alone. That
order is known an idle timeout later, which on a link is too late: here flows are taken in the
order in which they end.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np

from features.flows import FlowBatch, empty_flows
from features.schema import Schema
from features.stream import FeatureStream
from models.detector import Detector
from sensor.errors import ModelError
from sensor.meter.base import Meter
from sensor.pipeline import (
    SCORED_FLOWS,
    Measured,
    Scored,
    Scorer,
    by_origin,
    check_clock,
    joined,
)

BLOCK_AGE_S = 1.0
"""How long flows wait for later ones that complete their features (UNSW-NB15's blocks)."""
SCORING_AGE_S = 0.1
"""How long flows wait for others to be scored with."""

Clock = Callable[[], float]
"""Seconds that only grow, as :func:`time.monotonic`."""


class _Stream:
    """The features of one interface's flows, and since when flows wait for later ones."""

    def __init__(self, schema: Schema, clock_us: int, forgotten: Counter[str]) -> None:
        self._stream = FeatureStream(schema, clock_us)
        self._forgotten = forgotten
        self._since: float | None = None

    def push(self, flows: FlowBatch, now: float) -> Measured:
        """Take flows; those that are complete."""
        before = Counter(self._stream.forgotten)
        done = Measured(*self._stream.push(flows))
        self._forgotten.update(Counter(self._stream.forgotten) - before)
        if not self._stream.waiting:
            self._since = None
        elif self._since is None or len(done.flows):
            self._since = now
        return done

    def due(self, now: float) -> bool:
        """Whether flows have waited long enough."""
        return self._since is not None and now - self._since >= BLOCK_AGE_S

    def flush(self) -> Measured:
        """Those that wait, complete as far as things are known."""
        self._since = None
        return Measured(*self._stream.flush())


def measure_live(
    meter: Meter, schema: Schema, clock_us: int, forgotten: Counter[str] | None = None,
    clock: Clock = time.monotonic,
) -> Iterator[Measured]:  # fmt: skip
    """All flows of a meter with their features, in the order in which they ended.

    Each origin (interface) has windows of its own. Flows wait for later ones no longer than
    :data:`BLOCK_AGE_S`: on a link with less than 100 flows a second UNSW-NB15's blocks of 100
    are closed with fewer, so its seven ``ct_*`` counts are lower there than in a capture file.

    Each time the meter comes back something is yielded, if only an empty batch.

    Args:
        forgotten: as for :func:`sensor.pipeline.measure`.

    Raises:
        ModelError: the meter's clock is coarser than the one wanted.
    """
    check_clock(meter, clock_us)
    forgotten = Counter() if forgotten is None else forgotten
    streams: dict[int, _Stream] = {}
    nothing = Measured(empty_flows(0, schema.record), np.empty((0, len(schema.features))))
    with closing(meter.flows()) as batches:
        for batch in batches:
            for flows in by_origin(batch):
                origin = int(flows["origin"][0])
                if origin not in streams:
                    streams[origin] = _Stream(schema, clock_us, forgotten)
                yield streams[origin].push(flows, clock())
            for stream in streams.values():
                if stream.due(clock()):
                    yield stream.flush()
            yield nothing
    for stream in streams.values():
        yield stream.flush()


def score_live(
    measured: Iterator[Measured], scorer: Scorer[Detector], clock: Clock = time.monotonic
) -> Iterator[Scored]:
    """Score flows when there are :data:`SCORED_FLOWS` of them, or after :data:`SCORING_AGE_S`."""
    waiting: list[Measured] = []
    count, since = 0, 0.0
    for item in measured:
        if len(item.flows):
            since = since if waiting else clock()
            waiting.append(item)
            count += len(item.flows)
        if count >= SCORED_FLOWS or (waiting and clock() - since >= SCORING_AGE_S):
            yield scorer.score(joined(waiting))
            waiting, count = [], 0
    if waiting:
        yield scorer.score(joined(waiting))


def warm_up(detector: Detector) -> None:
    """Have everything compiled that scoring a flow and explaining an alert needs.

    Done before a capture begins, or beside it: the compilers take seconds.

    Raises:
        ModelError: the model gives a flow no score.
    """
    stream = FeatureStream(detector.schema, detector.clock_us)
    flow = empty_flows(1, detector.schema.record)
    measured = [stream.push(flow), stream.flush()]
    whole = joined([Measured(*each) for each in measured])
    scored = Scorer(detector).score(whole)
    if not np.isfinite(scored.scores.score).all():
        raise ModelError(f"model {detector.name} gives a flow no score: {scored.scores.score[0]}")
    detector.expected(scored.rows)
