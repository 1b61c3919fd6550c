"""What a score is made of, and what was usual of each feature: all that an alert says beside it.

A score is an exact sum (:class:`models.kinds.base.RowScores`): a part for each feature, and a rest
that belongs to none. An alert names the features with the largest parts; :func:`attribute` adds up
the others, so that what is told of a score is still all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.schema import Feature, FloatArray
from models.reference import LEVELS, Reference

LOW, HIGH = 1, 99
"""Percentiles of benign values between which an amount is usual."""
USUAL_SHARE = 0.01
"""Share of the benign flows that a term of a category has at least, to be usual."""

_REST_OF = {
    "vae": "latent",
    "conv-vae": "latent",
    "host-conv-vae": "latent",
    "autoencoder": "none",
    "deep-autoencoder": "none",
    "classifier": "baseline",
}
_PROTOTYPES = ("prototype-vae", "guarded-vae")


def rest_of(kind: str, config: Any) -> str:
    """What the rest of a score is of, in a word.

    Args:
        kind: name of a kind of model.
        config: its sizes.

    Returns:
        `latent`: how far the latent lies from the prior, beyond what is usual, or from the nearest
        prototype. `price`: of that prototype's isolation. `latent_and_price`: both. `baseline`:
        what the mean benign row scores, and what the sum over points leaves of the integral.
        `none`: nothing, it is 0.

    Raises:
        KeyError: there is no such kind.
    """
    if kind not in _PROTOTYPES:
        return _REST_OF[kind]
    if config.space == "inputs":
        return "price"
    return "latent_and_price" if config.price else "latent"


class Attribution(NamedTuple):
    """The largest parts of ``[A]`` scores: ``score = rest + parts, as far as > 0, + other``.

    Attributes:
        order: ``[A, K]``, numbers of the features with the largest parts, the largest first.
        parts: ``[A, K]``, theirs; those above 0 are to be named.
        other: ``[A]``, the parts of all features that are not, summed.
    """

    order: NDArray[np.intp]
    parts: FloatArray
    other: FloatArray


def attribute(parts: FloatArray, most: int) -> Attribution:
    """The `most` largest of parts ``[A, U]``, of equal ones the first, and the sum of the others.

    What is no larger than 0 is not named, and one of the others: it speaks for a benign flow.
    """
    order = np.argsort(-parts, axis=1, kind="stable")[:, :most]
    largest = np.take_along_axis(parts, order, axis=1)
    others = parts.copy()
    np.put_along_axis(others, order, np.minimum(largest, 0.0), axis=1)
    return Attribution(order, largest, others.sum(axis=1))


class Usual(NamedTuple):
    """What is usual of a feature among benign flows.

    Attributes:
        text: ``LOW..HIGH`` of an amount, terms with ``|`` between them of a category.
        low, high: the percentiles :data:`LOW` and :data:`HIGH` of an amount, in its unit; None of
            a category.
    """

    text: str
    low: float | None = None
    high: float | None = None


def usual_values(reference: Reference, features: Sequence[Feature]) -> list[Usual]:
    """What is usual of each of ``[U]`` features of a model, which are amounts, then categories.

    Of amounts the percentiles :data:`LOW` and :data:`HIGH`; of categories the terms that at least
    :data:`USUAL_SHARE` of the flows have, the most frequent first, and that one in any case.
    """
    amounts = len(reference.quantiles)
    ranges = reference.quantiles[:, [LOW * (LEVELS - 1) // 100, HIGH * (LEVELS - 1) // 100]]
    found = []
    for feature, (low, high) in zip(features[:amounts], ranges.tolist(), strict=True):
        text = "..".join(feature.show_all([low, high]))
        # As many digits as float32 has.
        found.append(Usual(text, float(f"{low:.7g}"), float(f"{high:.7g}")))
    for feature in features[amounts:]:
        shares = reference.shares[feature.name]
        order = np.argsort(-shares, kind="stable")
        count = max(int((shares >= USUAL_SHARE).sum()), 1)
        codes = np.where(order == len(shares) - 1, -1, order)[:count]  # the last: unknown terms
        found.append(Usual("|".join(feature.show_all(codes.tolist()))))
    return found
