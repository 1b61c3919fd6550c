"""The convolutional variational autoencoder: 1-D convolutions over the feature vector.

Neighbours in the vector are neighbours in the schema, amounts first, then one-hot categories: an
order that data sets choose by theme, and that means nothing beyond that.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from features.encoder import Encoder
from models.heads import Heads
from models.kinds.base import Batch
from models.kinds.convolution import Convolution, Widening
from models.kinds.variational import Variational, VariationalConfig, VariationalKind

_STRIDE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvVaeConfig(VariationalConfig):
    """Sizes.

    Attributes:
        channels: of the two convolutions; the decoder mirrors them.
        hidden: width of the dense layer on either side of the latent space.
        last: channels that the decoder ends with, before the dense layer for the heads.
    """

    channels: tuple[int, int] = (16, 32)
    hidden: int = 64
    last: int = 4


class ConvVae(Variational):
    """Two convolutions of stride 2 and a dense layer each way."""

    def __init__(
        self, config: ConvVaeConfig, encoder: Encoder, heads: Heads, rngs: nnx.Rngs
    ) -> None:
        super().__init__(config, encoder, heads)
        first, second = config.channels
        short = -(-self.layout.width // _STRIDE**2)
        # Made a multiple of both strides, so that the way back has the same length.
        self.padding = short * _STRIDE**2 - self.layout.width
        self.short = (short, second)
        self.conv1 = Convolution(1, first, _STRIDE, rngs=rngs)
        self.conv2 = Convolution(first, second, _STRIDE, rngs=rngs)
        self.encode1 = nnx.Linear(short * second, config.hidden, rngs=rngs)
        self.latent = nnx.Linear(config.hidden, 2 * config.latent, rngs=rngs)
        self.decode1 = nnx.Linear(config.latent, config.hidden, rngs=rngs)
        self.decode2 = nnx.Linear(config.hidden, short * second, rngs=rngs)
        self.deconv1 = Widening(second, first, rngs=rngs)
        self.deconv2 = Widening(first, config.last, rngs=rngs)
        self.to_heads = nnx.Linear(short * _STRIDE**2 * config.last, heads.width, rngs=rngs)

    def encode(self, inputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance, ``[B, Z]`` each, of inputs ``[B, I]``."""
        line = jnp.pad(inputs, ((0, 0), (0, self.padding)))[:, :, None]
        line = nnx.silu(self.conv2(nnx.silu(self.conv1(line))))
        hidden = nnx.silu(self.encode1(line.reshape(len(line), -1)))
        return self.split(self.latent(hidden))

    def decode(self, latent: jax.Array) -> jax.Array:
        """Outputs ``[B, W]`` for the heads."""
        hidden = nnx.silu(self.decode2(nnx.silu(self.decode1(latent))))
        line = nnx.silu(self.deconv1(hidden.reshape(-1, *self.short)))
        line = nnx.silu(self.deconv2(line))
        return self.to_heads(line.reshape(len(line), -1))


class ConvVaeKind(VariationalKind[ConvVaeConfig]):
    """See the module's text."""

    name = "conv-vae"
    title = "variational autoencoder with 1-D convolutions over the feature vector"
    source = "published projects on UNSW-NB15 and NSL-KDD, which give no sizes"
    defaults = ConvVaeConfig()

    def network(
        self, config: ConvVaeConfig, encoder: Encoder, heads: Heads, rngs: nnx.Rngs
    ) -> ConvVae:
        """An untrained network."""
        return ConvVae(config, encoder, heads, rngs)
