"""Softmax heads of different sizes side by side in one flat vector, without padding."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

LOGIT_CAP = 15.0
"""Logits are squashed into ±15: exp cannot overflow, and no code is ever impossible."""


class FlatSoftmax:
    """Heads with `sizes` codes each; logits are ``[B, W]`` with ``W = sum(sizes)``."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.width = sum(self.sizes)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])[:-1].astype(np.int32)
        # Sums over a head are one matrix product with this 0/1 matrix.
        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self._membership = np.eye(len(self.sizes), dtype=np.float32)[owner]

    def nll_and_excess(self, raw: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Negative log-likelihood of `codes` and how far it exceeds the expected.

        The expectation of the negative log-likelihood under a head is the head's entropy: what
        the model itself finds hard to predict is not held against the row.

        Args:
            raw: ``[B, W]``, before squashing.
            codes: ``[B, H]``, one a head.

        Returns:
            Both ``[B, H]`` in nats.
        """
        logits = LOGIT_CAP * jnp.tanh(raw / LOGIT_CAP)
        weights = jnp.exp(logits)
        total = weights @ self._membership
        observed = jnp.take_along_axis(logits, codes + self.starts, axis=1)
        mean_logit = ((weights * logits) @ self._membership) / total
        return jnp.log(total) - observed, mean_logit - observed

    def head(self, raw: NDArray[np.float32], at: int) -> NDArray[np.float64]:
        """Probabilities of one head's codes, ``[B, sizes[at]]``."""
        own = raw[:, self.starts[at] : self.starts[at] + self.sizes[at]].astype(np.float64)
        weights = np.exp(LOGIT_CAP * np.tanh(own / LOGIT_CAP))
        probabilities: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
        return probabilities
