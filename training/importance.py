"""Choosing features by how much a random forest leans on them (Breiman, 2001)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from features.schema import FloatArray, Schema

TREES = 100
FOREST_ROWS = 50_000
"""Rows that the forest sees at most."""


def most_important(
    schema: Schema,
    names: Sequence[str],
    rows: FloatArray,
    attack: NDArray[np.bool_],
    count: int,
    seed: int,
) -> tuple[str, ...]:
    """The `count` features of the highest mean decrease in impurity, in the order of `names`.

    Args:
        schema: of the rows.
        names: features to choose from.
        rows: ``[N, F]`` training rows; categories are taken as vocabulary codes.
        attack: ``[N]`` their labels, of both sorts.
        count: of features wanted.
        seed: of the forest, and of the rows where there are more than it takes.
    """
    if len(rows) > FOREST_ROWS:
        chosen = np.random.default_rng(seed).choice(len(rows), FOREST_ROWS, replace=False)
        rows, attack = rows[chosen], attack[chosen]
    forest = RandomForestClassifier(TREES, random_state=seed)
    forest.fit(rows[:, schema.index(names)], attack)
    order = np.argsort(-forest.feature_importances_, kind="stable")
    return tuple(names[at] for at in sorted(order[:count]))
