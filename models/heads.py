"""Likelihood heads: one discrete distribution a feature, laid side by side.

Every feature is reduced to a small set of codes and has one softmax over them:

- continuous, count and rate: bins between quantiles of the benign rows; a value that many rows
  share (zero above all) has a bin of its own, and the first and last bin lie beyond everything
  seen. A Gaussian would have to call the spikes of such features wide or infinite; a histogram
  need not.
- binary: 0, 1, and anything else (a Bernoulli with a place for the impossible).
- categorical: the terms met in training, and unseen.

All logits of a row are one flat vector, so that heads of different sizes cost no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoded, Encoder
from features.schema import FloatArray, Kind

BINS = 32
"""Quantile bins aimed at for an amount."""

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


class Heads:
    """The layout of all heads of a model: amounts in the encoder's order, then categories."""

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
        self.cuts = tuple(np.asarray(edges, np.float32) for edges in cuts)
        self.centers = np.asarray(centers, np.float32)
        self.sizes = tuple(len(edges) + 1 for edges in self.cuts) + tuple(
            column.size for column in encoder.categories
        )
        amounts = sum(self.sizes[: len(self.cuts)])
        if len(self.cuts) != len(encoder.numeric) or self.centers.shape != (amounts,):
            raise ValueError(
                f"{len(self.cuts)} heads with {self.centers.size} centers for "
                f"{len(encoder.numeric)} amounts with {amounts} bins"
            )
        self.width = sum(self.sizes)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int32)
        longest = max((len(edges) for edges in self.cuts), default=0)
        self._padded = np.full((len(self.cuts), longest), np.inf, np.float32)
        for row, edges in zip(self._padded, self.cuts, strict=True):
            row[: len(edges)] = edges
        # Sums over a head are one matrix product with this 0/1 matrix.
        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self.membership = np.eye(len(self.sizes), dtype=np.float32)[owner]

    @classmethod
    def fit(cls, encoder: Encoder, encoded: Encoded, bins: int = BINS) -> Heads:
        """Fit the bins on encoded benign training rows."""
        cuts: list[NDArray[np.float32]] = []
        centers: list[float] = []
        for at, column in enumerate(encoder.numeric):
            values = np.asarray(encoded.scaled[:, at], np.float64)
            edges = BINARY_CUTS if column.kind is Kind.BINARY else quantile_cuts(values, bins)
            codes = np.searchsorted(edges, values, side="right")
            for code in range(len(edges) + 1):
                inside = values[codes == code]
                nearest = edges[min(code, len(edges) - 1)]
                centers.append(float(np.median(inside)) if len(inside) else float(nearest))
            cuts.append(edges)
        return cls(encoder, cuts, np.array(centers, np.float32))

    def codes(self, encoded: Encoded) -> jax.Array:
        """The code of every feature: ``[B, U]`` int32."""
        above = encoded.scaled[:, :, None] >= self._padded
        amounts = above.sum(-1).astype(jnp.int32)
        return jnp.concatenate([amounts, jnp.asarray(encoded.categories)], axis=1)

    def excess(self, logits: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Negative log-likelihood of each feature and how far it exceeds the expected.

        The expectation of the negative log-likelihood under a head is the head's entropy: a
        feature that the model itself finds hard to predict is not held against the row.

        Args:
            logits: ``[B, W]``.
            codes: ``[B, U]``.

        Returns:
            Negative log-likelihood and excess, both ``[B, U]`` in nats.
        """
        weights = jnp.exp(logits)
        total = weights @ self.membership
        observed = jnp.take_along_axis(logits, codes + self.starts, axis=1)
        mean_logit = ((weights * logits) @ self.membership) / total
        return jnp.log(total) - observed, mean_logit - observed

    def typical(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the heads expect of each feature: ``[B, U]``.

        The median bin's center for amounts, on the encoder's scale; the most probable index
        for categories.
        """
        result = np.empty((len(logits), len(self.sizes)))
        for at, (start, size) in enumerate(zip(self.starts, self.sizes, strict=True)):
            head = np.asarray(logits[:, start : start + size], np.float64)
            weights = np.exp(head - head.max(axis=1, keepdims=True))
            if at < len(self.cuts):
                share = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
                result[:, at] = self.centers[start + np.argmax(share >= 0.5, axis=1)]
            else:
                result[:, at] = np.argmax(weights, axis=1)
        return result
