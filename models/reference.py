"""What the features of benign flows were like: held-out ones, as the model was calibrated with.

It tells how far the traffic of today has drifted from them, and where among them an observed value
lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.encoder import Encoder
from features.schema import FloatArray

LEVELS = 101
"""Quantiles that are kept of an amount: at 0, 1 … 100 %."""
BINS = 10
"""Bins of an amount, of about equal shares of the reference, when it is compared."""
LEAST_SHARE = 1e-3
"""Shares below count as this much in an index of stability: its logarithm needs one."""

_QUANTILES, _SHARES = "quantiles", "shares."


class Reference:
    """Distributions of the features that a model uses, each by itself.

    Attributes:
        quantiles: ``[D, LEVELS]`` float32 of the encoder's amounts, in their units.
        shares: of each category, ``[V + 1]`` float32: of each term of the vocabulary, and last of
            those outside it.
    """

    def __init__(
        self, encoder: Encoder, quantiles: NDArray[Any], shares: Mapping[str, NDArray[Any]]
    ) -> None:
        """Take the distributions of what `encoder` encodes.

        Raises:
            ValueError: they are of other shapes, or quantiles that do not ascend.
        """
        schema = encoder.schema
        self._amounts = schema.index([column.name for column in encoder.numeric])
        self._categories = schema.index([column.name for column in encoder.categories])
        self.names = encoder.names
        self.quantiles = np.asarray(quantiles, np.float32)
        if self.quantiles.shape != (len(encoder.numeric), LEVELS):
            raise ValueError(
                f"reference.quantiles is {list(self.quantiles.shape)}, the model wants "
                f"[{len(encoder.numeric)}, {LEVELS}]"
            )
        if not (np.diff(self.quantiles, axis=1) >= 0.0).all():
            raise ValueError("reference.quantiles do not ascend")
        self.shares: dict[str, NDArray[np.float32]] = {}
        for column, at in zip(encoder.categories, self._categories, strict=True):
            found = np.asarray(shares[column.name], np.float32)
            wanted = (len(schema.features[at].vocabulary) + 1,)
            if found.shape != wanted:
                raise ValueError(
                    f"reference.shares.{column.name} is {list(found.shape)}, the model wants "
                    f"{list(wanted)}"
                )
            self.shares[column.name] = found
        self._edges = [_edges(row) for row in self.quantiles]
        self._expected = [
            *(
                np.diff([0.0, *_rank(row, edges), 1.0])
                for row, edges in zip(self.quantiles, self._edges, strict=True)
            ),
            *(np.asarray(share, np.float64) for share in self.shares.values()),
        ]

    @classmethod
    def of(cls, encoder: Encoder, rows: FloatArray) -> Reference:
        """Those of rows ``[N, F]``, one at least."""
        schema = encoder.schema
        amounts = _plain(rows[:, schema.index([column.name for column in encoder.numeric])])
        levels = np.linspace(0.0, 1.0, LEVELS)
        quantiles = np.quantile(amounts, levels, axis=0, method="inverted_cdf").T
        shares = {}
        for column in encoder.categories:
            (at,) = schema.index([column.name])
            counts = _counts(rows[:, at], len(schema.features[at].vocabulary))
            shares[column.name] = counts / len(rows)
        return cls(encoder, quantiles, shares)

    @classmethod
    def from_tensors(cls, encoder: Encoder, tensors: Mapping[str, NDArray[Any]]) -> Reference:
        """The inverse of :meth:`tensors`.

        Raises:
            KeyError, ValueError: they are not those of such an encoder.
        """
        shares = {
            name.removeprefix(_SHARES): leaf
            for name, leaf in tensors.items()
            if name.startswith(_SHARES)
        }
        return cls(encoder, tensors[_QUANTILES], shares)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """All of it, by name."""
        return {
            _QUANTILES: self.quantiles,
            **{_SHARES + name: leaf for name, leaf in self.shares.items()},
        }

    def percentiles(self, rows: FloatArray) -> FloatArray:
        """Where values lie among benign ones, ``[B, U]`` in 0 to 100.

        Of an amount: the percentage of benign values that are no larger. Of a category: the
        percentage of benign flows that have it.
        """
        columns = [
            100.0 * _rank(row, rows[:, at])
            for row, at in zip(self.quantiles, self._amounts, strict=True)
        ]
        for at, share in zip(self._categories, self.shares.values(), strict=True):
            columns.append(100.0 * share[rows[:, at].astype(int)])  # -1: the last
        return np.stack(columns, axis=1) if columns else np.empty((len(rows), 0))

    def counts(self, rows: FloatArray) -> list[NDArray[np.int64]]:
        """How many of rows ``[B, F]`` are in each bin of each feature; to be added up."""
        found = [
            np.bincount(np.searchsorted(edges, _plain(rows[:, at])), minlength=len(edges) + 1)
            for edges, at in zip(self._edges, self._amounts, strict=True)
        ]
        for at, share in zip(self._categories, self.shares.values(), strict=True):
            found.append(_counts(rows[:, at], len(share) - 1))
        return found

    def stability(self, counts: Sequence[NDArray[np.int64]]) -> dict[str, float]:
        """The population stability index of each feature, from sums of :meth:`counts`.

        ``sum((a - e) ln(a / e))`` over bins with shares `e` in the reference and `a` now (Siddiqi,
        Credit Risk Scorecards, 2006): below 0.1 is usual, above 0.25 another distribution.
        """
        return {
            name: _index(expected, now)
            for name, expected, now in zip(self.names, self._expected, counts, strict=True)
        }


def _plain(values: FloatArray) -> NDArray[np.float32]:
    """Values as quantiles are kept: what is equal stays equal."""
    largest = np.finfo(np.float32).max
    return np.clip(values, -largest, largest).astype(np.float32)


def _edges(quantiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Upper edges of bins: distinct quantiles, the largest value left out."""
    inner = np.unique(quantiles[:: (LEVELS - 1) // BINS][1:-1])
    return np.asarray(inner[inner < quantiles[-1]], np.float32)


def _rank(quantiles: NDArray[np.float32], values: NDArray[Any]) -> FloatArray:
    """Share of the reference that is at most each value, to a hundredth."""
    at = np.searchsorted(quantiles, _plain(np.asarray(values)), side="right") - 1
    return np.asarray(np.clip(at, 0, LEVELS - 1) / (LEVELS - 1), np.float64)


def _counts(codes: FloatArray, terms: int) -> NDArray[np.int64]:
    """How often each of `terms` codes is there, and last how often another."""
    known = np.where((codes >= 0) & (codes < terms), codes, terms).astype(int)
    return np.asarray(np.bincount(known, minlength=terms + 1), np.int64)


def _index(expected: FloatArray, counts: NDArray[np.int64]) -> float:
    """The index of one feature."""
    now = np.maximum(counts / max(counts.sum(), 1), LEAST_SHARE)
    expected = np.maximum(expected, LEAST_SHARE)
    return float(((now - expected) * np.log(now / expected)).sum())
