"""A variational autoencoder that sees a host's last flows: convolutions over time.

The encoder looks at a window of consecutive flows of one source address, the scored one last;
the decoder has to explain that last flow. Flows before a host's first are zeros, and marked.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from features.encoder import Encoder
from models.heads import Heads
from models.kinds.base import Batch
from models.kinds.convolution import Convolution
from models.kinds.variational import Variational, VariationalConfig, VariationalKind


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConvVaeConfig(VariationalConfig):
    """Sizes.

    Attributes:
        window: flows of a host seen at once, the scored one included.
        channels: of the two convolutions over the window.
        hidden: widths of the dense layers; the decoder mirrors them.
    """

    window: int = 8
    channels: tuple[int, int] = (64, 32)
    hidden: tuple[int, int] = (128, 64)


class HostConvVae(Variational):
    """Two convolutions over the window, then as the dense one, which also gets the flow itself."""

    def __init__(
        self, config: HostConvVaeConfig, encoder: Encoder, heads: Heads, rngs: nnx.Rngs
    ) -> None:
        super().__init__(config, encoder, heads)
        (first, second), (outer, inner) = config.channels, config.hidden
        width = self.layout.width
        self.conv1 = Convolution(width + 1, first, rngs=rngs)
        self.conv2 = Convolution(first, second, rngs=rngs)
        self.encode1 = nnx.Linear(config.window * second + width, outer, rngs=rngs)
        self.encode2 = nnx.Linear(outer, inner, rngs=rngs)
        self.latent = nnx.Linear(inner, 2 * config.latent, rngs=rngs)
        self.decode1 = nnx.Linear(config.latent, inner, rngs=rngs)
        self.decode2 = nnx.Linear(inner, outer, rngs=rngs)
        self.to_heads = nnx.Linear(outer, heads.width, rngs=rngs)

    def inputs(self, batch: Batch) -> jax.Array:
        """The window's rows, ``[B, W, I]``, the scored one last."""
        own = self.layout.of(batch.encoded)[:, None]
        return jnp.concatenate([self.layout.of(batch.before), own], axis=1)

    def encode(self, inputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance, ``[B, Z]`` each, of inputs ``[B, W, I]``."""
        there = jnp.pad(jnp.asarray(batch.present), ((0, 0), (0, 1)), constant_values=True)
        mark = there[:, :, None].astype(inputs.dtype)
        line = jnp.concatenate([jnp.where(there[:, :, None], inputs, 0.0), mark], axis=-1)
        line = nnx.silu(self.conv2(nnx.silu(self.conv1(line))))
        seen = jnp.concatenate([line.reshape(len(line), -1), inputs[:, -1]], axis=1)
        hidden = nnx.silu(self.encode2(nnx.silu(self.encode1(seen))))
        return self.split(self.latent(hidden))

    def decode(self, latent: jax.Array) -> jax.Array:
        """Outputs ``[B, W]`` for the heads, about the scored flow."""
        return self.to_heads(nnx.silu(self.decode2(nnx.silu(self.decode1(latent)))))


class HostConvVaeKind(VariationalKind[HostConvVaeConfig]):
    """See the module's text."""

    name = "host-conv-vae"
    title = "variational autoencoder with convolutions over a host's consecutive flows"
    source = "the wish of a project on UNSW-NB15 for temporal structure; the design is ours"
    defaults = HostConvVaeConfig()

    def window(self, config: HostConvVaeConfig) -> int:
        """The declared one."""
        return config.window

    def network(
        self, config: HostConvVaeConfig, encoder: Encoder, heads: Heads, rngs: nnx.Rngs
    ) -> HostConvVae:
        """An untrained network."""
        return HostConvVae(config, encoder, heads, rngs)
