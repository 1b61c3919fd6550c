"""Heads that are histograms: one softmax a feature, amounts cut into benign quantile bins.

- continuous, count and rate: bins between quantiles of the benign rows; a value that many rows
  share (zero above all) has a bin of its own, and the first and last bin lie beyond everything
  seen. A Gaussian would have to call the spikes of such features wide or infinite; a histogram
  need not.
- binary: 0, 1, and anything else (a Bernoulli with a place for the impossible).
- categorical: the terms met in training, and unseen.

A feature's part of the score grows with the excess of its negative log-likelihood over the
head's entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoded, Encoder
from features.schema import FloatArray, Kind
from models.heads.base import Tensors
from models.heads.softmax import FlatSoftmax

BINS = 32
"""Quantile bins aimed at for an amount."""

PART_POWER = 1.5
PART_MAX = 10.0
"""A part is the excess to this power, but no more than this, lest one feature decide alone."""

BINARY_CUTS = np.array([0.5, 1.5], np.float32)


def quantile_cuts(values: FloatArray, bins: int = BINS) -> NDArray[np.float32]:
    """Edges between the bins of ``[N]`` values; ``k`` edges make ``k + 1`` bins.

    A value that holds at least ``1 / bins`` of the rows is alone in its bin; others are
    gathered until they hold as much. The outer edges lie just beyond the range seen.
    """
    unique, counts = np.unique(values, return_counts=True)
    margin = max(1e-6, 1e-3 * float(values.std()), 1e-6 * float(np.abs(unique).max()))
    middle = (unique[:-1] + unique[1:]) / 2
    edges = np.concatenate([[unique[0] - margin], middle, [unique[-1] + margin]])
    keep = {0, len(unique)}
    gathered = 0.0
    for place, share in enumerate(counts / len(values)):
        if share >= 1 / bins:
            keep |= {place, place + 1}
            gathered = 0.0
            continue
        gathered += share
        if gathered >= 1 / bins:
            keep.add(place + 1)
            gathered = 0.0
    return edges[sorted(keep)].astype(np.float32)


class HistogramHeads:
    """See the module's text; follows :class:`models.heads.base.Heads`."""

    family: ClassVar[str] = "histogram"
    excess_kl: ClassVar[bool] = True

    def __init__(
        self, encoder: Encoder, cuts: Sequence[NDArray[np.float32]], centers: NDArray[np.float32]
    ) -> None:
        """Build from fitted edges.

        Args:
            encoder: whose features the heads are for.
            cuts: edges of each amount's bins, ascending, on the encoder's scale.
            centers: median benign value of every amount's bins, flat, on the same scale.

        Raises:
            ValueError: the numbers do not fit together.
        """
        self._cuts = tuple(np.asarray(edges, np.float32) for edges in cuts)
        self._centers = np.asarray(centers, np.float32)
        bins = [len(edges) + 1 for edges in self._cuts]
        if len(bins) != len(encoder.numeric) or self._centers.shape != (sum(bins),):
            raise ValueError(
                f"{len(bins)} heads with {self._centers.size} centers for "
                f"{len(encoder.numeric)} amounts with {sum(bins)} bins"
            )
        self._softmax = FlatSoftmax([*bins, *(column.size for column in encoder.categories)])
        self.width = self._softmax.width
        longest = max((len(edges) for edges in self._cuts), default=0)
        self._padded = np.full((len(bins), longest), np.inf, np.float32)
        for row, edges in zip(self._padded, self._cuts, strict=True):
            row[: len(edges)] = edges

    @classmethod
    def fit(cls, encoder: Encoder, encoded: Encoded) -> Self:
        """Fit the bins on encoded benign training rows."""
        cuts: list[NDArray[np.float32]] = []
        centers: list[float] = []
        for at, column in enumerate(encoder.numeric):
            values = np.asarray(encoded.scaled[:, at], np.float64)
            edges = BINARY_CUTS if column.kind is Kind.BINARY else quantile_cuts(values)
            codes = np.searchsorted(edges, values, side="right")
            for code in range(len(edges) + 1):
                inside = values[codes == code]
                nearest = edges[min(code, len(edges) - 1)]
                centers.append(float(np.median(inside)) if len(inside) else float(nearest))
            cuts.append(edges)
        return cls(encoder, cuts, np.array(centers, np.float32))

    @classmethod
    def from_tensors(cls, encoder: Encoder, tensors: Tensors) -> Self:
        """The inverse of :meth:`tensors`."""
        cuts = [tensors[f"cuts.{at}"] for at in range(len(encoder.numeric))]
        for at, edges in enumerate(cuts):
            if edges.ndim != 1:
                raise ValueError(f"heads: cuts.{at} has {edges.ndim} axes, not one")
        return cls(encoder, cuts, tensors["centers"])

    def tensors(self) -> Tensors:
        """Edges and centers of the bins."""
        cuts = {f"cuts.{at}": edges for at, edges in enumerate(self._cuts)}
        return {**cuts, "centers": self._centers}

    def codes(self, encoded: Encoded) -> jax.Array:
        """The code of every feature: ``[B, U]`` int32."""
        above = encoded.scaled[:, :, None] >= self._padded
        return jnp.concatenate(
            [above.sum(-1).astype(jnp.int32), jnp.asarray(encoded.categories)], axis=1
        )

    def nll(self, outputs: jax.Array, encoded: Encoded) -> jax.Array:
        """Negative log-likelihood of each feature, ``[B, U]``."""
        return self._softmax.nll_and_excess(outputs, self.codes(encoded))[0]

    def parts(self, outputs: jax.Array, encoded: Encoded) -> jax.Array:
        """Positive excess to the power :data:`PART_POWER`, at most :data:`PART_MAX`."""
        _, excess = self._softmax.nll_and_excess(outputs, self.codes(encoded))
        return jnp.minimum(jnp.maximum(excess, 0.0) ** PART_POWER, PART_MAX)

    def typical(self, outputs: NDArray[np.float32]) -> FloatArray:
        """The center of the median bin of amounts, the most probable index of categories."""
        result = np.empty((len(outputs), len(self._softmax.sizes)))
        for at, start in enumerate(self._softmax.starts):
            probabilities = self._softmax.head(outputs, at)
            if at < len(self._cuts):
                median = np.argmax(np.cumsum(probabilities, axis=1) >= 0.5, axis=1)
                result[:, at] = self._centers[start + median]
            else:
                result[:, at] = np.argmax(probabilities, axis=1)
        return result
