"""What a kind of model is to everything else.

A kind is one declaration, a subclass of :class:`ModelKind`: the network's sizes, how it is built,
what it is fitted with beside its weights, and how what it says is read. Its :class:`Network` has
a loss to train by and a score with a part for each feature. Detector, bundle, training and
command line take every kind alike.

A model has *weights*, found by gradient, and *fitted* tensors, found otherwise: before training
(:meth:`ModelKind.fit_before`: bins, scales) and after it (:meth:`ModelKind.fit_after`: prototypes,
calibrations). Both go into the bundle as float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from features.encoder import Encoded, Encoder
from features.schema import FloatArray
from models.recipe import FitConfig

Tensors = dict[str, NDArray[np.float32]]
"""Fitted tensors by name."""
Shape = tuple[int | None, ...]
"""Axes of a tensor; None for any length."""
ConfigT = TypeVar("ConfigT")

MAPPED_ROWS = 4096
"""Rows that :func:`mapped` hands to a network at once."""


class Batch(NamedTuple):
    """All that a model may know of ``[B]`` flows.

    Attributes:
        encoded: their own rows, ``[B, ·]``.
        before: rows of the last flows of the same host, ``[B, W - 1, ·]``, the oldest first;
            ``W`` is the kind's window, 1 for most, and then there are none.
        present: ``[B, W - 1]``, which of them there are; the others hold nothing of use.
    """

    encoded: Encoded
    before: Encoded
    present: Any


class RowScores(NamedTuple):
    """Scores of ``[B]`` flows: ``score = rest + parts.sum(-1)``.

    Attributes:
        rest: ``[B]``, what belongs to no single feature.
        parts: ``[B, U]``, one a feature: amounts in the encoder's order, then categories.
    """

    rest: jax.Array
    parts: jax.Array


class Network(nnx.Module):
    """A Flax module that can be trained and asked for scores. A row's results are its own."""

    def loss(self, batch: Batch, attack: jax.Array, key: jax.Array | None) -> jax.Array:
        """The loss of each row, ``[B]``.

        Args:
            batch: the rows.
            attack: ``[B]`` labels; all false for kinds that are not supervised.
            key: with one, as in training (noise, dropout, sampling); without, as in use.
        """
        raise NotImplementedError

    def score(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> RowScores:
        """The score of each row, larger for what is more anomalous, and what it is made of."""
        raise NotImplementedError

    def outputs(self, batch: Batch, fitted: Mapping[str, jax.Array]) -> jax.Array:
        """What :meth:`ModelKind.typical` reads, ``[B, O]``."""
        raise NotImplementedError


class RowSet(NamedTuple):
    """Encoded rows, and which of them count, with what came before each.

    Attributes:
        encoded: ``[N, ·]``.
        at: ``[T]`` int32, the rows that count.
        before: ``[T, W - 1]`` int32, the rows before each of these, -1 for none.
        attack: ``[T]`` bool.
        weight: ``[T]`` float32, how much each counts.
    """

    encoded: Encoded
    at: Any
    before: Any
    attack: Any
    weight: Any

    def batch(self, chosen: Any) -> Batch:
        """The batch of some that count, ``[B]`` numbers into `at`."""
        at, before = self.at[chosen], self.before[chosen]
        return Batch(
            Encoded(*(column[at] for column in self.encoded)),
            Encoded(*(column[before] for column in self.encoded)),
            before >= 0,
        )

    @property
    def own(self) -> Encoded:
        """The rows that count, ``[T, ·]``."""
        return Encoded(*(column[self.at] for column in self.encoded))


def mapped(
    network: Network, rows: RowSet, function: Callable[[Any, Batch, jax.Array], jax.Array]
) -> NDArray[Any]:
    """``function(network, batch, attack)`` of all rows that count, ``[T, ...]``.

    Batches have one size, the last is padded, so that any number of rows fits into memory.
    """
    graph, state = nnx.split(network)

    @jax.jit
    def apply(state: Any, batch: Batch, attack: Any) -> jax.Array:
        return function(nnx.merge(graph, state), batch, attack)

    count = len(rows.at)
    results = []
    for begin in range(0, count, MAPPED_ROWS):
        chosen = np.minimum(np.arange(begin, begin + MAPPED_ROWS), count - 1)
        results.append(np.asarray(apply(state, rows.batch(chosen), rows.attack[chosen])))
    return np.concatenate(results)[:count]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Which training rows count, and how much.

    Attributes:
        at: ``[T]``, numbers of rows, ascending.
        weight: ``[T]``, positive.
    """

    at: NDArray[np.intp]
    weight: NDArray[np.float32]


class ModelKind(ABC, Generic[ConfigT]):
    """The declaration of a kind.

    Attributes:
        name: as ``--model`` and a bundle's manifest give it.
        title: what it is, in a line.
        source: who described it.
        defaults: the sizes, a frozen dataclass of JSON values and tuples of them.
        training: how it is trained unless told otherwise.
        supervised: whether it is trained on labelled attacks, too.
        reconstructs: whether what it expects of a flow depends on the flow.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    defaults: ConfigT
    training: ClassVar[FitConfig] = FitConfig()
    supervised: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = True

    def window(self, config: ConfigT) -> int:
        """How many consecutive flows of a host it sees, the scored one included."""
        return 1

    def most_important(self, config: ConfigT) -> int | None:
        """How many features to use, those that a random forest finds most important; None: all.

        For supervised kinds: the forest needs labels.
        """
        return None

    def prepare(self, config: ConfigT, rows: FloatArray) -> Prepared:
        """Which of the training rows ``[N, U]`` (features in use) count, and how much.

        Of rows that do not fit into memory at once, each chunk is prepared by itself.
        """
        return Prepared(np.arange(len(rows)), np.ones(len(rows), np.float32))

    def fit_before(self, config: ConfigT, encoder: Encoder, rows: RowSet) -> Tensors:
        """What the network is built with, from a sample of training rows."""
        return {}

    @abstractmethod
    def build(
        self, config: ConfigT, encoder: Encoder, fitted: Mapping[str, Any], rngs: nnx.Rngs
    ) -> Network:
        """An untrained network.

        Raises:
            KeyError, ValueError: `fitted` does not fit the encoder or the sizes.
        """

    def after_shapes(self, config: ConfigT, encoder: Encoder) -> dict[str, Shape]:
        """Names and shapes of what :meth:`fit_after` gives."""
        return {}

    def fit_after(
        self,
        config: ConfigT,
        encoder: Encoder,
        network: Network,
        train: RowSet,
        held_out: RowSet,
    ) -> Tensors:
        """What the score needs beside the trained network.

        Args:
            config, encoder, network: of the trained model.
            train: a sample of the training rows, with their weights.
            held_out: rows that no gradient has seen; they are not those of the calibration.
        """
        return {}

    @abstractmethod
    def typical(
        self,
        config: ConfigT,
        encoder: Encoder,
        fitted: Mapping[str, Any],
        outputs: NDArray[np.float32],
    ) -> FloatArray:
        """What is expected of each feature, ``[B, U]``, from outputs ``[B, O]``.

        Amounts on the encoder's scale (:attr:`Encoded.scaled`), categories as indices.
        """

    def config_from_json(self, values: Mapping[str, Any]) -> ConfigT:
        """Sizes from a manifest.

        Raises:
            TypeError: a value is missing, or no such value is known.
        """
        made = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        known = {field.name for field in fields(self.defaults)}  # type: ignore[arg-type]
        if unknown := set(made) - known:
            raise TypeError(f"{self.name} knows no {', '.join(sorted(unknown))}")
        return type(self.defaults)(**made)
