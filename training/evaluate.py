"""Tests a freshly trained detector on labelled rows, once a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from features.schema import FloatArray, Schema
from training.datasets import DATASETS
from training.datasets.base import Table
from training.fit import RECIPES, FitConfig, fit

FeatureSet = Literal["live", "all"]
TARGET_FPR = 0.01
LIVE_CLOCK_US = 1000
"""The clock that the shipped models are trained for: stock NFStream's milliseconds."""
PUBLISHED_CLOCK_US = 1
"""The clock of rows that are used as published."""


def chosen_features(schema: Schema, features: FeatureSet) -> tuple[str, ...]:
    """``live``: what a sensor measures and a real network shares; ``all``: every column."""
    return schema.names if features == "all" else schema.select(live=True, testbed=False)


def as_measured(
    schema: Schema, rows: FloatArray, features: FeatureSet, rng: np.random.Generator
) -> FloatArray:
    """Rows ``[N, F]`` as the chosen features are to be measured: by a sensor, or as published."""
    return rows if features == "all" else schema.remeasure(rows, LIVE_CLOCK_US, rng)


@dataclass(frozen=True)
class Split:
    """Rows to train on and to test on.

    Attributes:
        benign: ``[N, F]`` benign rows to train, stop and calibrate on.
        rows: ``[M, F]`` test rows.
        attack: ``[M]`` their labels.
    """

    benign: FloatArray
    rows: FloatArray
    attack: NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """A way to split a data set: what is loaded, and how a seed splits it.

    `optional`: where its files are missing, the data set's other trials are enough.
    """

    name: str
    title: str
    dataset: str
    load: Callable[[Path], tuple[Table, ...]]
    split: Callable[[tuple[Table, ...], np.random.Generator], Split]
    optional: bool = False


def _parts(dataset: str, *parts: str) -> Callable[[Path], tuple[Table, ...]]:
    return lambda directory: tuple(DATASETS[dataset].load(directory, part) for part in parts)


def _official(tables: tuple[Table, ...], rng: np.random.Generator) -> Split:
    train, test = tables
    return Split(train.benign(), test.rows, test.attack)


def _halves(tables: tuple[Table, ...], rng: np.random.Generator) -> Split:
    (table,) = tables
    benign = rng.permutation(np.flatnonzero(~table.attack))
    train, rest = np.split(benign, [len(benign) // 2])
    test = np.concatenate([rest, np.flatnonzero(table.attack)])
    return Split(table.rows[train], table.rows[test], table.attack[test])


TRIALS: tuple[Trial, ...] = (
    Trial(
        "nsl-kdd", "benign KDDTrain+ to KDDTest+", "nsl-kdd",
        _parts("nsl-kdd", "train", "test"), _official,
    ),
    Trial(
        "unsw-nb15-halves", "half of the testing set's benign rows to its other rows",
        "unsw-nb15", _parts("unsw-nb15", "test"), _halves,
    ),
    Trial(
        "unsw-nb15", "benign training set to the testing set", "unsw-nb15",
        _parts("unsw-nb15", "train-normal", "test"), _official,
    ),
    Trial(
        "kdd99-halves", "half of the ten per cent's benign rows to its other rows", "kdd99",
        _parts("kdd99", "train"), _halves,
    ),
    Trial(
        "kdd99", "benign ten per cent to the corrected test data", "kdd99",
        _parts("kdd99", "train", "test"), _official, optional=True,
    ),
    Trial(
        "cicids2017-halves", "half of the sample's distinct benign rows to its other rows",
        "cicids2017", _parts("cicids2017", "sample-distinct"), _halves,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Figures of one seed. `distinct` counts each test row once, however often it occurs."""

    auroc: float
    average_precision: float
    realised_fpr: float
    recall: float
    auroc_distinct: float


def run_seed(
    trial: Trial,
    tables: tuple[Table, ...],
    features: FeatureSet,
    seed: int,
    config: FitConfig | None = None,
) -> Outcome:
    """Train on a seed's split and test on it once.

    The alert threshold is the calibration's p-value at :data:`TARGET_FPR`: labels of test rows
    are looked at to count only.
    """
    rng = np.random.default_rng(seed)
    split = trial.split(tables, rng)
    schema = tables[0].schema
    clock = PUBLISHED_CLOCK_US if features == "all" else LIVE_CLOCK_US
    detector = fit(
        schema,
        chosen_features(schema, features),
        as_measured(schema, split.benign, features, rng),
        name=trial.dataset,
        seed=seed,
        clock_us=clock,
        config=config,
        network=RECIPES[trial.dataset],
    )
    rows = as_measured(schema, split.rows, features, rng)
    scores = detector.score(rows)
    alerted = scores.p_value <= TARGET_FPR
    _, first = np.unique(
        np.column_stack([rows[:, detector.columns], split.attack]), axis=0, return_index=True
    )
    return Outcome(
        auroc=float(roc_auc_score(split.attack, scores.score)),
        average_precision=float(average_precision_score(split.attack, scores.score)),
        realised_fpr=float(alerted[~split.attack].mean()),
        recall=float(alerted[split.attack].mean()),
        auroc_distinct=float(roc_auc_score(split.attack[first], scores.score[first])),
    )


def mean_sd(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
