"""The supervised classifier on the features that a random forest finds most important.

Its score is the log-odds of an attack. A feature's part is its integrated gradient (Sundararajan,
Taly and Yan, 2017) along the straight line from the mean benign row; what the row of means scores
itself, and what the sum over :data:`STEPS` points leaves of the integral, is the rest. A part may
be negative: that feature speaks for a benign flow. The model expects nothing of a flow, so what
is given as expected is the mean benign row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from features.encoder import Encoder
from features.schema import FloatArray
from models.kinds.base import Batch, ModelKind, Network, RowScores, RowSet, Shape, Tensors, mapped
from models.kinds.inputs import Inputs, dropout
from models.recipe import FitConfig

STEPS = 16
"""Points of the line at which the gradient is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """Sizes.

    Attributes:
        hidden: widths of the two layers.
        dropout: share of each layer's units that a training step leaves out.
        features: how many are used, the most important ones.
    """

    hidden: tuple[int, int] = (64, 32)
    dropout: float = 0.5
    features: int = 20


class Classifier(Network):
    """Two dense layers and a logit."""

    def __init__(self, config: ClassifierConfig, encoder: Encoder, rngs: nnx.Rngs) -> None:
        first, second = config.hidden
        self.layout = Inputs(encoder)
        self.rate = config.dropout
        self.layer1 = nnx.Linear(self.layout.width, first, rngs=rngs)
        self.layer2 = nnx.Linear(first, second, rngs=rngs)
        self.logit = nnx.Linear(second, 1, rngs=rngs)

    def log_odds(self, inputs: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Log-odds of an attack, ``[B]``, of inputs ``[B, I]``."""
        keys = [None, None] if key is None else jax.random.split(key)
        hidden = dropout(nnx.relu(self.layer1(inputs)), self.rate, keys[0])
        hidden = dropout(nnx.relu(self.layer2(hidden)), self.rate, keys[1])
        return self.logit(hidden)[:, 0]

    def loss(self, batch: Batch, attack: jax.Array, key: jax.Array | None) -> jax.Array:
        """Binary cross-entropy, ``[B]`` nats."""
        log_odds = self.log_odds(self.layout.of(batch.encoded), key)
        return jax.nn.softplus(log_odds) - log_odds * attack

    def score(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> RowScores:
        """Log-odds, and their integrated gradients."""
        inputs = self.layout.of(batch.encoded)
        way = inputs - fitted["baseline"]
        slope = jax.grad(lambda at: self.log_odds(at).sum())

        def add(total: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
            return total + slope(fitted["baseline"] + share * way), None

        shares = (jnp.arange(STEPS, dtype=jnp.float32) + 0.5) / STEPS
        total, _ = jax.lax.scan(add, jnp.zeros_like(way), shares)
        parts = self.layout.by_feature(way * total / STEPS)
        return RowScores(self.log_odds(inputs) - parts.sum(-1), parts)

    def outputs(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> jax.Array:
        """The mean benign row, ``[B, I]``."""
        rows = len(batch.present)
        return jnp.broadcast_to(fitted["baseline"], (rows, self.layout.width))


class ClassifierKind(ModelKind[ClassifierConfig]):
    """See the module's text."""

    name = "classifier"
    title = "supervised dense network on the 20 most important features, log-odds"
    source = "a published project on CICIDS2017: 64-32, dropout 0.5, patience 5, random forest"
    defaults = ClassifierConfig()
    training = FitConfig(epochs=60, patience=5, learning_rate=1e-3, schedule="constant")
    supervised = True
    reconstructs = False

    def most_important(self, config: ClassifierConfig) -> int:
        """The declared number."""
        return config.features

    def build(
        self, config: ClassifierConfig, encoder: Encoder, fitted: Mapping[str, Any], rngs: nnx.Rngs
    ) -> Classifier:
        """An untrained network."""
        return Classifier(config, encoder, rngs)

    def after_shapes(self, config: ClassifierConfig, encoder: Encoder) -> dict[str, Shape]:
        """``baseline``: inputs of the mean benign row."""
        return {"baseline": (Inputs(encoder).width,)}

    def fit_after(
        self, config: ClassifierConfig, encoder: Encoder, network: Network, train: RowSet,
        held_out: RowSet,
    ) -> Tensors:  # fmt: skip
        """The mean inputs of benign training rows."""
        inputs = mapped(network, train, lambda made, batch, _: made.layout.of(batch.encoded))
        benign = ~np.asarray(train.attack)
        mean = np.average(inputs[benign], axis=0, weights=np.asarray(train.weight)[benign])
        return {"baseline": mean.astype(np.float32)}

    def typical(
        self, config: ClassifierConfig, encoder: Encoder, fitted: Mapping[str, Any],
        outputs: NDArray[np.float32],
    ) -> FloatArray:  # fmt: skip
        """The mean benign row: the usual flag, the most frequent category."""
        return Inputs(encoder).typical(outputs)
