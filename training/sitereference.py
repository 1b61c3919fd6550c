"""What a site's traffic looked like when a model learnt it: to see later whether it has drifted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from features.schema import FloatArray, Kind, Schema

PARTS = 10
"""Parts of equal share that amounts are cut into, as far as equal values allow."""
_DIGITS = 7


def reference(schema: Schema, names: Sequence[str], rows: FloatArray) -> dict[str, Any]:
    """How the features `names` of rows ``[N, F]`` are spread, as JSON values.

    Of an amount or share: ``cuts``, ascending, and the ``shares`` of rows below the first (or equal
    to it), between, and above the last; of a category: the ``terms`` that occur, with ``""`` for
    none of the vocabulary, and their ``shares``.
    """
    spread: dict[str, Any] = {}
    for name, at in zip(names, schema.index(names), strict=True):
        feature, values = schema.features[at], rows[:, at]
        if feature.kind is Kind.CATEGORICAL:
            codes, counts = np.unique(values.astype(int), return_counts=True)
            terms = [feature.vocabulary[code] if code >= 0 else "" for code in codes]
            spread[name] = {"terms": terms, "shares": _rounded(counts / len(values))}
        else:
            spread[name] = histogram(values)
    return spread


def histogram(values: FloatArray) -> dict[str, list[float]]:
    """``cuts`` and ``shares`` of ``[N]`` values; see :func:`reference`."""
    cuts = np.unique(np.quantile(values, np.arange(1, PARTS) / PARTS, method="inverted_cdf"))
    counts = np.bincount(np.searchsorted(cuts, values, side="left"), minlength=len(cuts) + 1)
    return {"cuts": _rounded(cuts), "shares": _rounded(counts / len(values))}


def _rounded(values: FloatArray) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
