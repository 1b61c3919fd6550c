"""A trained model ready to score: the jitted scorer, its explanation and its calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from features.encoder import Encoder
from features.schema import NEVER_EARLY, EarlyReports, Feature, FloatArray, Kind, Schema
from models.calibration import Calibration
from models.kinds.base import Batch, ModelKind, Network
from models.reference import Reference

_RANGE = {Kind.COUNT: (0.0, np.inf), Kind.RATE: (0.0, 1.0)}
"""Values that a kind of feature can have; a Gaussian's mean need not know."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)

BATCH = 1024
"""Rows scored at once. One size, so one compilation and the same arithmetic for every row."""
FEW = 64
"""Rows of which is asked what was expected: alerts are few."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of ``[B]`` flows: ``score = rest + parts.sum(axis=1)``.

    Attributes:
        score: ``[B]``, larger is more anomalous.
        rest: ``[B]``, what belongs to no single feature, e.g. how far the latent lies from the
            prior beyond what is usual.
        parts: ``[B, U]``, one a feature in the order of the detector's features.
        p_value: ``[B]``, the calibrated chance of a benign flow scoring as high.
    """

    score: FloatArray
    rest: FloatArray
    parts: FloatArray
    p_value: FloatArray


class Detector:
    """A model of any kind with all that scoring needs.

    Scoring is deterministic: nothing is sampled, and rows are scored in batches of one fixed
    size, so a flow's score does not depend on its neighbours. A kind with a window takes a
    host's last flows beside a flow's own row (:mod:`features.history`); without them, it scores
    a host's first flow.
    """

    def __init__(
        self,
        *,
        name: str,
        kind: ModelKind[Any],
        config: Any,
        encoder: Encoder,
        fitted: Mapping[str, NDArray[Any]],
        network: Network,
        calibration: Calibration,
        clock_us: int,
        early: EarlyReports = NEVER_EARLY,
        provenance: dict[str, Any],
        reference: Reference | None = None,
    ) -> None:
        """Put a detector together.

        Args:
            name: of the model, as alerts give it.
            kind, config, encoder, network: the trained parts.
            fitted: float32 tensors, of before and after the training.
            calibration: held-out benign scores.
            clock_us: resolution of the times that the training rows were measured with.
            early: when flows that went on were reported, too, for those rows.
            provenance: what is needed to make the model again, as JSON values.
            reference: how the features of the calibration rows are distributed; None for models
                of before that was kept.
        """
        self.name = name
        self.kind = kind
        self.config = config
        self.encoder = encoder
        self.fitted = dict(fitted)
        self.calibration = calibration
        self.clock_us = clock_us
        self.early = early
        self.provenance = provenance
        self.reference = reference
        self.window = kind.window(config)
        self.columns: NDArray[np.intp] = self.schema.index(encoder.names)
        self.features: tuple[Feature, ...] = tuple(
            self.schema.features[column] for column in self.columns
        )
        self._graph, self.state = nnx.split(network)
        self._arrays = {key: jnp.asarray(value) for key, value in self.fitted.items()}
        self._score = jax.jit(self._score_batch)
        self._outputs = jax.jit(self._outputs_batch)

    @property
    def schema(self) -> Schema:
        """The schema of the rows it scores."""
        return self.encoder.schema

    @property
    def network(self) -> Network:
        """The trained network."""
        network: Network = nnx.merge(self._graph, self.state)
        return network

    def _batch(self, windows: jax.Array, present: jax.Array) -> Batch:
        """The encoded batch of windows ``[B, W, F]``."""
        own, before = windows[:, -1], windows[:, :-1]
        return Batch(self.encoder.encode(own, jnp), self.encoder.encode(before, jnp), present)

    def _score_batch(
        self, state: Any, arrays: Any, windows: jax.Array, present: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        network: Network = nnx.merge(self._graph, state)
        rest, parts = network.score(self._batch(windows, present), arrays)
        return rest + parts.sum(-1), rest, parts

    def _outputs_batch(
        self, state: Any, arrays: Any, windows: jax.Array, present: jax.Array
    ) -> jax.Array:
        network: Network = nnx.merge(self._graph, state)
        return network.outputs(self._batch(windows, present), arrays)

    def _windows(self, rows: FloatArray) -> FloatArray:
        """`rows` as windows ``[B, W, F]``.

        Raises:
            ValueError: the rows are not the schema's, or a feature in use is not finite.
        """
        width, window = len(self.schema.features), self.window
        if rows.shape[-1] != width or rows.ndim not in (2, 3) or (
            rows.ndim == 3 and rows.shape[1] != window
        ):  # fmt: skip
            raise ValueError(
                f"model {self.name} takes rows of {width} features (schema {self.schema.name}), or "
                f"windows of {window} of them, not of shape {rows.shape}"
            )
        if rows.ndim == 2:
            rows = rows[:, None]
        if rows.shape[1] < window:
            missing = np.full((len(rows), window - rows.shape[1], width), np.nan)
            rows = np.concatenate([missing, rows], axis=1)
        used = rows[:, -1, self.columns]
        if not np.isfinite(used).all():
            bad = self.features[int(np.argwhere(~np.isfinite(used))[0, 1])].name
            raise ValueError(f"feature {bad} is not finite in every row")
        return rows

    def _batches(
        self, rows: FloatArray, size: int = BATCH
    ) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """Windows of `rows`, and which of their rows there are, in padded batches of `size`."""
        windows = self._windows(rows)
        present = np.isfinite(windows[:, :-1, self.columns]).all(axis=-1)
        count = -(-len(rows) // size) * size
        padded = np.zeros((count, *windows.shape[1:]), np.float32)
        # Beyond float32 is beyond anything: as good as its end.
        padded[: len(rows)] = np.clip(np.nan_to_num(windows), -_FLOAT32_MAX, _FLOAT32_MAX)
        there = np.zeros((count, windows.shape[1] - 1), bool)
        there[: len(rows)] = present
        starts = range(0, count, size)
        return [(padded[at : at + size], there[at : at + size]) for at in starts]

    def score(self, rows: FloatArray) -> Scores:
        """Score rows ``[B, F]`` of the schema, or windows ``[B, W, F]`` that end with them.

        Features that the model does not use may be NaN.

        Raises:
            ValueError: the rows are not the schema's, or a feature in use is not finite.
        """
        results = [self._score(self.state, self._arrays, *batch) for batch in self._batches(rows)]
        width = len(self.features)
        empty = np.empty(0, np.float32), np.empty(0, np.float32), np.empty((0, width), np.float32)
        columns = [
            np.concatenate([np.asarray(result[at]) for result in results] or [empty[at]])
            for at in range(3)
        ]
        score, rest, parts = (column[: len(rows)].astype(np.float64) for column in columns)
        return Scores(score, rest, parts, self.calibration.p_value(score))

    def expected(self, rows: FloatArray) -> FloatArray:
        """What the model expects of each feature, given all that :meth:`score` takes: ``[B, U]``.

        Amounts in the feature's unit, categories as vocabulary codes (-1: a term not met in
        training).
        """
        batches = self._batches(rows, FEW)
        if not batches:
            return np.empty((0, len(self.features)))
        results = [self._outputs(self.state, self._arrays, *batch) for batch in batches]
        outputs = np.concatenate([np.asarray(result) for result in results])[: len(rows)]
        typical = self.kind.typical(self.config, self.encoder, self.fitted, outputs)
        return in_units(self.encoder, typical)


def in_units(encoder: Encoder, values: FloatArray) -> FloatArray:
    """Values ``[B, U]``, amounts on the encoder's scale and categories as indices, as features.

    Amounts come back in the feature's unit and within what its kind can be, categories as
    vocabulary codes (-1: a term not met in training).
    """
    result = np.array(values, np.float64)
    amounts = len(encoder.numeric)
    result[:, :amounts] = encoder.unscale(result[:, :amounts])
    for at, amount in enumerate(encoder.numeric):
        low, high = _RANGE.get(amount.kind, (-np.inf, np.inf))
        result[:, at] = np.clip(result[:, at], low, high)
    for at, column in enumerate(encoder.categories, start=amounts):
        feature = encoder.schema.features[encoder.schema.index([column.name])[0]]
        codes = np.array([-1, *(feature.vocabulary.index(term) for term in column.terms)])
        result[:, at] = codes[result[:, at].astype(int)]
    return result
