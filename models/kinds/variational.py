"""What all variational autoencoders share (Kingma and Welling, 2014): loss, score, heads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from features.encoder import UNSEEN, Encoded, Encoder
from features.schema import FloatArray
from models.heads import FAMILIES, Heads
from models.kinds.base import Batch, ModelKind, Network, RowScores, RowSet, Shape, Tensors, mapped
from models.kinds.inputs import Inputs

LOG_VARIANCE_RANGE = (-8.0, 4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariationalConfig:
    """What every variational kind has to be told.

    Attributes:
        heads: family of likelihood heads, one of :data:`models.heads.FAMILIES`.
        latent: dimensions of the latent space.
        beta: weight of the KL term in the loss (Higgins et al., 2017).
        noise: standard deviation of Gaussian noise on every input in training (a denoising
            autoencoder, Vincent et al., 2010).
        unseen: share of categories replaced by the unseen one in training, which is so learnt.
    """

    heads: str = "histogram"
    latent: int = 12
    beta: float = 0.4
    noise: float = 0.3
    unseen: float = 0.01


VariationalT = TypeVar("VariationalT", bound=VariationalConfig)


def kl_nats(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL divergence of the latent Gaussian from the standard normal, ``[B]`` in nats."""
    return 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance).sum(-1)


class Variational(Network):
    """Encoder to a diagonal Gaussian, decoder to the outputs that the heads take."""

    def __init__(self, config: VariationalConfig, encoder: Encoder, heads: Heads) -> None:
        self.settings = config
        self.layout = Inputs(encoder)
        self.heads = heads

    def inputs(self, batch: Batch) -> jax.Array:
        """What :meth:`encode` takes, ``[B, ..., I]``."""
        return self.layout.of(batch.encoded)

    def encode(self, inputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance of the latent Gaussian, ``[B, Z]`` each."""
        raise NotImplementedError

    def decode(self, latent: jax.Array) -> jax.Array:
        """Outputs ``[B, W]`` for the heads."""
        raise NotImplementedError

    @staticmethod
    def split(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and bounded log variance from a layer of both, ``[B, 2 Z]``."""
        mean, log_variance = jnp.split(raw, 2, axis=-1)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE_RANGE)

    def posterior(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance of a batch as it is."""
        return self.encode(self.inputs(batch), batch)

    def loss(self, batch: Batch, attack: jax.Array, key: jax.Array | None) -> jax.Array:
        """Negative evidence lower bound, the KL term weighted by ``beta``, ``[B]`` nats."""
        if key is None:
            mean, log_variance = self.posterior(batch)
            latent = mean
        else:
            noise_key, hide_key, before_key, latent_key = jax.random.split(key, 4)
            seen = batch._replace(
                encoded=self._hide(batch.encoded, hide_key),
                before=self._hide(batch.before, before_key),
            )
            inputs = self.inputs(seen)
            inputs += self.settings.noise * jax.random.normal(noise_key, inputs.shape)
            mean, log_variance = self.encode(inputs, seen)
            latent = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(latent_key, mean.shape)
        likelihood = self.heads.nll(self.decode(latent), batch.encoded)
        return likelihood.sum(-1) + self.settings.beta * kl_nats(mean, log_variance)

    def _hide(self, encoded: Encoded, key: jax.Array) -> Encoded:
        """Some categories made the unseen one."""
        shape = encoded.categories.shape
        hidden = jax.random.bernoulli(key, self.settings.unseen, shape)
        return encoded._replace(
            categories=jnp.where(hidden, UNSEEN, jnp.asarray(encoded.categories))
        )

    def score(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> RowScores:
        """The heads' parts, and the KL beyond what is usual."""
        mean, log_variance = self.posterior(batch)
        parts = self.heads.parts(self.decode(mean), batch.encoded)
        rest = jnp.maximum(kl_nats(mean, log_variance) - fitted["usual_kl"], 0.0)
        return RowScores(rest, parts)

    def outputs(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> jax.Array:
        """The decoded mean of the latent, ``[B, W]``."""
        return self.decode(self.posterior(batch)[0])


class VariationalKind(ModelKind[VariationalT]):
    """A kind whose network is a :class:`Variational`."""

    @abstractmethod
    def network(
        self, config: VariationalT, encoder: Encoder, heads: Heads, rngs: nnx.Rngs
    ) -> Variational:
        """An untrained network."""

    def fit_before(self, config: VariationalT, encoder: Encoder, rows: RowSet) -> Tensors:
        """What the heads are fitted with."""
        return _family(config).fit(encoder, rows.own).tensors()

    def build(
        self, config: VariationalT, encoder: Encoder, fitted: Mapping[str, Any], rngs: nnx.Rngs
    ) -> Variational:
        """An untrained network with its heads."""
        heads = _family(config).from_tensors(encoder, dict(fitted))
        return self.network(config, encoder, heads, rngs)

    def after_shapes(self, config: VariationalT, encoder: Encoder) -> dict[str, Shape]:
        """``usual_kl``: KL in nats that costs a flow nothing."""
        return {"usual_kl": ()}

    def fit_after(
        self, config: VariationalT, encoder: Encoder, network: Network, train: RowSet,
        held_out: RowSet,
    ) -> Tensors:  # fmt: skip
        """The median KL of held-out rows, for heads that count its excess only."""
        usual = np.zeros(())
        if _family(config).excess_kl:
            usual = np.median(mapped(network, held_out, lambda n, b, _: kl_nats(*n.posterior(b))))
        return {"usual_kl": np.asarray(usual, np.float32)}

    def typical(
        self, config: VariationalT, encoder: Encoder, fitted: Mapping[str, Any],
        outputs: NDArray[np.float32],
    ) -> FloatArray:  # fmt: skip
        """What the heads expect."""
        return _family(config).from_tensors(encoder, dict(fitted)).typical(outputs)


def _family(config: VariationalConfig) -> type[Heads]:
    if config.heads not in FAMILIES:
        raise ValueError(f"unknown family of heads {config.heads}")
    return FAMILIES[config.heads]
