"""The variational autoencoder (Kingma and Welling, 2014) in Flax NNX."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from features.encoder import UNSEEN, Encoded
from models.heads import Heads

LOG_VARIANCE_RANGE = (-8.0, 4.0)


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """What fixes the network; all of it is in a bundle's manifest.

    Attributes:
        heads: family of likelihood heads, one of :data:`models.heads.FAMILIES`.
        hidden: widths of the encoder's layers; the decoder mirrors them.
        latent: dimensions of the latent space.
    """

    heads: str = "histogram"
    hidden: tuple[int, int] = (128, 64)
    latent: int = 12


class Vae(nnx.Module):
    """Encoder to a diagonal Gaussian, decoder to the outputs that the heads take."""

    def __init__(self, config: VaeConfig, amounts: int, categories: tuple[int, ...], width: int,
                 *, rngs: nnx.Rngs) -> None:  # fmt: skip
        """Make an untrained network.

        Args:
            config: its sizes.
            amounts: number of amounts among the inputs.
            categories: number of indices of each category.
            width: number of outputs, all heads together.
            rngs: where the initial weights come from.
        """
        outer, inner = config.hidden
        self.categories = categories
        self.encode1 = nnx.Linear(amounts + sum(categories), outer, rngs=rngs)
        self.encode2 = nnx.Linear(outer, inner, rngs=rngs)
        self.latent = nnx.Linear(inner, 2 * config.latent, rngs=rngs)
        self.decode1 = nnx.Linear(config.latent, inner, rngs=rngs)
        self.decode2 = nnx.Linear(inner, outer, rngs=rngs)
        self.outputs = nnx.Linear(outer, width, rngs=rngs)

    def inputs(self, encoded: Encoded) -> jax.Array:
        """Amounts beside one-hot categories, ``[B, I]``."""
        hot = [
            jax.nn.one_hot(encoded.categories[:, at], size)
            for at, size in enumerate(self.categories)
        ]
        return jnp.concatenate([jnp.asarray(encoded.amounts), *hot], axis=1)

    def encode(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance of the latent Gaussian, ``[B, Z]`` each."""
        hidden = nnx.silu(self.encode2(nnx.silu(self.encode1(inputs))))
        mean, log_variance = jnp.split(self.latent(hidden), 2, axis=-1)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE_RANGE)

    def decode(self, latent: jax.Array) -> jax.Array:
        """Outputs ``[B, W]`` for the heads."""
        hidden = nnx.silu(self.decode2(nnx.silu(self.decode1(latent))))
        return self.outputs(hidden)


def kl_nats(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL divergence of the latent Gaussian from the standard normal, ``[B]`` in nats."""
    return 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance).sum(-1)


@dataclass(frozen=True, slots=True)
class Corruption:
    """What is done to training rows before the network sees them.

    Attributes:
        noise: standard deviation of Gaussian noise on every input (a denoising autoencoder,
            Vincent et al., 2010).
        unseen: share of categories replaced by the unseen one, which is so learnt too.
    """

    noise: float
    unseen: float


def negative_elbo(
    model: Vae,
    heads: Heads,
    encoded: Encoded,
    beta: float,
    corruption: Corruption | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """Mean negative evidence lower bound over ``[B]`` rows, the KL term weighted by `beta`.

    With a `key` the rows are corrupted and the latent sampled, for training; without, neither.
    """
    if key is None or corruption is None:
        mean, log_variance = model.encode(model.inputs(encoded))
        latent = mean
    else:
        noise_key, hide_key, latent_key = jax.random.split(key, 3)
        shape = encoded.categories.shape
        hidden = jax.random.bernoulli(hide_key, corruption.unseen, shape)
        encoded = encoded._replace(
            categories=jnp.where(hidden, UNSEEN, jnp.asarray(encoded.categories))
        )
        inputs = model.inputs(encoded)
        inputs += corruption.noise * jax.random.normal(noise_key, inputs.shape)
        mean, log_variance = model.encode(inputs)
        latent = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(latent_key, mean.shape)
    likelihood = heads.nll(model.decode(latent), encoded)
    return (likelihood.sum(-1) + beta * kl_nats(mean, log_variance)).mean()
