"""Parametric heads: a Gaussian for amounts, a Bernoulli for binary, a softmax for categories.

- continuous, count and rate: a Gaussian on the standardised amount, its mean and standard
  deviation both predicted, the latter at least :data:`SIGMA_FLOOR`;
- binary: a Bernoulli;
- categorical: a softmax over the terms met in training, and unseen.

A feature's part of the score is its negative log-likelihood, clipped.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoded, Encoder
from features.schema import FloatArray, Kind
from models.heads.base import Tensors
from models.heads.softmax import LOGIT_CAP, FlatSoftmax

SIGMA_FLOOR = 0.1
"""Least standard deviation of a head, in standard deviations of the benign rows."""

NLL_CLIP = 8.0
"""No feature counts for more than this many nats, lest one decide alone."""

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
LEAST_NLL = math.log(SIGMA_FLOOR) + _LOG_ROOT_2PI
"""The negative log-density of a Gaussian head at its best: what a part is counted from."""


class GaussianHeads:
    """See the module's text; follows :class:`models.heads.base.Heads`.

    Outputs are laid out as means, raw deviations, Bernoulli logits, softmax logits.
    """

    family: ClassVar[str] = "gaussian"
    excess_kl: ClassVar[bool] = False

    def __init__(self, encoder: Encoder) -> None:
        binary = np.array([column.kind is Kind.BINARY for column in encoder.numeric], bool)
        self._gauss_at = np.flatnonzero(~binary)
        self._binary_at = np.flatnonzero(binary)
        # Parts come as Gaussians, then Bernoullis: this puts them back in the encoder's order.
        self._order = np.argsort(np.concatenate([self._gauss_at, self._binary_at]))
        self._softmax = FlatSoftmax([column.size for column in encoder.categories])
        self._center = np.array([column.center for column in encoder.numeric])
        self._scale = np.array([column.scale for column in encoder.numeric])
        gauss, bits = len(self._gauss_at), len(self._binary_at)
        self._edges = (gauss, 2 * gauss, 2 * gauss + bits)
        self.width = self._edges[-1] + self._softmax.width

    @classmethod
    def fit(cls, encoder: Encoder, encoded: Encoded) -> Self:
        """Nothing to fit beside the encoder."""
        return cls(encoder)

    @classmethod
    def from_tensors(cls, encoder: Encoder, tensors: Tensors) -> Self:
        """Nothing is stored beside the encoder."""
        return cls(encoder)

    def tensors(self) -> Tensors:
        """Nothing."""
        return {}

    def _likelihoods(
        self, outputs: jax.Array, encoded: Encoded
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Negative log-likelihoods of Gaussian, Bernoulli and softmax heads."""
        mean, raw, bits, logits = jnp.split(outputs, self._edges, axis=1)
        sigma = jax.nn.softplus(raw) + SIGMA_FLOOR
        amounts = jnp.asarray(encoded.amounts)
        distance = (amounts[:, self._gauss_at] - mean) / sigma
        gauss = 0.5 * distance**2 + jnp.log(sigma) + _LOG_ROOT_2PI
        bits = LOGIT_CAP * jnp.tanh(bits / LOGIT_CAP)
        bernoulli = jax.nn.softplus(bits) - bits * amounts[:, self._binary_at]
        categories = jnp.asarray(encoded.categories)
        return gauss, bernoulli, self._softmax.nll_and_excess(logits, categories)[0]

    def nll(self, outputs: jax.Array, encoded: Encoded) -> jax.Array:
        """Negative log-likelihood of each feature, ``[B, U]``."""
        gauss, bernoulli, softmax = self._likelihoods(outputs, encoded)
        amounts = jnp.concatenate([gauss, bernoulli], axis=1)[:, self._order]
        return jnp.concatenate([amounts, softmax], axis=1)

    def parts(self, outputs: jax.Array, encoded: Encoded) -> jax.Array:
        """Negative log-likelihood, clipped, above the least that the head could have given."""
        gauss, bernoulli, softmax = self._likelihoods(outputs, encoded)
        gauss = jnp.minimum(gauss, NLL_CLIP) - LEAST_NLL
        rest = (jnp.clip(each, 0.0, NLL_CLIP) for each in (bernoulli, softmax))
        bernoulli, softmax = rest
        amounts = jnp.concatenate([gauss, bernoulli], axis=1)[:, self._order]
        return jnp.concatenate([amounts, softmax], axis=1)

    def typical(self, outputs: NDArray[np.float32]) -> FloatArray:
        """The mean of amounts, the likelier value of binary, the most probable category."""
        mean, _, bits, logits = np.split(outputs.astype(np.float64), self._edges, axis=1)
        amounts = np.concatenate([mean, (bits > 0).astype(np.float64)], axis=1)[:, self._order]
        terms = [
            np.argmax(self._softmax.head(logits.astype(np.float32), at), axis=1)
            for at in range(len(self._softmax.sizes))
        ]
        scaled = amounts * self._scale + self._center
        return np.column_stack([scaled, *terms]) if terms else scaled
