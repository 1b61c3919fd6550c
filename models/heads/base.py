"""What every family of heads offers."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self

import jax
import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoded, Encoder
from features.schema import FloatArray

Tensors = dict[str, NDArray[Any]]


class Heads(Protocol):
    """The heads of all features of a model: amounts in the encoder's order, then categories.

    Attributes:
        family: name of the family, as a bundle's manifest gives it.
        excess_kl: whether the score counts only the KL beyond what is usual among benign rows.
        width: decoder outputs that the heads take, ``W``.
    """

    family: ClassVar[str]
    excess_kl: ClassVar[bool]
    width: int

    @classmethod
    def fit(cls, encoder: Encoder, encoded: Encoded) -> Self:
        """Fit what is not learnt by gradient on encoded benign training rows."""

    @classmethod
    def from_tensors(cls, encoder: Encoder, tensors: Tensors) -> Self:
        """The inverse of :meth:`tensors`.

        Raises:
            KeyError, ValueError: the tensors do not fit the encoder.
        """

    def tensors(self) -> Tensors:
        """What :meth:`fit` found, to be stored in a bundle."""

    def nll(self, outputs: jax.Array, encoded: Encoded) -> jax.Array:
        """Negative log-likelihood of each feature, ``[B, U]`` in nats, of outputs ``[B, W]``."""

    def parts(self, outputs: jax.Array, encoded: Encoded) -> jax.Array:
        """Each feature's part of the score, ``[B, U]``, zero or more and bounded."""

    def typical(self, outputs: NDArray[np.float32]) -> FloatArray:
        """What is expected of each feature, ``[B, U]``.

        Amounts on the encoder's scale (:attr:`Encoded.scaled`), categories as indices.
        """
