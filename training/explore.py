"""What a labelled table holds, in numbers: counts, faults, profiles, correlations, importances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from features.encoder import Encoder
from features.schema import Feature, FloatArray, Kind, Schema
from training.baselines import TREES, OneHot, repeats
from training.datasets.base import Table

NORMAL = "normal"
MOST_ROWS = 100_000
"""Correlations and pictures are of a seeded sample of so many rows, where there are more."""
CATEGORY_ROWS = 10_000
"""Attack categories are compared by so many rows of each."""
FOREST_ROWS = 30_000
"""Importances are of a sample of so many."""
FEW = 30
"""Correlations within a category of fewer rows say nothing."""
TRAITS = 6
"""Features that a profile names."""


def sample(table: Table, most: int, seed: int) -> Table:
    """The table, or so many of its rows, drawn at random and in their old order."""
    if len(table.rows) <= most:
        return table
    drawn = np.random.default_rng(seed).permutation(len(table.rows))[:most]
    return _rows(table, np.sort(drawn))


def per_category(table: Table, most: int, seed: int) -> Table:
    """At most so many rows of each category, so that the rare ones stay whole."""
    drawn = np.random.default_rng(seed).permutation(len(table.rows))
    number = pd.Series(table.category[drawn]).groupby(table.category[drawn]).cumcount()
    return _rows(table, np.sort(drawn[number.to_numpy() < most]))


def _rows(table: Table, chosen: NDArray[np.intp]) -> Table:
    return replace(
        table, rows=table.rows[chosen], attack=table.attack[chosen], category=table.category[chosen]
    )


def counts(table: Table) -> dict[str, int]:
    """Rows of each category, the most frequent first."""
    names, number = np.unique(table.category, return_counts=True)
    order = np.argsort(-number, kind="stable")
    return {str(names[at]): int(number[at]) for at in order}


# What is odd about the rows


@dataclass(frozen=True)
class Faults:
    """What a cleaner would look for; nothing of it is removed.

    Attributes:
        repeated: rows that equal an earlier one in all features and in their category.
        contradicting: rows whose features occur both as benign and as an attack.
        constant: features with one value in every row.
        twins: pairs of features that are equal in every row, constant ones left out.
        unknown: for each category feature with such rows, how many have a term outside the
            vocabulary.
        negative: the same for amounts below zero.
    """

    repeated: int
    contradicting: int
    constant: tuple[str, ...]
    twins: tuple[tuple[str, str], ...]
    unknown: dict[str, int]
    negative: dict[str, int]


def faults(table: Table) -> Faults:
    """Look through all rows."""
    features, rows = table.schema.features, table.rows
    same = repeats(rows)
    labelled = pd.DataFrame({"row": same, "category": table.category})
    attacks = np.zeros(same.max(initial=-1) + 1, np.intp)
    every = attacks.copy()
    np.add.at(attacks, same[table.attack], 1)
    np.add.at(every, same, 1)
    mixed = (attacks > 0) & (attacks < every)
    constant = [at for at in range(len(features)) if np.ptp(rows[:, at]) == 0]
    vary = [at for at in range(len(features)) if at not in constant]
    below = {f.name: int((rows[:, at] < 0).sum()) for at, f in enumerate(features)}
    category = {f.name for f in features if f.kind is Kind.CATEGORICAL}
    return Faults(
        repeated=int(labelled.duplicated().sum()),
        contradicting=int(mixed[same].sum()),
        constant=tuple(features[at].name for at in constant),
        twins=tuple(
            (features[a].name, features[b].name)
            for number, a in enumerate(vary)
            for b in vary[number + 1 :]
            if np.array_equal(rows[:, a], rows[:, b])
        ),
        unknown={name: count for name, count in below.items() if count and name in category},
        negative={name: count for name, count in below.items() if count and name not in category},
    )


# How categories differ from normal rows


def distance(here: FloatArray, there: FloatArray, kind: Kind) -> float:
    """How far two samples of a feature lie apart, from 0 (alike) to 1 (never alike).

    For amounts the Kolmogorov-Smirnov statistic, for categories the total variation distance.
    Both are the largest difference in probability of any event: of the form "at most x", or
    "one of these terms".
    """
    values = np.unique(np.concatenate([here, there]))
    shares = []
    for one in (here, there):
        own, number = np.unique(one, return_counts=True)
        share = np.zeros(len(values))
        share[np.searchsorted(values, own)] = number / len(one)
        shares.append(share)
    difference = shares[0] - shares[1]
    if kind is Kind.CATEGORICAL:
        return float(np.abs(difference).sum() / 2)
    return float(np.abs(difference.cumsum()).max())


def typical(feature: Feature, values: FloatArray) -> str:
    """The most frequent term, or the median and the share of values that are not 0."""
    if feature.kind is Kind.CATEGORICAL:
        terms, number = np.unique(values, return_counts=True)
        share = number.max() / len(values)
        return f"{feature.show(float(terms[number.argmax()]))} in {_percent(share)}"
    middle = float(np.median(values))
    return f"{middle:.4g}, {_percent(float((values != 0).mean()))} not 0"


def _percent(share: float) -> str:
    # 99.97 % is not 100 %, and that is often the point.
    for places in (0, 1, 2):
        said = f"{100 * share:.{places}f}"
        if share in (0.0, 1.0) or 0 < float(said) < 100:
            return f"{said} %"
    return "< 0.01 %" if share < 0.5 else "> 99.99 %"


@dataclass(frozen=True)
class Trait:
    """One feature in which a category differs from normal rows: by how much, and how."""

    feature: Feature
    distance: float
    here: str
    normal: str


@dataclass(frozen=True)
class Together:
    """Two features that move together in a category, or stop doing so: Spearman's rho."""

    first: str
    second: str
    here: float
    normal: float


@dataclass(frozen=True)
class Profile:
    """What is peculiar to a category: the features that tell it best from normal rows."""

    category: str
    rows: int
    traits: tuple[Trait, ...]
    together: Together | None


class Profiles:
    """Profiles of the categories of a table that has benign rows."""

    def __init__(self, table: Table) -> None:
        """Take the table's rows.

        Raises:
            ValueError: none of them is benign.
        """
        if table.attack.all():
            raise ValueError("there are no benign rows to compare attacks with")
        self._table = table
        self._normal = table.benign()
        self._numeric = [
            at
            for at, feature in enumerate(table.schema.features)
            if feature.kind is not Kind.CATEGORICAL
        ]

    @cached_property
    def _usual(self) -> FloatArray:
        return spearman(self._normal[:, self._numeric])

    def of(self, category: str) -> Profile:
        """The profile of one category."""
        rows = self._table.rows[self._table.category == category]
        apart = [
            distance(rows[:, at], self._normal[:, at], feature.kind)
            for at, feature in enumerate(self._table.schema.features)
        ]
        traits = []
        for at in np.argsort(-np.array(apart), kind="stable")[:TRAITS]:
            feature = self._table.schema.features[at]
            here, normal = (typical(feature, one[:, at]) for one in (rows, self._normal))
            traits.append(Trait(feature, apart[at], here, normal))
        return Profile(category, len(rows), tuple(traits), self._together(rows))

    def _together(self, rows: FloatArray) -> Together | None:
        """The pair of amounts whose correlation differs most from that among normal rows."""
        if len(rows) < FEW:
            return None
        here = spearman(rows[:, self._numeric])
        # A pair that cannot correlate among normal rows, one being constant, does not there.
        usual = np.nan_to_num(self._usual)
        change = np.triu(np.nan_to_num(np.abs(here - usual)), 1)
        first, second = np.unravel_index(int(change.argmax()), change.shape)
        if change[first, second] == 0:
            return None
        names = [self._table.schema.features[at].name for at in self._numeric]
        return Together(
            names[first], names[second], float(here[first, second]), float(usual[first, second])
        )


# Correlations


def spearman(rows: FloatArray) -> FloatArray:
    """Spearman's rank correlation of the columns ``[N, F]``: ``[F, F]``, NaN for constants."""
    ranks = rankdata(rows, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    scaled = ranks / np.where(length > 0, length, np.nan)
    rho: FloatArray = np.clip(scaled.T @ scaled, -1.0, 1.0)
    return rho


def rank_biserial(values: FloatArray, attack: NDArray[np.bool_]) -> float:
    """Rank-biserial correlation (Cureton, 1956) of a feature ``[N]`` with a label ``[N]``.

    1 where every attack's value is above every benign one, -1 where below, 0 where neither.
    Unlike the correlation with a column of 0 and 1, it does not fade with rare attacks.
    """
    return float(2 * roc_auc_score(attack, values) - 1)


@dataclass(frozen=True)
class Likeness:
    """Attack categories beside each other.

    Attributes:
        categories: ``C`` of them, in order of name.
        features: ``D`` amounts.
        direction: ``[C, D]`` rank-biserial correlation of each feature, against benign rows.
        alike: ``[C, C]`` correlation of their mean standardised amounts: 1 where two
            categories leave the benign mean in the same direction.
    """

    categories: tuple[str, ...]
    features: tuple[str, ...]
    direction: FloatArray
    alike: FloatArray


def likeness(table: Table) -> Likeness:
    """Compare the attack categories of a table that has benign rows."""
    encoder = Encoder.fit(table.schema, table.schema.names, table.benign())
    names = tuple(str(name) for name in np.unique(table.category[table.attack]))
    amounts = encoder.encode(table.rows).amounts.astype(np.float64)
    columns = table.schema.index([column.name for column in encoder.numeric])
    means = np.stack([amounts[table.category == name].mean(axis=0) for name in names])
    means -= means.mean(axis=1, keepdims=True)
    length = np.sqrt((means**2).sum(axis=1, keepdims=True))
    scaled = means / np.where(length > 0, length, np.nan)
    direction = np.empty((len(names), len(columns)))
    for row, name in enumerate(names):
        chosen = ~table.attack | (table.category == name)
        for column, at in enumerate(columns):
            direction[row, column] = rank_biserial(table.rows[chosen, at], table.attack[chosen])
    return Likeness(
        names, tuple(column.name for column in encoder.numeric), direction, scaled @ scaled.T
    )


# Importances


@dataclass(frozen=True)
class Importances:
    """What a random forest leans on, telling attacks from benign rows.

    Attributes:
        features: names, the most important first.
        impurity: ``[F]`` mean decrease in impurity (Breiman, 2001); they sum to 1.
        permuted: ``[K]`` of the first: what the area under the ROC curve loses on held-out
            rows when the feature's values are shuffled.
        held_out: that area before.
        rows: the forest was grown on.
    """

    features: tuple[str, ...]
    impurity: FloatArray
    permuted: FloatArray
    held_out: float
    rows: int


def importances(table: Table, seed: int, *, top: int = 20) -> Importances:
    """Grow a forest on two thirds of a sample; repeated rows are on one side of the split.

    Raises:
        ValueError: a side has rows of one class only.
    """
    table = sample(table, FOREST_ROWS, seed)
    split = GroupKFold(3, shuffle=True, random_state=seed)
    train, test = next(split.split(table.rows, groups=repeats(table.rows)))
    truth = table.attack[test]
    if truth.all() or not truth.any():
        raise ValueError("the held-out rows are of one class")
    inputs = OneHot(Encoder.fit(table.schema, table.schema.names, table.rows[train]))
    forest = RandomForestClassifier(TREES, random_state=seed)
    forest.fit(inputs(table.rows[train]), table.attack[train])

    def area(rows: FloatArray) -> float:
        return float(roc_auc_score(truth, forest.predict_proba(inputs(rows))[:, 1]))

    names = table.schema.names
    total = dict.fromkeys(names, 0.0)
    for name, value in zip(inputs.features, forest.feature_importances_, strict=True):
        total[name] += float(value)
    ordered = sorted(names, key=lambda name: -total[name])
    rows, rng = table.rows[test], np.random.default_rng(seed)
    before = area(rows)
    permuted = []
    for at in table.schema.index(ordered[:top]):
        shuffled = rows.copy()
        shuffled[:, at] = rng.permutation(rows[:, at])
        permuted.append(before - area(shuffled))
    return Importances(
        tuple(ordered), np.array([total[name] for name in ordered]), np.array(permuted),
        before, len(train),
    )  # fmt: skip


def by_distance(table: Table) -> list[tuple[Feature, float]]:
    """Features, those first that set attacks as a whole furthest apart from benign rows."""
    schema: Schema = table.schema
    benign, attacks = table.benign(), table.rows[table.attack]
    apart: Sequence[float] = [
        distance(attacks[:, at], benign[:, at], feature.kind)
        if len(benign) and len(attacks)
        else 0.0
        for at, feature in enumerate(schema.features)
    ]
    order = np.argsort(-np.array(apart), kind="stable")
    return [(schema.features[at], float(apart[at])) for at in order]
