"""Dense variational autoencoders that score by the distance to the nearest benign prototype.

The network is :class:`models.kinds.vae.Vae` with binned heads. A row's place is made of where it
lies (its latent mean in standard deviations, or its inputs) and of each feature's excess
(:meth:`models.heads.binned.BinnedHeads.excess`); prototypes are the k-means centres of the
training rows' places. The score is the squared distance to the nearest of them, to which a
prototype may add a price (:func:`prices`).
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
from models.heads.binned import BinnedHeads
from models.kinds.base import Batch, ModelKind, Network, RowScores, RowSet, Shape, Tensors, mapped
from models.kinds.inputs import Inputs
from models.kinds.vae import Vae, VaeConfig
from models.recipe import FitConfig

PLACE_WEIGHT = 0.5
EXCESS_WEIGHT = 0.3
"""What a standard deviation and a nat count in a distance."""
INPUT_CLIP = 3.0
"""Inputs count up to this many standard deviations."""
NEAR, FAR = 0.0003, 0.008
"""Shares of the benign rows that a prototype's support is judged by."""
NEAR_WEIGHT = 4.0
LEAST_SPREAD = 1e-3
"""Least standard deviation that a latent mean is divided by."""
CENTRE_BATCH = 4096
MOST_ROWS = 65_536
"""Training rows that prototypes and prices are fitted on at most."""
SPACES = ("latent", "inputs")
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrototypeConfig(VaeConfig):
    """Sizes.

    Attributes:
        heads: the only family whose excess is bounded on both sides.
        space: where a row lies, one of :data:`SPACES`.
        prototypes: how many at most.
        price: weight of what isolated prototypes cost.
    """

    heads: str = BinnedHeads.family
    beta: float = 0.1
    noise: float = 0.02
    hidden: tuple[int, int] = (64, 64)
    space: str = "latent"
    prototypes: int = 512
    price: float = 0.0


def nearest(places: jax.Array, prototypes: jax.Array, price: jax.Array) -> jax.Array:
    """Numbers ``[B]`` of the prototypes of least squared distance and price.

    A distance's last bits make room for the prototype's number, so that one minimum finds both:
    in XLA on a CPU it takes a third of the time of ``argmin``. Of 512 prototypes, those may be
    taken for the nearest whose distance is greater by less than a part in 2^13.

    Args:
        places: ``[B, D]``.
        prototypes: ``[P, D]``.
        price: ``[P]``, of each, zero or more.
    """
    count = len(prototypes)
    low = (1 << (count - 1).bit_length()) - 1
    squares = (places**2).sum(-1, keepdims=True)
    fixed = (prototypes**2).sum(-1) + price
    # |f|^2 + |p|^2 + price - 2 f p as one product.
    left = jnp.column_stack([-2.0 * prototypes, jnp.ones_like(fixed), fixed])
    right = jnp.column_stack([places, squares, jnp.ones_like(squares)])
    cost = left @ right.T
    # Floats that are not negative (but for rounding, near zero) order as their bits do.
    bits = jax.lax.bitcast_convert_type(cost, jnp.int32)
    numbers = jnp.arange(count, dtype=jnp.int32)[:, None]
    found: jax.Array = ((bits & ~low) | numbers).min(axis=0) & low
    return found


def centres(places: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """K-means centres ``[P, D]`` of places ``[N, D]``; as many as `count`, but for few rows."""
    from sklearn.cluster import MiniBatchKMeans  # only where models are trained

    means = MiniBatchKMeans(
        min(count, len(places)), batch_size=CENTRE_BATCH, n_init=1, random_state=_SEED
    )
    found: NDArray[np.float32] = means.fit(places).cluster_centers_.astype(np.float32)
    return found


def prices(prototypes: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each prototype's isolation costs, ``[P]``: ``max(0, D - 4 d)``.

    D and d are its squared distances to its nearest 0.8 % and 0.03 % of the benign rows: a
    pattern that is tight and far from everything else, as a repeated attack is, costs more than
    a diverse one (docs/decisions/0006-detectors-tried.md).

    Args:
        prototypes: ``[P, D]``.
        places: ``[N, D]`` of benign rows.
    """
    ranks = [max(int(np.ceil(share * len(places))), 1) - 1 for share in (NEAR, FAR)]
    squares = (places**2).sum(axis=1)
    near, far = np.empty((2, len(prototypes)), np.float32)
    for at, own in enumerate(prototypes):
        distances = np.maximum(squares + own @ own - 2.0 * places @ own, 0.0)
        near[at], far[at] = np.partition(distances, ranks)[ranks]
    return np.maximum(far - NEAR_WEIGHT * near, 0.0)


def _lies(config: PrototypeConfig, layout: Inputs) -> int:
    """How many numbers of a place say where the row lies; excesses follow."""
    return layout.width if config.space == "inputs" else config.latent


class PrototypeVae(Vae):
    """A dense variational autoencoder whose rows have places."""

    settings: PrototypeConfig
    heads: BinnedHeads

    def places(self, batch: Batch) -> jax.Array:
        """Where rows lie, and their features' excesses, ``[B, D]``, not weighed yet."""
        inputs = self.inputs(batch)
        mean, _ = self.encode(inputs, batch)
        excess = self.heads.excess(self._logits(mean), batch.encoded)
        in_inputs = self.settings.space == "inputs"
        lies = jnp.clip(inputs, -INPUT_CLIP, INPUT_CLIP) if in_inputs else mean
        return jnp.concatenate([lies, excess], axis=1)

    def _logits(self, latent: jax.Array) -> jax.Array:
        """What :meth:`decode` gives, ``[W, B]``, in the order of the heads' layout."""
        hidden = nnx.silu(self.decode2(nnx.silu(self.decode1(latent))))
        kernel = self.to_heads.kernel[...][:, self.heads.layout]
        bias = self.to_heads.bias[...][self.heads.layout]  # type: ignore[index]  # it has one
        return kernel.T @ hidden.T + bias[:, None]

    def score(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> RowScores:
        """The squared distance to the nearest prototype, feature by feature.

        An excess is its feature's, and so are inputs; the latent's share and the price are the
        rest.
        """
        places = self.places(batch) * fitted["weights"]
        chosen = nearest(places, fitted["prototypes"], fitted["price"])
        squares = (places - fitted["prototypes"][chosen]) ** 2
        lies, parts = jnp.split(squares, [_lies(self.settings, self.layout)], axis=1)
        price = fitted["price"][chosen]
        if self.settings.space == "inputs":
            return RowScores(price, parts + self.layout.by_feature(lies))
        return RowScores(price + lies.sum(-1), parts)


class PrototypeKind(ModelKind[PrototypeConfig]):
    """The distance to prototypes in the latent space, without prices."""

    name = "prototype-vae"
    title = "dense variational autoencoder, distance to prototypes of latent and excess"
    source = "the design is ours (docs/decisions/0006-detectors-tried.md)"
    training = FitConfig(epochs=40)
    defaults = PrototypeConfig()

    def fit_before(self, config: PrototypeConfig, encoder: Encoder, rows: RowSet) -> Tensors:
        """The heads' bins."""
        return BinnedHeads.fit(encoder, rows.own).tensors()

    def build(
        self, config: PrototypeConfig, encoder: Encoder, fitted: Mapping[str, Any], rngs: nnx.Rngs
    ) -> PrototypeVae:
        """An untrained network with its heads.

        Raises:
            ValueError: it is to have other heads, or an unknown space.
        """
        if config.heads != BinnedHeads.family or config.space not in SPACES:
            raise ValueError(
                f"a {self.name} has {BinnedHeads.family} heads and one of the spaces "
                f"{', '.join(SPACES)}, not {config.heads} and {config.space}"
            )
        heads = BinnedHeads.from_tensors(encoder, dict(fitted))
        return PrototypeVae(config, encoder, heads, rngs)

    def after_shapes(self, config: PrototypeConfig, encoder: Encoder) -> dict[str, Shape]:
        """Weights of a place's numbers; the prototypes and their prices."""
        width = _lies(config, Inputs(encoder)) + len(encoder.names)
        return {"weights": (width,), "prototypes": (None, width), "price": (None,)}

    def fit_after(
        self, config: PrototypeConfig, encoder: Encoder, network: Network, train: RowSet,
        held_out: RowSet,
    ) -> Tensors:  # fmt: skip
        """Weights, prototypes and prices, of training rows."""
        places = mapped(network, train, lambda made, batch, _: made.places(batch))
        if len(places) > MOST_ROWS:
            places = np.random.default_rng(_SEED).choice(places, MOST_ROWS, replace=False)
        lies = _lies(config, Inputs(encoder))
        weights = np.repeat([PLACE_WEIGHT, EXCESS_WEIGHT], [lies, places.shape[1] - lies])
        if config.space == "latent":
            spread = places[:, :lies].std(axis=0, dtype=np.float64)
            weights[:lies] /= np.maximum(spread, LEAST_SPREAD)
        places = (places * weights).astype(np.float32)
        prototypes = centres(places, config.prototypes)
        return {
            "weights": weights.astype(np.float32),
            "prototypes": prototypes,
            "price": np.float32(config.price) * prices(prototypes, places),
        }

    def typical(
        self, config: PrototypeConfig, encoder: Encoder, fitted: Mapping[str, Any],
        outputs: NDArray[np.float32],
    ) -> FloatArray:  # fmt: skip
        """What the heads expect."""
        return BinnedHeads.from_tensors(encoder, dict(fitted)).typical(outputs)


class GuardedKind(PrototypeKind):
    """The distance to prototypes among the inputs, where isolation has a price."""

    name = "guarded-vae"
    title = (
        "dense variational autoencoder, distance to priced benign prototypes of inputs and excess"
    )
    defaults = PrototypeConfig(space="inputs", price=0.5)
