"""Histogram heads with fewer bins, and an excess that is computed fast.

Bins are those of :mod:`models.heads.histogram`, half as many. For the excess logits come
transposed, heads of one size side by side: sums over codes then add whole rows of a batch, nothing
is padded, and no matrix product sums over all heads where one is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoded, Encoder
from features.schema import Kind
from models.heads.histogram import BINARY_CUTS, HistogramHeads, quantile_cuts
from models.heads.softmax import FlatSoftmax

BINS = 16
"""Quantile bins aimed at for an amount."""
LOGIT_RANGE = (-30.0, 30.0)
"""Logits are clipped to it: exp cannot overflow, and no code is ever impossible."""
EXCESS_RANGE = (-2.0, 8.0)
"""Nats that an excess may have, lest one feature decide alone."""


class ClippedSoftmax(FlatSoftmax):
    """Heads whose logits are clipped, not squashed: a tanh takes as long as the exponential.

    Attributes:
        layout: ``[W]``, columns of the logits in the order that :meth:`excess` takes them in.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        self._by_size = sorted(range(len(sizes)), key=lambda at: sizes[at])
        self._back = np.argsort(self._by_size)
        self.layout = np.concatenate(
            [self.starts[at] + np.arange(sizes[at]) for at in self._by_size]
        )

    def nll_and_excess(self, raw: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See :class:`models.heads.softmax.FlatSoftmax`; in training, where both are wanted."""
        logits = jnp.clip(raw, *LOGIT_RANGE)
        weights = jnp.exp(logits)
        total = weights @ self._membership
        observed = jnp.take_along_axis(logits, codes + self.starts, axis=1)
        mean_logit = ((weights * logits) @ self._membership) / total
        return jnp.log(total) - observed, mean_logit - observed

    def excess(self, raw: jax.Array, codes: jax.Array) -> jax.Array:
        """How far the negative log-likelihood of `codes` exceeds the head's entropy.

        Args:
            raw: ``[W, B]`` logits in the order of :attr:`layout`.
            codes: ``[B, H]``, one a head.

        Returns:
            ``[B, H]`` in nats.
        """
        ordered = codes.T[np.array(self._by_size)]
        found = [self._of_one_size(*group) for group in self._groups(raw, ordered)]
        return jnp.concatenate(found)[self._back].T

    def _groups(
        self, raw: jax.Array, codes: jax.Array
    ) -> Iterator[tuple[list[jax.Array], jax.Array]]:
        """The logits of each code, ``[N, B]``, and the codes ``[N, B]`` of heads of each size."""
        row = head = 0
        for size, group in groupby(self.sizes[at] for at in self._by_size):
            count = len(list(group))
            logits = raw[row : row + count * size].reshape(count, size, -1)
            yield [logits[:, code] for code in range(size)], codes[head : head + count]
            row, head = row + count * size, head + count

    @staticmethod
    def _of_one_size(logits: Sequence[jax.Array], codes: jax.Array) -> jax.Array:
        """The excess of heads, ``[N, B]``: one pass over the logits, when it is compiled."""
        total = weighed = observed = jnp.zeros(codes.shape, logits[0].dtype)
        for code, raw in enumerate(logits):
            logit = jnp.clip(raw, *LOGIT_RANGE)
            weight = jnp.exp(logit)
            total, weighed = total + weight, weighed + weight * logit
            observed = jnp.where(codes == code, logit, observed)
        return weighed / total - observed

    def head(self, raw: NDArray[np.float32], at: int) -> NDArray[np.float64]:
        """Probabilities of one head's codes, ``[B, sizes[at]]``."""
        own = raw[:, self.starts[at] : self.starts[at] + self.sizes[at]].astype(np.float64)
        weights = np.exp(np.clip(own, *LOGIT_RANGE))
        probabilities: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
        return probabilities


class BinnedHeads(HistogramHeads):
    """See the module's text; follows :class:`models.heads.base.Heads`."""

    family: ClassVar[str] = "binned"

    def __init__(
        self, encoder: Encoder, cuts: Sequence[NDArray[np.float32]], centers: NDArray[np.float32]
    ) -> None:
        super().__init__(encoder, cuts, centers)
        self._softmax: ClippedSoftmax = ClippedSoftmax(self._softmax.sizes)

    @classmethod
    def fit(cls, encoder: Encoder, encoded: Encoded) -> Self:
        """Fit the bins on encoded benign training rows."""
        cuts: list[NDArray[np.float32]] = []
        centers: list[float] = []
        for at, column in enumerate(encoder.numeric):
            values = np.sort(np.asarray(encoded.scaled[:, at], np.float64))
            binary = column.kind is Kind.BINARY
            edges = BINARY_CUTS if binary else quantile_cuts(values, BINS)
            bins = np.split(values, np.searchsorted(values, edges))
            empty = (*edges, edges[-1])  # the outer bins, and the third of a binary feature
            centers += [float(np.median(own)) if len(own) else float(edge)
                        for own, edge in zip(bins, empty, strict=True)]  # fmt: skip
            cuts.append(edges)
        return cls(encoder, cuts, np.array(centers, np.float32))

    @property
    def layout(self) -> NDArray[np.intp]:
        """``[W]``, the outputs in the order that :meth:`excess` takes them in."""
        return self._softmax.layout

    def excess(self, outputs: jax.Array, encoded: Encoded) -> jax.Array:
        """How far each feature's negative log-likelihood exceeds its head's entropy.

        Args:
            outputs: ``[W, B]``, in the order of :attr:`layout`.
            encoded: ``[B, .]`` rows.

        Returns:
            ``[B, U]`` nats, clipped to :data:`EXCESS_RANGE`.
        """
        return jnp.clip(self._softmax.excess(outputs, self.codes(encoded)), *EXCESS_RANGE)
