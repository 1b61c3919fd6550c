"""Tests a freshly trained detector on labelled rows, once a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from features.history import previous_rows, windows_of
from features.schema import FloatArray, Schema
from models.detector import Detector, Scores
from models.kinds import DEFAULT_KIND, KINDS
from models.kinds.base import ModelKind
from models.recipe import FitConfig
from training.datasets import DATASETS
from training.datasets.base import Table
from training.fit import fit
from training.recipes import sizes
from training.rows import TableRows

FeatureSet = Literal["live", "all"]
TARGET_FPR = 0.01
LIVE_CLOCK_US = 1000
"""The clock that the shipped models are trained for: stock NFStream's milliseconds."""
PUBLISHED_CLOCK_US = 1
"""The clock of rows that are used as published."""
SCORED_ROWS = 8192
"""Test rows scored at once; windows of them are copies."""


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
    """Rows to train on and to test on, both in the order of their file.

    Attributes:
        train: ``[N, F]`` rows to train, stop and calibrate on.
        train_attack: ``[N]`` their labels; attacks are for supervised kinds alone.
        rows: ``[M, F]`` test rows.
        attack: ``[M]`` their labels.
    """

    train: FloatArray
    train_attack: NDArray[np.bool_]
    rows: FloatArray
    attack: NDArray[np.bool_]

    @property
    def benign(self) -> FloatArray:
        """The benign training rows, ``[N0, F]``."""
        return self.train[~self.train_attack]


@dataclass(frozen=True)
class Trial:
    """A way to split a data set: what is loaded, and how a seed splits it.

    `split` is told whether attacks are trained on, too; the test rows lack them then.
    `optional`: where its files are missing, the data set's other trials are enough.
    """

    name: str
    title: str
    dataset: str
    load: Callable[[Path], tuple[Table, ...]]
    split: Callable[[tuple[Table, ...], np.random.Generator, bool], Split]
    optional: bool = False


def _parts(dataset: str, *parts: str) -> Callable[[Path], tuple[Table, ...]]:
    return lambda directory: tuple(DATASETS[dataset].load(directory, part) for part in parts)


def _official(tables: tuple[Table, ...], rng: np.random.Generator, supervised: bool) -> Split:
    train, test = tables
    keep = np.ones(len(train.rows), bool) if supervised else ~train.attack
    return Split(train.rows[keep], train.attack[keep], test.rows, test.attack)


def _halves(tables: tuple[Table, ...], rng: np.random.Generator, supervised: bool) -> Split:
    (table,) = tables
    trained = np.zeros(len(table.rows), bool)
    for sort in (~table.attack, table.attack)[: 2 if supervised else 1]:
        rows = rng.permutation(np.flatnonzero(sort))
        trained[rows[: len(rows) // 2]] = True
    train, test = table.rows[trained], table.rows[~trained]
    return Split(train, table.attack[trained], test, table.attack[~trained])


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


def train_on(
    trial: Trial,
    split: Split,
    schema: Schema,
    features: FeatureSet,
    seed: int,
    rng: np.random.Generator,
    kind: ModelKind[Any] = KINDS[DEFAULT_KIND],
    config: FitConfig | None = None,
    network: Any = None,
) -> Detector:
    """A detector fitted on a split's training rows.

    Raises:
        TooFewRows: there are too few of them, or of attacks for a supervised kind.
    """
    rows = as_measured(schema, split.train, features, rng)
    return fit(
        schema,
        chosen_features(schema, features),
        TableRows(rows, split.train_attack),
        name=trial.dataset,
        seed=seed,
        clock_us=PUBLISHED_CLOCK_US if features == "all" else LIVE_CLOCK_US,
        kind=kind,
        config=config,
        network=network or sizes(trial.dataset, kind),
    )


def score_in_order(detector: Detector, rows: FloatArray) -> Scores:
    """Scores of rows ``[N, F]`` that came in this order.

    Data sets tell no hosts: a model of windows takes all rows for one host's.
    """
    before = previous_rows(np.zeros(len(rows), np.uint64), detector.window - 1)
    parts = []
    for begin in range(0, len(rows), SCORED_ROWS):
        end = begin + SCORED_ROWS
        parts.append(detector.score(windows_of(rows[:end], before[begin:end])))
    columns = (field.name for field in fields(Scores))
    return Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def run_seed(
    trial: Trial,
    tables: tuple[Table, ...],
    features: FeatureSet,
    seed: int,
    kind: ModelKind[Any] = KINDS[DEFAULT_KIND],
    config: FitConfig | None = None,
    network: Any = None,
) -> Outcome:
    """Train on a seed's split and test on it once.

    The alert threshold is the calibration's p-value at :data:`TARGET_FPR`: labels of test rows
    are looked at to count only.

    Raises:
        TooFewRows: there are too few rows to train on.
    """
    rng = np.random.default_rng(seed)
    split = trial.split(tables, rng, kind.supervised)
    schema = tables[0].schema
    detector = train_on(trial, split, schema, features, seed, rng, kind, config, network)
    rows = as_measured(schema, split.rows, features, rng)
    return outcome_of(score_in_order(detector, rows), rows[:, detector.columns], split.attack)


def outcome_of(scores: Scores, rows: FloatArray, attack: NDArray[np.bool_]) -> Outcome:
    """Figures of scored test rows ``[M, U]`` (features in use) with their labels ``[M]``."""
    alerted = scores.p_value <= TARGET_FPR
    _, first = np.unique(np.column_stack([rows, attack]), axis=0, return_index=True)
    return Outcome(
        auroc=float(roc_auc_score(attack, scores.score)),
        average_precision=float(average_precision_score(attack, scores.score)),
        realised_fpr=float(alerted[~attack].mean()),
        recall=float(alerted[attack].mean()),
        auroc_distinct=float(roc_auc_score(attack[first], scores.score[first])),
    )


def mean_sd(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
