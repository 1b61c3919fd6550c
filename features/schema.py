"""How a feature set is declared.

A schema is a list of features, each with its name, unit, kind, the document that defines
it and, where a sensor can measure it, the code that does. The declaration is the one place
that training, the sensor and the documentation all read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.flows import FLOW_DTYPE, FlowBatch

FloatArray = NDArray[np.float64]
Measure = Callable[["FlowView"], NDArray[np.generic]]
"""Computes one feature from a view of ``B`` flows: shape ``[B]``, in the feature's unit."""


class Kind(StrEnum):
    """What sort of number a feature is; decides its encoding and its likelihood head."""

    CONTINUOUS = "continuous"
    """A measured amount, e.g. seconds or bits per second; may span many decades."""
    COUNT = "count"
    """A whole number of things, zero or more."""
    RATE = "rate"
    """A fraction between 0 and 1."""
    BINARY = "binary"
    """0 or 1."""
    CATEGORICAL = "categorical"
    """One of a vocabulary; stored as the term's index, -1 for a term outside it."""


class Medium(StrEnum):
    """What the features of a schema are measured from, in words."""

    PACKETS = "packets"
    ZEEK_CONN = "Zeek's conn.log"


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a schema.

    Either `measure` computes it from flows, or `unavailable` says why no sensor can (yet).
    `testbed` explains why a feature, though measurable, describes the data set's laboratory
    rather than traffic; models meant for real networks leave such features out.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    source: str
    measure: Measure | None = None
    unavailable: str = ""
    testbed: str = ""
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.measure is None) == (not self.unavailable):
            raise ValueError(f"feature {self.name}: give either a measure or why there is none")
        if (self.kind is Kind.CATEGORICAL) != bool(self.vocabulary):
            raise ValueError(f"feature {self.name}: a vocabulary is for categories, and only there")

    @property
    def live(self) -> bool:
        """Whether a sensor can measure it."""
        return self.measure is not None

    def show(self, value: float) -> str:
        """`value` as a person would write it: the term of a category, a short number."""
        return self.show_all([value])[0]

    def show_all(self, values: Sequence[float]) -> list[str]:
        """Each of `values` as :meth:`show` writes it."""
        if self.kind is Kind.CATEGORICAL:
            terms = dict(enumerate(self.vocabulary))
            return [terms.get(int(value), "(unknown)") for value in values]
        if self.kind in (Kind.COUNT, Kind.BINARY):
            return [f"{round(value)}" for value in values]
        return [f"{value:.3g}" for value in values]


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """How flows are cut for a schema; part of what a model is trained on."""

    idle_timeout_s: int
    active_timeout_s: int


MOST_EARLY = 8
"""Early reports of a flow by age at most, and as many by packets."""


@dataclass(frozen=True, slots=True)
class EarlyReports:
    """When a flow that goes on is reported, before its end: part of what a model is trained on.

    Attributes:
        ages_s: with the first packet at which the flow is so many seconds old, or older.
        packets: with its so manieth packet, both directions together.
    """

    ages_s: tuple[float, ...] = ()
    packets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for what, values in (("ages", self.ages_s), ("numbers of packets", self.packets)):
            if len(values) > MOST_EARLY:
                raise ValueError(f"{len(values)} {what} are too many: {MOST_EARLY} at most")
            if list(values) != sorted(set(values)) or any(value <= 0 for value in values):
                raise ValueError(f"{what} must be above 0 and grow: {values}")

    def __bool__(self) -> bool:
        return bool(self.ages_s or self.packets)


NEVER_EARLY = EarlyReports()
"""Flows are reported when they end."""

NOTHING_FORGOTTEN: Mapping[str, int] = MappingProxyType({})
"""What windows have forgotten whose state is a fixed number of flows."""

Columns = dict[str, FloatArray]
"""Named feature columns of equally many rows, each ``[B]``."""


class Windows(Protocol):
    """Features that depend on other flows, over the stream of flows in order of last time.

    Rows are completed in the order they came; a row may have to wait for later ones.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The columns it gives."""

    @property
    def forgotten(self) -> Mapping[str, int]:
        """Entries of each table that were forgotten to make room; empty if none ever is."""

    def push(
        self, flows: FlowBatch, keys: Mapping[str, NDArray[np.generic]]
    ) -> tuple[int, Columns]:
        """Take the next flows; return how many more rows are complete, and their columns."""

    def flush(self) -> tuple[int, Columns]:
        """The stream has ended: complete every row that waits."""


@dataclass(frozen=True)
class FlowView:
    """Flows as a model's clock sees them, with what several features share.

    `flows` is a FlowBatch ``[B]`` whose times are whole multiples of `clock_us`.
    """

    flows: FlowBatch
    windows: Columns
    clock_us: int

    @cached_property
    def dur_s(self) -> FloatArray:
        """Duration in seconds, ``[B]``."""
        dur: FloatArray = (self.flows["last_us"] - self.flows["first_us"]) / 1e6
        return dur

    def total(self, name: str) -> FloatArray:
        """Sum of a field over both directions, ``[B]``."""
        both: FloatArray = self.flows[f"src_{name}"].astype(np.float64) + self.flows[f"dst_{name}"]
        return both


@dataclass(frozen=True)
class Schema:
    """A feature set: columns in the data set's own order.

    `remeasure` brings data-set rows ``[N, F]`` to what a sensor with a given clock would
    have measured (quantised times, recomputed rates); see docs/decisions/0001.
    `window_keys` gives, for each flow, what its windows compare. `early_reports`: whether flows
    that go on may be reported, too; a data set's schema has to match rows that know no such thing.
    `medium` is the one thing that its features are measured from, and `record` the dtype of the
    flows that whoever reads it makes: no packet meter can measure a schema of another medium.
    """

    name: str
    title: str
    features: tuple[Feature, ...]
    meter: MeterSettings
    remeasure: Callable[[FloatArray, int, np.random.Generator], FloatArray]
    window_keys: Callable[[FlowBatch], dict[str, NDArray[np.generic]]]
    windows: Callable[[], Windows]
    early_reports: bool = False
    medium: Medium = Medium.PACKETS
    record: np.dtype[np.void] = FLOW_DTYPE

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"schema {self.name}: a feature name occurs twice")

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in column order."""
        return tuple(feature.name for feature in self.features)

    def index(self, names: Sequence[str]) -> NDArray[np.intp]:
        """Column numbers of `names`.

        Raises:
            KeyError: a name is not a feature of this schema.
        """
        where = {name: column for column, name in enumerate(self.names)}
        return np.array([where[name] for name in names], dtype=np.intp)

    def select(self, *, live: bool = False, testbed: bool = True) -> tuple[str, ...]:
        """Names of the features to train on.

        Args:
            live: only those that a sensor can measure.
            testbed: also those that describe the test bed rather than the traffic.
        """
        return tuple(
            feature.name
            for feature in self.features
            if (feature.live or not live) and (testbed or not feature.testbed)
        )

    @property
    def digest(self) -> str:
        """SHA-256 over everything that gives a column its meaning to a model.

        A bundle stores it, so that a model never meets columns that changed under it.
        """
        columns = [
            [feature.name, feature.kind.value, feature.unit, feature.meaning, *feature.vocabulary]
            for feature in self.features
        ]
        meter = [self.meter.idle_timeout_s, self.meter.active_timeout_s]
        text = json.dumps([self.name, columns, meter], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
