"""From feature rows to model inputs: signed log and standardisation, category indices.

The encoder is fitted on benign training rows, travels in the bundle, and is applied inside
the jitted scorer, so that training and sensor share every arithmetic step of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.schema import FloatArray, Kind, Schema

LOGGED = frozenset({Kind.CONTINUOUS, Kind.COUNT})
"""Kinds that span decades, so are taken on a signed log scale."""

CLIP = 10.0
"""Encoded amounts stay within this many standard deviations, lest one value blind the rest."""

MIN_SCALE = 1e-2
"""Smallest standard deviation, for features that are (nearly) constant among benign rows."""

UNSEEN = 0
"""Index of the category for terms that the training rows did not have."""

MIN_TERM_ROWS = 5
"""Terms rarer than this among the training rows count as unseen, so that unseen is learnt."""


@dataclass(frozen=True, slots=True)
class NumericColumn:
    """How one amount, rate or binary feature is encoded."""

    name: str
    kind: Kind
    center: float
    scale: float


@dataclass(frozen=True, slots=True)
class CategoryColumn:
    """How one category is encoded: `terms` of the schema's vocabulary, in index order from 1."""

    name: str
    terms: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of indices, the unseen one included."""
        return len(self.terms) + 1


class Encoded(NamedTuple):
    """Encoded rows: what the network takes in, and what the likelihood heads bin.

    Attributes:
        amounts: ``[..., D]`` float32, standardised and clipped to :data:`CLIP`.
        scaled: ``[..., D]`` float32, the same before standardising: signed logs, or as they are.
        categories: ``[..., C]`` int32 indices, :data:`UNSEEN` for terms not met in training.
    """

    amounts: Any
    scaled: Any
    categories: Any


def signed_log(values: Any, xp: Any = np) -> Any:
    """``sign(x) * log(1 + |x|)``."""
    return xp.sign(values) * xp.log1p(xp.abs(values))


class Encoder:
    """Encodes the features named in `numeric` and `categories` of rows of `schema`."""

    def __init__(
        self,
        schema: Schema,
        numeric: Sequence[NumericColumn],
        categories: Sequence[CategoryColumn],
    ) -> None:
        """Build from fitted columns.

        Raises:
            KeyError: a column is not a feature of `schema`.
            ValueError: a term is not in the feature's vocabulary.
        """
        self.schema = schema
        self.numeric = tuple(numeric)
        self.categories = tuple(categories)
        self._numeric_at = schema.index([column.name for column in numeric])
        self._category_at = schema.index([column.name for column in categories])
        self._center = np.array([column.center for column in numeric], np.float32)
        self._scale = np.array([column.scale for column in numeric], np.float32)
        self._logged = np.array([column.kind in LOGGED for column in numeric])
        self._tables = [
            self._table(column, schema.features[at].vocabulary)
            for column, at in zip(categories, self._category_at, strict=True)
        ]

    @staticmethod
    def _table(column: CategoryColumn, vocabulary: tuple[str, ...]) -> NDArray[np.int32]:
        """Vocabulary code to index; the last entry serves code -1, a term outside it."""
        table = np.full(len(vocabulary) + 1, UNSEEN, np.int32)
        for index, term in enumerate(column.terms, start=1):
            table[vocabulary.index(term)] = index
        return table

    @classmethod
    def fit(cls, schema: Schema, names: Sequence[str], rows: FloatArray) -> Encoder:
        """Fit on training rows ``[N, F]`` of `schema`, for the features `names`.

        Raises:
            NotFinite: a row has no finite value in one of the features.
        """
        fitting = EncoderFit(schema, names)
        fitting.add(rows)
        return fitting.encoder()

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in the order of the score's parts: amounts first, then categories."""
        amounts = tuple(column.name for column in self.numeric)
        return amounts + tuple(column.name for column in self.categories)

    def encode(self, rows: Any, xp: Any = np) -> Encoded:
        """Encode rows.

        Args:
            rows: ``[..., F]``, all features of the schema; unused ones may be NaN.
            xp: numpy, or jax.numpy inside a jitted function.
        """
        rows = xp.asarray(rows)
        values = rows[..., self._numeric_at].astype(xp.float32)
        scaled = xp.where(self._logged, signed_log(values, xp), values)
        amounts = xp.clip((scaled - self._center) / self._scale, -CLIP, CLIP)
        codes = rows[..., self._category_at].astype(xp.int32)
        indices = [
            xp.asarray(table)[codes[..., column]] for column, table in enumerate(self._tables)
        ]
        none = xp.zeros((*rows.shape[:-1], 0), xp.int32)
        return Encoded(amounts, scaled, xp.stack(indices, axis=-1) if indices else none)

    def unscale(self, scaled: FloatArray) -> FloatArray:
        """Scaled amounts ``[..., D]`` back in their features' units."""
        values = np.asarray(scaled, np.float64)
        return np.where(self._logged, np.sign(values) * np.expm1(np.abs(values)), values)

    def to_json(self) -> dict[str, Any]:
        """The fitted columns as plain JSON values."""
        return {
            "numeric": [
                {"name": c.name, "kind": c.kind.value, "center": c.center, "scale": c.scale}
                for c in self.numeric
            ],
            "categories": [{"name": c.name, "terms": list(c.terms)} for c in self.categories],
        }

    @classmethod
    def from_json(cls, schema: Schema, data: dict[str, Any]) -> Encoder:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError, ValueError: `data` does not fit `schema`.
        """
        numeric = [
            NumericColumn(c["name"], Kind(c["kind"]), c["center"], c["scale"])
            for c in data["numeric"]
        ]
        categories = [CategoryColumn(c["name"], tuple(c["terms"])) for c in data["categories"]]
        return cls(schema, numeric, categories)


class NotFinite(ValueError):
    """A row lacks a value in a feature that is to be used; the message names the feature."""


class EncoderFit:
    """Fits an encoder in one pass over chunks of rows, of which it keeps sums only."""

    def __init__(self, schema: Schema, names: Sequence[str]) -> None:
        """Fit for the features `names`.

        Raises:
            KeyError: one of them is not a feature of `schema`.
        """
        self._schema = schema
        self._at = sorted(schema.index(names))
        self._count = 0
        self._mean = dict.fromkeys(self._at, 0.0)
        self._squares = dict(self._mean)  # sums of squared distances from the mean
        self._terms = {
            at: np.zeros(len(schema.features[at].vocabulary), np.int64) for at in self._at
        }

    def add(self, rows: FloatArray) -> None:
        """Take a chunk of rows ``[N, F]``.

        Raises:
            NotFinite: a row has no finite value in one of the features.
        """
        for at in self._at:
            feature, values = self._schema.features[at], rows[:, at]
            if not np.isfinite(values).all():
                raise NotFinite(f"feature {feature.name} has values that are not finite")
            if feature.kind is Kind.CATEGORICAL:
                codes = values[values >= 0].astype(int)
                self._terms[at] += np.bincount(codes, minlength=len(feature.vocabulary))
            elif len(values) and feature.kind is not Kind.BINARY:
                self._gather(at, signed_log(values) if feature.kind in LOGGED else values)
        self._count += len(rows)

    def _gather(self, at: int, values: FloatArray) -> None:
        """Merge mean and squares of two sets (Chan, Golub and LeVeque, 1983)."""
        mean, more = float(values.mean()), len(values)
        step, total = mean - self._mean[at], self._count + more
        self._squares[at] += float(values.var()) * more + step**2 * self._count * more / total
        self._mean[at] += step * more / total

    def encoder(self, names: Sequence[str] | None = None) -> Encoder:
        """The encoder for what was taken; for some of the features if `names` are given."""
        chosen = self._at if names is None else sorted(self._schema.index(names))
        numeric: list[NumericColumn] = []
        categories: list[CategoryColumn] = []
        for at in chosen:
            feature = self._schema.features[at]
            if feature.kind is Kind.CATEGORICAL:
                often = np.flatnonzero(self._terms[at] >= MIN_TERM_ROWS)
                terms = tuple(feature.vocabulary[code] for code in often)
                categories.append(CategoryColumn(feature.name, terms))
            elif feature.kind is Kind.BINARY:
                numeric.append(NumericColumn(feature.name, feature.kind, 0.0, 1.0))
            else:
                scale = max(float(np.sqrt(self._squares[at] / max(self._count, 1))), MIN_SCALE)
                numeric.append(NumericColumn(feature.name, feature.kind, self._mean[at], scale))
        return Encoder(self._schema, numeric, categories)
