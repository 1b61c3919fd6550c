"""A trained model ready to score: the jitted scorer, its explanation and its calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from features.encoder import Encoder
from features.schema import Feature, FloatArray, Kind, Schema
from models.calibration import Calibration
from models.heads import Heads
from models.vae import Vae, VaeConfig, kl_nats

_RANGE = {Kind.COUNT: (0.0, np.inf), Kind.RATE: (0.0, 1.0)}
"""Values that a kind can have; a Gaussian's mean need not know."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)

BATCH = 1024
"""Rows scored at once. One size, so one compilation and the same arithmetic for every row."""
FEW = 64
"""Rows of which is asked what was expected: alerts are few."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of ``[B]`` flows: ``score = kl + parts.sum(axis=1)``.

    Attributes:
        score: ``[B]``, larger is more anomalous.
        kl: ``[B]``, how far the latent lies from the prior, beyond what is usual.
        parts: ``[B, U]``, zero or more, one a feature in the order of the detector's features.
        p_value: ``[B]``, the calibrated chance of a benign flow scoring as high.
    """

    score: FloatArray
    kl: FloatArray
    parts: FloatArray
    p_value: FloatArray


class Detector:
    """A model with all that scoring needs.

    Scoring is deterministic: the latent's mean is decoded, nothing is sampled, and rows are
    scored in batches of one fixed size, so a row's score does not depend on its neighbours.
    """

    def __init__(
        self,
        *,
        name: str,
        encoder: Encoder,
        heads: Heads,
        config: VaeConfig,
        model: Vae,
        usual_kl: float,
        calibration: Calibration,
        clock_us: int,
        provenance: dict[str, Any],
    ) -> None:
        """Put a detector together.

        Args:
            name: of the model, as alerts give it.
            encoder, heads, config, model: the trained parts.
            usual_kl: KL in nats that costs a flow nothing.
            calibration: held-out benign scores.
            clock_us: resolution of the times that the training rows were measured with.
            provenance: what is needed to make the model again, as JSON values.
        """
        self.name = name
        self.encoder = encoder
        self.heads = heads
        self.config = config
        self.usual_kl = usual_kl
        self.calibration = calibration
        self.clock_us = clock_us
        self.provenance = provenance
        self.columns: NDArray[np.intp] = self.schema.index(encoder.names)
        self.features: tuple[Feature, ...] = tuple(
            self.schema.features[column] for column in self.columns
        )
        self._graph, self.state = nnx.split(model)
        self._score = jax.jit(self._score_batch)
        self._outputs = jax.jit(self._decode_batch)

    @property
    def schema(self) -> Schema:
        """The schema of the rows it scores."""
        return self.encoder.schema

    def _decode_batch(self, state: Any, rows: jax.Array) -> jax.Array:
        model: Vae = nnx.merge(self._graph, state)
        mean, _ = model.encode(model.inputs(self.encoder.encode(rows, jnp)))
        return model.decode(mean)

    def _score_batch(self, state: Any, rows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        model: Vae = nnx.merge(self._graph, state)
        encoded = self.encoder.encode(rows, jnp)
        mean, log_variance = model.encode(model.inputs(encoded))
        parts = self.heads.parts(model.decode(mean), encoded)
        kl = jnp.maximum(kl_nats(mean, log_variance) - self.usual_kl, 0.0)
        return kl + parts.sum(-1), kl, parts

    def _batches(self, rows: FloatArray, size: int = BATCH) -> list[NDArray[np.float32]]:
        """`rows` in padded batches of `size`.

        Raises:
            ValueError: the rows are not the schema's, or a feature in use is not finite.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.schema.features):
            raise ValueError(
                f"model {self.name} takes rows of {len(self.schema.features)} features "
                f"(schema {self.schema.name}), not of shape {rows.shape}"
            )
        used = rows[:, self.columns]
        if not np.isfinite(used).all():
            bad = self.features[int(np.argwhere(~np.isfinite(used))[0, 1])].name
            raise ValueError(f"feature {bad} is not finite in every row")
        padded = np.zeros((-(-len(rows) // size) * size, rows.shape[1]), np.float32)
        # Beyond float32 is beyond anything: as good as its end.
        padded[: len(rows)] = np.clip(np.nan_to_num(rows), -_FLOAT32_MAX, _FLOAT32_MAX)
        return list(padded.reshape(-1, size, rows.shape[1]))

    def score(self, rows: FloatArray) -> Scores:
        """Score rows ``[B, F]`` of the schema; features the model does not use may be NaN.

        Raises:
            ValueError: the rows are not the schema's, or a feature in use is not finite.
        """
        results = [self._score(self.state, batch) for batch in self._batches(rows)]
        width = len(self.features)
        empty = np.empty(0, np.float32), np.empty(0, np.float32), np.empty((0, width), np.float32)
        columns = [
            np.concatenate([np.asarray(result[at]) for result in results] or [empty[at]])
            for at in range(3)
        ]
        score, kl, parts = (column[: len(rows)].astype(np.float64) for column in columns)
        return Scores(score, kl, parts, self.calibration.p_value(score))

    def expected(self, rows: FloatArray) -> FloatArray:
        """What the model expects of each feature, given the whole row: ``[B, U]``.

        Amounts in the feature's unit, categories as vocabulary codes (-1: a term not met in
        training).
        """
        batches = self._batches(rows, FEW)
        if not batches:
            return np.empty((0, len(self.features)))
        outputs = np.concatenate([np.asarray(self._outputs(self.state, b)) for b in batches])
        typical = self.heads.typical(outputs[: len(rows)])
        amounts = len(self.encoder.numeric)
        typical[:, :amounts] = self.encoder.unscale(typical[:, :amounts])
        for at, amount in enumerate(self.encoder.numeric):
            low, high = _RANGE.get(amount.kind, (-np.inf, np.inf))
            typical[:, at] = np.clip(typical[:, at], low, high)
        for at, column in enumerate(self.encoder.categories, start=amounts):
            vocabulary = self.features[at].vocabulary
            codes = np.array([-1, *(vocabulary.index(term) for term in column.terms)])
            typical[:, at] = codes[typical[:, at].astype(int)]
        return typical
