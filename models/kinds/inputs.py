"""From encoded rows to a network's inputs, amounts beside one-hot categories, and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoded, Encoder
from features.schema import FloatArray, Kind


class Inputs:
    """How the inputs of a network lie: amounts first, then each category's indices."""

    def __init__(self, encoder: Encoder) -> None:
        self._amounts = len(encoder.numeric)
        self._sizes = tuple(column.size for column in encoder.categories)
        self._center = np.array([column.center for column in encoder.numeric])
        self._scale = np.array([column.scale for column in encoder.numeric])
        self._binary = np.array([column.kind is Kind.BINARY for column in encoder.numeric], bool)
        self.width = self._amounts + sum(self._sizes)
        features = self._amounts + len(self._sizes)
        owner = np.repeat(np.arange(features), [1] * self._amounts + list(self._sizes))
        # Sums over a feature's inputs are one matrix product with this 0/1 matrix.
        self._membership = np.eye(features, dtype=np.float32)[owner]

    def of(self, encoded: Encoded) -> jax.Array:
        """Inputs ``[..., I]`` of encoded rows ``[..., ·]``."""
        hot = [
            jax.nn.one_hot(encoded.categories[..., at], size) for at, size in enumerate(self._sizes)
        ]
        return jnp.concatenate([jnp.asarray(encoded.amounts), *hot], axis=-1)

    def by_feature(self, values: jax.Array) -> jax.Array:
        """Sums of values ``[B, I]`` over the inputs of each feature, ``[B, U]``."""
        sums: jax.Array = values @ self._membership
        return sums

    def typical(self, values: NDArray[np.float32]) -> FloatArray:
        """Inputs ``[B, I]`` as scaled amounts, likelier flags and likeliest indices, ``[B, U]``."""
        amounts = values[:, : self._amounts].astype(np.float64)
        scaled = np.where(self._binary, amounts > 0.5, amounts * self._scale + self._center)
        columns = [scaled]
        begin = self._amounts
        for size in self._sizes:
            columns.append(np.argmax(values[:, begin : begin + size], axis=1)[:, None])
            begin += size
        return np.concatenate(columns, axis=1)


def dropout(values: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """`values` with a share `rate` of them zeroed and the rest scaled up (Srivastava, 2014)."""
    if key is None or rate == 0.0:
        return values
    kept = jax.random.bernoulli(key, 1.0 - rate, values.shape)
    return jnp.where(kept, values / (1.0 - rate), 0.0)
