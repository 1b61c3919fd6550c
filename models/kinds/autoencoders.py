"""Autoencoders that score by the mean squared error of what they make of a row again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from features.encoder import Encoder
from features.schema import FloatArray
from models.kinds.base import Batch, ModelKind, Network, RowScores
from models.kinds.inputs import Inputs, dropout
from models.recipe import FitConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderConfig:
    """Sizes.

    Attributes:
        hidden: widths of the encoder's layers; the decoder mirrors them.
        latent: width of the narrowest layer.
        dropout: share of each hidden layer's units that a training step leaves out.
    """

    hidden: tuple[int, ...] = (64, 32)
    latent: int = 16
    dropout: float = 0.0


class Autoencoder(Network):
    """Dense layers to a bottleneck and back; ReLU between, nothing on latent and output."""

    def __init__(self, config: AutoencoderConfig, encoder: Encoder, rngs: nnx.Rngs) -> None:
        self.layout = Inputs(encoder)
        self.rate = config.dropout
        half = (self.layout.width, *config.hidden, config.latent)
        widths = (*half, *half[-2::-1])
        self.narrowest = len(half) - 1
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(widths)])

    def _again(self, inputs: jax.Array, key: jax.Array | None) -> jax.Array:
        """Inputs ``[B, I]`` as the network makes them again."""
        last = len(self.layers)
        for number, layer in enumerate(self.layers, start=1):
            inputs = layer(inputs)
            if number not in (self.narrowest, last):
                inputs = nnx.relu(inputs)
                mine = None if key is None else jax.random.fold_in(key, number)
                inputs = dropout(inputs, self.rate, mine)
        return inputs

    def _errors(self, batch: Batch, key: jax.Array | None) -> jax.Array:
        """Squared errors ``[B, I]``, divided by the number of inputs."""
        inputs = self.layout.of(batch.encoded)
        return (self._again(inputs, key) - inputs) ** 2 / self.layout.width

    def loss(self, batch: Batch, attack: jax.Array, key: jax.Array | None) -> jax.Array:
        """Mean squared error, ``[B]``."""
        return self._errors(batch, key).sum(-1)

    def score(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> RowScores:
        """The same, feature by feature."""
        parts = self.layout.by_feature(self._errors(batch, None))
        return RowScores(jnp.zeros(len(parts), parts.dtype), parts)

    def outputs(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> jax.Array:
        """The row as it is made again, ``[B, I]``."""
        return self._again(self.layout.of(batch.encoded), None)


class AutoencoderKind(ModelKind[AutoencoderConfig]):
    """A plain autoencoder with a threshold."""

    name = "autoencoder"
    title = "plain autoencoder, mean squared error"
    source = "a published project on UNSW-NB15, which gives no sizes"
    training = FitConfig(epochs=30, learning_rate=1e-3)
    defaults = AutoencoderConfig()

    def build(
        self, config: AutoencoderConfig, encoder: Encoder, fitted: Mapping[str, Any],
        rngs: nnx.Rngs,
    ) -> Autoencoder:  # fmt: skip
        """An untrained network."""
        return Autoencoder(config, encoder, rngs)

    def typical(
        self, config: AutoencoderConfig, encoder: Encoder, fitted: Mapping[str, Any],
        outputs: NDArray[np.float32],
    ) -> FloatArray:  # fmt: skip
        """The row as it was made again."""
        return Inputs(encoder).typical(outputs)


class DeepAutoencoderKind(AutoencoderKind):
    """A deep, symmetric one with dropout."""

    name = "deep-autoencoder"
    title = "deep symmetric autoencoder with dropout, mean squared error"
    source = "a published project on KDD99: latent 4, batch 512; the widths are ours"
    training = FitConfig(epochs=30, batch=512, learning_rate=1e-3)
    defaults = AutoencoderConfig(hidden=(128, 64, 32), latent=4, dropout=0.1)
