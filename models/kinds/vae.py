"""The dense variational autoencoder with mixed-likelihood heads."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from flax import nnx

from features.encoder import Encoder
from models.heads import Heads
from models.kinds.base import Batch
from models.kinds.variational import Variational, VariationalConfig, VariationalKind


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeConfig(VariationalConfig):
    """Sizes.

    Attributes:
        hidden: widths of the encoder's two layers; the decoder mirrors them.
    """

    hidden: tuple[int, int] = (128, 64)


class Vae(Variational):
    """Two dense layers each way."""

    def __init__(self, config: VaeConfig, encoder: Encoder, heads: Heads, rngs: nnx.Rngs) -> None:
        super().__init__(config, encoder, heads)
        outer, inner = config.hidden
        self.encode1 = nnx.Linear(self.layout.width, outer, rngs=rngs)
        self.encode2 = nnx.Linear(outer, inner, rngs=rngs)
        self.latent = nnx.Linear(inner, 2 * config.latent, rngs=rngs)
        self.decode1 = nnx.Linear(config.latent, inner, rngs=rngs)
        self.decode2 = nnx.Linear(inner, outer, rngs=rngs)
        self.to_heads = nnx.Linear(outer, heads.width, rngs=rngs)

    def encode(self, inputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance, ``[B, Z]`` each, of inputs ``[B, I]``."""
        hidden = nnx.silu(self.encode2(nnx.silu(self.encode1(inputs))))
        return self.split(self.latent(hidden))

    def decode(self, latent: jax.Array) -> jax.Array:
        """Outputs ``[B, W]`` for the heads."""
        return self.to_heads(nnx.silu(self.decode2(nnx.silu(self.decode1(latent)))))


class VaeKind(VariationalKind[VaeConfig]):
    """See the module's text."""

    name = "vae"
    title = "dense variational autoencoder, a likelihood for each kind of feature"
    source = "Kingma and Welling (2014); the heads are ours (docs/decisions/0003-heads.md)"
    defaults = VaeConfig()

    def network(self, config: VaeConfig, encoder: Encoder, heads: Heads, rngs: nnx.Rngs) -> Vae:
        """An untrained network."""
        return Vae(config, encoder, heads, rngs)
