"""The way of a flow: meter, order, features, score."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from features.flows import FlowBatch, join_flows
from features.history import HostHistory, host_keys
from features.schema import FloatArray, Schema
from features.stream import FeatureStream
from sensor.errors import ModelError
from sensor.meter.base import Meter
from sensor.reorder import ReorderBuffer

if TYPE_CHECKING:  # metering begins before JAX is loaded
    from models.detector import Scores

SCORED_FLOWS = 1024
"""Flows scored at once: the one compiled batch size, the last batch padded."""
MEASURED_FLOWS = 4096
"""Flows measured at once at most, however many become due together."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Flows ``[B]`` with their feature rows ``[B, F]``."""

    flows: FlowBatch
    rows: FloatArray

    def part(self, start: int, stop: int) -> Measured:
        """The flows from `start` to `stop`."""
        return Measured(self.flows[start:stop], self.rows[start:stop])


def check_clock(meter: Meter, clock_us: int) -> None:
    """Refuse a meter whose times are coarser than those that are wanted.

    Raises:
        ModelError: they are.
    """
    if meter.clock_us > clock_us:
        raise ModelError(
            f"the model was trained on times of {clock_us} us, but this meter's clock has "
            f"{meter.clock_us} us"
        )


def measure(
    meter: Meter, schema: Schema, clock_us: int, forgotten: Counter[str] | None = None
) -> Iterator[Measured]:
    """All flows of a meter with their features, in order of last time, origin by origin.

    Windows of features and the order of flows begin anew with each origin: captures that do
    not continue each other know nothing of each other.

    Args:
        forgotten: kept up to date with what windows forgot to make room, by table, over all
            origins (:attr:`features.schema.Windows.forgotten`).

    Raises:
        ModelError: the meter's clock is coarser than the one wanted.
    """
    check_clock(meter, clock_us)
    forgotten = Counter() if forgotten is None else forgotten
    origin = -1
    order, stream = ReorderBuffer(schema.meter.idle_timeout_s), FeatureStream(schema, clock_us)
    with closing(meter.flows()) as batches:
        for flows in (part for batch in batches for part in by_origin(batch)):
            if int(flows["origin"][0]) != origin:
                yield from _drain(order, stream, forgotten)
                origin = int(flows["origin"][0])
                order = ReorderBuffer(schema.meter.idle_timeout_s)
                stream = FeatureStream(schema, clock_us)
            yield from _push(stream, order.push(flows, meter.progress_us), forgotten)
    yield from _drain(order, stream, forgotten)


def by_origin(batch: FlowBatch) -> list[FlowBatch]:
    """A batch, cut where the origin changes."""
    if not len(batch):
        return []
    edges = np.flatnonzero(np.diff(batch["origin"].astype(np.int64))) + 1
    return np.split(batch, edges)


def _some(flows: FlowBatch, rows: FloatArray) -> Iterator[Measured]:
    if len(flows):
        yield Measured(flows, rows)


def _push(stream: FeatureStream, flows: FlowBatch, forgotten: Counter[str]) -> Iterator[Measured]:
    for begin in range(0, len(flows), MEASURED_FLOWS):
        before = Counter(stream.forgotten)
        done = stream.push(flows[begin : begin + MEASURED_FLOWS])
        forgotten.update(Counter(stream.forgotten) - before)
        yield from _some(*done)


def _drain(
    order: ReorderBuffer, stream: FeatureStream, forgotten: Counter[str]
) -> Iterator[Measured]:
    yield from _push(stream, order.flush(), forgotten)
    yield from _some(*stream.flush())


@dataclass(frozen=True, slots=True)
class Scored:
    """Flows with features and scores.

    `rows` is what was scored: ``[B, F]``, or windows ``[B, W, F]`` that end with the flow's row.
    """

    flows: FlowBatch
    rows: FloatArray
    scores: Scores


class ScoresRows(Protocol):
    """What is asked of a model to score flows."""

    @property
    def name(self) -> str:
        """As events give it."""

    @property
    def schema(self) -> Schema:
        """Of the rows."""

    @property
    def clock_us(self) -> int:
        """Resolution of their times."""

    @property
    def window(self) -> int:
        """How many consecutive flows of a host it sees."""

    def score(self, rows: FloatArray) -> Scores:
        """Score rows, or windows of them."""


ModelT = TypeVar("ModelT", bound=ScoresRows)


class Scorer(Generic[ModelT]):
    """Scores flows in order; remembers what hosts did before, for models that look at it.

    Attributes:
        detector: scores them.
        took_s: seconds that the last :meth:`score` took.
    """

    def __init__(self, detector: ModelT, forgotten: Counter[str] | None = None) -> None:
        """Score with `detector`; `forgotten` is kept up to date as by :func:`measure`."""
        self.detector, self.took_s = detector, 0.0
        self._history = HostHistory(detector.window, len(detector.schema.features))
        self._forgotten = Counter() if forgotten is None else forgotten

    def use(self, detector: ModelT) -> None:
        """Score with another model of the same schema from now on.

        What hosts did before stays known where the model looks as far back as the one before.
        """
        if detector.window != self.detector.window:
            self._history = HostHistory(detector.window, len(detector.schema.features))
        self.detector = detector

    def score(self, measured: Measured) -> Scored:
        """Score the next flows."""
        rows, begun = measured.rows, time.monotonic()
        if self.detector.window > 1:
            before = self._history.forgotten
            rows = self._history.push(host_keys(measured.flows), rows)
            if more := self._history.forgotten - before:
                self._forgotten["histories"] += more
        scores = self.detector.score(rows)
        self.took_s = time.monotonic() - begun
        return Scored(measured.flows, rows, scores)


def score(
    measured: Iterator[Measured], detector: ScoresRows, forgotten: Counter[str] | None = None
) -> Iterator[Scored]:
    """Score flows in batches of :data:`SCORED_FLOWS`, whatever sizes they come in."""
    scorer = Scorer(detector, forgotten)
    pending: list[Measured] = []
    held = 0
    for item in measured:
        pending.append(item)
        held += len(item.flows)
        if held >= SCORED_FLOWS:
            whole = joined(pending)
            full = held // SCORED_FLOWS * SCORED_FLOWS
            for start in range(0, full, SCORED_FLOWS):
                yield scorer.score(whole.part(start, start + SCORED_FLOWS))
            pending, held = [whole.part(full, held)], held - full
    if held:
        yield scorer.score(joined(pending))


def joined(parts: list[Measured]) -> Measured:
    """Several parts as one."""
    return Measured(
        join_flows([part.flows for part in parts]), np.concatenate([part.rows for part in parts])
    )
